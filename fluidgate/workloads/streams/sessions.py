"""Sessions drawn from a scenario: when each starts, its turns, who it sets off, and the texts that prompts share.

All of a run are drawn before it begins. They are drawn so many at a time, so that those of a longer run begin with
those of a shorter one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from fluidgate.errors import FluidgateError
from fluidgate.model import Array, RequestClass, Scenario
from fluidgate.workloads.selection import LONGEST
from fluidgate.workloads.streams.assignment import length_traces, pool_of
from fluidgate.workloads.streams.epochs import epochs
from fluidgate.workloads.streams.lengths import Classes, Pool, turn_drawer
from fluidgate.workloads.streams.patience import patience_drawer
from fluidgate.workloads.streams.random import RandomStreams
from fluidgate.workloads.streams.requests import NOTHING, REQUEST, Requests, in_blocks
from fluidgate.workloads.streams.script import PIECE, Pieces, Script
from fluidgate.workloads.streams.think import think_drawer

AT_ONCE = 1024
"""Sessions drawn at a time."""
MOST = 2_000_000
"""Requests of a closed loop; a run that sends more goes through its sessions again."""

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class DrawnSessions:
    """The sessions of a run.

    Attributes:
        first: the first request of each that nobody sets off, in order of arrival.
        script: what these refer to.
        closed: whether users send them, without end.
    """

    first: Requests
    script: Script
    closed: bool

    def blocks(self, size: int) -> Iterator[Requests]:
        """The first requests in blocks."""
        again = repeat(self.first) if self.closed and len(self.first) > 0 else iter([self.first])
        return in_blocks(again, size)


def drawn_sessions(
    scenario: Scenario,
    gpus: int,
    *,
    seed: int = 0,
    replication: int = 0,
    horizon: float = math.inf,
    most: int | None = None,
    pool: Pool | None = None,
) -> DrawnSessions:
    """Sessions that start by `horizon`; in a closed loop, as many as its users can go through by then.

    Args:
        scenario: classes, arrivals (of sessions) and lengths.
        gpus: GPUs of the cluster; they share the load of a scenario with `[cluster]`.
        seed, replication: of all random numbers.
        horizon: s.
        most: the largest number of sessions.
        pool: requests that lend empirical outputs; by default those of the scenario's `lengths.traces`.

    Raises:
        FluidgateError: the scenario can't be drawn from; the message names the key and the mend.
    """
    closed = scenario.arrivals.closed
    if not closed and math.isinf(horizon) and most is None:
        raise FluidgateError("--horizon: sessions are drawn before a run begins; give a finite horizon")
    scenario = scenario.for_gpus(gpus)
    if pool is None and scenario.lengths.traces:
        pool = pool_of(scenario, length_traces(scenario))
    random = RandomStreams.of(seed, replication)
    texts = Texts(scenario.classes)
    limit = Limit(scenario, horizon, most)
    first: list[Requests] = []
    rows = [np.zeros(1, REQUEST)]
    count = 1
    for drawn in _turns(scenario, gpus, random, pool):
        turns = drawn.part(limit.take(drawn))
        requests = turns.requests(count)
        texts.write(turns, requests)
        first.append(requests[~turns.is_row])
        rows.append(requests[turns.is_row])
        count += len(rows[-1])
        if limit.reached:
            break
    return DrawnSessions(np.concatenate(first), Script(texts.pieces, np.concatenate(rows)), closed)


@dataclass(frozen=True)
class Turns:
    """Turns of sessions, one after the other; first those of sessions that start by themselves, then of sub-agents.

    Attributes:
        arrival: of each session that starts by itself, s, shape (own,).
        cls, prefix, count: of each session its class, its prefix and its turns, shape (sessions,).
        parent, spawning: of each sub-agent, the session that sets it off, and its turn, shape (sessions - own,).
        prompt, output, patience, think: of each turn, shape (turns,).
    """

    arrival: Array
    cls: Classes
    prefix: Numbers
    count: Numbers
    parent: Numbers
    spawning: Numbers
    prompt: Numbers
    output: Numbers
    patience: Array
    think: Array

    @property
    def own(self) -> int:
        return len(self.arrival)

    @property
    def session(self) -> Numbers:
        """Of each turn."""
        return np.repeat(np.arange(len(self.count)), self.count)

    @property
    def place(self) -> Numbers:
        """Of each turn in its session, from 0."""
        return _places(self.count)

    @property
    def is_last(self) -> NDArray[np.bool_]:
        return np.asarray(self.place == self.count[self.session] - 1)

    @property
    def is_row(self) -> NDArray[np.bool_]:
        """Of each turn, whether another request sends it or sets it off."""
        return (self.place > 0) | (self.session >= self.own)

    def part(self, own: int) -> Turns:
        """Those of the first sessions that start by themselves, and of their sub-agents."""
        of_kept = self.parent < own
        kept = np.concatenate([np.arange(self.own) < own, of_kept])
        turns = kept[self.session]
        return Turns(
            self.arrival[:own],
            *(column[kept] for column in (self.cls, self.prefix, self.count)),
            *(column[of_kept] for column in (self.parent, self.spawning)),
            *(column[turns] for column in (self.prompt, self.output, self.patience, self.think)),
        )

    def requests(self, rows: int) -> Requests:
        """The turns as requests without texts, of which rows of the script are numbered from `rows` on."""
        session, place, is_row = self.session, self.place, self.is_row
        made = np.zeros(len(session), REQUEST)
        made["cls"] = self.cls[session]
        for name in ("prompt", "output", "patience", "think"):
            made[name] = getattr(self, name)
        row = np.zeros(len(session), np.int64)
        row[is_row] = rows + np.arange(np.count_nonzero(is_row))
        followed = np.flatnonzero(~self.is_last)
        made["then"][followed] = row[followed + 1]
        begins = np.flatnonzero(place == 0)
        made["arrival"][begins[: self.own]] = self.arrival
        setting_off = begins[self.parent] + self.spawning
        order = np.argsort(setting_off, kind="stable")
        by, sub = setting_off[order], begins[self.own :][order]
        new = np.diff(by, prepend=-1) > 0
        made["spawns"][by[new]] = row[sub[new]]
        made["beside"][sub[:-1][~new[1:]]] = row[sub[1:][~new[1:]]]
        return made


class Texts:
    """The pieces of text of all turns, as they are written."""

    def __init__(self, classes: Sequence[RequestClass]) -> None:
        self._shares = np.array([c.shares_text for c in classes])
        self._prefixed = np.array([c.prefix_tokens > 0 for c in classes])
        count = np.array([c.prefixes if c.prefix_tokens else 0 for c in classes])
        self._first = 1 + np.cumsum(count) - count
        prefixes = np.zeros(1 + count.sum(), PIECE)
        prefixes["end"][1:] = np.repeat([c.prefix_tokens for c in classes], count)
        self._parts = [prefixes]
        self._count = len(prefixes)

    @property
    def pieces(self) -> Pieces:
        return np.concatenate(self._parts)

    def write(self, turns: Turns, requests: Requests) -> None:
        """Give the requests of these turns their texts and answers.

        A prompt goes on where the last turn's answer ends, the first of a session where its prefix does. The answer to
        the last one is in no prompt.
        """
        session, place = turns.session, turns.place
        shares = self._shares[turns.cls[session]]
        asked = ~turns.is_last
        here = shares.astype(np.int64) + asked
        text = np.where(shares, self._count + np.cumsum(here) - here, NOTHING)
        answer = np.where(asked, text + 1, NOTHING)
        prefix = np.where(self._prefixed[turns.cls], self._first[turns.cls] + turns.prefix, NOTHING)
        before = np.where(place == 0, prefix[session], np.roll(answer, 1))
        requests["text"], requests["answer"] = text, answer
        made = np.zeros(here.sum(), PIECE)
        made["parent"][text[shares] - self._count] = before[shares]
        made["end"][text[shares] - self._count] = turns.prompt[shares]
        made["parent"][answer[asked] - self._count] = text[asked]
        made["end"][answer[asked] - self._count] = (turns.prompt + turns.output)[asked]
        self._parts.append(made)
        self._count += len(made)


class Limit:
    """How many sessions a run takes.

    A user of a closed loop is busy with a session for at least its think times and an iteration for each token but the
    first. By the horizon each of `N` has gone through sessions of as much time at most, and is in another: of those
    that have started, each counted by the horizon at most, the times add up to `2 N` horizons or less.
    """

    def __init__(self, scenario: Scenario, horizon: float, most: int | None) -> None:
        self._horizon = horizon
        self._most = math.inf if most is None else most
        self._users = scenario.arrivals.users
        gpu = scenario.gpu
        self._iteration = max(min(gpu.seconds(0, 1, 0), gpu.seconds(1, 0, 0)), 0.0)
        self._sessions, self._requests, self._busy = 0, 0, 0.0
        self.reached = False

    def take(self, turns: Turns) -> int:
        """How many of the sessions that start by themselves are taken; `reached` tells whether more are."""
        if self._users is None:
            count = int(np.searchsorted(turns.arrival, self._horizon, side="right"))
        else:
            count = self._of_users(turns, self._users)
        count = int(min(count, turns.own, self._most - self._sessions))
        self._sessions += count
        self.reached = count < turns.own or self._sessions >= self._most
        return count

    def _of_users(self, turns: Turns, users: int) -> int:
        seconds = turns.think + self._iteration * (turns.output - 1)
        each = np.bincount(turns.session, seconds, minlength=turns.own)[: turns.own]
        busy = self._busy + np.cumsum(np.minimum(each, self._horizon))
        requests = self._requests + np.cumsum(turns.count[: turns.own])
        self._busy, self._requests = float(busy[-1]), int(requests[-1])
        needed = int(np.searchsorted(busy, 2.0 * users * self._horizon, side="right")) + 1
        allowed = int(np.searchsorted(requests, MOST, side="right"))
        return max(min(needed, allowed), 1 if self._sessions == 0 else 0)


def _turns(scenario: Scenario, gpus: int, random: RandomStreams, pool: Pool | None) -> Iterator[Turns]:
    """Turns of so many sessions at a time, without end."""
    classes = scenario.classes
    starts = scenario.session_starts
    total = float(starts.sum())
    edges = np.cumsum(starts[:-1]) / total
    lengths = turn_drawer(scenario, random, pool)
    patience = patience_drawer(scenario.rates.patience, random.patience)
    user_think = think_drawer(scenario.arrivals, random.think)
    subagents = np.array([c.subagents for c in classes])
    subagent_class = np.array([_number(scenario, c) for c in classes], np.int32)
    prefix_tokens = np.array([c.prefix_tokens for c in classes])
    for arrival in _starts(scenario, total * gpus, random):
        started = np.searchsorted(edges, random.classes.random(AT_ONCE), side="right").astype(np.int32)
        parent = np.repeat(np.arange(AT_ONCE), random.subagents.poisson(subagents[started]))
        cls = np.concatenate([started, subagent_class[started[parent]]])
        count = _counts(classes, cls, random)
        spawning = (random.spawning.random(len(parent)) * count[parent]).astype(np.int64)
        prefix = _prefixes(classes, cls, random)
        session, place = np.repeat(np.arange(len(count)), count), _places(count)
        of = cls[session]
        new, output = lengths(of, place > 0)
        prompt = prefix_tokens[of] + _summed(new, count) + _summed(output, count) - output
        _check_length(scenario, of, prompt + output)
        last = place == count[session] - 1
        after = np.where(session < AT_ONCE, user_think(len(of)), 0.0)
        think = np.where(last, after, _thinks(classes, of, random))
        yield Turns(arrival, cls, prefix, count, parent, spawning, prompt, output.astype(np.int64), patience(of), think)


def _starts(scenario: Scenario, rate: float, random: RandomStreams) -> Iterator[Array]:
    if scenario.arrivals.closed:
        return repeat(np.zeros(AT_ONCE))
    return epochs(scenario.arrivals, rate, random.gaps, random.phases, AT_ONCE)


def _number(scenario: Scenario, each: RequestClass) -> int:
    return scenario.class_names.index(each.subagent_class) if each.subagent_class is not None else 0


def _counts(classes: Sequence[RequestClass], cls: Classes, random: RandomStreams) -> Numbers:
    """The number of turns of each session: fixed, or geometric on 1, 2, ..."""
    mean = np.array([c.turns for c in classes])
    geometric = np.array([c.turns_law == "geometric" and c.turns > 1 for c in classes])
    with np.errstate(divide="ignore"):
        scale = np.where(geometric, -1.0 / np.log1p(-1.0 / mean), 0.0)
    drawn = np.ceil(random.turns.standard_exponential(len(cls)) * scale[cls])
    return np.maximum(np.where(geometric[cls], drawn, np.rint(mean)[cls]), 1).astype(np.int64)


def _prefixes(classes: Sequence[RequestClass], cls: Classes, random: RandomStreams) -> Numbers:
    """The number of each session's prefix, from 0."""
    drawn = random.prefixes.random(len(cls))
    prefix = np.zeros(len(cls), np.int64)
    for k, each in enumerate(classes):
        if each.prefixes > 1:
            edges = np.cumsum(each.prefix_shares)[:-1]
            prefix[cls == k] = np.searchsorted(edges, drawn[cls == k], side="right")
    return prefix


