"""The batches of an emulated engine, iteration by iteration, on a clock that the caller moves.

Single-prefill batching is that of `fluidgate.simulation.iteration`: at most one prompt, in chunks, beside the decodes;
the first token ends the first iteration after the prompt. Token-budget batching is vLLM's: all decodes, then chunks of
as many prompts as fit; the first token ends the last chunk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

from fluidgate.emulator.kv_cache import KvCache
from fluidgate.emulator.metrics import EngineMetrics
from fluidgate.emulator.prompt import BLOCK
from fluidgate.emulator.request import EngineRequest, Finish
from fluidgate.emulator.settings import EngineSettings

Queue = list[tuple[float, int, EngineRequest]]


@dataclass
class Occupancy:
    """Seconds of the engine spent in iterations: each counts once for a prefill, and once for each decode."""

    prefill: float = 0.0
    mixed_decode: float = 0.0
    solo_decode: float = 0.0


class Scheduler:
    """Forms the batch of each iteration and says how long it takes.

    Iterations follow one another without a gap while there is work: each begins where the one before it ended,
    however late `advance` is called. Requests join at those boundaries, first come first served. One that need not
    read more than a block (its KV was fetched, or is in the cache) does not need the prefill's place.

    Where the decodes find no memory for their next tokens, who joined last leaves the batch, and is the first to join
    again once there is memory for all that it has to read, its answer so far too.

    Attributes:
        end: of the iteration under way, s of the engine; inf if there is none.
        waiting: requests that are not in the batch.
        iterations: so far.
        slowdown: factor of the next iterations.
        occupancy: so far.
    """

    def __init__(self, settings: EngineSettings, kv: KvCache, metrics: EngineMetrics) -> None:
        self._settings = settings
        self._single = settings.batching == "single-prefill"
        self._kv = kv
        self._metrics = metrics
        self._order = count()
        self._turns = count()
        self._prompts: Queue = []
        self._ready: Queue = []
        self._reading: list[EngineRequest] = []
        self._decoding: list[EngineRequest] = []
        self._parts: list[tuple[EngineRequest, int]] = []
        self._context = 0
        self._start = 0.0
        self.end = math.inf
        self._blocked = False
        self.waiting = 0
        self.iterations = 0
        self.slowdown = 1.0
        self.occupancy = Occupancy()

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return len(self._reading) + len(self._decoding)

    @property
    def next_event(self) -> float:
        """The epoch up to which `advance` would do nothing, s of the engine."""
        if self.end < math.inf:
            return self.end
        if self._blocked:
            return self._kv.next_expiry
        return min((queue[0][0] for queue in (self._prompts, self._ready) if queue), default=math.inf)

    def add(self, request: EngineRequest) -> None:
        """A request waits, from its `since` on; not one whose client has gone on the way here."""
        if request.broken:
            return
        request.queued = True
        request.number = next(self._order)
        self._enqueue(request, self._kv.cached(request))
        self.waiting += 1
        self._join_late(request)

    def abort(self, request: EngineRequest, why: Finish = "abort") -> None:
        """A request ends now, unanswered; its place in the batch and its KV are free from the next boundary on."""
        if request.finish is not None:
            return
        if request.queued and not request.batched:
            self.waiting -= 1
        request.finish = why
        request.wake()

    def advance(self, now: float, most: int) -> bool:
        """Run up to `most` iterations that end by `now`; whether that was all of them."""
        for _ in range(most):
            if self.next_event > now:
                return True
            if self.end < math.inf:
                self.finish()
                self.begin(self._start)
            else:
                self.begin(max(self.next_event, self._start))
        return False

    def retry(self, now: float) -> None:
        """Memory has become free, or who waited for it has gone."""
        if self._blocked:
            self._blocked = False
            self._start = max(self._start, now)

    def seen(self, epoch: float) -> int:
        """Who waits since `epoch` at the latest."""
        return sum(since <= epoch and not r.broken for queue in (self._prompts, self._ready) for since, _, r in queue)

    def _enqueue(self, request: EngineRequest, cached: int) -> None:
        """A request waits, so many of its tokens being in the memory."""
        request.cached = cached
        request.read = request.prompt if request.brought else cached
        request.beside = request.unread == 0 or (self._single and cached > 0 and request.unread <= BLOCK)
        heappush(self._ready if request.beside else self._prompts, (request.since, request.number, request))

    def begin(self, now: float) -> None:
        """An iteration is composed, and begins now; `end` says when it ends, inf if there is nobody."""
        self._start = now
        self._kv.expire(now)
        self._compose(now)

    def _compose(self, now: float) -> None:
        """Share the iteration among those in the batch and those that wait since `now` at the latest."""
        room = self._grow()
        budget = self._settings.budget - len(self._decoding)
        self._parts = []
        for request in self._reading:
            budget -= self._read(request, budget)
        self._blocked = False
        while room and self.running < self._settings.gpu.batch_size:
            queue = self._next_queue(now, budget)
            if queue is None:
                break
            request = queue[0][2]
            cached = self._kv.cached(request)
            if cached != request.cached:
                heappop(queue)
                self._enqueue(request, cached)
                continue
            if not self._kv.take(request):
                self._blocked = True
                break
            heappop(queue)
            budget -= self._join(request, budget)
        self._time()

    def _grow(self) -> bool:
        """Give the decodes memory for the tokens that they read now; whether nobody had to leave for it."""
        kv, left = self._kv, False
        edge = [request for request in self._decoding if (request.prompt + request.written) % BLOCK < 2]
        short = [request for request in edge if kv.lacks(request)]
        while len(short) > kv.free:
            last = max((*self._reading, *self._decoding), key=lambda request: request.turn)
            self._preempt(last)
            left = True
            short = [request for request in short if request is not last]
        for request in short:
            kv.grow(request)
        for request in edge:
            if request.batched:
                kv.fill(request, request.prompt + request.written)
        return not left

    def _preempt(self, request: EngineRequest) -> None:
        """A request leaves the batch and its memory, to read again what it had."""
        if request in self._decoding:
            self._decoding.remove(request)
            self._context -= request.prompt + request.written
        else:
            self._reading.remove(request)
        self._kv.release(request)
        request.batched = False
        if request.broken:
            return
        request.again, request.preempted = request.written, True
        self.waiting += 1
        self._metrics.preemptions += 1
        self._enqueue(request, self._kv.cached(request))

    def _next_queue(self, now: float, budget: int) -> Queue | None:
        """The queue whose head joins next; None if nobody can."""
        for queue in (self._prompts, self._ready):
            while queue and queue[0][2].broken:
                heappop(queue)
        seat = all(request.beside for request in self._reading) if self._single else budget > 0
        open_queues = [q for q in (self._ready, self._prompts if seat else []) if q and q[0][0] <= now]
        if not self._single and budget <= 0:
            return None
        return min(open_queues, key=lambda q: q[0][:2], default=None)

    def _join(self, request: EngineRequest, budget: int) -> int:
        """A request becomes part of the batch; the tokens of the budget that it takes."""
        self.waiting -= 1
        request.batched, request.turn = True, next(self._turns)
        if not request.preempted:
            request.started = self._start
            request.found = request.cached
            self._metrics.looked_up(request)
        if request.unread == 0:
            self._know_prompt(request, self._start)
            self._kv.fill(request, request.prompt)
            self._start_decode(request)
            return 1
        self._reading.append(request)
        return self._read(request, budget)

    def _read(self, request: EngineRequest, budget: int) -> int:
        """The chunk of a request in this iteration."""
        most = budget
        if self._single:
            most = BLOCK if request.beside else self._settings.gpu.chunk_size
        tokens = min(request.unread, most)
        if tokens > 0:
            self._parts.append((request, tokens))
            self._kv.fill(request, request.read + tokens)
        return tokens

    def _time(self) -> None:
        """When the composed iteration ends."""
        if not self.running:
            self.end = math.inf
            return
        chunk = sum(tokens for _, tokens in self._parts)
        slow = max([self.slowdown, *(r.slow for r in self._reading), *(r.slow for r in self._decoding)])
        read = sum(tokens * request.read for request, tokens in self._parts)
        self.end = self._start + slow * self._settings.gpu.seconds(chunk, len(self._decoding), self._context, read)

    def _join_late(self, request: EngineRequest) -> None:
        """Let a request join the iteration under way, if that has just begun."""
        grace = self._settings.grace
        if grace > 0.0 and self.end < math.inf and request.since <= self._start + grace:
            self._compose(request.since)

    def finish(self) -> None:
        """The iteration under way has ended, at `end`."""
        now, lasted = self.end, self.end - self._start
        self._count(lasted)
        continuing = sum(request.written > 0 for request in self._decoding)
        decoding, self._decoding = self._decoding, []
        for request in decoding:
            self._context -= request.prompt + request.written
            self._write(request, now)
        for request, tokens in self._parts:
            request.read += tokens
        for request in self._reading:
            if request.broken:
                self._leave(request)
            elif request.unread == 0:
                self._end_prompt(request, now)
        self._reading = [request for request in self._reading if request.unread > 0 and not request.broken]
        self._metrics.inter_token.observe(lasted, continuing)
        self._start, self.end = now, math.inf

    def _know_prompt(self, request: EngineRequest, now: float) -> None:
        """The KV of a prompt is complete; told of once."""
        if request.prompt_read == math.inf:
            request.prompt_read = now
            self._metrics.prompt_known(request)

    def _end_prompt(self, request: EngineRequest, now: float) -> None:
        self._know_prompt(request, now)
        if request.embeds:
            request.first_token = request.last_token = now
            self._finish(request, "stop")
        elif request.remote_decode:
            request.written = 1
            request.first_token = request.last_token = now
            self._metrics.generated(1)
            if not request.lost:
                self._kv.pin(request, now)
            self._finish(request, "length")
        elif self._single and not request.beside:
            self._start_decode(request)
        else:
            self._write(request, now)

    def _start_decode(self, request: EngineRequest) -> None:
        self._decoding.append(request)
        self._context += request.prompt + request.written

    def _write(self, request: EngineRequest, now: float) -> None:
        """A request gains a token, and goes on decoding unless that was the last."""
        if request.broken:
            self._leave(request)
            return
        request.written += 1
        request.last_token = now
        self._metrics.generated(1)
        if request.written == 1:
            request.first_token = now
            self._metrics.first_token(request)
        if request.written == request.output:
            self._finish(request, request.ends)
            return
        self._start_decode(request)
        request.wake()

    def _finish(self, request: EngineRequest, why: Finish) -> None:
        request.finish = why
        self._leave(request)
        self._metrics.finished(request)
        request.wake()

    def _leave(self, request: EngineRequest) -> None:
        self._kv.release(request)
        request.batched = False

    def _count(self, lasted: float) -> None:
        prefills = sum(not request.beside for request, _ in self._parts)
        decodes = len(self._decoding) + len(self._parts) - prefills
        self.iterations += 1
        self._metrics.iteration_tokens.observe(sum(n for _, n in self._parts) + len(self._decoding))
        self.occupancy.prefill += lasted * prefills
        if prefills:
            self.occupancy.mixed_decode += lasted * decodes
        else:
            self.occupancy.solo_decode += lasted * decodes
