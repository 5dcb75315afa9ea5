"""The kernels against a reference that steps every iteration of every GPU: request by request, and in every measure."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fluidgate.batching import Batching
from fluidgate.policies import POLICIES
from fluidgate.simulation.iteration.kernel.cluster import Placement
from fluidgate.simulation.iteration.times import TIMES
from tests.simulation.iteration.instances import (
    Instance,
    changing_instance,
    limited_instance,
    placed_instance,
    policy_instance,
)
from tests.simulation.iteration.reference import Reference

PLACED = [(batching, rule) for batching in Batching if batching != Batching.SINGLE_PREFILL for rule in Placement]
SEEDS = 20
CLOSE = {"rel": 1e-9, "abs": 1e-9}


def agree(instance: Instance) -> Reference:
    """Run both and compare everything."""
    measured, log = instance.by_kernel()
    expected = instance.by_reference()

    assert len(log) == sum(r.outcome > 0 for r in expected.requests)
    for r in expected.requests:
        if r.outcome == 0:
            assert r.number not in log
            continue
        row = log[r.number]
        got = (row["outcome"], row["prefill_gpu"], row["preemptions"], row["cls"], row["prompt"], row["output"])
        assert got == (r.outcome, r.prefill_gpu, r.preemptions, r.cls, r.prompt, r.output), r
        assert row["decode_gpu"] == r.gpu, r
        epochs = [row[name] for name in ("arrival", "scheduled", "first_token", "last_token")]
        assert epochs == pytest.approx([r.arrival, r.scheduled, r.first, r.left], nan_ok=True, **CLOSE), r

    for name, (row, *_) in TIMES.items():
        for i in range(instance.run.classes):
            seen = [seconds for cls, seconds in expected.times[name] if cls == i]
            assert measured.distribution(name, i).observations == len(seen), name
            assert measured.seconds[row, i] == pytest.approx(math.fsum(seen), rel=1e-9, abs=1e-8), name
            if seen:
                for share in (0.1, 0.5, 0.9, 0.99):
                    exact = float(np.quantile(seen, share))
                    assert measured.distribution(name, i).quantile(share) == pytest.approx(exact, rel=5e-3, abs=2e-6)
    for name in ("arrivals", "completions", "rejections", "prefill_abandonments", "decode_abandonments", "preemptions"):
        assert getattr(measured, name).tolist() == [expected.count[name, i] for i in range(instance.run.classes)], name
    for row, name in enumerate(("prompt_read", "prompt_served", "output_served")):
        assert measured.tokens[row].tolist() == [expected.count[name, i] for i in range(instance.run.classes)], name

    window = max(expected.now - instance.run.warmup, 0.0)
    assert measured.window == pytest.approx(window, **CLOSE)
    if window > 0:
        assert measured.occupancy * window == pytest.approx(expected.area, rel=1e-9, abs=1e-7)
        modes = [expected.mode[name] for name in ("solo", "mixed", "prefill")]
        assert measured.mode_seconds[:3] == pytest.approx(modes, rel=1e-9, abs=1e-8)
        assert measured.mode_seconds[3] == pytest.approx(expected.kv_seconds, rel=1e-9, abs=1e-6)
    return expected


@pytest.mark.parametrize(("batching", "rule"), PLACED)
def test_placed_requests(batching: Batching, rule: Placement) -> None:
    for seed in range(SEEDS):
        agree(placed_instance(seed, batching, rule))


@pytest.mark.parametrize("policy", ["gate-and-route", "sli-aware-general", "index-and-pool", "fi-wsp"])
def test_tables_that_change_on_the_way(policy: str) -> None:
    for seed in range(SEEDS):
        agree(changing_instance(seed, policy))


@pytest.mark.parametrize("policy", list(POLICIES))
def test_policies(policy: str) -> None:
    for seed in range(SEEDS):
        agree(policy_instance(seed, policy))


def test_limits_held_by_virtual_queues() -> None:
    for seed in range(4 * SEEDS):
        agree(limited_instance(seed))
