"""Fleets of several GPU types: the split of the requests, the proof over all of them, the answer among the others."""

from __future__ import annotations

import dataclasses
import json
import pickle
from typing import Any

import numpy as np
import pytest

from fluidgate.errors import FluidgateError
from fluidgate.model import Scenario
from fluidgate.reports.sizing import sizing_tables
from fluidgate.reports.sizing_page import sizing_page
from fluidgate.scenario_file import parse_scenario
from fluidgate.simulation import simulate
from fluidgate.simulation.iteration.source import Drawn, Part
from fluidgate.simulation.study import executor_for
from fluidgate.sizing import Answer, Sizing, size
from fluidgate.sizing.choices import choices_of
from fluidgate.sizing.load import traced
from fluidgate.sizing.mix import Mix, MixPlan, part_of
from fluidgate.sizing.mixed_runs import MixedRuns, MixedTrial
from fluidgate.sizing.mixed_search import MixedSearch
from fluidgate.sizing.search import run
from fluidgate.sizing.size import load_of
from fluidgate.sizing.targets import targets_of
from fluidgate.workloads.streams import ClassTrace
from fluidgate.workloads.traces import Trace

FLEET = """
schema = 1
name = "two types"
[cluster]
gpus = 4
[gpu]
profile = "h100/llama-3.1-8b"
batch_size = 128
chunk_size = 1024
{more}
[lengths]
prompt = "fixed"
output = "fixed"
[targets]
{targets}
[[options]]
profile = "h100/llama-3.1-8b"
gpu_hour = 2.5
[[options]]
profile = "rtx4090/llama-3.1-8b"
batch_sizes = [64]
gpu_hour = 0.4
max_gpus = 12
[[classes]]
name = "chat"
prompt_tokens = 300
output_tokens = 150
total_arrival_rate = {chats}
patience_rate = 0
{chat}
[[classes]]
name = "document"
prompt_tokens = 12000
output_tokens = 100
total_arrival_rate = {documents}
patience_rate = 0
{document}
"""
KEYS = {
    "chats": 100.0,
    "documents": 3.0,
    "chat": "ttft_p50 = 0.5",
    "document": "ttft_p50 = 1.1",
    "targets": "tpot_p90 = 0.06",
    "more": "",
}


def fleet(**keys: Any) -> Scenario:
    return parse_scenario(FLEET.format(**{**KEYS, **keys}))


@pytest.fixture(scope="module")
def found() -> Sizing:
    return size(fleet(), mixed=True, workers=1)


def mixed_answer(found: Sizing) -> Answer:
    (only,) = [each for each in found.answers if isinstance(each.choice, Mix)]
    return only


def plan_of(scenario: Scenario, spare: int = 0) -> MixPlan:
    load = load_of(scenario, targets_of(scenario), 0, (), 1.0, None)
    return MixPlan.of(Mix(tuple(choices_of(scenario))), load, [4.0, 20.0], None, spare)


def test_each_request_goes_to_one_type_and_by_the_shares() -> None:
    scenario = fleet(documents=30.0)
    whole = Drawn(scenario, 4, 5, 100.0)
    here, there = (
        np.concatenate(list(Part(whole, low, high, 5).requests(3)))
        for low, high in (((0.0, 0.0), (0.25, 1.0)), ((0.25, 1.0), (1.0, 1.0)))
    )
    every = np.concatenate(list(whole.requests(3)))
    together = np.concatenate([here, there])
    assert (together[np.argsort(together["arrival"], kind="stable")] == every).all()
    chats = np.count_nonzero(every["cls"] == 0)
    assert np.count_nonzero(here["cls"] == 0) == pytest.approx(0.25 * chats, abs=4.0 * np.sqrt(0.1875 * chats))
    assert not (there["cls"] == 1).any()


def test_the_mix_is_the_cheapest_and_stands_first(found: Sizing) -> None:
    best = found.best
    assert best is not None
    assert isinstance(best.choice, Mix)
    alone = [each for each in found.answers if not isinstance(each.choice, Mix)]
    assert all(each.status != "met" or (each.hourly or 0.0) > (best.hourly or 0.0) for each in alone)
    assert best.bound_hourly is not None
    assert best.bound_hourly <= (best.hourly or 0.0)
    assert best.gpus == best.engines == sum(each.engines for each in best.fleet)
    assert {each.choice.profile for each in best.fleet} == {"h100/llama-3.1-8b", "rtx4090/llama-3.1-8b"}
    assert best.bill is not None
    assert best.bill.per_hour == pytest.approx(sum(each.hourly for each in best.fleet))
    for name in ("chat", "document"):
        assert sum(each.shares[name] for each in best.fleet) == pytest.approx(1.0)
    assert all(each.one_less is not None and each.one_less.engines == best.engines - 1 for each in best.fleet)


