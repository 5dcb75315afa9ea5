"""The oracles against closed forms, against conservation laws, and against the plain-Python event loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from . import event_loop
from .closed_forms import erlang_a, erlang_b, erlang_c, mg1_queue, mmc
from .network import POLICIES, ROUTED, SIDED, Network
from .stationary import Stationary, solve
from .tiny import TINY_SYSTEMS, TinySystem

SMALL = [s for s in TINY_SYSTEMS if not s.large]


def system(policy: str, **given: Any) -> Network:
    """A network of one class, but for what is given."""
    rates = {
        "gpus": 1, "batch": 2, "mixed": 1,
        "arrival": (0.9,), "patience": (0.6,),
        "prefill": (2.0,), "mixed_decode": (0.5,), "solo_decode": (1.0,),
        "prefill_target": (0.4,), "queue_target": (0.0,), "queue_limit": 16, "buffer_limit": 12,
        "priority": (1.0,), "to_solo": (0.4,), "mixed_weight": (1.0,), "solo_weight": (1.0,),
    }  # fmt: skip
    return Network(policy, **(rates | given))


# ---- closed forms among themselves


def test_erlang_formulas_agree_with_the_definition():
    load, servers = 3.2, 5
    weights = np.cumprod([1.0] + [load / k for k in range(1, servers + 1)])
    assert erlang_b(load, servers) == pytest.approx(weights[-1] / weights.sum(), rel=1e-10)
    tail = weights[-1] * servers / (servers - load)
    assert erlang_c(load, servers) == pytest.approx(tail / (weights[:-1].sum() + tail), rel=1e-10)
    one = mmc(0.7, 1.0, 1)
    assert one.queue == pytest.approx(0.49 / 0.3)
    assert one.wait == pytest.approx(0.7 / 0.3)


def test_erlang_a_agrees_with_its_special_cases():
    # theta = mu: the number present is that of M/M/infinity, Poisson.
    station = erlang_a(4.0, 1.0, 3, 1.0)
    assert station.queue + station.busy == pytest.approx(4.0, rel=1e-10)
    # theta -> 0: M/M/c, its wait included.
    patient, limit = mmc(2.0, 1.0, 3), erlang_a(2.0, 1.0, 3, 1e-9)
    assert limit.queue == pytest.approx(patient.queue, rel=1e-6)
    assert limit.wait == pytest.approx(patient.wait, rel=1e-6)
    # Flow balance; a large station.
    big = erlang_a(1040.0, 1.0, 1000, 0.05)
    assert big.throughput + big.abandonment_rate == pytest.approx(1040.0, rel=1e-10)
    # Under overload the queue is that of the fluid limit.
    assert big.queue == pytest.approx(40 / 0.05, rel=1e-3)


# ---- the network against closed forms


@pytest.mark.parametrize("policy", sorted(ROUTED | SIDED))
@pytest.mark.parametrize(("gpus", "mixed"), [(1, 1), (2, 1), (2, 2), (3, 2)])
def test_prefill_stage_of_a_partition_is_erlang_a(policy, gpus, mixed):
    given = {"buffer_limit": 1, "prefill_target": (mixed / gpus,), "arrival": (0.9 * mixed / gpus,)}
    solved = solve(system(policy, gpus=gpus, mixed=mixed, **given))
    station = erlang_a(0.9 * mixed, 2.0, mixed, 0.6)
    assert solved.prefill_queue[0] * gpus == pytest.approx(station.queue, rel=1e-8)
    assert solved.prefill[0] * gpus == pytest.approx(station.busy, rel=1e-8)
    assert solved.prefill_completion_rate[0] * gpus == pytest.approx(station.throughput, rel=1e-8)
    assert solved.prefill_abandonment_rate[0] * gpus == pytest.approx(station.abandonment_rate, rel=1e-8)


@pytest.mark.parametrize("policy", sorted(ROUTED))
def test_tandem_without_contention_is_two_mmc_stations(policy):
    # Nobody leaves and kappa = 1: by Burke's theorem the decodes are M/M/c with c = M (B-1) + (n - M) B.
    solved = solve(
        system(
            policy,
            gpus=2,
            mixed=1,
            batch=2,
            arrival=(0.4,),
            patience=(0.0,),
            mixed_decode=(0.6,),
            solo_decode=(0.6,),
            queue_limit=26,
            buffer_limit=36,
        )
    )
    first, second = mmc(0.8, 2.0, 1), mmc(0.8, 0.6, 3)
    assert 2 * solved.prefill_queue[0] == pytest.approx(first.queue, rel=1e-7)
    assert 2 * solved.decode_queue[0] == pytest.approx(second.queue, rel=1e-7)
    assert 2 * (solved.mixed_decode + solved.solo_decode)[0] == pytest.approx(second.busy, rel=1e-8)
    assert solved.ttft[0] == pytest.approx(first.wait + 1 / 2.0, rel=1e-7)
    assert solved.time_in_buffer[0] == pytest.approx(second.wait, rel=1e-7)


@pytest.mark.parametrize("policy", sorted(SIDED))
def test_sides_are_stations_of_their_own(policy):
    # A Poisson stream split by p_s: the solo side is M/M/B with mu_s whatever kappa, here with the mixed
    # side empty...
    base = {
        "gpus": 2,
        "mixed": 1,
        "arrival": (0.4,),
        "patience": (0.0,),
        "queue_limit": 24,
        "buffer_limit": 24,
    }
    solved = solve(system(policy, to_solo=(1.0,), **base))
    side = mmc(0.8, 1.0, 2)
    assert 2 * solved.decode_queue[0] == pytest.approx(side.queue, rel=1e-6)
    assert 2 * solved.solo_decode[0] == pytest.approx(side.busy, rel=1e-7)
    assert solved.mixed_decode[0] == 0
    # ... and without contention the two sides are M/M/B and M/M/(B-1), independent.
    base["arrival"], base["queue_limit"], base["buffer_limit"] = (0.2,), 8, 14
    solved = solve(system(policy, to_solo=(0.6,), mixed_decode=(1.0,), **base))
    queue = mmc(0.24, 1.0, 2).queue + mmc(0.16, 1.0, 1).queue
    assert 2 * solved.decode_queue[0] == pytest.approx(queue, rel=1e-5)


def test_decodes_beside_a_busy_prefill_run_at_the_mixed_speed():
    # The prefill slot is never idle: the B-1 decode slots are an M/M/(B-1)+M station with mu_m.
    solved = solve(
        system(
            "gate-and-route",
            batch=3,
            arrival=(60.0,),
            patience=(4.0,),
            prefill=(2.0,),
            mixed_decode=(0.7,),
            solo_decode=(50.0,),
            queue_limit=45,
            buffer_limit=12,
        )
    )
    station = erlang_a(2.0, 0.7, 2, 4.0)
    assert solved.prefill[0] == pytest.approx(1.0, abs=1e-4)
    assert solved.mixed_decode[0] == pytest.approx(station.busy, rel=1e-3)
    assert solved.decode_abandonment_rate[0] == pytest.approx(station.abandonment_rate, rel=1e-3)


def test_coupled_single_slot_is_mg1():
    # B = 1: prefill, then decode alone on the GPU, is one service of two exponential phases.
    mu_p, mu_s, arrival = 2.0, 1.0, 0.4
    for policy in ("fi-wsp", "gi-wsp", "gi-wsp-uncapped"):
        solved = solve(system(policy, batch=1, arrival=(arrival,), patience=(0.0,), queue_limit=90))
        mean = 1 / mu_p + 1 / mu_s
        second = 1 / mu_p**2 + 1 / mu_s**2 + mean**2
        assert solved.prefill_queue[0] == pytest.approx(mg1_queue(arrival, mean, second), rel=1e-7)
        assert solved.solo_decode[0] == pytest.approx(arrival / mu_s, rel=1e-8)


@pytest.mark.parametrize("policy", ["fi-wsp", "gi-wsp-uncapped", "gf-wsp-uncapped"])
def test_tiny_prompts_without_partition_are_erlang_a(policy):
    # Prefills take no time: n B decode slots at the solo speed. Where prefills go before decodes (GF), they
    # go through whenever a slot frees, and the queue is in the decode buffer.
    solved = solve(system(policy, gpus=2, arrival=(1.6,), prefill=(1e7,), queue_limit=22, buffer_limit=22))
    station = erlang_a(3.2, 1.0, 4, 0.6)
    queue = solved.prefill_queue[0] + solved.decode_queue[0]
    assert 2 * queue == pytest.approx(station.queue, rel=1e-5)
    assert 2 * solved.solo_decode[0] == pytest.approx(station.busy, rel=1e-5)


@pytest.mark.parametrize("policy", ["fi-wsp", "gi-wsp", "gf-wsp"])
@pytest.mark.parametrize("cap", [1, 2, 3])
def test_tiny_answers_without_partition_are_erlang_a(policy, cap):
    # Decodes take no time: one prefill a GPU, at most M in all where there is a cap.
    solved = solve(
        system(policy, gpus=3, mixed=cap, mixed_decode=(1e7,), solo_decode=(1e7,), queue_limit=24, buffer_limit=3)
    )
    station = erlang_a(2.7, 2.0, 3 if policy == "fi-wsp" else cap, 0.6)
    assert 3 * solved.prefill_queue[0] == pytest.approx(station.queue, rel=1e-5)
    assert 3 * solved.prefill[0] == pytest.approx(station.busy, rel=1e-5)


def test_priority_gate_is_cobhams():
    # M/M/1 with two non-preemptive priorities: W_1 = R/(1 - rho_1), W_2 = R/((1 - rho_1)(1 - rho)).
    lam, mu = np.array([0.5, 0.4]), 2.0
    solved = solve(
        system(
            "prioritize-and-route",
            batch=2,
            arrival=tuple(lam),
            patience=(0.0, 0.0),
            prefill=(mu, mu),
            mixed_decode=(9.0, 9.0),
            solo_decode=(9.0, 9.0),
            prefill_target=(0.2, 0.2),
            queue_target=(0.0, 0.0),
            priority=(0.1, 0.3),
            queue_limit=30,
            buffer_limit=0,
        )
    )
    left_over = lam.sum() / mu**2
    rho = lam / mu
    first = left_over / (1 - rho[1])
    second = first / (1 - rho.sum())
    assert solved.prefill_queue[1] == pytest.approx(lam[1] * first, rel=1e-6)
    assert solved.prefill_queue[0] == pytest.approx(lam[0] * second, rel=1e-6)


# ---- the network against itself


@pytest.mark.parametrize("policy", POLICIES)
def test_two_equal_classes_are_one(policy):
    def doubled(values: dict[str, Any]) -> dict[str, Any]:
        return {k: v * 2 if isinstance(v, tuple) else v for k, v in values.items()}

    # At most 2 wait at each place: truncation depends on totals only, hence is the same on both sides.
    common = {
        "gpus": 2, "mixed": 1, "queue_limit": 2, "buffer_limit": 2, "patience": (0.6,), "prefill": (2.0,),
        "mixed_decode": (0.5,), "solo_decode": (1.0,), "priority": (1.0,), "to_solo": (0.4,),
        "mixed_weight": (1.0,), "solo_weight": (0.0,), "queue_target": (0.1,),
    }  # fmt: skip
    one = solve(system(policy, arrival=(0.9,), prefill_target=(0.4,), **common))
    target = (0.6, 0.6) if policy == "capped-gate-and-route" else (0.2, 0.2)  # its caps must not bind
    two = solve(system(policy, arrival=(0.3, 0.6), prefill_target=target, **doubled(common)))
    for quantity in ("prefill", "mixed_decode", "solo_decode", "prefill_queue", "decode_queue"):
        assert getattr(two, quantity).sum() == pytest.approx(getattr(one, quantity)[0], rel=1e-9), quantity


def test_policies_that_differ_only_in_choice_agree_for_one_class():
    def revenue(policy: str) -> float:
        return next(s for s in SMALL if s.name == f"{policy}/n2-one-class").solve().revenue_bundled

    for same in (["gate-and-route", "capped-gate-and-route", "prioritize-and-route", "fg-sp"],
                 ["fi-wsp", "gi-wsp-uncapped"], ["sli-aware", "sli-aware-general"]):  # fmt: skip
        assert [revenue(p) for p in same] == pytest.approx([revenue(same[0])] * len(same), rel=1e-9)
    values = [revenue(p) for p in ("gate-and-route", "fi-wsp", "gi-wsp", "gf-wsp", "gf-wsp-uncapped", "sli-aware")]
    assert min(abs(np.diff(sorted(values)))) > 1e-3


def test_sweeps_agree_with_elimination(monkeypatch):
    from . import stationary

    network = replace(SMALL[0].network, queue_limit=5, buffer_limit=5)
    direct = solve(network)
    original = stationary.stationary_vector
    monkeypatch.setattr(stationary, "stationary_vector", lambda g: original(g, direct_up_to=0))
    swept = solve(network)
    for state, p in direct.distribution.items():
        assert swept.distribution[state] == pytest.approx(p, rel=1e-9, abs=1e-15)


def conserves(network: Network, solved: Stationary) -> None:
    """Flow balance of every class, and event rates from occupancies."""
    close = {"rel": 1e-9, "abs": 1e-12}
    prefills, decodes = solved.prefill_completion_rate, solved.completion_rate
    assert solved.arrival_rate == pytest.approx(prefills + solved.prefill_abandonment_rate, **close)
    overflow = solved.lost_rate - (np.array(network.arrival) - solved.arrival_rate)
    assert prefills == pytest.approx(decodes + solved.decode_abandonment_rate + overflow, **close)
    assert prefills == pytest.approx(np.array(network.prefill) * solved.prefill, **close)
    speed_m, speed_s = np.array(network.mixed_decode), np.array(network.solo_decode)
    assert decodes == pytest.approx(speed_m * solved.mixed_decode + speed_s * solved.solo_decode, **close)
    patience = np.array(network.patience)
    assert solved.prefill_abandonment_rate == pytest.approx(patience * solved.prefill_queue, **close)
    assert solved.decode_abandonment_rate == pytest.approx(patience * solved.decode_queue, **close)
    assert sum(solved.distribution.values()) == pytest.approx(1.0, abs=1e-10)


@pytest.mark.parametrize("tiny", SMALL, ids=lambda s: s.name)
def test_tiny_systems_conserve_flow(tiny: TinySystem):
    solved = tiny.solve()
    assert solved.truncation < 1e-6
    assert solved.states <= 8_000
    conserves(tiny.network, solved)
    # Capacity, state by state: (12)-(14), and nobody waits for what is free.
    network = tiny.network
    for state in list(solved.distribution)[::4]:
        used = [sum(g.decodes) + (g.prefill >= 0) for g in state.gpus]
        assert max(used) <= network.batch
        if network.partitioned:
            assert max(sum(g.decodes) for g in state.gpus) <= network.batch - 1
            assert sum(state.pool) <= network.pool_slots
        assert network.prefill_decision(state) is None
        assert network.decode_decision(state) is None


def test_there_is_a_tiny_system_for_every_policy():
    for gpus in (1, 2):
        assert {s.policy for s in TINY_SYSTEMS if s.gpus == gpus} == set(POLICIES)
    assert len({s.name for s in TINY_SYSTEMS}) == len(TINY_SYSTEMS)


# ---- the network against the event loop


REPLICATIONS = 25
COMPARED = (
    "gate-and-route/n1-two-class",
    "capped-gate-and-route/n4-m3",
    "prioritize-and-route/n1-two-class",
    "sli-aware/n2-one-class",
    "sli-aware-general/n2-zero-weight",
    "fi-wsp/n2-two-class",
    "gi-wsp/n1-heavy-no-target",
    "gi-wsp-uncapped/n4-m3-single-slot",
    "gf-wsp/n2-one-class",
    "gf-wsp-uncapped/n1-one-class",
    "fg-sp/n2-one-class",
)
SHARED_STATISTICS = (
    "prefill",
    "mixed_decode",
    "solo_decode",
    "prefill_queue",
    "decode_queue",
    "arrival_rate",
    "prefill_completion_rate",
    "completion_rate",
    "prefill_abandonment_rate",
    "decode_abandonment_rate",
)


@pytest.mark.parametrize("name", COMPARED)
def test_event_loop_agrees(name):
    tiny = next(s for s in TINY_SYSTEMS if s.name == name)
    exact = tiny.solve()
    seen = [
        event_loop.run(
            tiny.scenario,
            tiny.policy,
            tiny.prefill,
            tiny.queue,
            tiny.mixed_decode,
            tiny.solo_decode,
            gpus=tiny.gpus,
            horizon=1000.0 / tiny.gpus,
            warmup=25.0,
            seed=seed,
        )
        for seed in range(REPLICATIONS)
    ]
    for quantity in SHARED_STATISTICS:
        values = np.array([getattr(run, quantity) for run in seen])
        error = values.std(axis=0, ddof=1) / np.sqrt(REPLICATIONS)
        # Some 20 numbers a system, Student's t with 24 degrees of freedom: beyond 5 errors is no accident.
        assert (np.abs(values.mean(axis=0) - getattr(exact, quantity)) <= 5 * error + 1e-9).all(), quantity
