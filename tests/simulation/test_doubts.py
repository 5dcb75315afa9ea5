"""Each doubt: a run that must have it, and one near it that must not. Fixed seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluidgate import Scenario, compare, simulate
from fluidgate.model import Arrivals, EngineModel, Lengths
from fluidgate.optimum import optimum
from fluidgate.planning.per_gpu_rates import offered_load
from fluidgate.policies.decisions.stages import PREFILL_QUEUE, STAGES
from fluidgate.simulation import Comparison, SimulationResult
from fluidgate.simulation.doubts import growing_queues, more_than_the_bound, other_arrivals
from fluidgate.simulation.iteration.replay import replay
from fluidgate.simulation.options import Options
from fluidgate.simulation.results import LEAST_INTERVALS, samples_taken
from fluidgate.simulation.statistics import Statistic, statistic
from fluidgate.tuning import tune
from fluidgate.workloads.streams import ClassTrace
from fluidgate.workloads.traces import Trace
from tests.reports.results import class_result, simulated, value
from tests.scenarios import station, two_class_scenario

FIDELITIES = ("markov", "iteration")
TWO_CLASS = two_class_scenario()


def loaded(load: float, patience: float = 0.0, **fields: Any) -> Scenario:
    """The two-class instance at a load in shares of what full batches carry."""
    factor = load / offered_load(TWO_CLASS)
    changed = (
        each.model_copy(update={"arrival_rate": factor * each.arrival_rate, "patience_rate": patience})
        for each in TWO_CLASS.classes
    )
    return TWO_CLASS.replace(classes=tuple(changed), **fields)


def run(scenario: Scenario, policy: str = "gate-and-route", **options: Any) -> SimulationResult:
    usual: dict[str, Any] = {"gpus": 4, "horizon": 1000.0, "replications": 3, "workers": 1}
    return simulate(scenario, policy, **usual | options)


def said(warnings: Sequence[str], words: str) -> bool:
    return any(words in warning for warning in warnings)


class TestQueuesThatGrow:
    GROW = "wait grow in number"

    @pytest.mark.parametrize("seed", range(5))
    def test_an_overload_that_nobody_leaves(self, seed: int) -> None:
        found = run(loaded(1.2), "vllm-least-loaded", fidelity="iteration", seed=seed)
        assert said(found.warnings, self.GROW)

    @pytest.mark.parametrize("seed", range(5))
    def test_a_stable_run_has_none(self, seed: int) -> None:
        for options in ({"replications": 1}, {"horizon": 200.0}, {"horizon": 4000.0, "replications": 2}):
            found = run(loaded(0.9), "vllm-least-loaded", fidelity="iteration", seed=seed, **options)
            assert not said(found.warnings, self.GROW), options

    @pytest.mark.parametrize("fidelity", FIDELITIES)
    def test_an_overload_that_patience_settles_has_none(self, fidelity: str) -> None:
        assert not said(run(loaded(1.3, patience=0.1), fidelity=fidelity, horizon=300.0).warnings, self.GROW)

    def test_in_the_markov_network(self) -> None:
        """M/M/5+M at 1.5 times its load: the queue settles after 1/theta."""
        slow, quick = (station(arrival=1.5, service=1.0, patience=patience) for patience in (1e-4, 0.1))
        assert said(run(slow, "fi-wsp").warnings, self.GROW)
        assert not said(run(quick, "fi-wsp").warnings, self.GROW)
        for seed in range(10):
            busy = station(arrival=0.9, service=1.0, patience=0.0)
            assert not said(run(busy, "fi-wsp", seed=seed, replications=1).warnings, self.GROW)

    def test_random_walks_without_drift_are_rarely_taken_for_one(self) -> None:
        """At the edge of stability, the worst case of all that are stable: fewer than 1 run in 100."""
        rng = np.random.default_rng(7)
        options = Options(gpus=1, horizon=640.0, warmup=64.0, replications=1, seed=0)
        scenario = station(arrival=1.0, service=1.0, patience=0.0)
        alarms = 0
        for _ in range(1000):
            steps = rng.normal(size=LEAST_INTERVALS + 1) * 30
            free = np.cumsum(steps)
            alarms += bool(list(growing_queues(scenario, options, [path_of(free - free.min())], 640.0)))
        assert alarms < 10

    def test_a_trace_may_bring_too_much_but_a_burst_is_no_trend(self) -> None:
        cls, times = np.zeros(12, np.int32), np.arange(12) * 1e-3
        trace = Trace(times, np.full(12, 300), np.full(12, 1000), None, "burst")
        assert not said(replay(TWO_CLASS, [ClassTrace(trace, cls)], ["fi-wsp"], gpus=2).warnings, self.GROW)
        never = TWO_CLASS.replace(classes=tuple(c.model_copy(update={"patience_rate": 0.0}) for c in TWO_CLASS.classes))
        for tokens, grows in ((30_000, True), (3_000, False)):  # 4 s of prefill, one a second; and 0.4 s
            prompts = Trace(np.arange(200.0), np.full(200, tokens), np.full(200, 10), None, "prompts")
            played = replay(never, [ClassTrace(prompts, np.zeros(200, np.int32))], ["vllm-round-robin"], gpus=1)
            assert said(played.warnings, self.GROW) == grows

    def test_the_class_is_named_and_a_long_warm_up_hides_nothing(self) -> None:
        options = Options(gpus=1, horizon=640.0, warmup=630.0, replications=1, seed=0)
        growing = np.zeros((LEAST_INTERVALS + 1, STAGES, 2), np.int64)
        growing[:, PREFILL_QUEUE, 1] = np.arange(len(growing))
        (sentence,) = growing_queues(TWO_CLASS, options, [growing], 640.0)
        assert sentence.startswith(
            "the requests of class 'prefill-heavy' that wait grow in number, from 32 at 320 s to 64"
        )

    def test_what_is_recorded_for_it_changes_no_path(self) -> None:
        alone, sampled = run(TWO_CLASS, samples=0), run(TWO_CLASS, samples=41)
        assert alone.trajectory is None
        assert sampled.trajectory is not None
        np.testing.assert_array_equal(sampled.trajectory.time, np.linspace(0.0, 1000.0, 41))
        assert (alone.revenue_rate, alone.classes) == (sampled.revenue_rate, sampled.classes)
        assert alone.warnings == sampled.warnings
        for asked in (2, 5, 41, 401):
            assert samples_taken(asked) >= LEAST_INTERVALS + 1
            assert (samples_taken(asked) - 1) % (asked - 1) == 0


def path_of(waiting: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    path = np.zeros((len(waiting), STAGES, 1), np.int64)
    path[:, PREFILL_QUEUE, 0] = waiting
    return path


class TestArrivalsThatAreNotThoseOfTheLongRun:
    DAILY = Arrivals(process="daily", weights=(1.0, 2.0, 6.0, 3.0), period=1000.0)
    PERIODS = "is no whole number of the arrivals' periods"

    def test_half_a_period(self) -> None:
        found = run(loaded(0.5, arrivals=self.DAILY), horizon=1500.0)
        assert said(found.warnings, f"the horizon of 1500 s {self.PERIODS} of 1000 s")
        assert said(found.warnings, "give horizon=2000")
        assert said(run(loaded(0.5, arrivals=self.DAILY), horizon=300.0).warnings, "give horizon=1000")

    def test_whole_periods_of_the_run_or_of_its_window(self) -> None:
        for options in ({"horizon": 2000.0}, {"horizon": 1200.0, "warmup": 200.0}):
            assert not said(run(loaded(0.5, arrivals=self.DAILY), **options).warnings, self.PERIODS)

    def test_phases_that_outlast_the_run(self) -> None:
        short = "the run is short for its arrivals"
        slow, quick = (Arrivals(process="mmpp", levels=(1.0, 9.0), sojourns=(long, long)) for long in (10_000.0, 10.0))
        assert said(run(loaded(0.5, arrivals=slow), replications=1).warnings, short)
        assert not said(run(loaded(0.5, arrivals=quick)).warnings, short)

    def test_chance_is_none(self) -> None:
        """30 arrivals are 20 % off by chance; gaps of CV 5 are so more often."""
        run = Options(gpus=1, horizon=100.0, warmup=0.0, replications=1, seed=0)
        arrived = class_result("only", arrival_rate=value(0.36))
        scenario = station(arrival=0.3, service=1.0, patience=0.0)
        assert not list(other_arrivals(scenario, simulated(run=run, classes=(arrived,))))
        assert list(other_arrivals(scenario, simulated(run=replace(run, horizon=1e5), classes=(arrived,))))
        bursty = scenario.replace(arrivals=Arrivals(process="gamma", cv=100.0))
        assert not list(other_arrivals(bursty, simulated(run=replace(run, horizon=1e5), classes=(arrived,))))

    def test_sessions_bring_their_requests_together(self) -> None:
        """As many requests in sessions of 50 are so by chance more often."""
        run = Options(gpus=1, horizon=1000.0, warmup=0.0, replications=1, seed=0)
        arrived = class_result("only", arrival_rate=value(0.36))
        alone = station(arrival=0.3, service=1.0, patience=0.0)
        in_sessions = alone.replace(
            classes=(alone.classes[0].changed(prompt_tokens=1e5, turns=50, turns_law="fixed", turn_tokens=1),)
        )
        assert list(other_arrivals(alone, simulated(run=run, classes=(arrived,))))
        assert not list(other_arrivals(in_sessions, simulated(run=run, classes=(arrived,))))
        assert list(other_arrivals(in_sessions, simulated(run=replace(run, horizon=1e5), classes=(arrived,))))


class TestNothingCompleted:
    NOTHING = "no request is completed"

    @pytest.mark.parametrize("fidelity", FIDELITIES)
    def test_one_slot_that_is_kept_for_prefills(self, fidelity: str) -> None:
        single = TWO_CLASS.replace(gpu=TWO_CLASS.gpu.model_copy(update={"batch_size": 1}))
        found = run(single, gpus=1, horizon=500.0, fidelity=fidelity)
        assert said(found.warnings, "with batch_size 1 a GPU of the mixed group keeps its one slot for prefills")
        for policy, gpus in (("index-and-pool", 1), ("fi-wsp", 1), ("gate-and-route", 2)):
            assert not said(run(single, policy, gpus=gpus, horizon=500.0, fidelity=fidelity).warnings, self.NOTHING)

    @pytest.mark.parametrize("fidelity", FIDELITIES)
    def test_a_run_shorter_than_a_request(self, fidelity: str) -> None:
        long = TWO_CLASS.replace(
            classes=(TWO_CLASS.classes[0].model_copy(update={"output_tokens": 1e7}),),
            lengths=Lengths(output="fixed"),
        )
        assert said(
            run(long, horizon=20.0, fidelity=fidelity).warnings, f"{self.NOTHING} in the window of 18 s: one of"
        )
        assert not said(run(TWO_CLASS, horizon=60.0, fidelity=fidelity).warnings, self.NOTHING)

    def test_requests_that_no_memory_holds(self) -> None:
        tight = TWO_CLASS.replace(lengths=Lengths(prompt="fixed", output="fixed"), engine=EngineModel(kv_tokens=64))
        assert said(run(tight).warnings, "raise [engine] kv_tokens")

    def test_nobody_arrives(self) -> None:
        rare = station(arrival=1e-9, service=1.0, patience=0.0)
        assert said(run(rare, "fi-wsp").warnings, "no request arrives in the window of 900 s")

    def test_a_class_that_the_plan_serves(self) -> None:
        """Under an index of its own the second class waits for ever; a run in which it is served has nothing to say."""
        from fluidgate import find_policy
        from fluidgate.planning import Plan
        from fluidgate.policies import Tables

        base = find_policy("fi-wsp")

        def without_the_second(plan: Plan, gpus: int) -> Tables:
            tables = base.tabulate(plan, gpus)
            return tables._replace(cap=np.array([tables.cap[0], 0]))

        found = run(TWO_CLASS, base.with_functions("never-the-second", tabulate=without_the_second))  # type: ignore[arg-type]
        assert said(found.warnings, "no request of class 'prefill-heavy' is completed")
        assert not said(run(TWO_CLASS, "fi-wsp").warnings, self.NOTHING)


class TestMoreThanTheBound:
    @staticmethod
    def doubts(ratio: Statistic, completion_rate: float = 1.0) -> list[str]:
        run = Options(gpus=10, horizon=1000.0, warmup=0.0, replications=3, seed=0)
        each = class_result("only", completion_rate=value(completion_rate), arrival_rate=value(1.3))
        scenario = station(arrival=1.0, service=1.0, patience=0.0)
        return list(more_than_the_bound(scenario, simulated(run=run, optimality_ratio=ratio, classes=(each,))))

    def test_beyond_its_confidence(self) -> None:
        (found,) = self.doubts(value(1.05, 0.02))
        assert found.startswith("the share of R* is 1.05 (1.03 to 1.07), above 1")
        assert "1.3 times as many requests arrive" in found
        assert not self.doubts(value(1.05, 0.06))
        assert not self.doubts(value(0.99, 0.001))

    def test_three_like_numbers_are_no_confidence_of_few_requests(self) -> None:
        assert not self.doubts(value(1.01, 1e-4), completion_rate=0.1)

    def test_one_replication_by_a_margin(self) -> None:
        assert self.doubts(value(1.08))
        assert not self.doubts(value(1.04))
        assert not self.doubts(value(1.08), completion_rate=0.01)
        assert not self.doubts(statistic([float("nan")]))

    def test_a_run_that_earns_more(self) -> None:
        """Half of a solo iteration is its decodes': batches that are not full make it faster than the plan reads."""
        night = Arrivals(process="daily", weights=(1.0, 9.0), period=4000.0)
        found = run(loaded(0.4, arrivals=night), horizon=4000.0, warmup=2000.0)
        assert said(found.warnings, "above 1: R* is for the scenario's mean rates")
        assert not said(run(loaded(0.4), horizon=4000.0).warnings, "above 1")


