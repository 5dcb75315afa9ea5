"""An emulated engine: requests in, tokens out, at the pace of a GPU."""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from fluidgate.emulator.faults import FaultBook
from fluidgate.emulator.kv_events import KvEvents
from fluidgate.emulator.metrics import Reading, page
from fluidgate.emulator.prompt import BLOCK, Prompt
from fluidgate.emulator.ranks import Rank, RanksInStep
from fluidgate.emulator.request import EngineRequest, Finish
from fluidgate.emulator.rooms import Rooms
from fluidgate.emulator.settings import EngineSettings, blocks

AT_ONCE = 256
"""Iterations run before others have their turn."""

KEPT = 100_000
"""Finished requests that are remembered."""


class Clock:
    """Seconds of the engine since it was made, `speed` of them in one of the wall clock."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self._origin = time.monotonic()

    def now(self) -> float:
        return (time.monotonic() - self._origin) * self.speed


@dataclass(frozen=True)
class Served:
    """A request that has ended; epochs in seconds of the engine, inf where it did not come so far.

    Attributes:
        id, prompt, output: of the request; `output` as far as it was written.
        arrival, started, prompt_read, first_token, last_token: as in `EngineRequest`.
        finish: stop, length, abort or error.
    """

    id: str
    prompt: int
    output: int
    arrival: float
    started: float
    prompt_read: float
    first_token: float
    last_token: float
    finish: str


class Engine:
    """One engine, in the running event loop; made anew when it comes back from the dead.

    Args:
        settings: of the GPU.
        clock: shared by the engines of a cluster.

    Attributes:
        id: that other engines fetch KV by.
        ranks: one, or those that step together; `metrics` also has what the first of them counts for all.
        scheduler, faults: its other parts.
        adapters: names of the LoRA adapters that are loaded, to their paths.
        rooms: where it meets the other sides of pairs.
        served: the requests that have ended last, in order.
    """

    def __init__(self, settings: EngineSettings, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock
        self.id = str(uuid.uuid4())
        events = settings.kv_events is not None
        self.ranks = [Rank.of(settings, KvEvents() if events else None) for _ in range(settings.data_parallel)]
        self.metrics = self.ranks[0].metrics
        self.scheduler = self.ranks[0].scheduler if len(self.ranks) == 1 else RanksInStep(self.ranks)
        self.faults = FaultBook(settings.seed)
        self.adapters: dict[str, str] = {}
        self.rooms = Rooms()
        self.served: deque[Served] = deque(maxlen=KEPT)
        self._publish: list[Callable[[list[dict[str, Any]]], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._at = math.inf
        self._alive = True

    def serves(self, model: str) -> bool:
        """Whether that is the name of the model, or of an adapter that is loaded."""
        return model == self.settings.model or model in self.adapters

    def become(self, model: str) -> None:
        """Serve another model from now on, without adapters."""
        self.settings = replace(self.settings, model=model)
        self.adapters.clear()

    def output_length(self, prompt: Prompt, seed: int | None, choice: int = 0) -> int:
        """Tokens after which an answer stops by itself: geometric on 1, 2, ..., the same for the same prompt."""
        mean = self.settings.output_tokens
        if mean == 1.0:
            return 1
        salt = (self.settings.seed, seed, choice) if choice else (self.settings.seed, seed)
        drawn = Random(prompt.key + repr(salt).encode()).random()
        return max(1, math.ceil(math.log1p(-drawn) / math.log1p(-1.0 / mean)))

    def full(self, more: int = 1) -> bool:
        """Whether so many more requests may not wait."""
        most = self.settings.max_queued
        return most is not None and self.scheduler.waiting + more > most

    def submit(self, request: EngineRequest, delay: float = 0.0) -> None:
        """A request arrived at `request.arrival`, and may join a batch `delay` seconds of the engine from now."""
        now = self.clock.now()
        self._advance(now)
        request.since = now + delay
        self.scheduler.add(request)
        self._advance(now)
        self._wait()

    def submit_fetched(self, request: EngineRequest, tokens: int | None, *, there: bool = False) -> None:
        """A request whose KV was to come from another engine: `tokens` of it come, or None.

        Args:
            there: whether they have come; else only those that are not here take their time now.
        """
        if tokens == request.prompt and not request.lost:
            request.fetched = True
            seconds = self.transfer_seconds(tokens - self.found(request))
            self.metrics.transferred(seconds)
            self.submit(request, 0.0 if there else seconds)
            return
        self.metrics.failed_transfers += 1
        if self.settings.kv_load_failure_policy == "fail":
            self.fail(request)
            return
        request.fetched = request.lost = self.settings.kv_load_failure_policy == "garbage"
        self.submit(request)

    def found(self, request: EngineRequest) -> int:
        """Tokens of a request's prompt whose KV is in the memory, the most of any rank."""
        return max(rank.kv.cached(request) for rank in self.ranks)

    def transfer_seconds(self, tokens: int) -> float:
        """That the KV of so many tokens takes from another engine; nothing of nothing."""
        return self.settings.transfer_latency + tokens / self.settings.transfer_bandwidth if tokens else 0.0

    def fail(self, request: EngineRequest) -> None:
        """A request cannot go on, wherever it is; nothing if it has ended."""
        self._break_off(request, "error")

    def abort(self, request: EngineRequest) -> None:
        """The client of a request has gone; nothing if the request has ended."""
        self._break_off(request, "abort")

    def _break_off(self, request: EngineRequest, why: Finish) -> None:
        if request.finish is None:
            self.scheduler.abort(request, why)
            self.ranks[request.rank].metrics.ends[why] += 1
            self.scheduler.retry(self.clock.now())
            self._wait()

    def record(self, request: EngineRequest) -> None:
        """Remember a request that has ended."""
        self.served.append(
            Served(
                request.id,
                request.prompt,
                request.written,
                request.arrival,
                request.started,
                request.prompt_read,
                request.first_token,
                request.last_token,
                request.finish or "abort",
            )
        )

    def hand_out(self, name: str) -> int | None:
        """The pinned KV of a request goes to another engine: its tokens, or None where it is no more."""
        now = self.clock.now()
        self._advance(now)
        found = (rank.kv.unpin(name, now) for rank in self.ranks)
        tokens = next((each for each in found if each is not None), None)
        self.scheduler.retry(now)
        self._wait()
        return tokens

    def lose_kv(self) -> None:
        """Lose all KV that no running request holds."""
        for rank in self.ranks:
            rank.kv.lose()
        self.scheduler.retry(self.clock.now())
        self._wait()

    def reset_prefix_cache(self) -> bool:
        """Forget all KV of the ranks that hold none; whether those were all."""
        done = [rank.kv.reset() for rank in self.ranks]
        self._wait()
        return all(done)

    def tell_kv_events(self, publish: list[Callable[[list[dict[str, Any]]], None]]) -> None:
        """Have what the memory of each rank stores and removes told by a function of its own, from now on."""
        self._publish = publish

    def stop(self) -> None:
        """Never run an iteration again."""
        self._alive = False
        if self._timer is not None:
            self._timer.cancel()

    def transfer_params(self, request: EngineRequest, host: str, port: int) -> dict[str, Any]:
        """What a decoder needs to fetch the KV of a prompt."""
        return {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_block_ids": list(range(blocks(request.prompt))),
            "remote_engine_id": self.id,
            "remote_request_id": request.pin,
            "remote_host": host,
            "remote_port": port,
            "remote_prefill_cached_tokens": request.found,
            "tp_size": 1,
        }

    def gauges(self) -> dict[str, float]:
        """What the engine holds now, under vLLM's names; of the memory the share of the fullest rank."""
        ranks = self._gauges_by_rank()
        return {
            "num_requests_running": sum(each["num_requests_running"] for each in ranks),
            "num_requests_waiting": sum(each["num_requests_waiting"] for each in ranks),
            "kv_cache_usage_perc": max(each["kv_cache_usage_perc"] for each in ranks),
        }

    def _gauges_by_rank(self) -> list[dict[str, float]]:
        now = self.clock.now()
        self._advance(now)
        for rank in self.ranks:
            rank.kv.expire(now)
        return [
            {
                "num_requests_running": rank.scheduler.running,
                "num_requests_waiting": rank.scheduler.waiting + (self.rooms.waiting if k == 0 else 0),
                "kv_cache_usage_perc": rank.kv.usage,
            }
            for k, rank in enumerate(self.ranks)
        ]

    def metrics_page(self) -> str:
        """The text of `/metrics`."""
        config = {
            "block_size": str(BLOCK),
            "num_gpu_blocks": str(self.settings.kv_blocks),
            "enable_prefix_caching": str(self.settings.prefix_caching),
        }
        gauges = self._gauges_by_rank()
        ranks = [Reading(rank.metrics, gauges[k], rank.kv.expired, config) for k, rank in enumerate(self.ranks)]
        return page(self.settings.model, ranks)

    def state(self) -> dict[str, Any]:
        """Counts and times on the engine's own clock."""
        gauges = self.gauges()
        now, occupancy = self.clock.now(), self.scheduler.occupancy
        return {
            "schema": 1,
            "engine_id": self.id,
            "now": now,
            "late": max(0.0, now - self.scheduler.next_event),
            "iterations": self.scheduler.iterations,
            "running": gauges["num_requests_running"],
            "waiting": gauges["num_requests_waiting"],
            "kv_cache_usage": gauges["kv_cache_usage_perc"],
            "pinned": sum(rank.kv.pins for rank in self.ranks),
            "prefill_seconds": occupancy.prefill,
            "mixed_decode_seconds": occupancy.mixed_decode,
            "solo_decode_seconds": occupancy.solo_decode,
        }

    def _advance(self, now: float) -> None:
        self.scheduler.slowdown = self.faults.slowdown
        while not self.scheduler.advance(now, AT_ONCE):
            pass

    def _tick(self) -> None:
        self._timer = None
        self.scheduler.slowdown = self.faults.slowdown
        self.scheduler.advance(self.clock.now(), AT_ONCE)
        self._wait()

    def _wait(self) -> None:
        """Be called when the next iteration ends; a timer that rings early is set again."""
        if not self._alive:
            return
        for rank, publish in zip(self.ranks, self._publish, strict=False):
            if rank.events is not None and (told := rank.events.take()):
                publish(told)
        at = self.scheduler.next_event
        if self._timer is not None:
            if at == self._at:
                return
            self._timer.cancel()
            self._timer = None
        if at < math.inf:
            delay = max(0.0, at - self.clock.now()) / self.settings.speed
            self._at = at
            self._timer = asyncio.get_running_loop().call_later(math.ceil(1000.0 * delay) / 1000.0, self._tick)