def test_each_types_part_simulated_by_itself_gives_the_same_times(found: Sizing) -> None:
    """Thinned Poisson arrivals are Poisson again: `simulate` draws them so, independently."""
    best = mixed_answer(found)
    assert best.whole is not None
    readings = {each.target.name: each for each in best.whole.readings}
    compared = 0
    for each in best.fleet:
        shares = np.array(list(each.shares.values()))
        part = part_of(each.choice.scenario, shares)
        alone = simulate(part, "index-and-pool", gpus=each.engines, horizon=80, replications=8, seed=9, workers=1)
        for one, share in zip(alone.classes, shares, strict=True):
            if share == 1.0:
                time, reading = one.ttft, readings[f"ttft p50 of {one.name}"]  # type: ignore[attr-defined]
                (low, high), own = time.quantile_ci95["p50"], reading.ci95
                assert own is not None
                assert low < own[1]
                assert own[0] < high
                assert time.p50 == pytest.approx(reading.value, rel=0.25)
                compared += 1
    assert compared


def test_targets_of_all_are_read_over_the_requests_of_all_types() -> None:
    scenario = fleet(targets="ttft_p90 = 9.0\nserved = 0.5", chat="", document="")
    plan = plan_of(scenario)
    engines, shares = (3, 10), np.array([[0.1, 0.9], [1.0, 0.0]])
    trial = _run(plan, engines, shares)
    counts: Any = 0
    for choice, count, share in zip(plan.mix.choices, engines, shares.T, strict=True):
        load = dataclasses.replace(plan.load, seed=31)
        part = load.study(part_of(choice.scenario, share), choice.policy, count)
        jobs = [part.job(part.ready(part.policies[0], _plans(part)), k) for k in range(4)]
        counts = counts + sum(part.run_here(job, None).measurement.distribution("ttft").counts for job in jobs)
    one = trial.results[0].overall.ttft.distribution
    p90 = dataclasses.replace(one, counts=counts).quantile(0.9)
    assert trial.readings[0].value == pytest.approx(p90, rel=0.05)
    parts = [result.overall.ttft.p90 for result in trial.results]
    assert min(parts) < trial.readings[0].value < max(parts) / 1.5, "neither type's own"
    assert trial.readings[1].value == 1.0


def _plans(study: Any) -> Any:
    from fluidgate.simulation.plans import Plans

    return Plans(study.scenario, study.options.gpus, by_iterations=True)


def _run(plan: MixPlan, engines: tuple[int, ...], shares: Any) -> MixedTrial:
    runs = MixedRuns.of(plan.mix, engines, plan.load, shares)
    work = plan.load.logged_work
    return runs.take([work(job) for job in runs.next_jobs()])


def test_a_type_that_is_too_slow_for_a_class_does_not_get_it() -> None:
    plan = plan_of(fleet())
    assert plan.serves.tolist() == [[True, True], [True, False]]
    assert plan_of(fleet(document="ttft_p50 = 30.0")).serves.all()
    assert plan_of(fleet(document="ttft_p50 = 0.001")).serves.all(axis=0)[1], "nobody can, so all are asked"


def test_no_cheaper_split_fleet_keeps_the_targets(found: Sizing) -> None:
    """All fleets of these two types below the answer's cost, each split for the most room."""
    best = mixed_answer(found)
    plan, use = plan_of(fleet()), np.ones(2)
    for dear in range(4):
        for cheap in range(17):
            if plan.mix.hourly((dear, cheap)) > (best.hourly or 0.0) - 1e-9:
                continue
            split = plan.split((dear, cheap), use)
            if split is None or split.growth < 1.0:
                continue
            trial = _run(plan, (dear, cheap), split.shares)
            assert trial.status != "met", (dear, cheap)


def test_with_spare_engines_the_targets_hold_whichever_is_gone() -> None:
    search = MixedSearch(plan_of(fleet(), 1))
    run([search], search.plan.load.logged_work, executor_for(1.0, 1, 1))
    assert search.found is not None
    assert search.found.proof is not None
    assert search.whole is not None
    assert search.whole.engines == sum(search.found.engines)
    assert search.found.proof.engines == search.whole.engines - 1
    met = {engines for (engines, _), trial in search.trials.items() if trial.status == "met"}
    for kind in np.flatnonzero(search.found.engines):
        assert tuple(np.subtract(search.found.engines, np.arange(2) == kind)) in met


def test_a_trace_is_split_and_judged_in_parts() -> None:
    random = np.random.default_rng(2)
    count = 3000
    long = random.random(count) < 0.05
    trace = Trace(
        arrival_time=np.cumsum(random.exponential(1 / 60.0, count)),
        prompt_tokens=np.where(long, 12000, random.integers(50, 600, count)),
        output_tokens=random.integers(20, 200, count),
        labels=None,
        source="made",
    )
    scenario, ready = traced(fleet(), [ClassTrace(trace, long.astype(np.int32))], 1.0, None)
    load = load_of(scenario, targets_of(scenario), 0, ready, 1.0, None)
    plan = MixPlan.of(Mix(tuple(choices_of(scenario))), load, [2.0, 10.0], None, 0)
    trial = _run(plan, (2, 4), np.array([[0.1, 0.9], [1.0, 0.0]]))
    assert trial.status == "met"
    for reading in trial.readings:
        assert reading.ci95 is not None
        assert reading.ci95[0] < reading.value < reading.ci95[1]
    done = [
        r.run.gpus * sum(c.completion_rate.mean or 0.0 for c in r.classes) * (r.window or 0.0) for r in trial.results
    ]
    assert sum(done) == pytest.approx(count), "every request on one type or the other"
    assert trial.course is not None
    assert trial.course.rates.sum() * trial.course.intervals.seconds == pytest.approx(count)
    assert done[0] == pytest.approx(long.sum() + 0.1 * (count - long.sum()), rel=0.1)


