"""A request from its arrival to its last token: wait at the gate, read the prompt, wait for a slot, write the answer.

What an engine loses before the first token is begun again elsewhere; after it the stream ends with an error event.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NoReturn

from fluidgate.gateway.client.api_error import ApiError, busy, unavailable
from fluidgate.gateway.client.ask import Ask, ClientGone
from fluidgate.gateway.client.response import Outlet
from fluidgate.gateway.dispatch.ticket import Stage, Ticket
from fluidgate.gateway.engines import (
    Answer,
    Call,
    EngineRefused,
    EngineUnreachable,
    Handover,
    KvLost,
)
from fluidgate.gateway.engines.sse import TokenCounter, UsageDropper, stated_tokens

if TYPE_CHECKING:
    from fluidgate.gateway.gateway import Gateway

LEASE_MARGIN = 0.1
"""Share of the KV lease that is kept for the decode engine to come and fetch."""

BUSY = (408, 425, 429, 503)
"""What an engine answers that can't take a request now."""

STATUSES = frozenset(HTTPStatus)
"""Those that HTTP knows; an engine's own invention is handed on as 400."""


@dataclass
class Times:
    """Epochs of a journey, s, nan where it did not come so far."""

    arrived: float
    prefill: float = math.nan
    prompt_read: float = math.nan
    decode: float = math.nan
    first_token: float = math.nan
    last_token: float = math.nan


