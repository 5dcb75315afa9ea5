"""The limits of a plan's scenario, as virtual queues hold them: the tables of `fluidgate.policies.decisions.limits`.

A class that has exceeded a limit by more than its grace starts nothing, so on average an indicator exceeds its limit by
no more than the grace over the time that has passed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluidgate.model import Array
from fluidgate.planning import Plan
from fluidgate.planning.partition import ceil_tolerant
from fluidgate.policies.decisions.tables import ANY, LIMITS, PREFILL_GAP, SAME, SLOTS, SOLO_GAP, TPOT, RouteRule, Tables
from fluidgate.policies.decisions.view import MIXED, SOLO
from fluidgate.policies.value import FREE, serves_everyone, value_index

GRACE = 10.0
"""s of an indicator at twice its limit that are borne before anybody waits; of a gap, one service if that is longer."""

LEAST_GAP = 0.1
"""Times the plan's largest occupancy: what stands for a smaller gap when its grace is found."""

LEAST_ROOM = 1e-3
"""Of a limit on TPOT: what it leaves at least above the fastest iteration when its grace is found."""

REQUESTS = 4.0
"""Requests, from the start of a service to its end, that the grace of a gap has room for at least."""

FELT = 1.03
"""Times a limit on (47), or what the plan's decodes have if that is more: the TPOT that decodes may have."""

SPREAD = 1.0
"""Standard deviations of a binomial number of prefills by which a mixed group is larger than the plan's prefills."""

IDLE = 0.5
"""Of a class's solo decodes in the plan: how many may be in a mixed group while no prompt is read beside them."""

ROOM = 0.5
"""Decode slots to be free for each prefill under way: half of those that it takes come free until it ends."""


def with_limits(tables: Tables, plan: Plan, gpus: int) -> Tables:
    """The tables with the limits of the plan's scenario, for `gpus` GPUs; the same where it has none."""
    indicators = plan.scenario.indicators
    if not (plan.indicators and indicators.any_limit):
        return tables
    limit, grace = np.full(LIMITS, np.inf), np.zeros((LIMITS, len(tables.cap)))
    if (gap := indicators.max_prefill_gap) is not None:
        limit[PREFILL_GAP] = gpus * gap
        grace[PREFILL_GAP] = _gap_grace(gpus, gap, plan.prefill, 1.0 / plan.rates.prefill)
    if (gap := indicators.max_solo_gap) is not None:
        limit[SOLO_GAP] = gpus * gap
        grace[SOLO_GAP] = _gap_grace(gpus, gap, plan.solo_decode, 1.0 / plan.rates.solo_decode)
    token_seconds = seconds_per_token(plan)
    if (most := indicators.max_tpot) is not None:
        found = TpotLimits.of(plan, most, float(token_seconds[SOLO, 0]))
        limit[[SLOTS, TPOT]] = found.slots, found.decodes
        grace[[SLOTS, TPOT]] = gpus * np.outer(found.grace, shared_grace(tables.priority))
    priority = index_within(plan, tables.priority)
    tables = tables._replace(limited=True, limit=limit, grace=grace, token_seconds=token_seconds, priority=priority)
    return kept_apart(tables, plan, gpus) if must_be_apart(plan) else tables


def index_within(plan: Plan, priority: Array) -> Array:
    """The value index with what the limits on gaps cost a class: its value over that less the price of its flow.

    Classes that the plan turns away have one below 1. As before, `priority`, where those limits have no price.
    """
    prices = [plan.indicators.get(name, {}).get("shadow_price", 0.0) for name in ("max_prefill_gap", "max_solo_gap")]
    value = plan.rates.bundled_value
    if not any(price > 0.0 for price in prices) or serves_everyone(plan) or not value.any():
        return priority
    cost = np.maximum(value - plan.flow_price, 0.0)
    scarce = cost * FREE > value
    index = np.where(scarce, value / np.where(scarce, cost, 1.0), FREE)
    return np.where(plan.served_fraction > SAME, index, np.minimum(value_index(plan), 1.0 - SAME))


@dataclass(frozen=True)
class TpotLimits:
    """Limits on TPOT, s, and their graces.

    Attributes:
        slots: on (47), all slots busy; inf where the plan has an operating point, whose TPOT is what decodes have.
        decodes: on what the decodes have.
        grace: slots, and decodes, times s, per GPU, of the class that waits first; shape (2,).
    """

    slots: float
    decodes: float
    grace: Array

    @staticmethod
    def of(plan: Plan, most: float, fastest: float) -> TpotLimits:
        """
        Args:
            most: the scenario's limit.
            fastest: of a solo iteration without decodes.
        """
        gpu = plan.scenario.gpu
        decodes = float(plan.mixed_decode.sum() + plan.solo_decode.sum())
        grace = GRACE * max(1.0 - fastest / most, LEAST_ROOM) * np.array([gpu.batch_size, max(decodes, 1.0)])
        if plan.operating_point is not None:
            return TpotLimits(math.inf, most, grace)
        if gpu.solo > most:  # they are faster beside prefills: fewer starts would slow them
            return TpotLimits(math.inf, math.inf, grace)
        output = np.array([c.output_tokens for c in plan.scenario.classes])
        tokens = float(plan.completion_rate @ output)
        return TpotLimits(most, FELT * max(most, decodes / tokens if tokens > 0.0 else 0.0), grace)


