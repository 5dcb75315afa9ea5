"""Requests as traces have them: as they are, faster or slower, repeated, or resampled; sessions, turn by turn."""

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
from fluidgate.workloads.streams.script import Script, no_rows
from fluidgate.workloads.streams.starts import check_starts, start_times, starting_span, starts_of
from fluidgate.workloads.streams.texts import Texts, unlike
from fluidgate.workloads.streams.think import think_drawer
from fluidgate.workloads.streams.turns import Turns, turns_of

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
        sessions_rate: of traces whose sessions have no times, starts of sessions a second over the whole cluster, as a
            Poisson process; in the order of their files. `scale` multiplies it, and leaves think times as they are.
    """

    times: Literal["once", "repeat", "resample"] = "once"
    stretch: float = 60.0
    scale: float = 1.0
    lengths: Literal["trace", "drawn"] = "trace"
    sessions_rate: float | None = None

    @property
    def keeps_texts(self) -> bool:
        """Whether a prompt is played once, and as long as it was."""
        return self.times == "once" and self.lengths == "trace"


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

    In a closed loop that is only the order in which they are sent. Of a session whose requests wait for answers the
    first one is here; `replayed_script` has the others.

    Memory is that of the traces and a few blocks. Arrivals depend on the traces, `replay`, `seed` and `replication`.

    Args:
        scenario: patience of the classes, laws of lengths that are drawn, and whether the loop is closed.
        traces: see `read_class_traces`.
        replay: how they are played.
        seed, replication: of all random numbers.
        horizon: the last epoch, s.
        most: the largest number of requests, those of sessions included; of the session that reaches it the last ones
            are left out.
        size: requests in a block.

    Raises:
        FluidgateError: an option is wrong, or a trace has no time between its requests to repeat.
    """
    closed = scenario.arrivals.closed
    check_played(scenario, traces, replay)
    random = RandomStreams.of(seed, replication)
    lengths = _lengths(scenario, traces, replay, random)
    patience = patience_drawer(scenario.rates.patience, random.patience)
    think = think_drawer(scenario.arrivals, random.think)
    cls = np.concatenate([each.cls for each in traces])
    text = _texts(traces, replay).text
    turns, limit = _turns(traces, replay, closed, seed, replication, most)

    def pieces() -> Iterator[Requests]:
        for time, which in _overlaid(traces, replay, closed, random):
            prompt, output = lengths(cls[which], which)
            sent = np.zeros(len(which)) if closed else time
            block = requests_of(sent, cls[which], prompt, output, patience(cls[which]), think(len(which)))
            block["text"] = text[which]
            yield _with_turns(block, which, turns)

    return until(in_blocks(pieces(), size), horizon, limit)


def replayed_script(
    scenario: Scenario,
    traces: Sequence[ClassTrace],
    replay: Replay = Replay(),
    *,
    seed: int = 0,
    replication: int = 0,
    most: int | None = None,
) -> Script:
    """What the requests of `replayed_requests` with these arguments refer to: texts, and further turns of sessions.

    Raises:
        FluidgateError: as `replayed_requests`.
    """
    closed = scenario.arrivals.closed
    check_played(scenario, traces, replay)
    texts = _texts(traces, replay)
    turns, _ = _turns(traces, replay, closed, seed, replication, most)
    if turns is None:
        return Script(texts.pieces)
    which = turns.brought
    random = RandomStreams.of(seed, replication)
    cls = np.concatenate([each.cls for each in traces])[which]
    patience = patience_drawer(scenario.rates.patience, random.rows)
    rows = requests_of(
        turns.delay[which],
        cls,
        np.concatenate([each.trace.prompt_tokens for each in traces])[which],
        np.concatenate([each.trace.output_tokens for each in traces])[which],
        patience(cls),
        think_drawer(scenario.arrivals, random.rows)(len(which)),
    )
    rows["text"] = texts.text[which]
    return Script(texts.pieces, np.concatenate([no_rows(), _with_turns(rows, which, turns)]))


def _with_turns(requests: Requests, which: NDArray[np.int64], turns: Turns | None) -> Requests:
    """The same with what follows each; who thinks before another session keeps the think time that is there."""
    if turns is not None:
        for name in ("then", "spawns", "beside"):
            requests[name] = getattr(turns, name)[which]
        requests["think"] = np.where(turns.frees_user[which], requests["think"], turns.think[which])
    return requests


def _texts(traces: Sequence[ClassTrace], replay: Replay) -> Texts:
    """Texts over the requests of all traces, one after the other."""
    if not replay.keeps_texts:
        return unlike(sum(map(len, traces)))
    return Texts.joined([each.texts for each in traces])


def _turns(
    traces: Sequence[ClassTrace], replay: Replay, closed: bool, seed: int, replication: int, most: int | None
) -> tuple[Turns | None, int | None]:
    """How requests follow each other, None where none does; and how many come by themselves until there are `most`.

    The session that reaches that number is cut short.
    """
    if not any(each.trace.by_answers for each in traces):
        return None, most
    turns = turns_of([each.trace for each in traces])
    if most is None:
        return turns, None
    played = _played(traces, replay, closed, seed, replication, turns, most)
    over = int(turns.size[played].sum()) - most
    if over > 0:
        left_out = np.zeros(len(turns.row), bool)
        end = int(played[-1] + turns.size[played[-1]])  # the requests of a session stand right behind its first
        left_out[end - over : end] = True
        turns = turns.without(left_out)
    return turns, len(played)


