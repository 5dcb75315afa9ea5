from __future__ import annotations

import math
import tomllib
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluidgate.errors import FluidgateError
from fluidgate.fleet_table import Failure, Failures, Step
from fluidgate.model import (
    Arrivals,
    EngineModel,
    Gpu,
    Indicators,
    IterationTime,
    Lengths,
    Pricing,
    RequestClass,
    Scenario,
    Targets,
)
from fluidgate.scenario_file import dump_scenario, load_scenario, parse_scenario, scenario_schema, write_scenario
from tests.scenario_file.texts import TWO

positive = st.floats(min_value=1e-6, max_value=1e6)
weights = st.floats(min_value=0, max_value=1e6)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


durations = st.floats(0.01, 1e6)
phases = st.lists(st.tuples(positive, durations), min_size=2, max_size=3)
arrivals = (
    st.just(Arrivals())
    | st.builds(Arrivals, process=st.just("gamma"), cv=st.floats(0.001, 100))
    | phases.map(lambda p: Arrivals(process="mmpp", levels=[r for r, _ in p], sojourns=[s for _, s in p]))
    | st.builds(Arrivals, process=st.just("daily"), weights=st.lists(positive, min_size=1), period=durations)
)
lengths = (
    st.just(Lengths())
    | st.builds(Lengths, prompt=st.just("lognormal"), prompt_cv=st.floats(1e-3, 100), output=st.just("fixed"))
    | st.builds(Lengths, output=st.just("empirical"), traces=st.lists(st.sampled_from(["a.csv", "b/c.csv"])))
)


engines = (
    st.just(EngineModel())
    | st.builds(EngineModel, batching=st.just("prefill-first"), max_batched_tokens=st.none() | st.integers(1, 10_000))
    | st.builds(
        EngineModel,
        kv_tokens=st.integers(100, 10**6),
        kv_block=st.integers(1, 100),
        kv_reservation=st.integers(0, 100),
        preemption=st.just("swap"),
        swap_seconds=weights,
    )
    | st.builds(EngineModel, transfer_latency=weights, transfer_bandwidth=st.none() | positive)
)


broken = st.builds(Failure, time=weights, gpu=st.integers(0, 99), seconds=st.none() | positive)
failures = st.builds(Failures, mtbf=positive, mttr=positive, units=st.integers(1, 9)) | st.builds(
    Failures, at=st.lists(broken, min_size=1, max_size=3).map(tuple)
)
schedules = st.lists(weights, max_size=3, unique=True).flatmap(
    lambda times: st.tuples(
        *(st.builds(Step, time=st.just(t), gpus=st.integers(0, 9), start_up=weights) for t in sorted(times))
    )
)


@st.composite
def sessions(draw: st.DrawFn) -> dict[str, object]:
    """Keys of a class with a prompt that has room for them."""
    prefix = {"prefix_tokens": draw(st.integers(1, 10**6)), "prefixes": draw(st.integers(1, 10))}
    zipf = {"prefix_law": "zipf", "prefix_exponent": draw(st.floats(0.1, 3.0))} if draw(st.booleans()) else {}
    turns = {
        "turns": draw(st.integers(2, 9)),
        "turns_law": draw(st.sampled_from(["fixed", "geometric"])),
        "turn_tokens": draw(st.floats(1.0, 1e6)),
        "think": draw(weights),
        "think_law": draw(st.sampled_from(["fixed", "exponential"])),
        "tool_share": 0.5,
        "tool_seconds": draw(weights),
    }
    return {"prompt_tokens": 1e9, "output_tokens": draw(st.floats(1.0, 1e6)), **prefix, **zipf, **turns}


@st.composite
def scenarios(draw: st.DrawFn, gpus: st.SearchStrategy[int | None]) -> Scenario:
    cluster_gpus = draw(gpus)
    classes = tuple(
        RequestClass(
            name=name,
            arrival_rate=draw(positive) / (cluster_gpus or 1),
            patience_rate=draw(weights),
            ttft_target=draw(st.none() | positive),
            **draw(st.fixed_dictionaries({"prompt_tokens": positive, "output_tokens": positive}) | sessions()),
        )
        for name in draw(st.lists(names, min_size=1, max_size=4, unique=True))
    )
    limits = st.none() | weights
    return Scenario(
        name=draw(names),
        gpu=Gpu(
            batch_size=draw(st.integers(1, 1000)),
            chunk_size=draw(st.integers(1, 10_000)),
            iteration=IterationTime(alpha=draw(weights), beta=draw(positive), gamma=draw(positive)),
        ),
        pricing=Pricing(
            scheme=draw(st.sampled_from(["bundled", "separate"])), prompt=draw(weights), output=draw(weights)
        ),
        classes=classes,
        indicators=Indicators(max_prefill_gap=draw(limits), max_tpot=draw(limits), solo_gap_weight=draw(weights)),
        arrivals=draw(arrivals),
        lengths=draw(lengths),
        engine=draw(engines),
        targets=draw(st.builds(Targets, ttft=st.none() | positive, tpot=st.none() | positive)),
        failures=draw(st.none() | failures),
        schedule=draw(schedules),
        cluster_gpus=cluster_gpus,
    )


@given(scenarios(gpus=st.none() | st.integers(1, 100_000)))
def test_parsing_a_dumped_scenario_gives_it_back(scenario: Scenario) -> None:
    text = dump_scenario(scenario, {"": "made\nby hand\x07", "gpu": "ours", "classes[0]": "first"})
    assert parse_scenario(text) == scenario
    assert text.startswith("# made\n# by hand?\n\nschema = 1\n")
    jsonschema.validate(tomllib.loads(text), scenario_schema(), jsonschema.Draft202012Validator)


@given(scenarios(gpus=st.integers(1, 1000)), st.integers(1, 1000))
def test_another_number_of_gpus_comes_back_to_the_last_digit(scenario: Scenario, gpus: int) -> None:
    shared = scenario.for_gpus(gpus)
    for found, wanted in zip(parse_scenario(dump_scenario(shared)).classes, shared.classes, strict=True):
        assert math.isclose(found.arrival_rate, wanted.arrival_rate, rel_tol=2**-52)


def test_a_scenario_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = parse_scenario(TWO)
    file = tmp_path / "out.toml"
    write_scenario(scenario, file)
    assert load_scenario(file) == scenario
    before = file.read_bytes()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(FluidgateError, match=r"out\.toml: cannot be written \(No space left on device\); "):
        write_scenario(scenario.replace(name="other"), file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_where_a_scenario_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FluidgateError, match=r"no folder '.*'; make it, or give another path"):
        write_scenario(parse_scenario(TWO), tmp_path / "no" / "out.toml")
    with pytest.raises(FluidgateError, match=r"cannot be written \(Is a directory\)"):
        write_scenario(parse_scenario(TWO), tmp_path)


def test_sub_agents_come_back() -> None:
    with_agents = parse_scenario(TWO + 'subagents = 0.75\nsubagent_class = "batch"\n')
    assert with_agents.classes[1].subagent_class == "batch"
    assert parse_scenario(dump_scenario(with_agents)) == with_agents


def test_a_scenario_writes_its_own_file(tmp_path: Path) -> None:
    made = Scenario.load("examples/mixed-fleet.toml")
    made.write(tmp_path / "again.toml")
    assert (tmp_path / "again.toml").read_text("utf-8") == made.to_toml() == dump_scenario(made)
    assert Scenario.load(tmp_path / "again.toml").classes == made.classes
    with pytest.raises(FluidgateError, match="path: must be a text or a path, but is None"):
        made.write(None)  # type: ignore[arg-type]