def must_be_apart(plan: Plan) -> bool:
    """Whether in one pool the solo decodes of the classes would differ by more than the limit, or TPOT be over its own.

    The plan then has classes decode beside prefills that have too many solo decodes, or keeps solo ones from prefills.
    """
    indicators, point = plan.scenario.indicators, plan.operating_point
    decodes = plan.mixed_decode + plan.solo_decode
    if indicators.max_solo_gap is not None and decodes.any():
        pooled = float(plan.solo_decode.sum() / decodes.sum() * np.ptp(decodes))
        if pooled > indicators.max_solo_gap * (1.0 + SAME):
            return True
    return indicators.max_tpot is not None and point is not None and point.pooled_tpot > indicators.max_tpot


def kept_apart(tables: Tables, plan: Plan, gpus: int) -> Tables:
    """The tables with a mixed and a solo group, each decode in that of its class."""
    return tables._replace(
        mixed_gpus=mixed_group(plan, gpus),
        reserve=True,
        route_rule=int(RouteRule.APART),
        ready=0,
        spare=-1,
        room=ROOM,
        most_buffered=ANY if plan.shadow_prices["solo_capacity"] > 0.0 else 0,
        beside=plan.mixed_decode > 0.0,
    )


def mixed_group(plan: Plan, gpus: int) -> int:
    """GPUs of the mixed group where classes are kept apart: more than the plan's prefills, whose number varies.

    But of the decodes in that group, which are solo while no prompt is read beside them, not too many.
    """
    prefills, solo, mixed = gpus * plan.mixed_fraction, plan.solo_decode, plan.mixed_decode
    spread = SPREAD * math.sqrt(prefills * max(1.0 - plan.mixed_fraction, 0.0))
    ratio = float((solo[mixed > 0.0] / mixed[mixed > 0.0]).min(initial=gpus))
    most = max(1, ceil_tolerant(prefills), round(prefills * (1.0 + IDLE * ratio)))
    ranks = plan.scenario.engine.data_parallel  # all in step, so all in one group
    return min(gpus, -(-min(most, max(1, ceil_tolerant(prefills + spread))) // ranks) * ranks)


def seconds_per_token(plan: Plan) -> Array:
    """s of an iteration with no decode, and more for each one, near the batch that runs; shape (2 groups, 2)."""
    gpu, point = plan.scenario.gpu, plan.operating_point
    if point is None:
        return np.array([[gpu.tau, 0.0], [gpu.solo, 0.0]])
    time, context, lines = gpu.iteration, gpu.context_tokens, np.zeros((2, 2))
    lines[MIXED] = _line(lambda b: time.mixed(gpu.chunk_size, b, b * context), point.decodes, point.mixed_iteration)
    lines[SOLO] = _line(lambda b: time.solo(b, b * context), point.decodes, point.solo_iteration)
    return lines


def at_speeds(tables: Tables, mixed: float, solo: float) -> Tables:
    """The tables where every decode makes `mixed` tokens/s beside a prefill and `solo` elsewhere, whatever the batch.

    A limit on TPOT below what solo decodes have is out of reach there and left out.
    """
    if not tables.limited:
        return tables
    limit = tables.limit.copy()
    if limit[TPOT] < 1.0 / solo:
        limit[TPOT] = np.inf
    return tables._replace(limit=limit, token_seconds=np.array([[1.0 / mixed, 0.0], [1.0 / solo, 0.0]]))


def shared_grace(priority: Array) -> Array:
    """Shares of a grace where all classes exceed one limit: 1 for the least index, which waits first, up to 2."""
    highest = float(priority.max())
    levels = np.round(priority / highest / SAME) if highest > 0.0 else np.zeros(len(priority))
    rank: NDArray[np.int64] = np.unique(levels, return_inverse=True)[1]
    return np.asarray(1.0 + rank / max(int(rank.max()), 1), dtype=np.float64)


def _line(seconds: Callable[[float], float], decodes: float, there: float | None) -> tuple[float, float]:
    """Height at 0 and slope of the tangent of `seconds` at `decodes`, through `there` if that is known."""
    slope = max(seconds(decodes + 1.0) - seconds(decodes), 0.0)
    height = seconds(decodes) if there is None else there
    return max(height - slope * decodes, 0.1 * height), slope


def _gap_grace(gpus: int, gap: float, occupancy: Array, seconds: Array) -> float:
    """Requests times s; `seconds` of the service in which they are counted, shape (classes,)."""
    longest = float(seconds.max())
    return max(max(GRACE, longest) * gpus * max(gap, LEAST_GAP * float(occupancy.max())), REQUESTS * longest)
