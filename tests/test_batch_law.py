"""Iteration times that depend on the batch: in files, in plans at full batches, and compiled."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluidgate.cli.app import main
from fluidgate.compiled import entry_point
from fluidgate.errors import FluidgateError
from fluidgate.model import Gpu, IterationTime, Lengths, Scenario, mean_context
from fluidgate.planning import plan
from fluidgate.planning.sensitivity import sweep
from fluidgate.profiles import Profile, dump_profile, load_profile, parse_profile
from fluidgate.scenario_file import dump_scenario, load_scenario, parse_scenario
from fluidgate.simulation import simulate
from fluidgate.simulation.iteration.law import law_of
from fluidgate.simulation.iteration.law import seconds as law_seconds
from tests.scenarios import two_class_scenario

LAW = IterationTime(alpha=0.0091, beta=9.3e-5, delta=2.4e-4, epsilon=1.3e-7, solo_alpha=0.0172, solo_delta=5.9e-5)
KEYS = "alpha = 0.0091\nbeta = 9.3e-5\ndelta = 2.4e-4\nepsilon = 1.3e-7\nsolo_alpha = 0.0172\nsolo_delta = 5.9e-5\n"
PAPER = "alpha = 0.0174\nbeta = 6.2e-5\ngamma = 45.45\n"
TWO_CLASS = Path(__file__).parents[1] / "examples" / "two-class.toml"


def text(keys: str) -> str:
    made = TWO_CLASS.read_text()
    lines = [line for line in made.splitlines() if not line.startswith(("alpha", "beta", "gamma"))]
    return "\n".join(lines).replace("[gpu]", "[gpu]\n" + keys)


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with contextlib.suppress(SystemExit):
        main(list(words))
    return capsys.readouterr().out


@entry_point
def seconds(law, chunk, decodes, context):  # type: ignore[no-untyped-def]
    return law_seconds(law, chunk, decodes, context, 0)


def test_a_scenario_plans_at_full_batches() -> None:
    scenario = parse_scenario(text(KEYS))
    assert scenario.gpu.iteration == LAW
    # both classes arrive alike: 1000 and 400 output tokens each count for that many decodes in progress
    context = (1000 * (300 + 1000) + 400 * (3000 + 400)) / 1400
    assert scenario.gpu.context_tokens == pytest.approx(context)
    gpu = scenario.gpu
    assert gpu.tau == pytest.approx(0.0091 + 9.3e-5 * 256 + 15 * (2.4e-4 + 1.3e-7 * context))
    assert 1 / gpu.gamma == pytest.approx(0.0172 + 16 * (5.9e-5 + 1.3e-7 * context))
    assert gpu.kappa == pytest.approx(gpu.gamma * gpu.tau)
    np.testing.assert_allclose(scenario.rates.solo_decode, gpu.gamma / np.array([1000, 400]))


@pytest.mark.parametrize(
    ("lengths", "written"),
    [
        (Lengths(), (1000, 400)),
        (Lengths(output="fixed"), (500, 200)),
        (Lengths(output="lognormal", output_cv=2.0), (2500, 1000)),
        (Lengths(prompt="fixed", output="empirical"), (1000, 400)),
    ],
)
def test_the_context_follows_the_law_of_the_output_lengths(lengths: Lengths, written: tuple[int, int]) -> None:
    scenario = parse_scenario(text(KEYS)).replace(lengths=lengths)
    context = (1000 * (300 + written[0]) + 400 * (3000 + written[1])) / 1400
    assert scenario.gpu.context_tokens == pytest.approx(context)


@pytest.mark.parametrize(
    ("lengths", "allowed"),
    [(Lengths(), 0.03), (Lengths(output="fixed"), 0.02), (Lengths(output="lognormal", output_cv=0.5), 0.02)],
    ids=["exponential", "fixed", "lognormal"],
)
def test_the_context_is_that_of_simulated_decodes(lengths: Lengths, allowed: float) -> None:
    """KV held by the decodes, over the decodes: prompts of one token, in the batch for one iteration, hold nothing."""
    plain = two_class_scenario()
    classes = (
        plain.classes[0].model_copy(update={"prompt_tokens": 1.0, "output_tokens": 200.0, "patience_rate": 0.0}),
    )
    scenario = parse_scenario(text(KEYS)).replace(classes=classes, lengths=lengths)
    result = simulate(scenario, "vllm-round-robin", gpus=4, horizon=20_000.0, replications=2, fidelity="iteration")
    held, decodes = result.kv_tokens.mean, result.classes[0].mixed_decode.mean + result.classes[0].solo_decode.mean
    assert held / decodes == pytest.approx(scenario.gpu.context_tokens, rel=allowed)


def test_its_plan_has_an_operating_point_and_the_papers_does_not() -> None:
    rich = plan(parse_scenario(text(KEYS))).to_dict()
    assert "iteration" not in rich
    assert rich["operating_point"]["mixed_iteration"] > rich["operating_point"]["solo_iteration"] > 0.0172
    papers = plan(two_class_scenario()).to_dict()
    assert papers["iteration"]["context_tokens"] is None
    assert "operating_point" not in papers


def test_the_plan_says_what_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rich.toml").write_text(text(KEYS))
    shown = " ".join(printed(capsys, "plan", str(tmp_path / "rich.toml")).split())
    point = plan(parse_scenario(text(KEYS))).operating_point
    assert point is not None
    assert f"solo iteration, mean {1e3 * point.solo_iteration:.4g} ms" in shown
    assert f"decodes in a batch, mean {point.decodes:.4g}" in shown
    assert f"KV memory in use, mean {point.kv_tokens:,.0f} tokens" in shown
    assert "of the decodes" in shown
    papers = printed(capsys, "plan", str(TWO_CLASS))
    assert "all slots busy" in papers
    assert "decodes in a batch" not in papers


def test_gamma_follows_the_batch_and_the_classes_in_sweeps() -> None:
    scenario = parse_scenario(text(KEYS))
    small = scenario.replace(gpu=scenario.gpu.model_copy(update={"batch_size": 4}))
    assert 1 / small.gpu.gamma == pytest.approx(0.0172 + 4 * (5.9e-5 + 1.3e-7 * scenario.gpu.context_tokens))
    found = sweep(scenario, "classes.*.prompt_tokens", [100.0, 5000.0])
    assert found.objective[0] != found.objective[1]
    longer = scenario.replace(classes=tuple(c.model_copy(update={"prompt_tokens": 5000.0}) for c in scenario.classes))
    assert longer.gpu.context_tokens == mean_context(longer.classes) > 5000
    assert scenario.model_copy(update={"classes": longer.classes}) == longer
    assert scenario.for_gpus(7).gpu.context_tokens == scenario.gpu.context_tokens
    with pytest.raises(FluidgateError, match="context_tokens"):
        sweep(scenario, "gpu.context_tokens", [1.0])


def test_a_scenario_and_a_profile_come_back_as_they_were_written(tmp_path: Path) -> None:
    scenario = parse_scenario(text(KEYS))
    assert parse_scenario(dump_scenario(scenario)) == scenario
    profile = Profile(name="lab/x", iteration=LAW, batch_sizes=(1, 64), chunk_sizes=(128, 2048))
    assert parse_profile(dump_profile(profile), "x") == profile
    (tmp_path / "lab.toml").write_text(dump_profile(profile))
    (tmp_path / "my.toml").write_text(text('profile = "lab.toml"\n'))
    assert load_scenario(tmp_path / "my.toml").gpu.iteration == load_profile(tmp_path / "lab.toml").iteration == LAW


def test_the_compiled_law_is_the_files() -> None:
    law = law_of(parse_scenario(text(KEYS)).gpu)
    assert seconds(law, 200, 7, 9000) == pytest.approx(LAW.mixed(200, 7, 9000))
    assert (
        seconds(law, 0, 7, 9000)
        == pytest.approx(LAW.solo(7, 9000))
        == pytest.approx(0.0172 + 7 * 5.9e-5 + 9e3 * 1.3e-7)
    )


TABLE = """
[gpu.table]
chunk_sizes = [0, 128, 512]
batch_sizes = [4, 16]
seconds = [[0.02, 0.03], [0.03, 0.045], [0.07, 0.09]]
context = 1000.0
"""


def with_table(table: str = TABLE) -> str:
    keys = "alpha = 0.01\nbeta = 1e-4\nepsilon = 1e-7\n"
    return text(keys).replace("[pricing]", f"{table}\n[pricing]", 1)


def test_a_table_goes_through_file_plan_and_kernel() -> None:
    scenario = parse_scenario(with_table())
    assert parse_scenario(dump_scenario(scenario)) == scenario
    gpu = scenario.gpu
    more = 1e-7 * (gpu.context_tokens - 1000)
    assert gpu.solo == pytest.approx(0.03 + 16 * more)
    third = (256 - 128) / (512 - 128)
    low, high = 0.03 + 11 / 12 * 0.015, 0.07 + 11 / 12 * 0.02
    assert gpu.tau == pytest.approx(low + third * (high - low) + 15 * more)
    law = law_of(gpu)
    for chunk, decodes in ((0, 1), (0, 10), (64, 4), (200, 9), (512, 16), (1000, 40)):
        context = 1500 * decodes
        assert seconds(law, chunk, decodes, context) == pytest.approx(gpu.iteration.mixed(chunk, decodes, context))
    point = plan(scenario).operating_point
    assert point is not None
    assert point.solo_iteration == pytest.approx(gpu.solo, rel=0.3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[0, 128, 512]", "[0, 512, 128]", "chunk_sizes of a table must increase"),
        ("[0.07, 0.09]", "[0.07]", "must have 3 x 2 numbers: a row a chunk size"),
        ("[0.07, 0.09]", "[0.07, 0]", "must be greater than 0 and finite, but one is 0"),
        ("context", "contex", "unknown key; did you mean 'context'?"),
        ("seconds", "second", "unknown key; did you mean 'seconds'?"),
    ],
)
def test_tables_that_are_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(FluidgateError) as caught:
        parse_scenario(with_table(TABLE.replace(old, new)), "my.toml")
    assert message in str(caught.value)


def test_a_table_and_a_gamma_say_the_same() -> None:
    with pytest.raises(FluidgateError, match="gamma and a table say the same; leave gamma out"):
        parse_scenario(with_table().replace("epsilon = 1e-7", "gamma = 40.0"))


def test_the_papers_law_compiled_knows_no_batch() -> None:
    law = law_of(parse_scenario(text(PAPER)).gpu)
    assert seconds(law, 200, 3, 10**6) == pytest.approx(0.0174 + 6.2e-5 * 200, rel=1e-12)
    assert seconds(law, 0, 3, 10**6) == seconds(law, 0, 16, 5) == 1 / 45.45


def test_a_gamma_beside_delta_is_that_of_a_full_batch() -> None:
    gpu = parse_scenario(text(PAPER + "delta = 1e-4\nepsilon = 1e-7\n")).gpu
    assert gpu.gamma == 45.45
    full, one = 16 * round(gpu.context_tokens), round(gpu.context_tokens)
    assert seconds(law_of(gpu), 0, 16, full) == pytest.approx(1 / 45.45, rel=1e-4)
    assert seconds(law_of(gpu), 0, 1, one) == pytest.approx(1 / 45.45 - 15 * (1e-4 + 1e-7 * one), rel=1e-4)
    with pytest.raises(FluidgateError, match="raise alpha"):
        law_of(parse_scenario(text(PAPER + "delta = 1e-2\n")).gpu)


positive = st.floats(1e-5, 1.0)


@given(positive, positive, positive, st.integers(1, 300), st.integers(1, 4000))
def test_without_more_terms_every_number_is_the_papers(
    alpha: float, beta: float, solo: float, batch: int, chunk: int
) -> None:
    iteration = IterationTime(alpha=alpha, beta=beta, gamma=1 / solo)
    gpu = Gpu(batch_size=batch, chunk_size=chunk, iteration=iteration, context_tokens=1e6)
    assert (gpu.tau, gpu.gamma) == (alpha + beta * chunk, 1 / solo)
    assert iteration.model_dump() == {"alpha": alpha, "beta": beta, "gamma": 1 / solo}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            KEYS + "gamma = 40.0\n",
            "gpu: gamma and solo_alpha, solo_delta, solo_epsilon say the same; leave gamma out, or those",
        ),
        (
            PAPER + "delta = -1.0\n",
            "gpu.delta: must be at least 0, but is -1.0; give the seconds that each decode adds",
        ),
        ("beta = 1e-5\ndelta = 1e-4\n", "gpu.alpha: missing; add 'alpha = 0.0091'"),
        ("alpha = 0.1\nbeta = 1e-5\ndelta = 0.0\n", "gpu: gamma is missing; give it, or delta or epsilon"),
        ("alpha = -0.1\nbeta = 1e-3\ndelta = 1e-4\n", "a solo iteration of one decode must take more than 0 s"),
        (KEYS + "zzz = 1\n", "gpu.zzz: unknown key"),
        ('profile = "a100-40gb/qwen-8b"\ndelta = 1e-4\n', "gpu.delta: not together with 'profile'"),
    ],
)
def test_what_a_scenario_cannot_say(keys: str, message: str) -> None:
    with pytest.raises(FluidgateError) as caught:
        parse_scenario(text(keys), "my.toml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_profile_cannot_say() -> None:
    with pytest.raises(FluidgateError, match=r"lab.toml: gamma and solo_alpha, solo_delta, solo_epsilon say the same"):
        parse_profile(f'name = "x"\n{KEYS}gamma = 3.0\n', "lab.toml")
    row = "[[law]]\nbatch_size = {}\nalpha = 1.0\nbeta = 1.0\ngamma = 1.0\n"
    with pytest.raises(FluidgateError, match=r"delta: not together with \[\[law\]\]"):
        parse_profile('name = "x"\ndelta = 1e-4\n' + row.format(1) + row.format(2), "lab.toml")


def test_the_schema_knows_the_terms(capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, "schema")
    assert "BatchedGpu" in json.loads(shown)["$defs"]


def test_a_scenario_made_in_python_has_its_context() -> None:
    plain = two_class_scenario()
    made = Scenario(
        name="x",
        gpu=Gpu(batch_size=4, chunk_size=64, iteration=LAW),
        pricing=plain.pricing,
        classes=plain.classes,
    )
    assert made.gpu.context_tokens == mean_context(plain.classes) > 0


def test_a_wide_table_goes_through_a_file() -> None:
    wide = """
