"""What the theory of tails does not see, or is not good at."""

from __future__ import annotations

from collections.abc import Iterator

from fluidgate.batching import Batching
from fluidgate.model import Scenario
from fluidgate.policies import Policy
from fluidgate.tails.discipline import IN_TURN, Discipline
from fluidgate.tails.operating import Engine, Operating

NEAR = 0.9
"""Share of what can be served beyond which queues are hard to predict."""
_HIGH = 0.8
_POOLED = ("index-and-pool", "fi-wsp")
"""Policies with one line before a pool."""


def doubts_of(
    scenario: Scenario, discipline: Discipline, engine: Engine, point: Operating, near: bool
) -> tuple[str, ...]:
    """A sentence each; `near`: whether the load is beyond NEAR of what can be served."""
    return tuple(_of_load(engine, point, near)) + tuple(_of_scenario(scenario, discipline))


def _of_load(engine: Engine, point: Operating, near: bool) -> Iterator[str]:
    if not point.stable:
        yield "more arrives than can be served: waits grow for ever, or until requests leave"
        return
    if near:
        yield f"the load is beyond {100 * NEAR:.0f} % of what can be served: waits are uncertain, by a half or more"
    if point.slots > _HIGH:
        yield f"decodes take {100 * point.slots:.0f} % of the slots: how long requests wait for one is uncertain"
    if engine.most < engine.batch_size and point.slots > 0.7:
        yield "the KV memory is full before the batch: preemptions and waits for memory are not in these times"


def _of_scenario(scenario: Scenario, discipline: Discipline) -> Iterator[str]:
    if scenario.arrivals.process in ("mmpp", "daily"):
        yield f"{scenario.arrivals.process} arrivals: each phase is taken as if it stood, with the fluid beyond it"
    if scenario.has_sessions:
        yield "requests of a session come one after the other: they are taken as coming independently"
    if scenario.engine.prefix_caching:
        yield "prompts are read at the classes' mean hit rates; what one request finds varies"
    if scenario.has_fleet:
        yield "GPUs that fail, or are scheduled, are not seen: all are up all the time"
    if any(c.patience_rate for c in scenario.classes):
        yield "requests that leave while they wait are not seen: waits are those where all stay"
    deadlines = {t for t in scenario.ttft_targets if t is not None}
    if isinstance(discipline.policy, Policy) and len(deadlines) > 1:
        yield "the earliest deadline starts first: waits are those of first come, first served"
    if scenario.engine.transfer_latency or scenario.engine.transfer_bandwidth:
        yield "the time that KV takes to another GPU is not seen"
    if scenario.engine.data_parallel > 1:
        yield "ranks that step together wait for the longest of them: seen for chunks alone"
    yield from _of_policy(discipline)


def _of_policy(discipline: Discipline) -> Iterator[str]:
    policy, batching = discipline.policy, discipline.batching
    if policy is None:
        return
    if isinstance(policy, Policy) and policy.name not in _POOLED and policy.base not in _POOLED:
        yield f"{policy.name} is taken as one line before a pool, first come, first served"
    if discipline.placement is not None and discipline.placement not in IN_TURN:
        yield f"placement by {discipline.placement} is taken as by chance"
    elif discipline.placement not in (None, "round-robin"):
        yield f"placement by {discipline.placement} is taken as in turn"
    if batching == Batching.LAST_SCHEDULABLE:
        yield "decodes that are put off until their deadline are not seen: taken as a token budget"
    if discipline.placement == "pools":
        yield "pools of GPUs for prompts and for decodes are not seen"
