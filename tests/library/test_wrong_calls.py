"""Wrong calls of the library: one line, in the words of Python, that says what is wrong and the mend."""

from __future__ import annotations

import inspect
import pickle
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fluidgate
from fluidgate import FluidgateError, Gpu, Scenario, find_policy, fluid_trajectory, plan, simulate
from fluidgate.cli.app import main
from fluidgate.errors import ArgumentError
from fluidgate.optimum import optimum
from fluidgate.wording import in_python, named, to_command_line, worded
from fluidgate.workloads import read_trace
from tests.library.wrong_calls import WRONG

TWO_CLASS = Scenario.load("examples/two-class.toml")
NAMES = {name: getattr(fluidgate, name) for name in fluidgate.__all__} | {
    "fluid_trajectory": fluid_trajectory,
    "found": plan(TWO_CLASS),
    "frame": pd.DataFrame({"arrival_time": [0.0], "prompt_tokens": [1], "output_tokens": [1]}),
    "optimum": optimum,
    "read_trace": read_trace,
    "scenario": TWO_CLASS,
    "tiny": Scenario.load("examples/tiny.toml"),
    "trace": "examples/own-trace.jsonl",
}


@pytest.mark.parametrize("call", WRONG)
def test_a_wrong_call_says_what_is_wrong(call: str) -> None:
    with pytest.raises(FluidgateError) as caught:
        eval(call, dict(NAMES))
    message = str(caught.value)
    assert message.startswith(WRONG[call])
    assert "\n" not in message
    assert "--" not in message
    assert "`fluidgate " not in message


def test_a_wrong_argument_is_a_type_error_and_a_value_error_too() -> None:
    for kind in (TypeError, ValueError, FluidgateError):
        with pytest.raises(kind, match="gpus: must be a whole number"):
            plan(TWO_CLASS, gpus="many")  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match="did you mean 'simulate'"):
        fluidgate.simulat  # noqa: B018


def test_what_is_not_a_field_is_not_copied_in() -> None:
    with pytest.raises(ArgumentError, match="no such field; did you mean 'batch_size'"):
        TWO_CLASS.gpu.model_copy(update={"batchsize": 3})


def test_a_replaced_field_is_checked_by_itself() -> None:
    fewer = TWO_CLASS.replace(classes=list(TWO_CLASS.classes[:1]))
    assert fewer.classes == TWO_CLASS.classes[:1]
    assert TWO_CLASS.replace(cluster_gpus=7).cluster_gpus == 7
    assert not Scenario(name="free", gpu=TWO_CLASS.gpu, classes=TWO_CLASS.classes).replace(name="x").priced


def test_numbers_of_numpy_are_numbers() -> None:
    short = {"horizon": np.float32(20), "replications": np.int64(1), "seed": np.uint8(3)}
    ran = simulate(TWO_CLASS, np.str_("fi-wsp"), gpus=np.int32(2), **short)  # type: ignore[arg-type]
    assert ran.to_json().count('"gpus": 2,') == 1
    assert plan(TWO_CLASS, gpus=np.uint16(7), with_indicators=np.True_).to_json() == plan(TWO_CLASS, gpus=7).to_json()  # type: ignore[arg-type]
    sized = fluidgate.size("examples/chat-fleet.toml", batch_sizes=np.array([64]), max_gpus=np.int64(1))
    assert '"batch_size": 64' in sized.to_json()


def test_a_row_of_pandas_is_a_dictionary() -> None:
    policy = find_policy("index-and-pool")
    assert policy.with_parameters(pd.Series({"toll": 3.0})).values["toll"] == 3.0  # type: ignore[arg-type]


def test_an_error_stays_the_same_on_its_way_from_a_worker() -> None:
    with pytest.raises(ArgumentError) as caught:
        Gpu(batch_size=0, chunk_size=1, iteration=TWO_CLASS.gpu.iteration)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.reason) == (str(caught.value), caught.value.reason)
    assert caught.value.reason == "must be at least 1, but is 0 (most requests in a batch, B)"


NUMERIC = {
    "added", "grown_tokens", "mixed", "model_copy", "prefill_seconds", "seconds", "session_problems", "solo",
    "with_overhead",
}  # fmt: skip
"""Methods that inner loops call."""
INNER = {
    "changed", "load", "need_prices", "of", "on", "problems", "remarks", "replace", "select", "with_context",
}  # fmt: skip
"""Methods that look their arguments over by themselves, or that nobody calls from outside."""


