"""Seeds, workers, common random numbers, and what must not change the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from fluidgate import FluidgateError, Scenario, compare, find_policy, plan, simulate
from fluidgate.policies import POLICIES
from fluidgate.simulation.events import ARRIVAL
from fluidgate.simulation.markov.replication import Job, replicate, run, start

OPTIONS: dict[str, Any] = {"gpus": 8, "horizon": 300.0, "replications": 3}


def test_same_seed_same_numbers_whatever_the_workers(two_class: Scenario) -> None:
    alone = compare(two_class, ["gate-and-route", "fi-wsp"], workers=1, **OPTIONS)
    together = compare(two_class, ["gate-and-route", "fi-wsp"], workers=2, **OPTIONS)
    for a, b in zip(alone.policies, together.policies, strict=True):
        first, second = a.to_dict(), b.to_dict()
        first.pop("wall_seconds")
        second.pop("wall_seconds")
        assert first == second
    assert alone.paired == together.paired


def test_another_seed_gives_other_numbers(two_class: Scenario) -> None:
    one = simulate(two_class, "gate-and-route", seed=1, **OPTIONS)
    other = simulate(two_class, "gate-and-route", seed=2, **OPTIONS)
    assert one.revenue_rate.values != other.revenue_rate.values
    assert len(set(one.revenue_rate.values)) == OPTIONS["replications"]


def test_an_entry_of_compare_equals_simulate(two_class: Scenario) -> None:
    compared = compare(two_class, ["fg-sp", "sli-aware"], **OPTIONS).policies[1]
    alone = simulate(two_class, "sli-aware", **OPTIONS)
    assert alone.revenue_rate == compared.revenue_rate
    assert alone.classes == compared.classes
    assert alone.run == compared.run


def test_all_policies_meet_the_same_arrivals(two_class: Scenario) -> None:
    seen = {name: replicate(job(two_class, name)).events[ARRIVAL].tolist() for name in POLICIES}
    assert len({tuple(counts) for counts in seen.values()}) == 1
    assert min(seen["fi-wsp"]) > 100


def test_pauses_samples_and_memory_do_not_change_the_path(two_class: Scenario) -> None:
    wanted = job(two_class, "gate-and-route")
    whole = run(start(wanted), wanted)
    sliced = run(start(wanted), wanted, slice_events=7)
    from dataclasses import replace

    sampled = run(start(replace(wanted, samples=50)), wanted)
    for other in (sliced, sampled):
        assert np.array_equal(whole.events, other.events)
        assert np.array_equal(whole.area, other.area)


def test_memory_grows_with_the_waiting_requests_alone() -> None:
    from tests.scenarios import station

    flooded = station(arrival=40.0, service=1.0, patience=0.001)
    policy = find_policy("fi-wsp")
    wanted = Job(flooded, policy, policy.tabulate(plan(flooded), 2), 2, 60.0, 0.0, 0, 0)
    network = run(start(wanted), wanted)
    waiting = int(network.counts[:3].sum())
    assert waiting > 4000
    assert 1024 < len(network.nodes) <= 4 * waiting


def test_samples_follow_the_averages(two_class: Scenario) -> None:
    result = simulate(two_class, "gate-and-route", samples=4001, warmup=0.0, **OPTIONS)
    path = result.trajectory
    assert path is not None
    assert path.time[0] == 0.0
    assert path.time[-1] == OPTIONS["horizon"]
    assert path.solo_decode[0].tolist() == [0.0, 0.0]
    for k, each in enumerate(result.classes):
        for name in ("prefill", "mixed_decode", "solo_decode", "prefill_queue", "decode_queue"):
            assert getattr(path, name)[:, k].mean() == pytest.approx(getattr(each, name).mean, rel=0.05, abs=0.01)


def test_another_executor_takes_the_seam(two_class: Scenario) -> None:
    class Recording:
        jobs = 0

        def map(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
            self.jobs = len(jobs)
            return map(function, jobs)

    executor = Recording()
    steps: list[tuple[int, int]] = []
    result = simulate(
        two_class, "fi-wsp", executor=executor, progress=lambda done, total: steps.append((done, total)), **OPTIONS
    )
    assert executor.jobs == 3
    assert steps == [(1, 3), (2, 3), (3, 3)]
    usual = simulate(two_class, "fi-wsp", **OPTIONS)
    assert (result.revenue_rate, result.classes) == (usual.revenue_rate, usual.classes)


def test_a_failing_job_stops_the_workers_and_reaches_the_caller() -> None:
    from fluidgate.execution import LocalProcesses

    with pytest.raises(ZeroDivisionError):
        list(LocalProcesses(2).map(_reciprocal, [1, 0, 2]))
    assert list(LocalProcesses(2).map(_reciprocal, [1, 2])) == [1.0, 0.5]


def _reciprocal(value: int) -> float:
    return 1 / value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpus": 0}, "gpus: must be at least 1"),
        ({"gpus": None}, "gpus: missing"),
        ({"horizon": 0.0}, "horizon"),
        ({"horizon": float("inf")}, "horizon"),
        ({"horizon": float("nan")}, "horizon"),
        ({"warmup": 300.0}, "warmup"),
        ({"warmup": -1.0}, "warmup"),
        ({"warmup": float("nan")}, "warmup"),
        ({"replications": 0}, "replications"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_options_are_named(two_class: Scenario, options: dict[str, Any], message: str) -> None:
    with pytest.raises(FluidgateError, match=message):
        simulate(two_class, "fi-wsp", **{**OPTIONS, **options})


def test_bad_policies_are_named(two_class: Scenario) -> None:
    with pytest.raises(FluidgateError, match="did you mean 'gate-and-route'"):
        simulate(two_class, "gate-and-rout", **OPTIONS)
    with pytest.raises(FluidgateError, match="named twice"):
        compare(two_class, ["fi-wsp", "fi-wsp"], **OPTIONS)
    with pytest.raises(FluidgateError, match="none is named"):
        compare(two_class, [], **OPTIONS)


def test_one_replication_has_no_interval(two_class: Scenario) -> None:
    result = simulate(two_class, "fi-wsp", gpus=4, horizon=50.0, replications=1)
    assert result.revenue_rate.std is None
    assert result.to_dict()["revenue_rate"]["ci95"] is None


def test_ratios_are_null_where_there_is_nothing_to_earn(two_class: Scenario) -> None:
    free = two_class.replace(pricing=two_class.pricing.model_copy(update={"prompt": 0.0, "output": 0.0}))
    result = simulate(free, "fi-wsp", gpus=4, horizon=50.0, replications=2)
    assert result.optimality_ratio.mean is None
    assert result.objective_ratio.mean is None


def test_frames_hold_every_statistic(two_class: Scenario) -> None:
    result = compare(two_class, ["gate-and-route", "fi-wsp"], **OPTIONS)
    frame = result.to_dataframe()
    assert set(frame["policy"]) == {"gate-and-route", "fi-wsp"}
    row = frame[(frame["policy"] == "fi-wsp") & (frame["class"] == "prefill-heavy") & (frame["quantity"] == "ttft")]
    assert row["mean"].item() == result.policies[1].classes[1].ttft.mean


def job(scenario: Scenario, name: str) -> Job:
    policy = find_policy(name)
    solved = plan(scenario)
    return Job(scenario, policy.for_worker(), policy.tabulate(solved, 8), 8, 300.0, 30.0, 0, 1)
