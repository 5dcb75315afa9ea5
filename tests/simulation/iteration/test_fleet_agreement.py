"""GPUs that fail, are drained and come back, against the reference that steps every iteration."""

from __future__ import annotations

import pytest

from fluidgate.batching import Batching
from fluidgate.simulation.iteration.kernel.cluster import Placement
from tests.simulation.iteration.instances import (
    changing_instance,
    closed_instance,
    fleet_instance,
    gated_instance,
    in_step,
    limited_instance,
    placed_instance,
    policy_instance,
)
from tests.simulation.iteration.prefix_instances import alike
from tests.simulation.iteration.test_agreement import PLACED, SEEDS, agree


@pytest.mark.parametrize(("batching", "rule"), [(b, rule) for b, rule in PLACED if rule != Placement.POOLS])
def test_placed_requests(batching: Batching, rule: Placement) -> None:
    lost = 0
    for seed in range(SEEDS):
        expected = agree(fleet_instance(placed_instance(seed, batching, rule), seed))
        lost += sum(expected.count["losses", i] for i in range(expected.classes))
    assert lost > 0


@pytest.mark.parametrize("policy", ["gate-and-route", "index-and-pool", "sli-aware-general", "fi-wsp"])
def test_policies(policy: str) -> None:
    lost = 0
    for seed in range(SEEDS):
        expected = agree(fleet_instance(policy_instance(seed, policy), seed))
        lost += sum(expected.count["losses", i] for i in range(expected.classes))
    assert lost > 0


@pytest.mark.parametrize("batching", [Batching.TOKEN_BUDGET, Batching.PREFILL_FIRST])
@pytest.mark.parametrize("policy", ["index-and-pool", "fi-wsp"])
def test_a_gate(policy: str, batching: Batching) -> None:
    for seed in range(SEEDS):
        agree(fleet_instance(gated_instance(seed, policy, batching), seed))


def test_tables_that_change_too() -> None:
    for seed in range(SEEDS):
        agree(fleet_instance(changing_instance(seed, "gate-and-route"), seed))


def test_limits() -> None:
    for seed in range(SEEDS):
        agree(fleet_instance(limited_instance(seed), seed))


def test_ranks_in_step() -> None:
    for seed in range(SEEDS):
        agree(fleet_instance(in_step(policy_instance(seed, "index-and-pool"), 2 + seed % 2), seed))
        placed = placed_instance(seed, Batching.TOKEN_BUDGET, Placement.LEAST_LOADED)
        agree(fleet_instance(in_step(placed, 2 + seed % 2), seed))


def test_users_who_wait_for_answers() -> None:
    for seed in range(SEEDS // 2):
        for instance in (
            policy_instance(seed, "index-and-pool"),
            gated_instance(seed, "index-and-pool", Batching.TOKEN_BUDGET),
            placed_instance(seed, Batching.TOKEN_BUDGET, Placement.LEAST_LOADED),
        ):
            agree(fleet_instance(closed_instance(instance, seed), seed))


@pytest.mark.parametrize(("batching", "rule"), [(b, rule) for b, rule in PLACED if rule != Placement.POOLS])
def test_placed_requests_that_begin_alike(batching: Batching, rule: Placement) -> None:
    for seed in range(SEEDS):
        agree(fleet_instance(alike(placed_instance(seed, batching, rule), seed, followed=seed % 2 == 0), seed))


@pytest.mark.parametrize("policy", ["gate-and-route", "index-and-pool", "sli-aware-general", "fi-wsp"])
def test_policies_and_requests_that_begin_alike(policy: str) -> None:
    for seed in range(SEEDS):
        agree(fleet_instance(alike(policy_instance(seed, policy), seed, followed=seed % 2 == 0), seed))


@pytest.mark.parametrize("policy", ["index-and-pool", "fi-wsp"])
def test_a_gate_before_gpus_that_cache(policy: str) -> None:
    for seed in range(SEEDS):
        gated = gated_instance(seed, policy, Batching.TOKEN_BUDGET)
        agree(fleet_instance(alike(gated, seed, followed=seed % 2 == 0, limited=False), seed))


def test_ranks_in_step_and_users_with_prompts_that_begin_alike() -> None:
    for seed in range(SEEDS):
        placed = alike(placed_instance(seed, Batching.TOKEN_BUDGET, Placement.LMETRIC), seed, followed=seed % 2 == 0)
        agree(fleet_instance(in_step(placed, 2 + seed % 2), seed))
        agree(fleet_instance(closed_instance(placed, seed), seed))
