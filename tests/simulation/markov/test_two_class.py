"""The two-class instance of [LDHZ] section 6.2 at scale: where the printed policy lands."""

from __future__ import annotations

import pytest

from fluidgate import Scenario, compare, plan, simulate


@pytest.mark.parametrize(("gpus", "horizon", "ratio"), [(20, 10_000, 0.960), (50, 10_000, 0.970), (500, 2_000, 0.975)])
def test_gate_and_route_as_printed(two_class: Scenario, gpus: int, horizon: float, ratio: float) -> None:
    result = simulate(two_class, "gate-and-route", gpus=gpus, horizon=horizon, replications=5)
    assert result.optimality_ratio.mean == pytest.approx(ratio, abs=0.004)


def test_sli_aware_approaches_the_plan_class_by_class(two_class: Scenario) -> None:
    """Theorem 5.1: all occupancies converge to the plan's; those of gate-and-route do not, class by class."""
    target = plan(two_class, allow_decode_buffer=False)

    def distance(policy: str, gpus: int) -> float:
        result = simulate(two_class, policy, gpus=gpus, horizon=600, warmup=200, replications=2)
        return max(
            abs(value / aim - 1)
            for k, seen in enumerate(result.classes)
            for value, aim in (
                (seen.mixed_decode.mean or 0.0, target.mixed_decode[k]),
                (seen.solo_decode.mean or 0.0, target.solo_decode[k]),
            )
        )

    near, far = distance("sli-aware", 4000), distance("sli-aware", 50)
    assert near < 0.04 < far


def test_paired_differences_are_sharper_than_their_parts(two_class: Scenario) -> None:
    result = compare(two_class, ["gate-and-route", "capped-gate-and-route"], gpus=20, horizon=3000, replications=8)
    difference = result.paired[0].revenue_difference
    parts = [p.revenue_rate for p in result.policies]
    assert difference.std is not None
    assert difference.std < sum(p.std or 0.0 for p in parts)
    assert difference.mean == pytest.approx((parts[1].mean or 0.0) - (parts[0].mean or 0.0))
