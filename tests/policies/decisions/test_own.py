"""Decision functions of a user's own: pointers decide as inlined functions would, and mistakes are told in a line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fluidgate import FluidgateError, Indicators, find_policy, simulate
from fluidgate.policies.decisions.own import functions_of
from fluidgate.policies.view import HOLD, blocked
from tests.scenarios import two_class_scenario

ROOT = Path(__file__).parents[3]


def makes_an_array(view, tables):  # type: ignore[no-untyped-def]
    return int(np.argmax(np.zeros(3)))


def makes_one_by_arithmetic(view, tables):  # type: ignore[no-untyped-def]
    return (view.waiting + 1).argmax()


def makes_a_list(view, tables):  # type: ignore[no-untyped-def]
    return [HOLD, 1][0]


def misspells_a_field(view, tables):  # type: ignore[no-untyped-def]
    return view.wating[0]


def misspells_a_name(view, tables):  # type: ignore[no-untyped-def]
    return HOLDD  # type: ignore[name-defined]  # noqa: F821


def ends_without_an_answer(view, tables):  # type: ignore[no-untyped-def]
    if view.waiting[0] > 0:
        return 0


def answers_a_share(view, tables):  # type: ignore[no-untyped-def]
    return 0.5


def takes_too_little(view):  # type: ignore[no-untyped-def]
    return HOLD


MISTAKES = {
    makes_an_array: "can't be compiled: it makes an array, a list or a dictionary, which a decision may not",
    makes_one_by_arithmetic: "can't be compiled: it makes an array",
    makes_a_list: "can't be compiled: it makes an array, a list",
    misspells_a_field: "can't be compiled: view has no field 'wating'; did you mean 'waiting'?",
    misspells_a_name: "can't be compiled: NameError: name 'HOLDD' is not defined",
    ends_without_an_answer: "it may end without an answer",
    answers_a_share: "it may answer a float64, which is no whole number",
    takes_too_little: r"can't be compiled: a gate takes \(view, tables\)",
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda function: function.__name__)
def test_a_mistake_is_one_line_with_file_line_and_mend(mistake) -> None:  # type: ignore[no-untyped-def]
    first = mistake.__code__.co_firstlineno
    for _ in range(2):  # also when code of it might be kept
        with pytest.raises(FluidgateError) as caught:
            functions_of(mistake, None, None)
        said = str(caught.value)
        assert "\n" not in said
        assert any(f"test_own.py, line {line}: decision function" in said for line in range(first, first + 3)), said
        assert f"'{mistake.__name__}'" in said
        assert said.endswith("and answer a whole number")
        assert re.search(MISTAKES[mistake], said), said


def first_in_line(view, tables):  # type: ignore[no-untyped-def]
    best = HOLD
    for i in range(view.waiting.size):
        if view.waiting[i] > 0 and (best == HOLD or view.waiting_since[i] < view.waiting_since[best]):
            best = i
    return best


def stay(view, tables, cls, draw):  # type: ignore[no-untyped-def]
    return 2


@pytest.mark.parametrize("fidelity", ["markov", "iteration"])
def test_written_anew_a_shipped_policy_gives_the_same(fidelity: str) -> None:
    mine = find_policy("fi-wsp").with_functions("mine", gate=first_in_line, route=stay)
    own, shipped = (
        simulate(two_class_scenario(), policy, gpus=5, horizon=100.0, replications=1, fidelity=fidelity)  # type: ignore[arg-type]
        for policy in (mine, "fi-wsp")
    )
    assert own.events == shipped.events
    assert own.revenue_rate == shipped.revenue_rate


def first_in_line_within_limits(view, tables):  # type: ignore[no-untyped-def]
    best = HOLD
    for i in range(view.waiting.size):
        if view.waiting[i] == 0 or blocked(view, tables, i):
            continue
        if best == HOLD or view.waiting_since[i] < view.waiting_since[best]:
            best = i
    return best


def test_a_gate_that_asks_holds_the_limits_of_its_tables() -> None:
    scenario = two_class_scenario().replace(indicators=Indicators(max_prefill_gap=0.05))
    ours = find_policy("index-and-pool")
    for gate, held in ((first_in_line_within_limits, True), (first_in_line, False)):
        result = simulate(scenario, ours.with_functions("mine", gate=gate), gpus=20, horizon=1000.0, replications=1)
        value = result.indicators["max_prefill_gap"].value.mean
        assert value is not None
        assert (value <= 1.05 * 0.05) == held


@pytest.mark.parametrize("fidelity", ["markov", "iteration"])
def test_without_compilation_the_numbers_are_the_same(fidelity: str) -> None:
    arguments = ["simulate", "examples/tiny.toml", "--policy", "examples/own_policy.py:MINE", "--gpus", "2", "--json"]
    arguments += ["--horizon", "30", "--replications", "1", "--fidelity", fidelity]

    def run(**environment: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-m", "fluidgate", *arguments],
            env={**os.environ, **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        return [line for line in done.stdout.splitlines() if "wall_seconds" not in line]

    assert run(NUMBA_DISABLE_JIT="1") == run()
