"""Where the requests of a replication come from; the same for every policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from fluidgate.model import Scenario
from fluidgate.workloads.streams import ClassTrace, Replay, Requests, drawn_requests, replayed_requests

BLOCK = 8_192
"""Requests of a trace handed on at a time; progress is told as often."""


class Source(Protocol):
    """Gives the requests of a replication, in order of arrival."""

    @property
    def users(self) -> int:
        """Who send the requests in a closed loop; 0 where these come by themselves."""

    def requests(self, replication: int) -> Iterator[Requests]: ...


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
        return drawn_requests(self.scenario, self.gpus, seed=self.seed, replication=replication, horizon=self.horizon)


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
