"""The states of a small cluster, counted before they are made, and the moves between them.

A state is a product of three parts: what is on the GPUs, how many wait for decode, how many wait for prefill. GPUs are
exchangeable, so the first is a multiset. Every move changes one part or two, so tables of the parts are all that is
stored: no matrix over the states.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fluidgate.model import Array, Scenario
from fluidgate.planning import service_rates
from fluidgate.shown import Brief, several

Integers = NDArray[np.int64]
Counts = tuple[int, ...]
"""Number of requests of each class."""

DECODE_END, PREFILL_END = 0, 1


class GpuState(NamedTuple):
    """What is on one GPU: the class (a number from 0) in prefill, or None, and the decodes of each class."""

    prefill: int | None
    decodes: Counts


class State(NamedTuple):
    """A cluster: its GPUs in any order, and by class the requests that wait for prefill and for decode."""

    gpus: tuple[GpuState, ...]
    waiting: Counts
    buffered: Counts


@dataclass(frozen=True, repr=False)
class Size(Brief):
    """The shape of a state space.

    Attributes:
        queue_limits: most requests of each class that wait for prefill; an arrival beyond is lost.
        buffer_limit: most requests that wait for decode, of all classes together; one beyond is dropped or placed.
    """

    gpus: int
    batch_size: int
    queue_limits: Counts
    buffer_limit: int

    @property
    def classes(self) -> int:
        return len(self.queue_limits)

    @property
    def gpu_states(self) -> int:
        return math.comb(self.batch_size + self.classes, self.classes) + self.classes * math.comb(
            self.batch_size - 1 + self.classes, self.classes
        )

    @property
    def clusters(self) -> int:
        return math.comb(self.gpu_states + self.gpus - 1, self.gpus)

    @property
    def states(self) -> int:
        """How many states there are."""
        waiting = math.prod(limit + 1 for limit in self.queue_limits)
        return self.clusters * waiting * math.comb(self.buffer_limit + self.classes, self.classes)


class Tables(NamedTuple):
    """The moves of each part, as the compiled code reads them. `(x)_from[k]` .. `(x)_from[k+1]` are the rows of part k.

    Rates are of the whole cluster; the reward is its revenue per second.
    """

    clusters: int
    buffers: int
    queues: int
    arrival: Array
    patience: Array
    reward: Array
    service: Array
    event_from: Integers
    event_rate: Array
    event_class: Integers
    event_kind: Integers
    event_to: Integers
    start_from: Integers
    start_class: Integers
    start_to: Integers
    place_from: Integers
    place_class: Integers
    place_to: Integers
    buffered: Integers
    buffer_plus: Integers
    buffer_minus: Integers
    buffer_swap: Integers
    waiting: Integers
    queue_plus: Integers
    queue_minus: Integers

    def __repr__(self) -> str:
        return f"<Tables of {several(self.clusters * self.buffers * self.queues, 'state')}>"


class Space(Brief):
    """All states of a scenario on some GPUs, numbered; the empty cluster is number 0.

    A decision lowers the number of its state: it takes a request out of the queue or out of the buffer.
    """

    def __init__(self, scenario: Scenario, size: Size) -> None:
        self.scenario = scenario
        self.size = size
        self.gpu_states = sorted(_gpu_states(size), key=lambda g: (sum(g.decodes) + (g.prefill is not None), str(g)))
        self.clusters = list(combinations_with_replacement(range(len(self.gpu_states)), size.gpus))
        self.buffers = sorted(
            (c for c in product(range(size.buffer_limit + 1), repeat=size.classes) if sum(c) <= size.buffer_limit),
            key=lambda c: (sum(c), c),
        )
        self.queues = list(product(*(range(limit + 1) for limit in size.queue_limits)))
        self._gpu_number = {gpu: k for k, gpu in enumerate(self.gpu_states)}
        self._cluster_number = {cluster: k for k, cluster in enumerate(self.clusters)}
        self._buffer_number = {counts: k for k, counts in enumerate(self.buffers)}
        self._queue_number = {counts: k for k, counts in enumerate(self.queues)}

    def headline(self) -> str:
        return f"of {several(self.states, 'state')} of {several(self.size.gpus, 'GPU')}"

    @property
    def states(self) -> int:
        return len(self.queues) * len(self.buffers) * len(self.clusters)

    def number(self, state: State) -> int:
        """The number of a state.

        Raises:
            KeyError: it is none of this space.
        """
        cluster = tuple(sorted(self._gpu_number[GpuState(*gpu)] for gpu in state.gpus))
        parts = (self._queue_number[state.waiting], self._buffer_number[state.buffered], self._cluster_number[cluster])
        return (parts[0] * len(self.buffers) + parts[1]) * len(self.clusters) + parts[2]

    def state(self, number: int) -> State:
        """The state of a number."""
        rest, cluster = divmod(number, len(self.clusters))
        queue, buffer = divmod(rest, len(self.buffers))
        gpus = tuple(self.gpu_states[k] for k in self.clusters[cluster])
        return State(gpus, self.queues[queue], self.buffers[buffer])

    @cached_property
    def tables(self) -> Tables:
        rates = service_rates(self.scenario)
        classes = range(self.size.classes)
        bundled = self.scenario.pricing.scheme == "bundled"
        at_prefill = np.zeros(len(classes)) if bundled else rates.prompt_value
        at_decode = rates.bundled_value if bundled else rates.output_value
        events, starts, places = _Rows(), _Rows(), _Rows()
        reward, service = np.zeros(len(self.clusters)), np.zeros(len(self.clusters))
        for k, cluster in enumerate(self.clusters):
            for gpu, count in Counter(cluster).items():
                here = self.gpu_states[gpu]
                speed = rates.solo_decode if here.prefill is None else rates.mixed_decode
                if here.prefill is not None:
                    i = here.prefill
                    rate = count * float(rates.prefill[i])
                    events.add(self._moved(cluster, gpu, GpuState(None, here.decodes)), i, PREFILL_END, rate)
                    reward[k] += rate * at_prefill[i]
                    service[k] += rate
                for i in classes:
                    if here.decodes[i]:
                        rate = count * here.decodes[i] * float(speed[i])
                        events.add(self._moved(cluster, gpu, _with(here, i, -1)), i, DECODE_END, rate)
                        reward[k] += rate * at_decode[i]
                        service[k] += rate
                    if sum(here.decodes) + (here.prefill is not None) < self.size.batch_size:
                        places.add(self._moved(cluster, gpu, _with(here, i, +1)), i)
                        if here.prefill is None:
                            starts.add(self._moved(cluster, gpu, GpuState(i, here.decodes)), i)
            for rows in (events, starts, places):
                rows.close()
        return Tables(
            len(self.clusters), len(self.buffers), len(self.queues),
            self.size.gpus * rates.arrival, rates.patience, reward, service,
            events.begins, np.array(events.rate), _ints(events.cls), _ints(events.kind), _ints(events.to),
            starts.begins, _ints(starts.cls), _ints(starts.to),
            places.begins, _ints(places.cls), _ints(places.to),
            *_steps(self.buffers, self._buffer_number), _swaps(self.buffers, self._buffer_number),
            *_steps(self.queues, self._queue_number),
        )  # fmt: skip

    def _moved(self, cluster: Counts, old: int, new: GpuState) -> int:
        gpus = list(cluster)
        gpus[gpus.index(old)] = self._gpu_number[new]
        return self._cluster_number[tuple(sorted(gpus))]


class _Rows:
    def __init__(self) -> None:
        self.to: list[int] = []
        self.cls: list[int] = []
        self.kind: list[int] = []
        self.rate: list[float] = []
        self._begins = [0]

    def add(self, to: int, cls: int, kind: int = 0, rate: float = 0.0) -> None:
        self.to.append(to)
        self.cls.append(cls)
        self.kind.append(kind)
        self.rate.append(rate)

    def close(self) -> None:
        self._begins.append(len(self.to))

    @property
    def begins(self) -> Integers:
        return _ints(self._begins)


def _gpu_states(size: Size) -> Iterator[GpuState]:
    for prefill in (None, *range(size.classes)):
        slots = size.batch_size - (prefill is not None)
        for decodes in product(range(slots + 1), repeat=size.classes):
            if sum(decodes) <= slots:
                yield GpuState(prefill, decodes)


def _with(gpu: GpuState, cls: int, by: int) -> GpuState:
    return GpuState(gpu.prefill, stepped(gpu.decodes, cls, by))


def stepped(counts: Counts, cls: int, by: int) -> Counts:
    """`counts` with `by` added for one class."""
    return (*counts[:cls], counts[cls] + by, *counts[cls + 1 :])


def _ints(values: Sequence[int]) -> Integers:
    return np.array(values, dtype=np.int64)


def _steps(parts: list[Counts], number: dict[Counts, int]) -> tuple[Integers, Integers, Integers]:
    """Counts, and the number after one more and one less of each class; -1 where there is none."""
    table = np.array(parts, dtype=np.int64)
    plus, minus = (
        np.array([[number.get(stepped(c, i, by), -1) for i in range(len(c))] for c in parts], dtype=np.int64)
        for by in (+1, -1)
    )
    return table, plus, minus


def _swaps(parts: list[Counts], number: dict[Counts, int]) -> Integers:
    """The number after one more of class i and one less of class j; -1 where there is none."""
    return np.array(
        [
            [[number.get(stepped(stepped(c, i, +1), j, -1), -1) for j in range(len(c))] for i in range(len(c))]
            for c in parts
        ],
        dtype=np.int64,
    )