def test_a_load_that_repeats_is_split_too() -> None:
    scenario = fleet(more='[arrivals]\nprocess = "daily"\nperiod = 40.0\nweights = [1.0, 2.0]', chats=40.0)
    trial = _run(plan_of(scenario), (3, 6), np.array([[0.2, 0.8], [1.0, 0.0]]))
    assert trial.status == "met"
    assert all(np.isfinite(each.value) for each in trial.readings)
    assert trial.course is not None
    assert trial.course.rates == pytest.approx([2 / 3 * (40.0 + 1.5), 4 / 3 * (40.0 + 1.5)], rel=0.1)
    assert trial.peak is not None
    assert trial.peak.begins == 20.0
    assert trial.peak.value >= trial.binding.value


def test_a_session_stays_on_the_type_of_its_first_request() -> None:
    scenario = fleet(chat="turns = 2\nturn_tokens = 50\nthink = 0.5", document="", chats=60.0)
    whole = Drawn(scenario, 4, 5, 60.0)
    first = np.concatenate(list(Part(whole, (0.0, 0.0), (0.5, 1.0), 5).requests(0)))
    other = np.concatenate(list(Part(whole, (0.5, 1.0), (1.0, 1.0), 5).requests(0)))
    follow = first["then"][first["then"] > 0]
    assert len(follow) > 100
    assert not set(follow) & set(other["then"][other["then"] > 0])
    trial = _run(plan_of(scenario), (3, 6), np.array([[0.5, 0.5], [1.0, 0.0]]))
    done = [r.run.gpus * np.array([c.completion_rate.mean or 0.0 for c in r.classes]) for r in trial.results]
    assert done[0] + done[1] == pytest.approx([60.0, 3.0], rel=0.1)
    assert done[0] == pytest.approx([30.0, 3.0], rel=0.1)


def test_the_answer_is_told_in_full(found: Sizing) -> None:
    told = json.loads(found.to_json())["answers"][0]
    assert (told["batch_size"], told["chunk_size"], told["gpus_per_engine"]) == (None, 1024, 1)
    assert told["profile"] == "h100/llama-3.1-8b + rtx4090/llama-3.1-8b"
    keys = {"profile", "batch_size", "chunk_size", "engines", "gpus", "cost_per_hour", "share"}
    assert all(keys <= set(each) for each in told["fleet"])
    assert sum(each["cost_per_hour"] for each in told["fleet"]) == pytest.approx(told["cost_per_hour"])
    assert 0.0 < told["busy"] <= 1.0
    assert 0.0 < told["kv_share"] <= 1.0
    assert "fleet" not in json.loads(found.to_json())["answers"][-1]
    assert [table.title for table in sizing_tables(found)][2] == "Who serves whom"
    assert "Who serves whom" in sizing_page(found)
    assert found.to_dataframe()["profile"][0] == told["profile"]


def test_where_one_type_is_best_it_says_so() -> None:
    scenario = fleet(chat="", document="", targets="ttft_p90 = 1.0")
    same = size(scenario.replace(options=()), profiles=["h100/llama-3.1-8b", "a100-80gb/llama-3.1-8b"], mixed=True)
    assert not any(isinstance(each.choice, Mix) for each in same.answers)
    assert any("no mix" in each for each in same.warnings) or any(isinstance(each, Mix) for each in same.pruned)


def test_what_can_not_be_mixed_is_refused_in_a_line() -> None:
    with pytest.raises(FluidgateError, match=r"mixed: all choices are of one type of GPU.*give two (--)?profile"):
        size(fleet(), profiles=["h100/llama-3.1-8b"], gpu_hour=1.0, mixed=True)
    with pytest.raises(FluidgateError, match="mixed: arrivals"):
        size(fleet(more='[arrivals]\nprocess = "closed"\nusers = 40'), mixed=True)


def test_a_job_is_the_same_wherever_it_runs() -> None:
    plan = plan_of(fleet())
    runs = MixedRuns.of(plan.mix, (2, 4), plan.load, np.array([[0.5, 0.5], [1.0, 0.0]]))
    job, work = runs.next_jobs()[0], plan.load.logged_work
    here = work(job).run.measurement
    there = work(pickle.loads(pickle.dumps(job))).run.measurement  # as a worker gets it
    assert (here.histograms == there.histograms).all()
    assert here.total_events == there.total_events > 0