def _played(
    traces: Sequence[ClassTrace], replay: Replay, closed: bool, seed: int, replication: int, turns: Turns, most: int
) -> NDArray[np.int64]:
    """The requests that come by themselves, in order, until so many are sent with them and because of them."""
    found: list[NDArray[np.int64]] = []
    left = most
    for _, which in _overlaid(traces, replay, closed, RandomStreams.of(seed, replication)):
        before = np.cumsum(turns.size[which]) - turns.size[which]
        found.append(which[before < left])
        left -= int(turns.size[which].sum())
        if left <= 0:
            break
    return np.concatenate(found)


def _overlaid(
    traces: Sequence[ClassTrace], replay: Replay, closed: bool, random: RandomStreams
) -> Iterator[tuple[Array, NDArray[np.int64]]]:
    """Times of arrival, and which of the requests of all traces, one trace after the other."""
    seeds = random.stretches.spawn(len(traces))
    all_of_them = [each.trace for each in traces]
    sources = [
        _arrivals(
            k, each, replay, Generator(SFC64(seed)), closed, starts_of(each.trace, all_of_them, replay.sessions_rate)
        )
        for k, (each, seed) in enumerate(zip(traces, seeds, strict=True))
    ]
    first = np.cumsum([0, *(len(each) for each in traces)])[:-1]
    for arrived in merged(sources):
        yield arrived.time, first[arrived.trace] + arrived.request


def rates_of(traces: Sequence[ClassTrace], sessions_rate: float | None = None) -> list[float]:
    """Requests a second that each of several traces brings when they are played together.

    Args:
        sessions_rate: see `Replay`.

    Raises:
        FluidgateError: a trace has no time between its requests.
    """
    all_of_them = [each.trace for each in traces]
    return [
        len(each) / (starting_span(each.trace, all_of_them, sessions_rate) if each.trace.by_answers else _circle(each))
        for each in traces
    ]


def matching_scale(
    scenario: Scenario, gpus: int, traces: Sequence[ClassTrace], sessions_rate: float | None = None
) -> float:
    """The scale at which the traces together bring as many requests a second as the scenario's classes.

    Args:
        sessions_rate: see `Replay`.

    Raises:
        FluidgateError: a trace has no time between its requests.
    """
    return float(scenario.for_gpus(gpus).rates.arrival.sum()) * gpus / sum(rates_of(traces, sessions_rate))


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


def check_played(scenario: Scenario, traces: Sequence[ClassTrace], replay: Replay) -> None:
    """Refuse ways to play traces that they, or the scenario, do not go with.

    Raises:
        FluidgateError: naming the trace or the option, and the mend.
    """
    closed = scenario.arrivals.closed
    if not traces:
        raise FluidgateError("no trace files; give at least one")
    check_starts([each.trace for each in traces], replay.sessions_rate, closed)
    _check_sessions([each for each in traces if each.trace.by_answers], replay)
    if scenario.engine.prefix_caching and replay.times != "once" and replay.lengths == "trace":
        for each in (each for each in traces if each.trace.says_texts):
            raise FluidgateError(
                f"--times {replay.times}: the prompts of {each.source} would come back as they were, and be found "
                "whole by [engine] prefix_caching; play it once, or leave prefix_caching out"
            )
    for name, value in (("rate-scale", replay.scale), ("stretch", replay.stretch)):
        if not 0 < value < math.inf:
            raise FluidgateError(f"--{name}: must be greater than 0 and finite, but is {value:g}; give another number")
    if replay.times != "once" and not closed:
        for each in traces:
            _circle(each)


def _check_sessions(waiting: Sequence[ClassTrace], replay: Replay) -> None:
    """Refuse what does not go with traces whose requests wait for answers."""
    for each in waiting:
        if replay.times != "once":
            raise FluidgateError(
                f"--times {replay.times}: the sessions of {each.source} would come back as they were; play it once"
            )
        if replay.lengths == "drawn":
            raise FluidgateError(
                f"--lengths drawn: the prompts of {each.source} go on from turn to turn, and have their own lengths; "
                "leave it out"
            )


def _circle(each: ClassTrace) -> float:
    """Seconds of a trace closed to a circle: its span and one mean gap."""
    count, span = len(each), each.trace.span
    if count < 2 or span <= 0:
        raise FluidgateError(
            f"{each.source}: {count} request(s) over {span:g} s give no arrival rate; "
            "play it once, or give a trace with at least 2 requests at different times"
        )
    return span * count / (count - 1)


def _arrivals(
    number: int, each: ClassTrace, replay: Replay, random: Generator, closed: bool, starts: float
) -> Iterator[Arrived]:
    """The arrivals of one trace, in pieces; `starts` of its sessions a second, where its requests wait for answers."""
    if each.trace.sessions is not None and each.trace.by_answers:
        own = each.trace.sessions.own_first
        time = np.zeros(len(own)) if closed else start_times(each.trace, starts, random)
        drawn = iter([(time, own)])
    elif replay.times == "resample":
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
