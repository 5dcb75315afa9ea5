"""GPUs that fail, and that are started and drained: what it does to requests, and what it costs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fluidgate import compare, find_policy, plan, simulate
from fluidgate.batching import Batching
from fluidgate.errors import FluidgateError
from fluidgate.model import EngineModel, Failures, Scenario, Step
from fluidgate.policies.homes import at_home
from fluidgate.simulation.iteration.engine import Engine
from fluidgate.simulation.iteration.fleet import Fleet, FleetPlan, Move
from fluidgate.simulation.iteration.kernel.cluster import COMPLETED, Placement
from fluidgate.simulation.iteration.kernel.fleet import CLOSE, FAIL
from fluidgate.simulation.iteration.law import paper_law
from fluidgate.simulation.iteration.measure import IterationMeasurement
from fluidgate.simulation.iteration.resized import Resized
from fluidgate.simulation.iteration.results import RequestResult
from fluidgate.simulation.iteration.rules import Decisions, Placements
from fluidgate.simulation.iteration.run import Run, run_requests
from fluidgate.workloads.streams import PIECE, REQUEST, Script, drawn_requests
from tests.scenarios import two_class_scenario
from tests.simulation.iteration.instances import gated_instance
from tests.simulation.iteration.prefix_instances import alike

SECONDS = 60.0


def requests(gpus: int) -> Any:
    return np.concatenate(list(drawn_requests(two_class_scenario(), gpus, seed=3, replication=0, horizon=SECONDS)))


def engine(batching: Batching) -> Engine:
    gpu = two_class_scenario().gpu
    return Engine(paper_law(gpu.iteration), gpu.batch_size, gpu.chunk_size, batching)


def run(rules: Any, batching: Batching, stream: Any, **options: Any) -> tuple[IterationMeasurement, Any]:
    logs: list[Any] = []
    measured = run_requests([stream], engine(batching), Run(classes=2, seed=1, **options), rules, take_log=logs.append)
    return measured, np.concatenate(logs)


def same(one: Any, other: Any) -> bool:
    return all(np.array_equal(one[name], other[name], equal_nan=True) for name in one.dtype.names)


def without_last(gpus: int) -> FleetPlan:
    return FleetPlan(Failures.model_validate({"at": [{"time": 0.0, "gpu": gpus - 1}]}))


@pytest.mark.parametrize("placement", [Placement.ROUND_ROBIN, Placement.POWER_OF_TWO, Placement.LMETRIC])
def test_with_a_gpu_down_all_is_as_with_one_less(placement: Placement) -> None:
    stream, rules = requests(4), Placements(placement)
    down, log = run(rules, Batching.TOKEN_BUDGET, stream, gpus=4, fleet=without_last(4))
    less, expected = run(rules, Batching.TOKEN_BUDGET, stream, gpus=3)
    assert same(log, expected)
    assert (down.histograms == less.histograms).all()


def test_a_policy_plans_for_the_gpus_that_are_up() -> None:
    scenario, policy, stream = two_class_scenario(), find_policy("index-and-pool"), requests(4)
    smaller = scenario.replace(
        classes=tuple(c.model_copy(update={"arrival_rate": c.arrival_rate * 4 / 3}) for c in scenario.classes)
    )
    tables = [policy.tabulate(plan(s, gpus=n), n) for s, n in ((scenario, 4), (smaller, 3))]
    resize = Resized(scenario, policy, 4, tables[0])
    rules = Decisions(policy, tables[0], resize)
    _, log = run(rules, Batching.SINGLE_PREFILL, stream, gpus=4, fleet=without_last(4))
    smaller_rules = Decisions(policy, resize(3, 0.0))
    _, expected = run(smaller_rules, Batching.SINGLE_PREFILL, stream, gpus=3)
    assert same(log, expected)
    assert resize(3, 0.0).mixed_gpus == tables[1].mixed_gpus == 3


def failing(**tables: Any) -> Scenario:
    failures = Failures.model_validate(tables.pop("failures")) if "failures" in tables else None
    steps = tuple(Step.model_validate(step) for step in tables.pop("schedule", ()))
    return two_class_scenario().replace(failures=failures, schedule=steps, **tables)


POLICIES = ["index-and-pool", "gate-and-route", "vllm-least-loaded"]


def test_nobody_is_lost_for_good_and_failures_are_the_same_for_all() -> None:
    scenario = failing(failures={"mtbf": 30.0, "mttr": 10.0, "units": 2})
    found = [
        simulate(scenario, policy, gpus=4, horizon=SECONDS, warmup=0.0, replications=1, workers=1, audited=True)
        for policy in (*POLICIES, "gate-and-route+replan")
    ]
    assert found[-1].plan_path is not None  # type: ignore[attr-defined]
    calm = simulate(two_class_scenario(), POLICIES[0], gpus=4, horizon=SECONDS, warmup=0.0, replications=1,
                    workers=1, fidelity="iteration")  # fmt: skip
    for result in found:
        assert isinstance(result, RequestResult)
        assert result.overall.loss_rate.mean > 0  # type: ignore[operator]
        assert result.availability == found[0].availability  # type: ignore[attr-defined]
        assert result.overall.arrival_rate == calm.overall.arrival_rate  # type: ignore[attr-defined]
        assert result.gpu_hours.mean == pytest.approx(4 * SECONDS / 3600 * result.availability.mean)  # type: ignore[operator]
    assert calm.gpu_hours.mean == pytest.approx(4 * SECONDS / 3600)  # type: ignore[attr-defined]
    assert calm.availability.mean == 1.0  # type: ignore[attr-defined]


def test_units_are_up_for_their_share_of_a_cycle() -> None:
    failures = Failures(mtbf=100.0, mttr=25.0, units=2)
    fleet = Fleet(FleetPlan(failures, (), (1, 0)), 100, warmup=500.0)
    nothing: Any = None
    together = True
    while fleet.next < 20_500.0:
        moves = fleet.apply(fleet.next, nothing)
        together = together and {move.gpu // 2 * 2 for move in moves} <= {move.gpu for move in moves}
    times = fleet.times(20_500.0, nothing)
    assert together
    assert times.wanted == pytest.approx(100 * 20_000.0)
    # 8,000 cycles: a standard deviation of 0.8 * 0.2 * sqrt(2 / 8000) = 0.0025
    assert times.up / times.wanted == pytest.approx(100 / 125, abs=0.01)
    assert times.paid == times.up


def test_gpus_are_started_and_drained_and_hours_counted() -> None:
    steps = ({"time": 0.0, "gpus": 2}, {"time": 10.0, "gpus": 4, "start_up": 5.0}, {"time": 30.0, "gpus": 1})
    fleet = FleetPlan(None, tuple(Step.model_validate(step) for step in steps))
    end = 600.0
    measured, log = run(Placements(), Batching.TOKEN_BUDGET, requests(2), gpus=4, horizon=end, fleet=fleet)
    assert len(log) == measured.arrivals.sum(), "all have left"
    assert measured.losses.sum() == 0
    late = log["prefill_gpu"] >= 2
    assert late.any()
    begun = log["scheduled"][late]
    assert begun.min() >= 15.0
    served = [log["last_token"][log["prefill_gpu"] == g].max() for g in (1, 2, 3)]
    assert max(served) > 30.0, "who was on a GPU that is drained is served to the end"
    assert log["arrival"][log["prefill_gpu"] > 0].max() <= 30.0, "and nobody else goes there"
    times = measured.fleet
    assert times is not None
    assert times.wanted == pytest.approx(30.0 + 2 * 20.0 + end)
    assert times.up == pytest.approx(times.wanted - 2 * 5.0)
    drained = sum(max(end - 30.0, 0.0) for end in served)
    assert times.paid == pytest.approx(times.wanted + drained)


def test_a_gpu_that_is_drained_fails_or_is_wanted_again() -> None:
    steps = ({"time": 10.0, "gpus": 1}, {"time": 10.5, "gpus": 2, "start_up": 40.0}, {"time": 20.0, "gpus": 1})
    failures = Failures.model_validate({"at": [{"time": 20.5, "gpu": 1, "seconds": 1.0}]})
    fleet = FleetPlan(failures, tuple(Step.model_validate(step) for step in steps))
    measured, log = run(Placements(), Batching.TOKEN_BUDGET, requests(2), gpus=2, horizon=SECONDS, fleet=fleet)
    assert measured.losses.sum() > 0
    assert ((log["arrival"] > 10.5) & (log["prefill_gpu"] == 1)).any(), "it still had requests, so it is up at once"
    times = measured.fleet
    assert times is not None
    assert times.paid == pytest.approx(SECONDS + 20.5)
    assert times.up == pytest.approx(SECONDS + 19.5)


@pytest.mark.parametrize("policy", POLICIES)
def test_requests_wait_while_all_gpus_are_down(policy: str) -> None:
    down = {"units": 4, "at": [{"time": 5.0, "gpu": 0, "seconds": 20.0}]}
    scenario = failing(failures=down, cluster_gpus=None)
    result = simulate(scenario, policy, gpus=4, horizon=SECONDS, warmup=0.0, replications=1, workers=1)
    assert isinstance(result, RequestResult)
    assert result.availability.mean == pytest.approx(2 / 3)
    assert result.overall.latency.p99 is not None
    assert result.overall.latency.p99 > 15.0
    assert result.overall.completion_rate.mean > 0  # type: ignore[operator]


def test_a_run_ends_where_nobody_comes_back() -> None:
    stream = requests(1)
    fleet = FleetPlan(Failures.model_validate({"at": [{"time": 20.0, "gpu": 0}]}))
    measured, log = run(Placements(), Batching.TOKEN_BUDGET, stream, gpus=1, fleet=fleet)
    assert log["last_token"].max() <= 20.0 or (log["outcome"] != COMPLETED).any()
    assert measured.completions.sum() == (log["outcome"] == COMPLETED).sum() > 0
    assert math.isfinite(measured.window)


REFUSED = {
    "failures.at\\[0\\]: gpu: GPU 4 of 4": {"failures": {"at": [{"time": 1.0, "gpu": 4}]}},
    "schedule\\[0\\]: gpus: 5 of 4": {"schedule": [{"time": 1.0, "gpus": 5}]},
    "schedule\\[0\\]: gpus: 1 is no whole number": {
        "schedule": [{"time": 1.0, "gpus": 1}],
        "engine": EngineModel(data_parallel=2),
    },
}


@pytest.mark.parametrize("message", list(REFUSED))
def test_what_is_not_simulated_is_refused(message: str) -> None:
    with pytest.raises(FluidgateError, match=message):
        compare(failing(**REFUSED[message]), ["vllm-least-loaded"], gpus=4, horizon=5.0, replications=1, workers=1)


def test_pools_are_refused() -> None:
    scenario = failing(schedule=[{"time": 1.0, "gpus": 3}])
    with pytest.raises(FluidgateError, match=r"policy 'distserve': GPUs that fail, .* not simulated in pools"):
        compare(scenario, ["distserve"], gpus=4, horizon=5.0, replications=1, workers=1)


def test_sessions_are_read_again_where_a_gpu_and_what_it_kept_is_lost() -> None:
    calm = Scenario.load("examples/deep-sessions.toml")
    failures = Failures.model_validate({"at": [{"time": 100.0, "gpu": 1, "seconds": 40.0}]})
    for policy in ("index-and-pool", "vllm-lmetric"):
        with_and_without = [
            simulate(scenario, policy, gpus=4, horizon=200.0, warmup=90.0, replications=1, workers=1, audited=True)
            for scenario in (calm, calm.replace(failures=failures))
        ]
        before, after = (result.overall for result in with_and_without)
        assert after.loss_rate.mean > 0  # type: ignore[union-attr]
        assert before.prefix_hit_rate.mean > after.prefix_hit_rate.mean > 0.5  # type: ignore[union-attr]


@pytest.mark.parametrize(("schedule", "found"), [((), 48), (((0.05, 0), (0.06, 1)), 48), (((50.0, 0), (60.0, 1)), 0)])
def test_a_gpu_that_starts_anew_has_kept_nothing(schedule: tuple[tuple[float, int], ...], found: int) -> None:
    """Drained and wanted again before it is given back, it has."""
    alike_twice = np.zeros(2, REQUEST)
    alike_twice["arrival"] = 0.0, 100.0
    alike_twice["prompt"], alike_twice["output"], alike_twice["text"] = 64, 50, 1
    alike_twice["patience"] = np.inf
    caching = replace(engine(Batching.TOKEN_BUDGET), keys=EngineModel(prefix_caching=True, kv_tokens=1024))
    script = Script(np.array([(0, 0), (0, 64)], PIECE), np.zeros(1, REQUEST))
    fleet = FleetPlan(None, tuple(Step(time=time, gpus=gpus) for time, gpus in schedule))
    how = Run(classes=1, seed=1, gpus=1, horizon=200.0, script=script, fleet=fleet)
    measured = run_requests([alike_twice], caching, how, Placements())
    assert measured.prompt_found.tolist() == [found]
    assert measured.completions.tolist() == [2]


def test_a_policy_that_chooses_homes_sends_nobody_to_a_gpu_that_is_down() -> None:
    tried = 0
    for seed in range(8):
        given = gated_instance(seed, "index-and-pool", Batching.TOKEN_BUDGET)
        if given.run.gpus < 2:
            continue
        apart = alike(given, seed, followed=True, limited=False)
        assert apart.tables is not None
        failed = float(apart.requests["arrival"][len(apart.requests) // 2])
        fleet = ((failed, (Move(CLOSE, 0), Move(FAIL, 0))),)
        _, log = replace(apart, tables=at_home(apart.tables, apart.plan, 10.0), fleet=fleet).by_kernel()
        served = [row for row in log.values() if row["outcome"] == COMPLETED]
        assert all(row["last_token"] <= failed for row in served if row["prefill_gpu"] == 0)
        tried += any(row["last_token"] > failed for row in served)
    assert tried > 2