def _thinks(classes: Sequence[RequestClass], cls: Classes, random: RandomStreams) -> Array:
    """The time from each turn's answer to the next turn, a person's or a tool's, s."""
    share, person = np.array([c.tool_share for c in classes]), np.array([c.think for c in classes])
    tool = np.array([c.tool_seconds for c in classes])
    exponential = np.array([c.think_law == "exponential" for c in classes])
    mean = np.where(random.tools.random(len(cls)) < share[cls], tool[cls], person[cls])
    drawn = random.turn_think.standard_exponential(len(cls))
    return mean * np.where(exponential[cls], drawn, 1.0)


def _places(count: Numbers) -> Numbers:
    return np.asarray(np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count))


def _summed(values: NDArray[np.int32], count: Numbers) -> Numbers:
    """The sums of the values of each session up to each turn."""
    total = np.cumsum(values, dtype=np.int64)
    before = np.concatenate([[0], total])[np.cumsum(count) - count]
    return np.asarray(total - np.repeat(before, count))


def _check_length(scenario: Scenario, cls: Classes, context: Numbers) -> None:
    if len(context) > 0 and context.max() > LONGEST:
        k = int(cls[np.argmax(context)])
        raise FluidgateError(
            f"classes[{k}] ('{scenario.class_names[k]}'): turns: a session of it grows beyond {LONGEST} tokens; give "
            "fewer turns, or shorter ones"
        )
