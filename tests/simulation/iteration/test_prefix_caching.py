"""The kernels with prefix caching and sessions against the stepped reference: request by request, hit by hit."""

from __future__ import annotations

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

SINGLE = ["gate-and-route", "sli-aware-general", "index-and-pool", "fi-wsp", "fg-sp"]


def looped(instance: Instance, seed: int) -> Instance:
    """Its sessions begun by users, one after the other."""
    return closed_instance(alike(instance, seed, followed=True), seed)


@pytest.mark.parametrize(("batching", "rule"), PLACED)
def test_placed_requests_that_begin_alike(batching: Batching, rule: Placement) -> None:
    for seed in range(SEEDS):
        agree(alike(placed_instance(seed, batching, rule), seed, followed=False))


@pytest.mark.parametrize(("batching", "rule"), PLACED)
def test_placed_sessions(batching: Batching, rule: Placement) -> None:
    for seed in range(SEEDS):
        agree(alike(placed_instance(seed, batching, rule), seed, followed=True))


@pytest.mark.parametrize(("batching", "rule"), PLACED)
def test_sessions_of_users(batching: Batching, rule: Placement) -> None:
    for seed in range(SEEDS):
        agree(looped(placed_instance(seed, batching, rule), seed))


@pytest.mark.parametrize(("batching", "rule"), PLACED)
def test_sessions_without_a_cache(batching: Batching, rule: Placement) -> None:
    for seed in range(SEEDS // 3):
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
        agree(alike(changing_instance(seed, policy), seed, followed=True))


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


def test_what_further_seeds_have_shown() -> None:
    """Each told a kernel and the reference apart once."""
    for policy, seeds in (("index-and-pool", (12, 23, 28)), ("fi-wsp", (46,))):
        for seed in seeds:  # who waits for other tables when all else has ended
            agree(alike(changing_instance(seed, policy), seed, followed=True))
    for followed in (False, True):  # who came late stands behind another, and two GPUs wait for each other's memory
        agree(alike(placed_instance(21, Batching.TOKEN_BUDGET, Placement.POOLS), 21, followed=followed))
    for seed in (26, 43):  # KV swapped under a limit on the pace, which holds for iterations that are alike
        agree(alike(limited_instance(seed), seed, followed=False))
    rule = Placement.PRECISE  # with more context an iteration takes less, far beyond the batches of a table
    agree(alike(placed_instance(29, Batching.PREFILL_FIRST, rule), 29, followed=False))
    measured = placed_instance(6, Batching.PREFILL_FIRST, Placement.CACHE_AWARE)  # a prompt far beyond its chunks
    agree(closed_instance(alike(measured, 6, followed=True, cached=False), 6))