class TestRatesThatLookLikeTotals:
    TOTAL = "[[classes]] arrival_rate is per GPU"

    @pytest.mark.parametrize("fidelity", FIDELITIES)
    def test_a_cluster_s_rates_given_per_gpu(self, fidelity: str) -> None:
        found = run(loaded(16.0, patience=0.1), gpus=20, horizon=50.0, replications=1, fidelity=fidelity)
        assert said(found.warnings, f"{self.TOTAL}: each of the 20 GPUs is offered 16 times what it serves")

    def test_what_is_no_such_thing(self) -> None:
        for scenario, gpus in (
            (loaded(16.0, patience=0.1).replace(cluster_gpus=20), 20),  # they are the cluster's
            (loaded(4.0, patience=0.1), 20),  # an overload
            (loaded(16.0, patience=0.1), 8),  # too much for all of them
            (loaded(6.0, patience=0.1), 1),
        ):
            found = run(scenario, gpus=gpus, horizon=20.0, replications=1)
            assert not said(found.warnings, self.TOTAL)

    def test_the_load_of_the_published_instance(self) -> None:
        """Prefills take 0.0332664 s a chunk, 5.86 and 58.6 to 0.5 /s of 300 and 3,000 tokens; decodes the rest."""
        mixed = 0.5 * 3300 * (0.0174 + 6.2e-5 * 256) / 256
        solo = (0.5 * 1400 - mixed * 15 / (0.0174 + 6.2e-5 * 256)) / 45.45 / 16
        assert offered_load(TWO_CLASS) == pytest.approx(mixed + solo)