@dataclass(eq=False)
class Journey:
    """One request in the gateway.

    Attributes:
        max_wait: s, for a prefill and again for a decode.
        own_usage: whether the gateway asked for the stream's usage, and the client did not.
        outcome: how it ended, for metrics and the log: "completed", or the reason why not.
        prompt_tokens, output_tokens: counted by the engine where it says so.
        stopped: why it is broken off from outside.
    """

    gateway: Gateway
    ask: Ask
    call: Call
    outlet: Outlet
    ticket: Ticket
    key: str | None
    client_id: str
    max_wait: float
    own_usage: bool
    times: Times
    outcome: str = ""
    prompt_tokens: int = 0
    output_tokens: int = 0
    lost_kv: int = 0
    stopped: ApiError | ClientGone | None = None
    _task: asyncio.Task[Any] | None = field(default=None, repr=False)

    def stop(self, why: ApiError | ClientGone) -> None:
        """Break it off, wherever it is."""
        if self.stopped is None and self._task is not None:
            self.stopped = why
            self._task.cancel()

    async def run(self) -> None:
        """Answer the request, or end it with one clear error. What it held is free before a last word is sent."""
        self._task = asyncio.current_task()
        error: ApiError | None = None
        try:
            await self._answer()
        except ApiError as why:
            self.outcome, error = why.reason, why
        except asyncio.CancelledError:
            if self.stopped is None:
                self.outcome = "cancelled"
                raise
            error = self.stopped if isinstance(self.stopped, ApiError) else None
            self.outcome = error.reason if error else "client_gone"
        except Exception:
            self.outcome = "internal_error"
            raise
        finally:
            self._leave()
        if error is not None:
            await self._tell(error)

    def _leave(self) -> None:
        waiting = self.ticket.stage in (Stage.WAITING, Stage.BUFFERED)
        self.gateway.dispatcher.leave(self.ticket, abandoned=waiting and self.outcome in ("client_gone", "wait_limit"))

    async def _tell(self, error: ApiError) -> None:
        try:
            await self.outlet.fail(error)
        except asyncio.CancelledError:
            if self.stopped is None:
                raise

    async def _answer(self) -> None:
        while True:
            try:
                await self._attempt()
                return
            except EngineRefused as refused:
                if self._is_clients_fault(refused):
                    await self._hand_on(refused)
                    return
                self._blame(refused)
                self._again("engine_busy" if refused.status in BUSY else "engine_failed", refused)
            except KvLost as lost:
                self._blame(lost.__cause__)
                self.lost_kv += 1
                self._again("kv_lost", lost)
            except EngineUnreachable as error:
                self._blame(error)
                self._again("engine_failed", error)

    async def _attempt(self) -> None:
        g = await self._turn(self.max_wait, "a prefill")
        self.times.prefill = self.gateway.clock()
        engine = self.gateway.adapters[g]
        if self.ticket.stays or not self.gateway.two_legs(self.ask.stream):
            await self._single_leg(g)
            return
        handover = await engine.read_prompt(self.call)
        fetched = False
        try:
            decode = await self._place(handover)
            self.times.decode = self.gateway.clock()
            async with self.gateway.adapters[decode].write_answer(self.call, handover) as answer:
                fetched = True
                await self._relay(answer)
        finally:
            if not fetched:
                self.gateway.release_later(engine, handover)

    async def _place(self, handover: Handover) -> int:
        """The engine of the decode once it may start.

        Raises:
            KvLost: the KV would be lost if it waited on.
            ApiError: it has waited for too long.
        """
        now = self.gateway.clock()
        self.times.prompt_read = now
        self.prompt_tokens = handover.prompt_tokens or self.ask.prompt_tokens
        if self.gateway.dispatcher.prompt_read(self.ticket, self.prompt_tokens):
            return self.ticket.decode_engine
        lease = self.gateway.lease * (1.0 - LEASE_MARGIN)
        if lease >= self.max_wait:
            return await self._turn(self.max_wait, "a decode")
        try:
            return await self._turn(lease, "a decode")
        except ApiError:
            raise KvLost("its lease would have ended in the decode buffer") from None

    async def _turn(self, seconds: float, what: str) -> int:
        """The engine where it is this request's turn.

        Raises:
            ApiError: it has waited for too long.
        """
        turn = self.ticket.turn
        assert turn is not None
        if turn.done():
            return turn.result()
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(turn)
        except TimeoutError:
            if turn.done():
                return turn.result()
            if not self.gateway.any_up:
                raise unavailable("no_engine", f"no engine answered for {seconds:g} s") from None
            raise busy(
                "wait_limit",
                f"waited {seconds:g} s for {what} in class '{self.gateway.class_names[self.ticket.cls]}'",
                self.gateway.retry_after(self.ticket.cls),
            ) from None

    async def _single_leg(self, g: int) -> None:
        """Prompt and answer in one call: the prefill has ended when the first token comes."""
        self.prompt_tokens = self.ask.prompt_tokens
        timer = None
        if not self.ask.stream:
            seconds = self.gateway.prefill_seconds(self.ask.prompt_tokens)
            timer = asyncio.get_running_loop().call_later(seconds, self._prompt_is_read)
        try:
            async with self.gateway.adapters[g].write_answer(self.call, None) as answer:
                await self._relay(answer)
        finally:
            if timer is not None:
                timer.cancel()

    def _prompt_is_read(self) -> None:
        if self.ticket.stage is Stage.PREFILL:
            self.times.prompt_read = self.times.decode = self.gateway.clock()
            self.gateway.dispatcher.prompt_read(self.ticket, self.prompt_tokens)

    async def _relay(self, answer: Answer) -> None:
        """Hand the answer on as it comes, from the first token on; a whole one when it is whole."""
        if not self.ask.stream:
            await self._hand_over_whole(answer)
            return
        counter, outlet, held = TokenCounter(), self.outlet, b""
        dropper = UsageDropper() if self.own_usage else None
        try:
            async for chunk in answer.chunks():
                counter.feed(chunk)
                chunk = dropper.feed(chunk) if dropper is not None else chunk
                if not chunk:
                    continue
                if outlet.status:
                    await outlet.more(chunk)
                    continue
                held += chunk
                if counter.tokens or (counter.finished and not counter.failed):
                    await self._begin(answer, counter, held)
        except EngineUnreachable as error:
            if not counter.finished:
                self._broke_off(counter, error)
        self.output_tokens = counter.tokens
        self.times.last_token = self.gateway.clock()
        if counter.failed:
            await self._end_failed(counter)
            return
        if not counter.finished:
            self._broke_off(counter, EngineUnreachable(self._url_at_work(), "no end of the answer", taken=True))
        self._complete()
        await outlet.end(dropper.rest if dropper is not None else b"")

    async def _begin(self, answer: Answer, counter: TokenCounter, held: bytes) -> None:
        """With the first token: until then the engine may fail without the client's knowledge."""
        if counter.tokens:
            self.times.first_token = self.gateway.clock()
        self._prompt_is_read()
        await self.outlet.begin(answer.status, answer.headers)
        await self.outlet.more(held)

    def _broke_off(self, counter: TokenCounter, error: EngineUnreachable) -> NoReturn:
        """The engine has gone within the answer."""
        self.output_tokens = counter.tokens
        if not self.outlet.status:
            raise error
        self._blame(error)
        raise ApiError(502, "engine_failed", f"the engine failed within the answer ({error})")

    async def _end_failed(self, counter: TokenCounter) -> None:
        """The engine has told of an error in the stream, which the client has by now, unless nothing was sent."""
        if not self.outlet.status:
            raise EngineUnreachable(self._url_at_work(), "an error before the first token", taken=True)
        self.outcome = "engine_failed"
        self._leave()
        await self.outlet.end()

    async def _hand_over_whole(self, answer: Answer) -> None:
        body = await answer.read()
        self.times.last_token = self.gateway.clock()
        self._prompt_is_read()
        self.output_tokens = stated_tokens(body) or 0
        self._complete()
        await self.outlet.whole(answer.status, answer.headers, body)

    def _complete(self) -> None:
        """The engine has ended the answer: its slot is free, however slowly the client reads."""
        self.outcome = "completed"
        self.gateway.dispatcher.note_completed(self.ticket, self.output_tokens)
        self.gateway.dispatcher.leave(self.ticket)

    def _is_clients_fault(self, refused: EngineRefused) -> bool:
        return 400 <= refused.status < 500 and refused.status not in BUSY

    async def _hand_on(self, refused: EngineRefused) -> None:
        """An engine's error that is the client's to mend."""
        self.outcome = "engine_refused"
        self._leave()
        status = refused.status if refused.status in STATUSES else 400
        await self.outlet.whole(status, refused.headers, refused.body)

    def _blame(self, error: BaseException | None) -> None:
        """What an engine has done to a request tells of the engine: it is down, or takes none now."""
        if isinstance(error, EngineRefused) and error.status in BUSY:
            self.gateway.back_off(self._engine_at_work())
        elif isinstance(error, EngineRefused | EngineUnreachable):
            self.gateway.suspect(self._engine_at_work())

    def _again(self, reason: str, error: Exception) -> None:
        """Back to the front of the queue, if there are attempts left; nothing has been sent."""
        if self.ticket.attempts >= self.gateway.attempts:
            raise unavailable(reason, f"gave up after {self.ticket.attempts} attempts ({error})")
        self.times.prompt_read = self.times.decode = math.nan
        self.gateway.dispatcher.enter_again(self.ticket)

    def _engine_at_work(self) -> int:
        ticket = self.ticket
        return ticket.decode_engine if ticket.stage is Stage.DECODE else ticket.engine

    def _url_at_work(self) -> str:
        return self.gateway.adapters[self._engine_at_work()].url
