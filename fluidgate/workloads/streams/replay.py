"""Requests as traces have them: as they are, faster or slower, repeated, or resampled."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.random import SFC64, Generator
from numpy.typing import NDArray

from fluidgate.errors import FluidgateError
from fluidgate.model import Array, Scenario
from fluidgate.workloads.streams.assignment import ClassTrace, pool_of
from fluidgate.workloads.streams.lengths import Classes, Lengths, pair_drawer
from fluidgate.workloads.streams.patience import patience_drawer
from fluidgate.workloads.streams.random import RandomStreams
from fluidgate.workloads.streams.requests import BLOCK, Requests, in_blocks, requests_of, until
from fluidgate.workloads.streams.think import think_drawer

PIECE = 32_768
"""Requests of a resampled trace drawn at a time, about."""


@dataclass(frozen=True)
class Replay:
    """How traces become arrivals.

    Attributes:
        times: `once` plays each trace from its first arrival to its last. `repeat` plays it without end, one mean gap
            between its last request and its first. `resample` is a bootstrap of stretches of time: trace closed to
            a circle as in `repeat`, stretches that begin anywhere on it, each place as likely, follow each other. Rates
            stay, and so does what happens within a stretch (bursts, the lengths that go with them); what is longer than
            a stretch, and what ties one trace to another, is lost.
        stretch: s of the trace's own time, for `resample`.
        scale: factor on the arrival rates: times are divided by it, so bursts become as much shorter.
        lengths: `trace` keeps each request's own lengths; `drawn` draws them by the scenario's `[lengths]`.
    """

    times: Literal["once", "repeat", "resample"] = "once"
    stretch: float = 60.0
    scale: float = 1.0
    lengths: Literal["trace", "drawn"] = "trace"


class Arrived(NamedTuple):
    """Arrivals in order: epochs in s, which trace, and which of its requests; arrays of shape (arrivals,)."""

    time: Array
    trace: NDArray[np.int64]
    request: NDArray[np.int64]

    def part(self, where: slice | NDArray[np.intp]) -> Arrived:
        return Arrived(self.time[where], self.trace[where], self.request[where])


def replayed_requests(
    scenario: Scenario,
    traces: Sequence[ClassTrace],
    replay: Replay = Replay(),
    *,
    seed: int = 0,
    replication: int = 0,
    horizon: float = math.inf,
    most: int | None = None,
    size: int = BLOCK,
) -> Iterator[Requests]:
    """Blocks of the requests of all traces overlaid, each trace from its own first arrival, in order of arrival.

    In a closed loop that is only the order in which they are sent.

    Memory is that of the traces and a few blocks. Arrivals depend on the traces, `replay`, `seed` and `replication`.

    Args:
        scenario: patience of the classes, laws of lengths that are drawn, and whether the loop is closed.
        traces: see `read_class_traces`.
        replay: how they are played.
        seed, replication: of all random numbers.
        horizon: the last epoch, s.
        most: the largest number of requests.
        size: requests in a block.

    Raises:
        FluidgateError: an option is wrong, or a trace has no time between its requests to repeat.
    """
    closed = scenario.arrivals.closed
    _check(traces, replay, closed)
    random = RandomStreams.of(seed, replication)
    lengths = _lengths(scenario, traces, replay, random)
    seeds = random.stretches.spawn(len(traces))
    sources = [
        _arrivals(k, each, replay, Generator(SFC64(seed)), closed)
        for k, (each, seed) in enumerate(zip(traces, seeds, strict=True))
    ]
    patience = patience_drawer(scenario.rates.patience, random.patience)
    think = think_drawer(scenario.arrivals, random.think)
    first = np.cumsum([0, *(len(each) for each in traces)])[:-1]
    cls = np.concatenate([each.cls for each in traces])

    def pieces() -> Iterator[Requests]:
        for arrived in merged(sources):
            which = first[arrived.trace] + arrived.request
            prompt, output = lengths(cls[which], which)
            sent = np.zeros(len(which)) if closed else arrived.time
            yield requests_of(sent, cls[which], prompt, output, patience(cls[which]), think(len(which)))

    return until(in_blocks(pieces(), size), horizon, most)


def matching_scale(scenario: Scenario, gpus: int, traces: Sequence[ClassTrace]) -> float:
    """The scale at which the traces together bring as many requests a second as the scenario's classes.

    Raises:
        FluidgateError: a trace has no time between its requests.
    """
    rate = sum(len(each) / _circle(each) for each in traces)
    return float(scenario.for_gpus(gpus).rates.arrival.sum()) * gpus / rate


def merged(sources: Sequence[Iterator[Arrived]]) -> Iterator[Arrived]:
    """The arrivals of all sources in order of time; of two at one time, that of the earlier source first."""
    running = dict(enumerate(sources))
    held: dict[int, Arrived] = {}
    while running or held:
        limit = min((float(held[k].time[-1]) if k in held else -math.inf for k in running), default=math.inf)
        for k in [k for k in running if k not in held or held[k].time[-1] <= limit]:
            more = next(running[k], None)
            if more is None:
                del running[k]
            else:
                held[k] = joined([held[k], more]) if k in held else more
        limit = min((float(held[k].time[-1]) for k in running), default=math.inf)
        ready = {k: int(np.searchsorted(each.time, limit)) for k, each in held.items()}
        if not running:
            ready = {k: len(each.time) for k, each in held.items()}
        together = joined([held[k].part(slice(0, ready[k])) for k in sorted(held)]) if held else None
        held = {k: each.part(slice(ready[k], None)) for k, each in held.items() if ready[k] < len(each.time)}
        if together is not None and len(together.time) > 0:
            yield together.part(np.argsort(together.time, kind="stable"))


def joined(parts: Sequence[Arrived]) -> Arrived:
    return Arrived(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _check(traces: Sequence[ClassTrace], replay: Replay, closed: bool) -> None:
    if not traces:
        raise FluidgateError("no trace files; give at least one")
    for name, value in (("scale", replay.scale), ("stretch", replay.stretch)):
        if not 0 < value < math.inf:
            raise FluidgateError(f"{name}: must be greater than 0 and finite, but is {value}; give another number")
    if replay.times != "once" and not closed:
        for each in traces:
            _circle(each)


def _circle(each: ClassTrace) -> float:
    """Seconds of a trace closed to a circle: its span and one mean gap."""
    count, span = len(each), each.trace.span
    if count < 2 or span <= 0:
        raise FluidgateError(
            f"{each.source}: {count} request(s) over {span:g} s give no arrival rate; "
            "play it once, or give a trace with at least 2 requests at different times"
        )
    return span * count / (count - 1)


def _arrivals(number: int, each: ClassTrace, replay: Replay, random: Generator, closed: bool) -> Iterator[Arrived]:
    """The arrivals of one trace, in pieces."""
    if replay.times == "resample":
        drawn = _resampled(each.trace.arrival_time, _circle(each), replay.stretch, random)
    elif replay.times == "repeat":
        circle = each.trace.span + 1.0 if closed else _circle(each)  # of times of which the order counts alone, any
        drawn = _repeated(each.trace.arrival_time, circle)
    else:
        drawn = iter([(each.trace.arrival_time, np.arange(len(each)))])
    for time, request in drawn:
        yield Arrived(time / replay.scale, np.full(len(time), number), request)


def _repeated(time: Array, circle: float) -> Iterator[tuple[Array, NDArray[np.int64]]]:
    turn = 0
    while True:
        yield time + turn * circle, np.arange(len(time))
        turn += 1


def _resampled(
    time: Array, circle: float, stretch: float, random: Generator
) -> Iterator[tuple[Array, NDArray[np.int64]]]:
    stretch = min(stretch, circle)
    twice = np.concatenate([time, time + circle])
    at_once = max(1, min(PIECE, round(PIECE * circle / (len(time) * stretch))))
    done = 0
    while True:
        start = random.random(at_once) * circle
        first = np.searchsorted(twice, start)
        count = np.searchsorted(twice, start + stretch) - first
        of = np.repeat(np.arange(at_once), count)
        request = np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count) + first[of]
        within = np.minimum(twice[request] - start[of], stretch)
        if len(of) > 0:
            yield within + (done + of) * stretch, request % len(time)
        done += at_once


def _lengths(
    scenario: Scenario, traces: Sequence[ClassTrace], replay: Replay, random: RandomStreams
) -> Callable[[Classes, NDArray[np.int64]], tuple[Lengths, Lengths]]:
    """Lengths from the class of each request and its number over all traces."""
    if replay.lengths == "drawn":
        draw = pair_drawer(scenario, random, pool_of(scenario, traces) if scenario.lengths.empirical else None)
        return lambda cls, _: draw(cls)
    prompt = np.concatenate([each.trace.prompt_tokens for each in traces]).astype(np.int32)
    output = np.concatenate([each.trace.output_tokens for each in traces]).astype(np.int32)
    return lambda _, which: (prompt[which], output[which])
