"""Trunk reservation: what a cluster of n GPUs keeps free for the requests that are worth more.

In the fluid limit a slot has one price. On a finite cluster its price depends on how many slots are free, since a
request of high index that finds none must wait, and may leave. A birth-death process of the occupied slots says how
many to keep. (Thresholds are optimal in the loss system with equal service times: Miller, "A queueing reward system
with several customer classes", Management Science 16, 1969.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluidgate.model import Array
from fluidgate.planning import Plan
from fluidgate.policies.decisions.tables import SAME
from fluidgate.policies.value import FREE, binding, is_binding, serves_everyone, value_index

GAIN = 1e-6
"""Relative gain in revenue below which one slot more is not kept."""

MOST_READY = 1000
"""GPUs kept for prefills at most."""


def trunk_reservation(plan: Plan, gpus: int) -> NDArray[np.int64]:
    """How many slots of the cluster must stay free after class i starts, int64, shape (classes,).

    0 where the plan serves everyone, and for the class of the largest index. For class j, those of larger index are
    lumped into one; the number is where the revenue of the two, `birth_death_revenue`, stops rising.
    """
    index, time = value_index(plan), slot_time(plan)
    rates = plan.rates
    arrival = gpus * rates.arrival
    slots = max(1, math.floor(gpus * plan.slots))
    hold = np.zeros(len(index), dtype=np.int64)
    if serves_everyone(plan):
        return hold
    for j in range(len(index)):
        above = index > index[j] * (1.0 + SAME)
        if index[j] == FREE or not above.any():
            continue
        work = arrival * time
        mean_time = (work[above].sum() + work[j]) / (arrival[above].sum() + arrival[j])
        patience = float((arrival * rates.patience)[above].sum() / arrival[above].sum())
        streams = Streams(
            high=float(work[above].sum() / mean_time),
            low=float(work[j] / mean_time),
            value=float((work * np.minimum(index, FREE))[above].sum() / work[above].sum() / index[j]),
            time=float(mean_time),
            patience=patience,
        )
        hold[j] = best_hold(streams, slots)
    return hold


def slot_time(plan: Plan) -> Array:
    """How long a request holds a slot, prefill and decode at the plan's mix of speeds, s, shape (classes,)."""
    rates = plan.rates
    mixed, solo = float(plan.mixed_decode.sum()), float(plan.solo_decode.sum())
    share = mixed / (mixed + solo) if mixed + solo > 0.0 else 0.0
    time: Array = 1.0 / rates.prefill + 1.0 / (share * rates.mixed_decode + (1.0 - share) * rates.solo_decode)
    return time


@dataclass(frozen=True)
class Streams:
    """Two streams of requests for the same slots, each request one slot for an exponential time.

    Attributes:
        high, low: arrivals, 1/s.
        value: what a request of the high stream earns, one of the low stream earning 1.
        time: mean time in the slot, s.
        patience: rate at which a waiting request of the high stream leaves, 1/s.
    """

    high: float
    low: float
    value: float
    time: float
    patience: float


def best_hold(streams: Streams, slots: int) -> int:
    """The number of slots kept free for the high stream, under `slots`."""
    hold, revenue = 0, birth_death_revenue(streams, slots, 0)
    while hold < slots - 1:
        more = birth_death_revenue(streams, slots, hold + 1)
        if more <= revenue * (1.0 + GAIN):
            break
        hold, revenue = hold + 1, more
    return hold


def birth_death_revenue(streams: Streams, slots: int, hold: int) -> float:
    """Revenue per second where the low stream is served only while more than `hold` slots are free, and is lost
    otherwise; the high stream waits and leaves.

    The state is the number of requests in service and of waiting high ones.
    """
    room = waiting_room(streams, slots)
    state = np.arange(slots + room + 1)
    birth = streams.high + np.where(slots - state[:-1] > hold, streams.low, 0.0)
    waiting = np.maximum(state - slots, 0)
    death = np.minimum(state, slots)[1:] / streams.time + streams.patience * waiting[1:]
    weight = np.concatenate([[0.0], np.cumsum(np.log(birth) - np.log(death))])
    chance = np.exp(weight - weight.max())
    chance /= chance.sum()
    served = streams.high * (1.0 - chance[-1]) - streams.patience * float(chance @ waiting)
    return float(streams.value * served + streams.low * chance[slots - state > hold].sum())


def waiting_room(streams: Streams, slots: int) -> int:
    """How many may wait, so that more hardly ever do."""
    excess = max(0.0, streams.high - slots / streams.time)
    mean = excess / streams.patience if streams.patience > 0.0 else slots
    return int(min(mean + 10.0 * math.sqrt(mean + slots) + 50, 20 * slots + 200))


def ready_for_prefill(plan: Plan) -> int:
    """How many GPUs that could start a prefill waiting decodes leave so.

    Only where prompts are paid apart: then decodes wait, and the last slots where a prefill could start are kept from
    them. Prefills take such GPUs, and slots come free, at rates of ratio `a`, so that the number of GPUs that would be
    there is short of what is kept by k with probability `(1 - a) a^k`. A GPU that is kept costs what its slot would
    earn, v, the decode's money per second; one that is missing what is lost while a prompt waits, l, its value less the
    price of its prefill (at the least load at which there is one) times its patience rate. The newsvendor keeps K with
    `a^(K + 1) = v/(v + l)`: none where `a <= v/(v + l)`, else at least one, and the nearest whole number.
    """
    if plan.scheme != "separate":
        return 0
    rates, pricing = plan.rates, plan.scenario.pricing
    started = rates.arrival - rates.patience * plan.prefill_queue
    priced = plan if is_binding(plan) else binding(plan)
    worth = np.maximum(rates.prompt_value - priced.prefill_cost, 0.0)
    lost = float((started * rates.patience * worth).sum() / started.sum())
    earned = pricing.output * plan.solo_speed
    ratio = float(started.sum() / (started + plan.completion_rate).sum())
    if ratio * (earned + lost) <= earned:
        return 0
    if earned <= 0.0 or ratio >= 1.0:
        return MOST_READY
    return min(MOST_READY, max(1, round(math.log(earned / (earned + lost)) / math.log(ratio) - 1.0)))
