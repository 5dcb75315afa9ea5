"""A request from its arrival to its last token: wait at the gate, read the prompt, wait for a slot, write the answer.

What an engine loses before the first token is begun again elsewhere; after it the stream ends with an error event.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, NoReturn

from fluidgate.gateway.client.api_error import ApiError, unavailable
from fluidgate.gateway.client.asgi import ClientGone
from fluidgate.gateway.client.completion_request import CompletionRequest
from fluidgate.gateway.client.response import Response
from fluidgate.gateway.client.service import Service
from fluidgate.gateway.client.stream_relay import StreamRelay
from fluidgate.gateway.dispatch.ticket import Stage, Ticket
from fluidgate.gateway.ended import Times
from fluidgate.gateway.engines import Answer, Call, EngineRefused, EngineUnreachable, Handover, KvLost
from fluidgate.gateway.engines.sse import stated_tokens

LEASE_MARGIN = 0.1
"""Share of the KV lease that is kept for the decode engine to come and fetch."""

BUSY = (408, 425, 429, 503)
"""What an engine answers that can't take a request now."""

STATUSES = frozenset(HTTPStatus)
"""Those that HTTP knows; an engine's own invention is handed on as 400."""


@dataclass(eq=False)
class RequestHandler:
    """Answers one request.

    Attributes:
        call: the request as engines get it.
        max_wait: s, for a prefill and again for a decode.
        drop_usage: whether the gateway asked for the stream's usage, and the client did not.
        outcome: how it ended: "completed", or the reason why not.
        prompt_tokens, output_tokens: counted by the engine where it says so.
        lost_kv: how often the prompt was read again because its KV was lost.
        stopped: why it is broken off from outside.
    """

    service: Service
    request: CompletionRequest
    call: Call
    response: Response
    ticket: Ticket
    max_wait: float
    drop_usage: bool
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
        abandoned = waiting and self.outcome in ("client_gone", "wait_limit")
        self.service.dispatcher.leave(self.ticket, abandoned=abandoned)

    async def _tell(self, error: ApiError) -> None:
        try:
            await self.response.fail(error)
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
        service = self.service
        g = await self._turn(self.max_wait, "a prefill")
        self.times.prefill = service.clock()
        if self.ticket.stays or not service.two_legs(self.request.stream):
            await self._single_leg(g)
            return
        handover = await service.backends.adapters[g].read_prompt(self.call)
        fetched = False
        try:
            decode = await self._place(handover)
            self.times.decode = service.clock()
            async with service.backends.adapters[decode].write_answer(self.call, handover) as answer:
                fetched = True
                await self._relay(answer)
        finally:
            if not fetched:
                service.backends.release_later(g, handover)

    async def _place(self, handover: Handover) -> int:
        """The engine of the decode once it may start.

        Raises:
            KvLost: the KV would be lost if it waited on.
            ApiError: it has waited for too long.
        """
        self.times.prompt_read = self.service.clock()
        self.prompt_tokens = handover.prompt_tokens or self.request.prompt_tokens
        if self.service.dispatcher.prompt_read(self.ticket, self.prompt_tokens):
            return self.ticket.decode_engine
        lease = self.service.backends.lease * (1.0 - LEASE_MARGIN)
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
            raise self.service.admission.waited_too_long(self.ticket, seconds, what) from None

    async def _single_leg(self, g: int) -> None:
        """Prompt and answer in one call: the prefill has ended when the first token comes."""
        self.prompt_tokens = self.request.prompt_tokens
        timer = None
        if not self.request.stream:
            seconds = self.service.prefill_seconds(self.prompt_tokens)
            timer = asyncio.get_running_loop().call_later(seconds, self._prompt_is_read)
        try:
            async with self.service.backends.adapters[g].write_answer(self.call, None) as answer:
                await self._relay(answer)
        finally:
            if timer is not None:
                timer.cancel()

    def _prompt_is_read(self) -> None:
        if self.ticket.stage is Stage.PREFILL:
            self.times.prompt_read = self.times.decode = self.service.clock()
            self.service.dispatcher.prompt_read(self.ticket, self.prompt_tokens)

    async def _relay(self, answer: Answer) -> None:
        """Hand the answer on as it comes; a whole one when it is whole."""
        if not self.request.stream:
            await self._hand_over_whole(answer)
            return
        relay = StreamRelay(self.response, begins=self._begins, drop_usage=self.drop_usage)
        try:
            await relay.run(answer)
        except EngineUnreachable as error:
            self._broke_off(relay.counter.tokens, error)
        finally:
            self.output_tokens = relay.counter.tokens  # known of those broken off as well
        counter = relay.counter
        self.times.last_token = self.service.clock()
        if counter.failed:
            await self._end_failed()
            return
        if not counter.finished:
            self._broke_off(counter.tokens, self._unreachable("no end of the answer"))
        self._complete()
        await self.response.end(relay.rest)

    def _begins(self, tokens: int) -> None:
        """The first byte is about to be sent; without tokens, the answer is empty."""
        if tokens:
            self.times.first_token = self.service.clock()
        self._prompt_is_read()

    def _broke_off(self, tokens: int, error: EngineUnreachable) -> NoReturn:
        """The engine has gone within the answer."""
        self.output_tokens = tokens
        if not self.response.status:
            raise error
        self._blame(error)
        raise ApiError(502, "engine_failed", f"the engine failed within the answer ({error})")

    async def _end_failed(self) -> None:
        """The engine has told of an error in the stream, which the client has by now, unless nothing was sent."""
        if not self.response.status:
            raise self._unreachable("an error before the first token")
        self.outcome = "engine_failed"
        self._leave()
        await self.response.end()

    async def _hand_over_whole(self, answer: Answer) -> None:
        body = await answer.read()
        self.times.last_token = self.service.clock()
        self._prompt_is_read()
        self.output_tokens = stated_tokens(body) or 0
        self._complete()
        await self.response.whole(answer.status, answer.headers, body)

    def _complete(self) -> None:
        """The engine has ended the answer: its slot is free, however slowly the client reads."""
        self.outcome = "completed"
        self.service.dispatcher.note_completed(self.ticket, self.output_tokens)
        self.service.dispatcher.leave(self.ticket)

    def _is_clients_fault(self, refused: EngineRefused) -> bool:
        return 400 <= refused.status < 500 and refused.status not in BUSY

    async def _hand_on(self, refused: EngineRefused) -> None:
        """An engine's error that is the client's to mend."""
        self.outcome = "engine_refused"
        self._leave()
        status = refused.status if refused.status in STATUSES else 400
        await self.response.whole(status, refused.headers, refused.body)

    def _blame(self, error: BaseException | None) -> None:
        """What an engine has done to a request tells of the engine: it is down, or takes none now."""
        if isinstance(error, EngineRefused) and error.status in BUSY:
            self.service.monitor.back_off(self._engine_at_work())
        elif isinstance(error, EngineRefused | EngineUnreachable):
            self.service.monitor.report_failure(self._engine_at_work())

    def _again(self, reason: str, error: Exception) -> None:
        """Back to the front of the queue, if there are attempts left; nothing has been sent."""
        if self.ticket.attempts >= self.service.attempts:
            raise unavailable(reason, f"gave up after {self.ticket.attempts} attempts ({error})")
        self.times.prompt_read = self.times.decode = math.nan
        self.service.dispatcher.enter_again(self.ticket)

    def _engine_at_work(self) -> int:
        ticket = self.ticket
        return ticket.decode_engine if ticket.stage is Stage.DECODE else ticket.engine

    def _unreachable(self, reason: str) -> EngineUnreachable:
        url = self.service.backends.adapters[self._engine_at_work()].url
        return EngineUnreachable(url, reason, taken=True)
