"""Predictions as a whole: monotone, additive, honest about what they do not see, and near to simulation."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from clusters import queue, served

from fluidgate import FluidgateError, Scenario, simulate
from fluidgate.model import Arrivals, EngineModel, Failures, Lengths, Pricing, Targets
from fluidgate.tails import MEASURES, Prediction, predict

POLICIES = ("index-and-pool", "vllm-round-robin", "vllm-least-loaded", "prefill-first-round-robin")
LOGNORMAL = Lengths(prompt="lognormal", output="lognormal", prompt_cv=1.2, output_cv=0.8)


def cluster(rate: float, gpus: int, **fields: object) -> Scenario:
    """A load of the whole cluster, requests/s."""
    return served(rate / gpus, **fields).replace(cluster_gpus=gpus)  # type: ignore[arg-type]


def test_failures_are_said_not_to_be_seen() -> None:
    steady, failing = served(2.0), served(2.0).replace(failures=Failures(mtbf=100.0, mttr=10.0))
    unseen = "GPUs that fail, or are scheduled, are not seen"
    assert not any(unseen in doubt for doubt in predict(steady, 3).doubts)
    assert any(unseen in doubt for doubt in predict(failing, 3).doubts)


@pytest.mark.parametrize("policy", POLICIES)
def test_more_engines_are_never_slower(policy: str) -> None:
    scenario = cluster(120.0, 8)
    found = [predict(scenario, n, policy=policy) for n in (8, 9, 10, 12, 16, 24)]
    for measure in MEASURES:
        for share in (0.5, 0.95, 0.99):
            times = [each.time(measure).quantile(share) for each in found]
            assert all(more <= less * 1.02 for less, more in pairwise(times))
            assert times[-1] < times[0]


@pytest.mark.parametrize("batching", ["single-prefill", "token-budget", "prefill-first"])
def test_more_load_is_never_faster(batching: str) -> None:
    found = [predict(served(rate, batching=batching), 6) for rate in (2.0, 6.0, 10.0, 14.0, 18.0)]
    for measure in MEASURES:
        times = [each.time(measure).quantile(0.99) for each in found]
        assert all(more >= less * 0.98 for less, more in pairwise(times))
    assert [each.load for each in found] == sorted(each.load for each in found)


def test_an_empty_cluster_reads_a_prompt_and_decodes() -> None:
    """One request at a time: the seconds of its iterations, from the profile's law itself."""
    lengths = Lengths(prompt="fixed", output="fixed")
    scenario = served(1e-4, classes=((3000, 101, 1.0),), lengths=lengths, batching="token-budget")
    time = scenario.gpu.iteration
    budget = 2048 + 256 - 1
    reading = time.mixed(budget, 0.0, 0.0, 0.0) + time.mixed(3000 - budget, 0.0, 0.0, (3000 - budget) * budget)
    gap = time.solo(1.0, 3000 + 50)
    for policy in (None, "vllm-round-robin"):
        found = predict(scenario, 4, policy=policy)
        assert found.time("ttft").quantile(0.5) == pytest.approx(reading, rel=0.02)
        assert found.time("tpot").quantile(0.5) == pytest.approx(gap, rel=0.01)
        assert found.time("latency").quantile(0.5) == pytest.approx(reading + 100 * gap, rel=0.01)


def test_latency_is_the_first_token_and_the_gaps() -> None:
    found = predict(served(8.0, batching="token-budget"), 4).classes[1]
    assert found.latency.mean == pytest.approx(found.ttft.mean + 210 * found.tpot.mean, rel=0.02)


def test_of_all_is_the_mixture_of_the_classes() -> None:
    found = predict(served(8.0), 4)
    shares = [found.time("ttft", k).share_within(0.1) for k in (0, 1)]
    assert found.time("ttft").share_within(0.1) == pytest.approx(0.317 * shares[0] + 0.683 * shares[1], abs=2e-3)


def test_goodput_is_the_share_within_both_targets() -> None:
    scenario = served(8.0).replace(targets=Targets(ttft=0.1, tpot=0.02))
    found = predict(scenario, 4)
    ttft, tpot = found.time("ttft", 1).share_within(0.1), found.time("tpot", 1).share_within(0.02)
    assert found.goodput(1) == pytest.approx(ttft * (1 - 210 / 211 * (1 - tpot)), abs=1e-3)
    assert min(found.goodput(0), found.goodput(1)) < found.goodput() < max(found.goodput(0), found.goodput(1))
    assert predict(served(8.0), 4).goodput() == 1.0


def test_more_than_can_be_served_has_no_bound() -> None:
    found = predict(served(80.0).replace(targets=Targets(ttft=1.0)), 4)
    assert not found.stable
    assert found.time("ttft").quantile(0.5) == math.inf == found.time("latency", 0).mean
    assert found.goodput() == 0.0
    assert "more arrives than can be served" in found.doubts[0]
    assert found.to_dict()["latency"][0]["ttft"] == dict.fromkeys(("mean", "p50", "p90", "p95", "p99"))


def test_slots_that_are_taken_are_waited_for() -> None:
    few = served(8.0, batching="single-prefill")
    gpu = few.gpu.model_copy(update={"batch_size": 14})
    assert predict(few.replace(gpu=gpu), 4).time("ttft").quantile(0.99) > 1.5 * predict(few, 4).time("ttft").quantile(
        0.99
    )