def test_methods_of_what_is_public_look_their_arguments_over() -> None:
    unchecked = set()
    for kind in filter(inspect.isclass, NAMES.values()):
        for each in kind.__mro__:
            if each.__module__.startswith("fluidgate"):
                for name, found in vars(each).items():
                    function = getattr(found, "__func__", found)
                    if not name.startswith("_") and inspect.isfunction(function):
                        given = set(inspect.signature(function).parameters) - {"self", "cls"}
                        if given and not hasattr(function, "__wrapped__"):
                            unchecked.add(name)
    assert unchecked - NUMERIC - INNER == set()


def test_a_notebook_shows_the_call_and_the_message_not_the_way_through_the_library() -> None:
    with pytest.raises(FluidgateError) as caught:
        simulate(TWO_CLASS, "gate-and-rout", gpus=5)
    *frames, message = caught.value._render_traceback_()
    assert len(frames) == 1
    assert 'simulate(TWO_CLASS, "gate-and-rout", gpus=5)' in frames[0]
    assert message.startswith("FluidgateError: unknown policy 'gate-and-rout'")


class TestOneMessageForBoth:
    """What is written once reads as a command to who typed one, and as Python to who called a function."""

    @pytest.mark.parametrize(
        ("command", "python"),
        [
            ("--gpus: missing; say how many", "gpus: missing; say how many"),
            ("use --fidelity iteration, or leave it out", "use fidelity='iteration', or leave it out"),
            ("give --horizon or --requests too", "give horizon or requests too"),
            ("give --horizon 3600", "give horizon=3600"),
            ("--match-load: not together with --rate-scale", "match_load: not together with rate_scale"),
            ("have it sorted with --sort", "have it sorted with sort=True"),
            ("name it with --map output_tokens=KEY", "name it with columns={'output_tokens': 'KEY'}"),
            ("or --target ttft_p99=1.0", "or targets=['ttft_p99=1.0']"),
            ("--map a=X --map b=Y reads it", "columns={'a': 'X', 'b': 'Y'} reads it"),
            ("give --sessions-rate R, their starts", "give sessions_rate=R, their starts"),
            ("`fluidgate policies` lists them", "`list_policies()` lists them"),
            (
                "`fluidgate simulate --fidelity iteration` does",
                "`simulate(..., fidelity='iteration')` does",
            ),
            ("let `fluidgate plan --trace TRACE` measure it", "let `fluidgate plan --trace TRACE` measure it"),
            ("start it with --disaggregation-mode prefill", "start it with --disaggregation-mode prefill"),
            ("a well-kept list -- and no option", "a well-kept list -- and no option"),
        ],
    )
    def test_in_python(self, command: str, python: str) -> None:
        assert in_python(command) == python
        assert in_python(python) == python
        assert worded(command) == python
        with to_command_line():
            assert worded(command) == command
            assert (named("--batch-size", "batch_sizes"), str(FluidgateError(command))) == ("--batch-size", command)
        assert named("--batch-size", "batch_sizes") == "batch_sizes"

    def test_the_command_line_keeps_its_own(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["simulate", "examples/two-class.toml", "--policy", "fi-wsp"])
        assert capsys.readouterr().err.startswith("fluidgate: --gpus: missing")
        with pytest.raises(FluidgateError, match=r"^gpus: missing"):
            simulate(TWO_CLASS, "fi-wsp")

    def test_warnings_too(self, capsys: pytest.CaptureFixture[str]) -> None:
        short = {"horizon": 5.0, "warmup": 4.9, "replications": 1}
        said = " ".join(simulate("examples/tiny.toml", "fi-wsp", gpus=1, **short).warnings)  # type: ignore[arg-type]
        assert "give a longer horizon" in said
        assert "--" not in said
        options = [text for key, value in short.items() for text in (f"--{key}", str(value))]
        main(["simulate", "examples/tiny.toml", "--policy", "fi-wsp", "--gpus", "1", *options])
        assert "give a longer --horizon" in capsys.readouterr().err


def test_every_option_that_messages_name_is_a_keyword_somewhere() -> None:
    """Options that no function takes as a keyword are of the command alone, and stand in its own folder."""
    functions = [each for name in fluidgate.__all__ if inspect.isfunction(each := getattr(fluidgate, name))]
    keywords = {name for each in (*functions, optimum, read_trace) for name in inspect.signature(each).parameters}
    folders = ("planning", "policies", "simulation", "sizing", "tails", "tuning", "workloads", "optimum")
    said = set()
    for folder in folders:
        for file in Path("fluidgate", folder).rglob("*.py"):
            text = re.sub(r'"""[\s\S]*?"""|#.*', "", file.read_text("utf-8"))
            said |= {in_python(found).partition("=")[0] for found in re.findall(r"(?<![\w`-])--[a-z][a-z-]+", text)}
    said = {each for each in said if not each.startswith("--")}
    of_the_command = {"classes", "force", "keep", "log", "plot"}
    assert said - keywords - of_the_command == set()
