"""The ranks of an emulated engine, which step together: an iteration of all lasts as long as the longest among them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fluidgate.emulator.balancer import Balancer
from fluidgate.emulator.kv_cache import KvCache
from fluidgate.emulator.kv_events import KvEvents
from fluidgate.emulator.metrics import EngineMetrics
from fluidgate.emulator.request import EngineRequest, Finish
from fluidgate.emulator.scheduler import Occupancy, Scheduler
from fluidgate.emulator.settings import EngineSettings


@dataclass(frozen=True)
class Rank:
    """One of them: its memory and what that tells, what it counts, its batches."""

    kv: KvCache
    metrics: EngineMetrics
    scheduler: Scheduler
    events: KvEvents | None

    @classmethod
    def of(cls, settings: EngineSettings, events: KvEvents | None = None) -> Rank:
        kv, metrics = KvCache(settings, events), EngineMetrics(settings.speed)
        return cls(kv, metrics, Scheduler(settings, kv, metrics), events)


class RanksInStep:
    """The schedulers of several ranks, seen as one; a rank without a batch waits for the others.

    Attributes:
        iterations: that they have gone through together.
        slowdown: factor of each.
    """

    def __init__(self, ranks: Sequence[Rank]) -> None:
        self._schedulers = [rank.scheduler for rank in ranks]
        self._balancer = Balancer(len(ranks))
        self._start = 0.0
        self._end = math.inf
        self.iterations = 0
        self.slowdown = 1.0

    @property
    def waiting(self) -> int:
        return sum(each.waiting for each in self._schedulers)

    @property
    def running(self) -> int:
        return sum(each.running for each in self._schedulers)

    @property
    def occupancy(self) -> Occupancy:
        all_ranks = [each.occupancy for each in self._schedulers]
        return Occupancy(
            sum(each.prefill for each in all_ranks),
            sum(each.mixed_decode for each in all_ranks),
            sum(each.solo_decode for each in all_ranks),
        )

    @property
    def next_event(self) -> float:
        """The epoch up to which `advance` would do nothing, s of the engine."""
        return self._end if self._end < math.inf else min(each.next_event for each in self._schedulers)

    def add(self, request: EngineRequest) -> None:
        """A request is sent to a rank, and waits there."""
        if request.broken:
            return
        request.rank = self._balancer.send(request.since)
        self._schedulers[request.rank].add(request)
        self._step()  # it may have joined the iteration under way

    def abort(self, request: EngineRequest, why: Finish = "abort") -> None:
        self._schedulers[request.rank].abort(request, why)

    def advance(self, now: float, most: int) -> bool:
        """Run up to `most` iterations that end by `now`; whether that was all of them."""
        for _ in range(most):
            if self.next_event > now:
                return True
            if self._end < math.inf:
                self._finish()
            else:
                self._start = max(self.next_event, self._start)
            for each in self._schedulers:
                each.slowdown = self.slowdown
                each.begin(self._start)
            self._step()
        return False

    def retry(self, now: float) -> None:
        """Memory has become free, or who waited for it has gone."""
        if self._end == math.inf:
            self._start = max(self._start, now)
        for each in self._schedulers:
            each.retry(now)

    def _finish(self) -> None:
        begun, self._start = self._start, self._end
        for each in self._schedulers:
            if each.end < math.inf:
                each.finish()
        self.iterations += 1
        self._balancer.report(self._start, [(each.seen(begun), each.running) for each in self._schedulers])

    def _step(self) -> None:
        """The iteration that has been composed takes as long as the longest batch."""
        busy = [each for each in self._schedulers if each.end < math.inf]
        self._end = max((each.end for each in busy), default=math.inf)
        for each in busy:
            each.end = self._end
