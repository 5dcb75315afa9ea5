"""How a plan followed the load, from the looks of several replications."""

from __future__ import annotations

import numpy as np
import pytest

from fluidgate import find_policy, plan
from fluidgate.replanning import ReplannedPolicy, Replanner, Replanning, Timetable
from fluidgate.simulation.iteration.plan_path import PlanPath
from fluidgate.simulation.iteration.replanned import Look, Replanned
from tests.scenarios import two_class_scenario

GPUS = 10


def run_of(groups: list[int], solved: int) -> Replanned:
    """Looks every 2 s with so many mixed GPUs, and one more wanted."""
    best = plan(two_class_scenario(), gpus=GPUS)
    counts = np.zeros((6, 2), np.int64)
    looks = []
    for k, gpus in enumerate(groups):
        held = counts.copy()
        held[:] = gpus
        looks.append(Look(2.0 * (k + 1), None, best, gpus + 1, gpus, held, np.zeros((3, 2), np.int64)))
    return Replanned(None, tuple(looks), solved, solved - 1, 1)  # type: ignore[arg-type]


def test_paths_are_means_for_as_long_as_all_go_on() -> None:
    path = PlanPath.of(Replanning(), GPUS, [run_of([1, 2, 3], 5), run_of([3, 4], 7)])
    assert path.time.tolist() == [2.0, 4.0]
    assert path.mixed_gpus.tolist() == [2.0, 3.0]
    assert path.mixed_target.tolist() == [3.0, 4.0]
    assert path.reading.tolist() == [4.0, 6.0], "of both classes"
    best = plan(two_class_scenario(), gpus=GPUS)
    assert path.mixed_planned == pytest.approx([GPUS * best.mixed_fraction] * 2)
    for stage in ("prefill", "prefill_queue", "mixed_decode", "solo_decode", "decode_queue"):
        assert getattr(path.targets, stage) == pytest.approx(np.stack([getattr(best, stage)] * 2))
    assert (path.solved.mean, path.changed.mean, path.kept.mean) == (6.0, 5.0, 1.0)


def test_a_control_says_which_plan_is_in_force() -> None:
    scenario = two_class_scenario()
    other = scenario.replace(
        classes=tuple(c.model_copy(update={"arrival_rate": 2.0 * c.arrival_rate}) for c in scenario.classes)
    )
    table = Timetable([(0.0, scenario), (5.0, scenario), (10.0, other)], find_policy("gate-and-route"), GPUS)
    first = table.plan
    table.look(5.0)
    assert table.plan is first
    table.look(10.0)
    assert table.plan.mixed_fraction > first.mixed_fraction
    replanner = Replanner(scenario, find_policy("gate-and-route"), GPUS, Replanning(period=20.0))
    for k in range(80):
        replanner.estimator.arrived(1, 0.1 * k)
        replanner.estimator.arrived(1, 0.1 * k + 0.05)
    solved = replanner.look(8.0)
    assert solved is not None
    assert solved.changed
    assert (replanner.solved, replanner.changed) == (1, 1)
    assert replanner.plan.mixed_fraction > first.mixed_fraction


def test_a_replanned_policy_makes_tables_in_a_worker_too() -> None:
    policy = find_policy("gate-and-route")
    sent = ReplannedPolicy(policy).for_worker()
    assert sent.name == "gate-and-route+replan"
    best = plan(two_class_scenario(), gpus=GPUS)
    assert sent.policy.tabulate(best, GPUS).mixed_gpus == policy.tabulate(best, GPUS).mixed_gpus
