"""Relative value iteration, and the chain under the optimal policy, compiled.

`value` is the relative value of a state in which no further decision is taken before the next event; `best` that of a
state in which decisions are due: the greatest `value` that decisions lead to. All arrays belong to the caller.
"""

from __future__ import annotations

import numpy as np

from fluidgate.compiled import inlined, kept
from fluidgate.model import Array
from fluidgate.optimum.space import PREFILL_END, Integers, Tables


@inlined
def at(t: Tables, queue: int, buffer: int, cluster: int) -> int:
    """The number of a state."""
    return (queue * t.buffers + buffer) * t.clusters + cluster


@inlined
def rate_out(t: Tables, queue: int, buffer: int, cluster: int) -> float:
    total: float = t.service[cluster]
    for i in range(t.arrival.size):
        total += t.arrival[i] + t.patience[i] * (t.waiting[queue, i] + t.buffered[buffer, i])
    return total


@inlined
def overflow(t: Tables, best: Array, queue: int, buffer: int, cluster: int, cls: int) -> int:
    """The best state when a decode of class `cls` joins a full buffer: one of those that wait is dropped or placed."""
    found = at(t, queue, buffer, cluster)
    for i in range(t.arrival.size):
        after = t.buffer_swap[buffer, cls, i]
        if after >= 0:
            number = at(t, queue, after, cluster)
            if best[number] > best[found]:
                found = number
    for k in range(t.place_from[cluster], t.place_from[cluster + 1]):
        after = t.buffer_swap[buffer, cls, t.place_class[k]]
        if after >= 0:
            number = at(t, queue, after, t.place_to[k])
            if best[number] >= best[found]:
                found = number
    return found


@inlined
def expected(t: Tables, best: Array, queue: int, buffer: int, cluster: int) -> float:
    """Sum of rate times `best` over what may happen next."""
    total = 0.0
    for i in range(t.arrival.size):
        after = t.queue_plus[queue, i]
        total += t.arrival[i] * best[at(t, after if after >= 0 else queue, buffer, cluster)]
        if t.waiting[queue, i] > 0:
            total += t.patience[i] * t.waiting[queue, i] * best[at(t, t.queue_minus[queue, i], buffer, cluster)]
        if t.buffered[buffer, i] > 0:
            total += t.patience[i] * t.buffered[buffer, i] * best[at(t, queue, t.buffer_minus[buffer, i], cluster)]
    for k in range(t.event_from[cluster], t.event_from[cluster + 1]):
        if t.event_kind[k] == PREFILL_END:
            after = t.buffer_plus[buffer, t.event_class[k]]
            if after >= 0:
                number = at(t, queue, after, t.event_to[k])
            else:
                number = overflow(t, best, queue, buffer, t.event_to[k], t.event_class[k])
        else:
            number = at(t, queue, buffer, t.event_to[k])
        total += t.event_rate[k] * best[number]
    return total


@inlined
def decided(t: Tables, best: Array, queue: int, buffer: int, cluster: int) -> int:
    """The state after the best elementary decision, by `best`; -1 if none is possible."""
    found = -1
    for k in range(t.place_from[cluster], t.place_from[cluster + 1]):
        after = t.buffer_minus[buffer, t.place_class[k]]
        if after >= 0:
            number = at(t, queue, after, t.place_to[k])
            if found < 0 or best[number] > best[found]:
                found = number
    for k in range(t.start_from[cluster], t.start_from[cluster + 1]):
        after = t.queue_minus[queue, t.start_class[k]]
        if after >= 0:
            number = at(t, after, buffer, t.start_to[k])
            if found < 0 or best[number] > best[found]:
                found = number
    return found


def _sweep(t: Tables, value: Array, best: Array, gain: float, down: bool) -> None:
    """One Gauss-Seidel sweep of `value = (reward - gain + expected)/rate_out`, up or down the numbers."""
    for step in range(t.queues * t.buffers):
        block = t.queues * t.buffers - 1 - step if down else step
        queue, buffer = block // t.buffers, block % t.buffers
        for k in range(t.clusters):
            cluster = t.clusters - 1 - k if down else k
            here = at(t, queue, buffer, cluster)
            value[here] = (t.reward[cluster] - gain + expected(t, best, queue, buffer, cluster)) / rate_out(
                t, queue, buffer, cluster
            )
            best[here] = value[here]
            after = decided(t, best, queue, buffer, cluster)
            if after >= 0 and best[after] > best[here]:
                best[here] = best[after]


def _bounds(t: Tables, value: Array, best: Array, found: Array) -> None:
    """The least and the greatest `reward + expected - rate_out value`, which enclose the optimal gain, into `found`."""
    for block in range(t.queues * t.buffers):
        queue, buffer = block // t.buffers, block % t.buffers
        for cluster in range(t.clusters):
            here = at(t, queue, buffer, cluster)
            best[here] = value[here]
            after = decided(t, best, queue, buffer, cluster)
            if after >= 0 and best[after] > best[here]:
                best[here] = best[after]
    found[0], found[1] = np.inf, -np.inf
    for block in range(t.queues * t.buffers):
        queue, buffer = block // t.buffers, block % t.buffers
        for cluster in range(t.clusters):
            here = at(t, queue, buffer, cluster)
            each = t.reward[cluster] + expected(t, best, queue, buffer, cluster)
            each -= rate_out(t, queue, buffer, cluster) * value[here]
            found[0] = min(found[0], each)
            found[1] = max(found[1], each)


