"""The plans of a scenario, each solved once."""

from __future__ import annotations

import pytest

from fluidgate import Scenario, find_policy, plan
from fluidgate.errors import InfeasiblePlanError
from fluidgate.simulation.plans import Plans


def test_each_program_is_solved_once(two_class: Scenario) -> None:
    plans = Plans(two_class, 8)
    bundled = plans.of(find_policy("gate-and-route"))
    assert plans.of(find_policy("fi-wsp")) is bundled
    assert plans.of(find_policy("prioritize-and-route")) is not bundled
    assert plans.own() is plans.own()
    assert plans.own().objective == pytest.approx(plan(two_class, gpus=8).objective)
    assert plans.unconstrained().revenue_rate >= plans.own().revenue_rate - 1e-9
    assert plans.own_if_feasible() is plans.own()


def test_no_plan_is_none_where_only_a_report_wants_it(two_class: Scenario) -> None:
    patient = two_class.replace(
        classes=tuple(c.model_copy(update={"patience_rate": 0.0, "arrival_rate": 50.0}) for c in two_class.classes)
    )
    plans = Plans(patient, 8)
    with pytest.raises(InfeasiblePlanError):
        _ = plans.own()
    assert plans.own_if_feasible() is None
    assert plans.unconstrained_if_feasible() is None
