"""A request from its arrival to its last token: wait at the gate, read the prompt, wait for a slot, write the answer.

What an engine loses before the first token is begun again elsewhere; after it the stream ends with an error event.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluidgate.gateway.api_error import ApiError, busy, unavailable
from fluidgate.gateway.ask import Ask, ClientGone
from fluidgate.gateway.engines import (
    Answer,
    Call,
    EngineRefused,
    EngineUnreachable,
    Handover,
    KvLost,
)
from fluidgate.gateway.outlet import Outlet
from fluidgate.gateway.sse import TokenCounter, stated_tokens
from fluidgate.gateway.ticket import Stage, Ticket

if TYPE_CHECKING:
    from fluidgate.gateway.gateway import Gateway

LEASE_MARGIN = 0.2
"""Share of the KV lease that is kept for the decode engine to come and fetch."""

BUSY = (408, 425, 429, 503)
"""What an engine answers that can't take a request now."""


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
        """Answer the request, or end it with one clear error. Whatever it held is free afterwards."""
        self._task = asyncio.current_task()
        try:
            await self._answer()
            self.outcome = self.outcome or "completed"
        except ApiError as error:
            self.outcome = error.reason
            await self.outlet.fail(error)
        except ClientGone:
            self.outcome = "client_gone"
        except asyncio.CancelledError:
            if isinstance(self.stopped, ApiError):
                self.outcome = self.stopped.reason
                await self.outlet.fail(self.stopped)
            else:
                self.outcome = "client_gone" if self.stopped else "cancelled"
                if self.stopped is None:
                    raise
        finally:
            waiting = self.ticket.stage in (Stage.WAITING, Stage.BUFFERED)
            self.gateway.dispatcher.leave(self.ticket, weary=waiting and self.outcome in ("client_gone", "wait_limit"))

    async def _answer(self) -> None:
        self.gateway.dispatcher.enter(self.ticket)
        while True:
            try:
                await self._attempt()
                return
            except EngineRefused as refused:
                if await self._is_clients_fault(refused):
                    return
            except KvLost:
                self.lost_kv += 1
                self._again("kv_lost", None)
            except EngineUnreachable as error:
                self.gateway.suspect(self._engine_at_work())
                self._again("engine_failed", error)

    async def _attempt(self) -> None:
        g = await self._turn(self.max_wait, "a prefill")
        self.times.prefill = self.gateway.clock()
        engine = self.gateway.adapters[g]
        if not self.gateway.two_legs(self.ask.stream):
            await self._single_leg(g)
            return
        handover: Handover | None = await engine.read_prompt(self.call)
        try:
            decode = await self._place()
            self.times.decode = self.gateway.clock()
            async with self.gateway.adapters[decode].write_answer(self.call, handover) as answer:
                handover = None
                await self._relay(answer)
        finally:
            if handover is not None:
                self.gateway.release_later(engine, handover)

    async def _place(self) -> int:
        """The engine of the decode once it may start.

        Raises:
            KvLost: the KV would be lost if it waited on.
            ApiError: it has waited for too long.
        """
        now = self.gateway.clock()
        self.times.prompt_read = now
        self.prompt_tokens = self.ask.prompt_tokens
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
        """Hand the answer on as it comes; a whole one when it is whole."""
        if not self.ask.stream:
            await self._hand_over_whole(answer)
            return
        counter = TokenCounter()
        clock, outlet = self.gateway.clock, self.outlet
        try:
            async for chunk in answer.chunks():
                counter.feed(chunk)
                if counter.tokens and math.isnan(self.times.first_token):
                    self.times.first_token = clock()
                    self._prompt_is_read()
                if not outlet.status:
                    await outlet.begin(answer.status, answer.headers)
                await outlet.more(chunk)
        except EngineUnreachable as error:
            self.output_tokens = counter.tokens
            if outlet.status:
                self.gateway.suspect(self._engine_at_work())
                raise ApiError(502, "engine_failed", f"the engine failed within the answer ({error})") from None
            raise
        self.output_tokens = counter.tokens
        self.times.last_token = clock()
        if not counter.finished:
            raise ApiError(502, "engine_failed", "the engine ended the answer before its end")
        self._complete()
        await outlet.end()

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

    async def _is_clients_fault(self, refused: EngineRefused) -> bool:
        """Hand an engine's error on if it is the client's to mend; otherwise go elsewhere."""
        if 400 <= refused.status < 500 and refused.status not in BUSY:
            self.outcome = "engine_refused"
            await self.outlet.whole(refused.status, refused.headers, refused.body)
            return True
        self.gateway.back_off(self._engine_at_work())
        self._again("engine_busy" if refused.status in BUSY else "engine_failed", refused)
        return False

    def _again(self, reason: str, error: Exception | None) -> None:
        """Back to the front of the queue, if there are attempts left and nothing has been sent."""
        if self.outlet.status:
            raise ApiError(502, reason, f"the engine failed within the answer ({error})")
        if self.ticket.attempts >= self.gateway.attempts:
            why = f" ({error})" if error is not None else ""
            raise unavailable(reason, f"gave up after {self.ticket.attempts} attempts{why}")
        self.gateway.dispatcher.enter_again(self.ticket)

    def _engine_at_work(self) -> int:
        ticket = self.ticket
        return ticket.decode_engine if ticket.stage is Stage.DECODE else ticket.engine
