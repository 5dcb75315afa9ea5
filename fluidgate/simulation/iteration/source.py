"""Where the requests of a replication come from; the same for every policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.random import SFC64, Generator, SeedSequence

from fluidgate.model import Scenario
from fluidgate.workloads.streams import (
    NO_SCRIPT,
    ClassTrace,
    DrawnSessions,
    Replay,
    Requests,
    Script,
    drawn_requests,
    drawn_sessions,
    replayed_requests,
    replayed_script,
)

BLOCK = 8_192
"""Requests of a trace handed on at a time; progress is told as often."""
SPLITS = 1000
"""The place of splits among the random streams of a replication, beyond those of its requests."""


class Source(Protocol):
    """Gives the requests of a replication, in order of arrival."""

    @property
    def users(self) -> int:
        """Who send the requests in a closed loop; 0 where these come by themselves."""

    def requests(self, replication: int) -> Iterator[Requests]:
        """Those that come by themselves."""

    def script(self, replication: int) -> Script:
        """What these refer to: texts that prompts share, further turns of sessions."""


@dataclass(frozen=True)
class Drawn:
    """Requests drawn by the scenario's laws."""

    scenario: Scenario
    gpus: int
    seed: int
    horizon: float

    @property
    def users(self) -> int:
        return self.scenario.arrivals.users or 0

    def requests(self, replication: int) -> Iterator[Requests]:
        if self.scenario.has_sessions:
            return self._sessions(replication).blocks(BLOCK)
        return drawn_requests(self.scenario, self.gpus, seed=self.seed, replication=replication, horizon=self.horizon)

    def script(self, replication: int) -> Script:
        return self._sessions(replication).script if self.scenario.has_sessions else NO_SCRIPT

    def _sessions(self, replication: int) -> DrawnSessions:
        return _drawn_last(self.scenario, self.gpus, self.seed, replication, self.horizon)


@lru_cache(maxsize=1)
def _drawn_last(scenario: Scenario, gpus: int, seed: int, replication: int, horizon: float) -> DrawnSessions:
    """The sessions of a replication, whose requests and script are asked for one after the other."""
    return drawn_sessions(scenario, gpus, seed=seed, replication=replication, horizon=horizon)


@dataclass(frozen=True)
class Replayed:
    """Requests of traces."""

    scenario: Scenario
    traces: Sequence[ClassTrace]
    replay: Replay
    seed: int
    horizon: float
    most: int | None

    @property
    def users(self) -> int:
        return self.scenario.arrivals.users or 0

    def requests(self, replication: int) -> Iterator[Requests]:
        return replayed_requests(
            self.scenario,
            self.traces,
            self.replay,
            seed=self.seed,
            replication=replication,
            horizon=self.horizon,
            most=self.most,
            size=BLOCK,
        )

    def script(self, replication: int) -> Script:
        return replayed_script(
            self.scenario, self.traces, self.replay, seed=self.seed, replication=replication, most=self.most
        )


@dataclass(frozen=True)
class Part:
    """Those requests of a source that go to one of several clusters, each by a draw of its own.

    A session goes by its first request, and stays together. The parts of all clusters are all requests, each in one.

    Attributes:
        low, high: of each class, the draws from 0 to 1 that go here, at least `low` and below `high`.
        seed: of the draws, one a request in order of arrival, whatever the parts.
    """

    source: Source
    low: tuple[float, ...]
    high: tuple[float, ...]
    seed: int

    @property
    def users(self) -> int:
        return self.source.users

    def requests(self, replication: int) -> Iterator[Requests]:
        random = Generator(SFC64(SeedSequence(self.seed, spawn_key=(replication, SPLITS))))
        low, high = np.array(self.low), np.array(self.high)
        for block in self.source.requests(replication):
            drawn = random.random(len(block))
            here = block[(low[block["cls"]] <= drawn) & (drawn < high[block["cls"]])]
            if len(here) > 0:
                yield here

    def script(self, replication: int) -> Script:
        return self.source.script(replication)