def test_requests_of_other_rates_and_lengths() -> None:
    """A trace of the scenario's own requests has no doubt; of twice as many of one class, it has."""
    rng = np.random.default_rng(3)

    def played(first: float) -> tuple[str, ...]:
        count = 4000
        cls = (rng.random(count) > first).astype(np.int32)
        prompt = np.where(cls == 0, 300, 3000)
        trace = Trace(np.arange(count) / 4.0, prompt, np.where(cls == 0, 1000, 400), None, "made")
        given = [ClassTrace(trace, cls)]
        return replay(TWO_CLASS, given, ["fi-wsp"], gpus=4, horizon=50.0).warnings

    assert not said(played(0.5), "R*, are for the latter")
    assert said(played(0.8), "of the traces' requests (of the scenario's) are 8")


def test_empirical_lengths_of_other_means(tmp_path: Path) -> None:
    def drawn(output: int) -> tuple[str, ...]:
        path = tmp_path / f"{output}.csv"
        rows = [f"{k},300,{output},decode-heavy\n{k}.5,3000,400,prefill-heavy\n" for k in range(50)]
        path.write_text("arrival_time,prompt_tokens,output_tokens,class\n" + "".join(rows), "utf-8")
        lengths = Lengths(prompt="empirical", output="empirical", traces=(str(path),))
        return run(TWO_CLASS.replace(lengths=lengths), horizon=50.0).warnings

    assert said(
        drawn(500), "class 'decode-heavy': the mean output of [lengths] traces is 500 tokens, the scenario's 1000"
    )
    assert not said(drawn(1000), "[lengths] traces")