def _decide(t: Tables, value: Array, best: Array, tie: float, after: Integers, final: Integers) -> None:
    """The state after one decision and after all, for every state; holding only where it is better by `tie`."""
    for block in range(t.queues * t.buffers):
        queue, buffer = block // t.buffers, block % t.buffers
        for cluster in range(t.clusters):
            here = at(t, queue, buffer, cluster)
            found = decided(t, best, queue, buffer, cluster)
            if found >= 0 and best[found] >= value[here] - tie:
                after[here] = found
                final[here] = final[found]
            else:
                after[here] = here
                final[here] = here


@inlined
def successors(
    t: Tables, best: Array, final: Integers, queue: int, buffer: int, cluster: int, to: Integers, rate: Array
) -> int:
    """The states that events and decisions lead to, with their rates, into `to` and `rate`; how many they are."""
    count = 0
    for i in range(t.arrival.size):
        after = t.queue_plus[queue, i]
        to[count] = final[at(t, after if after >= 0 else queue, buffer, cluster)]
        rate[count] = t.arrival[i]
        count += 1
        if t.waiting[queue, i] > 0 and t.patience[i] > 0.0:
            to[count] = final[at(t, t.queue_minus[queue, i], buffer, cluster)]
            rate[count] = t.patience[i] * t.waiting[queue, i]
            count += 1
        if t.buffered[buffer, i] > 0 and t.patience[i] > 0.0:
            to[count] = final[at(t, queue, t.buffer_minus[buffer, i], cluster)]
            rate[count] = t.patience[i] * t.buffered[buffer, i]
            count += 1
    for k in range(t.event_from[cluster], t.event_from[cluster + 1]):
        if t.event_kind[k] == PREFILL_END:
            after = t.buffer_plus[buffer, t.event_class[k]]
            if after >= 0:
                to[count] = final[at(t, queue, after, t.event_to[k])]
            else:
                to[count] = final[overflow(t, best, queue, buffer, t.event_to[k], t.event_class[k])]
        else:
            to[count] = final[at(t, queue, buffer, t.event_to[k])]
        rate[count] = t.event_rate[k]
        count += 1
    return count


def _reach(
    t: Tables, best: Array, final: Integers, place: Integers, order: Integers, to: Integers, rate: Array, ends: Integers
) -> int:
    """Number the states that the policy reaches from the empty cluster: `order` lists them, `place` is its inverse.

    `ends[k]` is the number of transitions of the first k of them. Returns how many there are.
    """
    place[:] = -1
    order[0] = final[0]
    place[final[0]] = 0
    size = 1
    at_ = 0
    while at_ < size:
        rest, cluster = order[at_] // t.clusters, order[at_] % t.clusters
        count = successors(t, best, final, rest // t.buffers, rest % t.buffers, cluster, to, rate)
        for k in range(count):
            if place[to[k]] < 0:
                place[to[k]] = size
                order[size] = to[k]
                size += 1
        ends[at_ + 1] = ends[at_] + count
        at_ += 1
    return size


def _chain(
    t: Tables, best: Array, final: Integers, place: Integers, order: Integers, size: int, ends: Integers,
    to: Integers, rate: Array, columns: Integers, rates: Array,
) -> None:  # fmt: skip
    """The rates between the states of `order`, by rows."""
    for k in range(size):
        rest, cluster = order[k] // t.clusters, order[k] % t.clusters
        count = successors(t, best, final, rest // t.buffers, rest % t.buffers, cluster, to, rate)
        for j in range(count):
            columns[ends[k] + j] = place[to[j]]
            rates[ends[k] + j] = rate[j]


def _balance(begins: Integers, sources: Integers, rates: Array, out: Array, chance: Array, sweeps: int) -> float:
    """Gauss-Seidel sweeps, up and down, of `chance = inflow/out`; the largest relative change of the last."""
    change = 0.0
    for sweep in range(sweeps):
        change = 0.0
        total = 0.0
        for step in range(out.size):
            j = out.size - 1 - step if sweep % 2 else step
            inflow = 0.0
            for k in range(begins[j], begins[j + 1]):
                inflow += chance[sources[k]] * rates[k]
            new = inflow / out[j]
            change += abs(new - chance[j])
            chance[j] = new
            total += new
        change /= total
        for j in range(out.size):
            chance[j] /= total
    return change


sweep = kept(_sweep)
bounds = kept(_bounds)
decide = kept(_decide)
reach = kept(_reach)
chain = kept(_chain)
balance = kept(_balance)