def test_a_memory_that_ends_is_a_batch_that_ends() -> None:
    scenario = served(10.0, batching="token-budget")
    small = scenario.replace(engine=EngineModel(batching="token-budget", kv_tokens=30_000))
    found = predict(small, 4)
    assert found.slots > 3 * predict(scenario, 4).slots
    assert any("KV memory" in doubt for doubt in predict(small, 3).doubts + found.doubts)


def test_prompts_that_are_found_are_not_read() -> None:
    def with_hits(rate: float) -> Prediction:
        plain = served(8.0, batching="token-budget")
        classes = tuple(c.model_copy(update={"prefix_hit_rate": rate}) for c in plain.classes)
        engine = EngineModel(batching="token-budget", prefix_caching=True)
        return predict(plain.replace(classes=classes, engine=engine), 4)

    most, none = with_hits(0.8), with_hits(0.0)
    assert most.load < 0.3 * none.load
    assert most.time("ttft").mean < 0.6 * none.time("ttft").mean


def test_phases_beyond_what_is_served_wait_for_each_other() -> None:
    steady = served(10.0, batching="token-budget")
    slow = steady.replace(arrivals=Arrivals(process="mmpp", levels=(1, 6), sojourns=(50, 10)))
    day = steady.replace(arrivals=Arrivals(process="daily", weights=(1, 1, 6, 1), period=400))
    for modulated in (slow, day):
        found = predict(modulated, 4)
        assert found.time("ttft").quantile(0.99) > 20 * predict(steady, 4).time("ttft").quantile(0.99)
        assert any("arrivals" in doubt for doubt in found.doubts)
    quick = predict(steady.replace(arrivals=Arrivals(process="mmpp", levels=(1, 1), sojourns=(50, 10))), 4)
    assert quick.time("ttft").quantile(0.9) == pytest.approx(predict(steady, 4).time("ttft").quantile(0.9), rel=0.02)


def test_a_closed_loop_is_refused_in_a_line() -> None:
    loop = served(1.0).replace(arrivals=Arrivals(process="closed", users=20))
    with pytest.raises(FluidgateError, match="closed loop"):
        predict(loop, 4)
    with pytest.raises(FluidgateError, match="engines"):
        predict(served(1.0), 0)
    with pytest.raises(FluidgateError, match="unknown policy"):
        predict(served(1.0), 2, policy="nobody")


def test_classes_that_go_first_wait_less() -> None:
    """Classes that may leave are taken by index: who loses more by waiting waits less than first come, first served."""
    scenario = served(14.0, batching="single-prefill").replace(
        pricing=Pricing(scheme="bundled", prompt=0.1, output=0.4)
    )
    classes = tuple(
        c.model_copy(update={"patience_rate": rate}) for c, rate in zip(scenario.classes, (0.01, 0.2), strict=True)
    )
    leaving = scenario.replace(classes=classes)
    by_index, in_turn = predict(leaving, 2, policy="index-and-pool"), predict(leaving, 2)
    assert by_index.time("ttft", 1).quantile(0.99) < in_turn.time("ttft", 1).quantile(0.99)
    assert by_index.time("ttft", 0).quantile(0.99) > in_turn.time("ttft", 0).quantile(0.99)


def test_front_ends_are_on_the_way() -> None:
    plain = served(4.0, batching="token-budget")
    engine = EngineModel(batching="token-budget", front_end=0.03, front_end_first=0.02)
    later = predict(plain.replace(engine=engine), 4).time("ttft").mean
    assert later == pytest.approx(predict(plain, 4).time("ttft").mean + 0.05, abs=1e-3)


@pytest.mark.parametrize(
    ("policy", "batching", "arrivals", "ttft", "tpot"),
    [
        ("index-and-pool", "single-prefill", Arrivals(), 0.10, 0.10),
        ("index-and-pool", "token-budget", Arrivals(), 0.12, 0.12),
        ("vllm-round-robin", "token-budget", Arrivals(), 0.25, 0.30),
        ("prefill-first-round-robin", "prefill-first", Arrivals(), 0.30, 0.35),
        ("index-and-pool", "single-prefill", Arrivals(process="gamma", cv=2.0), 0.20, 0.20),
    ],
)
def test_near_to_simulated_requests(policy: str, batching: str, arrivals: Arrivals, ttft: float, tpot: float) -> None:
    """20,000 requests at about three quarters of what can be served."""
    scenario = served(12.0, batching=batching, lengths=LOGNORMAL, arrivals=arrivals)
    found = predict(scenario, 5, policy=policy)
    simulated = simulate(
        scenario, policy, gpus=5, horizon=340.0, replications=1, workers=1, fidelity="iteration", seed=7
    ).overall  # type: ignore[attr-defined]
    for name, tolerance in (("ttft", ttft), ("tpot", tpot), ("latency", 0.15)):
        own, time = getattr(simulated, name), found.time(name)  # type: ignore[arg-type]
        errors = [time.mean / own.mean - 1, time.quantile(0.9) / own.p90 - 1, time.quantile(0.95) / own.p95 - 1]
        assert np.abs(errors).max() < tolerance, (name, errors)


def test_one_token_has_no_gap() -> None:
    row = predict(queue(0.5), 2).to_dict()["latency"][0]
    assert row["tpot"] is None
    assert row["latency"]["mean"] == pytest.approx(row["ttft"]["mean"], rel=0.01)