def test_a_clean_run_has_no_doubt_and_an_entry_of_a_comparison_has_its_own() -> None:
    clean = loaded(0.5)
    for fidelity in FIDELITIES:
        both = compare(clean, ["fi-wsp", "index-and-pool"], gpus=8, horizon=1000.0, fidelity=fidelity)  # type: ignore[arg-type]
        plan_says = both.policies[0].plan
        assert plan_says is not None
        for entry in both.policies:
            assert entry.warnings == plan_says.warnings
            alone = simulate(clean, entry.policy, gpus=8, horizon=1000.0, fidelity=fidelity)  # type: ignore[arg-type]
            assert entry.to_dict()["warnings"] == alone.to_dict()["warnings"] == list(alone.warnings)
        assert both.to_dict()["warnings"] == list(both.warnings)


def test_a_comparison_says_whose_doubts_they_are() -> None:
    both = Comparison("small", simulated().run, (simulated("a", warnings=("x", "y")), simulated("b", warnings=("y",))))
    assert both.warnings == ("a: x", "y")
    assert [entry["warnings"] for entry in both.to_dict()["policies"]] == [["x", "y"], ["y"]]


def test_a_policy_without_a_plan_is_told_of_the_scenario_alone() -> None:
    """The margin of a partition is nothing to a policy that has none."""
    gated, placed = (
        run(TWO_CLASS, policy, gpus=9, fidelity="iteration", horizon=100.0)
        for policy in ("gate-and-route", "vllm-round-robin")
    )
    assert said(gated.warnings, "no margin")
    assert not said(placed.warnings, "no margin")
    fine = TWO_CLASS.gpu.model_copy(update={"chunk_size": 8})
    assert said(run(TWO_CLASS.replace(gpu=fine), "vllm-round-robin", fidelity="iteration").warnings, "kappa")


def test_tune_and_optimum_tell_what_they_do_not_see() -> None:
    tiny = station(arrival=0.5, service=1.0, patience=0.1)
    for scenario, keys in ((tiny, 0), (tiny.replace(engine=EngineModel(kv_tokens=64)), 1)):
        best = optimum(scenario, gpus=1, accuracy=1e-2)
        assert sum("[engine] kv_tokens = 64" in w for w in best.to_dict()["warnings"]) == keys
        found = tune(scenario, gpus=1, budget=3e4, workers=1)
        assert sum("[engine] kv_tokens = 64" in w for w in found.to_dict()["warnings"]) == keys
