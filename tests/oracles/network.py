"""The Markov network of the model under each policy, as an explicit transition system on hashable states.

Plain and slow on purpose: a literal reading of the specification (sections 1 and 4), which shares no code
with the simulator. A transition is an elementary event (arrival, completion, abandonment) followed by the
policy's decisions, with a branch for every random draw, until nothing is left to decide.

What is lumped, exactly: GPUs of one group are exchangeable, so their states are sorted; solo GPUs never
prefill and all decode at one speed, so the solo group is one pool of slots; where the order of classes in a
queue is irrelevant the queue is sorted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

OCCUPANCY_GATE = {
    "gate-and-route", "sli-aware", "sli-aware-general",
    "gi-wsp", "gi-wsp-uncapped", "gf-wsp", "gf-wsp-uncapped",
}  # fmt: skip
CAPPED_GATE = {"capped-gate-and-route"}
PRIORITY_GATE = {"prioritize-and-route", "index-and-pool"}
NO_GATE = {"fi-wsp", "fg-sp"}  # FCFS over all arrivals

COUPLED = {"fi-wsp", "gi-wsp", "gi-wsp-uncapped"}  # the decode follows its prefill, same GPU, same slot
SHARED = {"gf-wsp", "gf-wsp-uncapped"}  # decoupled, no partition
SIDED = {"sli-aware", "sli-aware-general"}  # partition, one decode buffer for each group
ROUTED = {"gate-and-route", "capped-gate-and-route", "prioritize-and-route", "fg-sp"}  # partition, one
POOLED = {"index-and-pool"}  # no partition, beside a prefill first; see `at_once` and `partitioned`
TOTAL_CAP = {"gi-wsp", "gf-wsp"}  # no partition, but at most M prefills in all

POLICIES = sorted(OCCUPANCY_GATE | CAPPED_GATE | PRIORITY_GATE | NO_GATE)

MIXED, SOLO = 0, 1  # the sides of a sided policy

Counts = tuple[int, ...]
"""Number of requests of each class."""
Queue = tuple[int, ...]
"""The classes of the waiting requests: first come first, or sorted where their order does not matter."""
Event = tuple[str, int]
"""What happened, to which class; one of `EVENTS`."""

EVENTS = (
    "arrival",  # accepted into the network
    "arrival_lost",  # beyond `queue_limit`: an artefact of truncation
    "prefill_done",
    "decode_done",
    "prefill_abandoned",  # left the prefill queue
    "decode_abandoned",  # left a decode buffer
    "decode_lost",  # beyond `buffer_limit`: an artefact of truncation
)


class GpuState(NamedTuple):
    prefill: int  # class in prefill, -1 for none
    decodes: Counts


class State(NamedTuple):
    gpus: tuple[GpuState, ...]  # GPUs that may prefill: the mixed group, or all where there is no partition
    pool: Counts  # decodes in the solo group
    waiting: Queue  # for prefill
    buffers: tuple[Queue, ...]  # for decode: one, or (MIXED, SOLO) for sided policies


Branches = list[tuple[float, State]]
"""Outcomes of a random draw, with their probabilities."""


def ceil(value: float) -> int:
    """Least integer not under `value`, which rounding errors do not push up."""
    return math.ceil(value - 1e-9 * max(1.0, abs(value)))


def solo_probability(mixed_flow: Sequence[float], solo_flow: Sequence[float]) -> tuple[float, ...]:
    """`p_s` from the flows `mu_m y_m*` and `mu_s y_s*`; 1 where both vanish."""
    return tuple(s / (m + s) if m + s > 0 else 1.0 for m, s in zip(mixed_flow, solo_flow, strict=True))


def changed(counts: Counts, cls: int, by: int) -> Counts:
    return (*counts[:cls], counts[cls] + by, *counts[cls + 1 :])


@dataclass(frozen=True)
class Network:
    """The network under one policy. Per-class sequences have one entry a class.

    Attributes:
        policy: one of `POLICIES`.
        gpus: n.
        batch: B.
        mixed: M: size of the mixed group, or most prefills under gi-wsp and gf-wsp; fi-wsp and the uncapped
            forms ignore it.
        arrival: lambda, per GPU.
        patience: theta.
        prefill: mu_p.
        mixed_decode: mu_m.
        solo_decode: mu_s.
        prefill_target: x*, per GPU.
        queue_target: q_p*, per GPU.
        priority: D/P (prioritize-and-route), or the index (index-and-pool).
        paid_apart: whether prompts are paid at the end of the prefill (index-and-pool).
        hold: a class starts only while more slots than this are free (index-and-pool).
        ready: GPUs that could start a prefill and that waiting decodes leave so (index-and-pool, paid apart).
        to_solo: p_s (sided policies).
        mixed_weight: mu_m y_m* (sli-aware-general).
        solo_weight: mu_s y_s* (sli-aware-general).
        queue_limit: most requests waiting for prefill; arrivals beyond are lost.
        buffer_limit: most requests waiting for decode (both sides together); prefills that end beyond are
            lost.
    """

    policy: str
    gpus: int
    batch: int
    mixed: int
    arrival: Sequence[float]
    patience: Sequence[float]
    prefill: Sequence[float]
    mixed_decode: Sequence[float]
    solo_decode: Sequence[float]
    prefill_target: Sequence[float]
    queue_target: Sequence[float]
    queue_limit: int
    buffer_limit: int
    priority: Sequence[float] = ()
    to_solo: Sequence[float] = ()
    mixed_weight: Sequence[float] = ()
    solo_weight: Sequence[float] = ()
    paid_apart: bool = False
    hold: Sequence[int] = ()
    ready: int = 0
    _settled: dict[State, Branches] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ValueError(f"no such policy: {self.policy}")
        if not 0 <= self.mixed <= self.gpus:
            raise ValueError("M must be in 0..n")

    # ---- the shape of the system

    @property
    def classes(self) -> range:
        return range(len(self.arrival))

    @property
    def partitioned(self) -> bool:
        """A prefill slot is kept on each GPU of the mixed group; index-and-pool does where the plan has all mixed."""
        all_mixed = sum(self.prefill_target) > 1 - 1e-9 and not self.paid_apart
        return self.policy in SIDED or self.policy in ROUTED or (self.policy in POOLED and all_mixed)

    @property
    def at_once(self) -> bool:
        """A decode takes a free slot at once, its prefill's own if there is no other."""
        return self.policy in POOLED and not self.partitioned and not self.paid_apart

    @property
    def pool_slots(self) -> int:
        return self.batch * (self.gpus - self.mixed) if self.partitioned else 0

    def empty(self) -> State:
        none = (0,) * len(self.arrival)
        prefilling = self.mixed if self.partitioned else self.gpus
        return State(
            gpus=(GpuState(-1, none),) * prefilling,
            pool=none,
            waiting=(),
            buffers=((), ()) if self.policy in SIDED else ((),),
        )

    def canonical(self, state: State) -> State:
        """The representative of all states that behave alike."""
        waiting = state.waiting if self.policy in NO_GATE else tuple(sorted(state.waiting))
        buffers = state.buffers
        if self.policy == "sli-aware-general":
            # Classes of weight zero wait in order among themselves; of the others only the numbers matter.
            buffers = tuple(
                tuple(sorted(i for i in buffer if weight[i] > 0)) + tuple(i for i in buffer if not weight[i] > 0)
                for buffer, weight in zip(buffers, (self.mixed_weight, self.solo_weight), strict=True)
            )
        return State(tuple(sorted(state.gpus)), state.pool, waiting, buffers)

    # ---- events

    def transitions(self, state: State) -> list[tuple[float, State, tuple[Event, ...]]]:
        """What may happen in `state`: (rate, next state, events); an event's rate is split over its
        branches."""
        return [
            (rate * p, after, (event,))
            for rate, event, outcomes in self._events(state)
            for p, after in outcomes
            if rate * p > 0
        ] + self._prefill_completions(state)

    def _events(self, state: State) -> Iterator[tuple[float, Event, Branches]]:
        for i in self.classes:  # arrivals
            rate = self.gpus * self.arrival[i]
            outcomes = self.settle(state._replace(waiting=(*state.waiting, i)))
            if any(len(after.waiting) > self.queue_limit for _, after in outcomes):
                yield rate, ("arrival_lost", i), [(1.0, state)]
            else:
                yield rate, ("arrival", i), outcomes

        for k, i in enumerate(state.waiting):  # abandonments of the prefill queue
            left = state._replace(waiting=state.waiting[:k] + state.waiting[k + 1 :])
            yield self.patience[i], ("prefill_abandoned", i), self.settle(left)

        for side, buffer in enumerate(state.buffers):  # abandonments of the decode buffers
            for k, i in enumerate(buffer):
                left = self._with_buffer(state, side, buffer[:k] + buffer[k + 1 :])
                yield self.patience[i], ("decode_abandoned", i), self.settle(left)

        for g, gpu in enumerate(state.gpus):  # decodes, at mixed or solo speed as a prefill is there or not
            speed = self.solo_decode if gpu.prefill < 0 else self.mixed_decode
            for i in self.classes:
                if gpu.decodes[i]:
                    after = self._with_gpu(state, g, gpu._replace(decodes=changed(gpu.decodes, i, -1)))
                    yield gpu.decodes[i] * speed[i], ("decode_done", i), self.settle(after)

        for i in self.classes:  # decodes in the solo group
            if state.pool[i]:
                after = state._replace(pool=changed(state.pool, i, -1))
                yield state.pool[i] * self.solo_decode[i], ("decode_done", i), self.settle(after)

    def _prefill_completions(self, state: State) -> list[tuple[float, State, tuple[Event, ...]]]:
        found: list[tuple[float, State, tuple[Event, ...]]] = []
        for g, gpu in enumerate(state.gpus):
            i = gpu.prefill
            if i < 0:
                continue
            rate = self.prefill[i]
            if self.policy in COUPLED:
                after = self._with_gpu(state, g, GpuState(-1, changed(gpu.decodes, i, +1)))
                found += [(rate * p, end, (("prefill_done", i),)) for p, end in self.settle(after)]
                continue
            after = self._with_gpu(state, g, gpu._replace(prefill=-1))
            if self.at_once:
                open_gpus = self.preferred(after, self._gpus_with_decode_slot(after))
                for k in open_gpus:
                    there = after.gpus[k]
                    placed = self._with_gpu(after, k, there._replace(decodes=changed(there.decodes, i, +1)))
                    found += [
                        (rate / len(open_gpus) * p, end, (("prefill_done", i),)) for p, end in self.settle(placed)
                    ]
                continue
            sides = [(1.0 - self.to_solo[i], MIXED), (self.to_solo[i], SOLO)] if self.policy in SIDED else [(1.0, 0)]
            for p_side, side in sides:
                if not p_side > 0:
                    continue
                joined = self._with_buffer(after, side, (*after.buffers[side], i))
                for p, end in self.settle(joined):
                    events: tuple[Event, ...] = (("prefill_done", i),)
                    if sum(map(len, end.buffers)) > self.buffer_limit:
                        buffer = end.buffers[side]
                        last = len(buffer) - 1 - buffer[::-1].index(i)  # itself: the last of its class
                        end = self._with_buffer(end, side, buffer[:last] + buffer[last + 1 :])
                        events += (("decode_lost", i),)
                    found.append((rate * p_side * p, end, events))
        return found

    @staticmethod
    def _with_gpu(state: State, g: int, gpu: GpuState) -> State:
        return state._replace(gpus=(*state.gpus[:g], gpu, *state.gpus[g + 1 :]))

    @staticmethod
    def _with_buffer(state: State, side: int, buffer: Queue) -> State:
        return state._replace(buffers=(*state.buffers[:side], buffer, *state.buffers[side + 1 :]))

    # ---- decisions

    def settle(self, state: State) -> Branches:
        """Take decisions until none is left; the possible outcomes, canonical, with their probabilities."""
        if state in self._settled:
            return self._settled[state]
        step = self.prefill_decision(state) or self.decode_decision(state)
        if step is None:
            outcomes = [(1.0, self.canonical(state))]
        else:
            merged: dict[State, float] = {}
            for p, after in step:
                for q, end in self.settle(after):
                    merged[end] = merged.get(end, 0.0) + p * q
            outcomes = [(p, end) for end, p in merged.items()]
        self._settled[state] = outcomes
        return outcomes

    def prefill_decision(self, state: State) -> Branches | None:
        """Start one prefill, on a GPU drawn uniformly among the eligible; None when none may start."""
        eligible = [g for g, gpu in enumerate(state.gpus) if gpu.prefill < 0 and sum(gpu.decodes) < self.batch]
        if self.policy in POOLED:
            eligible = self.emptiest(state, eligible)
        if not eligible:
            return None
        in_prefill = [sum(gpu.prefill == i for gpu in state.gpus) for i in self.classes]
        if self.policy in TOTAL_CAP and sum(in_prefill) >= self.mixed:
            return None
        waiting = state.waiting
        if self.hold:
            free = self.batch * self.gpus - sum(in_prefill) - sum(sum(gpu.decodes) for gpu in state.gpus)
            waiting = tuple(i for i in waiting if free > self.hold[i])
        cls = self.gate(waiting, in_prefill)
        if cls is None:
            return None
        head = state.waiting.index(cls)
        left = state._replace(waiting=state.waiting[:head] + state.waiting[head + 1 :])
        return [(1 / len(eligible), self._with_gpu(left, g, state.gpus[g]._replace(prefill=cls))) for g in eligible]

    def gate(self, waiting: Queue, in_prefill: Sequence[int]) -> int | None:
        """The class whose head starts next, or None."""
        if not waiting:
            return None
        if self.policy in NO_GATE:
            return waiting[0]
        candidates = sorted(set(waiting))
        if self.policy in PRIORITY_GATE:
            largest = max(self.priority[i] for i in candidates)
            candidates = [i for i in candidates if self.priority[i] > largest * (1 - 1e-7)]
            if len(candidates) == 1 or self.policy not in POOLED:
                return candidates[0]  # ties of the others: the first class; of index-and-pool: by occupancy, below
        if self.policy in CAPPED_GATE:
            candidates = [i for i in candidates if in_prefill[i] < ceil(self.gpus * self.prefill_target[i])]
            if not candidates:
                return None
        planned = [i for i in candidates if self.prefill_target[i] > 0]
        if planned:
            load = {i: in_prefill[i] / self.prefill_target[i] for i in planned}
            least = min(load.values())
            candidates = [i for i in planned if load[i] - least <= 1e-12 * load[i]]
        excess = {i: waiting.count(i) - self.gpus * self.queue_target[i] for i in candidates}
        return max(candidates, key=lambda i: (excess[i], -i))

    def decode_decision(self, state: State) -> Branches | None:
        """Move one waiting decode into a slot; None when none can move."""
        for side, buffer in enumerate(state.buffers):
            if not buffer:
                continue
            if self.policy in SIDED:
                free_solo = side == SOLO and sum(state.pool) < self.pool_slots
                free_gpus = self._gpus_with_decode_slot(state) if side == MIXED else []
            else:
                free_solo = sum(state.pool) < self.pool_slots
                free_gpus = [] if free_solo else self._gpus_with_decode_slot(state)
            if self.policy in POOLED:
                free_gpus = self.left_ready(state, free_gpus)
            if not free_solo and not free_gpus:
                continue
            outcomes: Branches = []
            for p, cls in self.next_from_buffer(side, buffer):
                head = buffer.index(cls)
                left = self._with_buffer(state, side, buffer[:head] + buffer[head + 1 :])
                if free_solo:
                    outcomes.append((p, left._replace(pool=changed(state.pool, cls, +1))))
                for g in free_gpus:
                    gpu = state.gpus[g]
                    after = self._with_gpu(left, g, gpu._replace(decodes=changed(gpu.decodes, cls, +1)))
                    outcomes.append((p / len(free_gpus), after))
            return outcomes
        return None

    def emptiest(self, state: State, gpus: list[int]) -> list[int]:
        """Those with the fewest decodes."""
        least = min((sum(state.gpus[g].decodes) for g in gpus), default=0)
        return [g for g in gpus if sum(state.gpus[g].decodes) == least]

    def left_ready(self, state: State, gpus: list[int]) -> list[int]:
        """Where a waiting decode may go so that `ready` GPUs can still start a prefill; [] to wait."""
        if any(state.gpus[g].prefill >= 0 for g in gpus) or len(gpus) > self.ready or self.partitioned:
            return self.preferred(state, gpus)
        roomy = [g for g in gpus if sum(state.gpus[g].decodes) <= self.batch - 2]
        return self.emptiest(state, roomy)

    def preferred(self, state: State, gpus: list[int]) -> list[int]:
        """Those beside a prefill if at most one GPU could start one, otherwise those without one."""
        if self.partitioned:
            return gpus
        beside = [g for g in gpus if state.gpus[g].prefill >= 0]
        without = [g for g in gpus if state.gpus[g].prefill < 0]
        return (beside or without) if len(without) <= 1 else without

    def _gpus_with_decode_slot(self, state: State) -> list[int]:
        if self.partitioned:  # one slot of each mixed GPU is kept for prefill
            return [g for g, gpu in enumerate(state.gpus) if sum(gpu.decodes) < self.batch - 1]
        return [g for g, gpu in enumerate(state.gpus) if sum(gpu.decodes) + (gpu.prefill >= 0) < self.batch]

    def next_from_buffer(self, side: int, buffer: Queue) -> list[tuple[float, int]]:
        """The class that leaves a decode buffer next, with probabilities: FCFS, or drawn by weight."""
        if self.policy == "sli-aware-general":
            weight = self.mixed_weight if side == MIXED else self.solo_weight
            drawn = [i for i in sorted(set(buffer)) if weight[i] > 0]
            if drawn:
                total = sum(weight[i] for i in drawn)
                return [(weight[i] / total, i) for i in drawn]
        return [(1.0, buffer[0])]