[gpu.table]
chunk_sizes = [256, 1024]
batch_sizes = [0, 16]
contexts = [256, 4096]
read_before = [0, 8192]
seconds = [
  [[[0.026, 0.034], [0.026, 0.034]], [[0.041, 0.048], [0.071, 0.082]]],
  [[[0.095, 0.127], [0.095, 0.127]], [[0.112, 0.143], [0.136, 0.170]]],
]

[gpu.table.solo]
batch_sizes = [1, 16]
contexts = [256, 1024]
seconds = [[0.0168, 0.0168], [0.0178, 0.0197]]
"""
    scenario = parse_scenario(with_table(wide))
    assert parse_scenario(dump_scenario(scenario)) == scenario
    time = scenario.gpu.iteration
    assert time.mixed(256, 16, 16 * 4096, 256 * 8192) == pytest.approx(0.082)
    assert time.solo(16, 16 * 1024) == pytest.approx(0.0197)
    assert plan(scenario).operating_point is not None


@pytest.mark.parametrize("keys", ["", TABLE])
def test_overhead_of_the_engine_comes_on_top(keys: str) -> None:
    plain = (
        parse_scenario(with_table(keys)) if keys else parse_scenario(text("alpha = 0.03\nbeta = 1e-4\ngamma = 40.0"))
    )
    engine = "[engine]\noverhead = 0.002\noverhead_per_decode = 1e-5\n\n[pricing]"
    slow = parse_scenario(dump_scenario(plain).replace("[pricing]", engine, 1))
    assert parse_scenario(dump_scenario(slow)) == slow
    for chunk, decodes in ((0, 12), (200, 7)):
        more = slow.gpu.seconds(chunk, decodes, 900.0 * decodes) - plain.gpu.seconds(chunk, decodes, 900.0 * decodes)
        assert more == pytest.approx(0.002 + 1e-5 * decodes)
        compiled = seconds(law_of(slow.gpu), chunk, decodes, 900 * decodes)
        assert compiled == pytest.approx(slow.gpu.seconds(chunk, decodes, 900.0 * decodes))
    assert slow.gpu.solo > plain.gpu.solo
    assert plan(slow).revenue_rate < plan(plain).revenue_rate


def test_overhead_beside_a_profile_is_the_engines() -> None:
    profiled = text('profile = "h100/llama-3.1-8b"\noverhead = 0.001')
    with pytest.raises(FluidgateError, match=r"gpu.overhead: .*give it in \[engine\]"):
        parse_scenario(profiled, "my.toml")
