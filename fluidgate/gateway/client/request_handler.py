"""A request from its arrival to its last token: wait at the gate, read the prompt, wait for a slot, write the answer.

What an engine loses before the first token is begun again elsewhere; after it the stream ends with an error event.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, NoReturn

from fluidgate.gateway.client.api_error import ApiError, unavailable
from fluidgate.gateway.client.asgi import ClientGone
from fluidgate.gateway.client.completion_request import CompletionRequest
from fluidgate.gateway.client.end_points import Work
from fluidgate.gateway.client.fault_finder import FaultFinder
from fluidgate.gateway.client.prompt_text import answered
from fluidgate.gateway.client.response import Response
from fluidgate.gateway.client.service import Service
from fluidgate.gateway.client.stream_relay import StreamRelay
from fluidgate.gateway.client.tracing import UNTRACED, RequestTrace
from fluidgate.gateway.cluster.engine import Engine
from fluidgate.gateway.dispatch.ticket import Stage, Ticket
from fluidgate.gateway.ended import Times
from fluidgate.gateway.engines import Answer, Call, EngineRefused, EngineUnreachable, Handover, KvLost, NoConnection
from fluidgate.gateway.engines.answers import Said, gathered, said_in
from fluidgate.gateway.engines.sse import stated_prompt, stated_tokens

LEASE_MARGIN = 0.1
"""Share of the KV lease that is kept for the decode engine to come and fetch."""

ROUND_TRIP = 0.01
"""s in which an answer comes back from an engine, about."""

STATUSES = frozenset(HTTPStatus)
"""Those that HTTP knows; an engine's own invention is handed on as 400."""


@dataclass(eq=False)
class RequestHandler:
    """Answers one request.

    Attributes:
        call: the request as engines get it.
        max_wait: s, for a prefill and again for a decode.
        drop_usage: whether the gateway asked for the stream's usage, and the client did not.
        trace: gets a step for each leg and each wait.
        outcome: how it ended: "completed", or the reason why not; `error`, what the client was told of it then.
        prompt_tokens, output_tokens: counted by the engine where it says so.
        lost_kv: how often the prompt was read again because its KV was lost.
        prefill_engine, decode_engine: those of the last attempt, None if it came to none.
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
    trace: RequestTrace = UNTRACED
    outcome: str = ""
    error: str = ""
    prompt_tokens: int = 0
    output_tokens: int = 0
    lost_kv: int = 0
    prefill_engine: Engine | None = None
    decode_engine: Engine | None = None
    stopped: ApiError | ClientGone | None = None
    _task: asyncio.Task[Any] | None = field(default=None, repr=False)
    _gone: EngineUnreachable | None = field(default=None, repr=False)
    _kv_life: int = field(default=0, repr=False)
    _reads_here: bool = field(default=False, repr=False)

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
            self.error = error.message
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
        """Attempt after attempt, until the answer, or an error that is the request's own, has gone out."""
        everywhere = self.request.end_point.everywhere
        self._faults = FaultFinder(self.service, self.call.id, self.request.model, self.ticket, everywhere=everywhere)
        aside = self._faults.only_place()
        while True:
            try:
                await (self._attempt() if aside is None else self._aside(aside))
                return
            except EngineRefused as refused:
                verdict = await self._faults.of_refusal(refused, self._speaks(refused), own_words=self._own_words)
                if verdict.final:
                    await self._hand_on(refused)
                    return
                aside = verdict.aside
            except KvLost as lost:
                self.lost_kv += 1
                if self._other_half is not None and self.decode_engine is not None:
                    self._faults.fell_out(self._other_half, self.decode_engine)
                at = self._speaks(lost.__cause__)
                verdict = await self._faults.of_lost_kv(lost, at, heard=self._heard, company=self._company)
                aside = verdict.aside
            except EngineUnreachable as error:
                at = self._speaks(error)
                verdict = await self._faults.of_broken(error, at, heard=self._heard, company=self._company)
                aside = verdict.aside
            except NoConnection as error:
                raise unavailable("no_connection", str(error)) from error
            self.times.prompt_read = self.times.decode = math.nan
            if aside is None:
                self.service.dispatcher.enter_again(self.ticket)

    async def _attempt(self) -> None:
        """As the policy says: where, and in one leg or two."""
        service = self.service
        self._reads_here = False
        engine = service.backends[await self._turn(self.max_wait, "a prefill")]
        self.times.prefill = service.clock()
        pairs = engine.adapter.abilities.pairs and self.request.end_point.work is Work.GENERATE
        if not pairs and (self.ticket.stays or not service.two_legs(self.request.stream)):
            await self._single_leg(engine)
            return
        writer = service.backends[self.ticket.decode_engine] if pairs else None
        handover = await (self._read_prompt(engine) if writer is None else self._read_for(engine, writer))
        fetched = False
        try:
            decode = service.backends[await self._place(handover)]
            self.times.decode = service.clock()
            async with (
                self._leg("decode", decode, own_words=pairs) as call,
                decode.adapter.write_answer(call, handover) as answer,
            ):
                self.decode_engine = decode
                fetched = True
                await self._relay(answer)
        finally:
            engine.handovers -= 1
            if not fetched:
                service.backends.release_later(engine, handover)

    async def _aside(self, engine: Engine) -> None:
        """The whole request on an engine that no policy has chosen."""
        self.service.dispatcher.go_beside(self.ticket, engine.place)
        self.times.prefill = self.service.clock()
        await self._single_leg(engine)

    async def _read_prompt(self, engine: Engine) -> Handover:
        self.prefill_engine, self.decode_engine = engine, None
        async with self._leg("prefill", engine) as call:
            handover = await engine.adapter.read_prompt(call)
        self._kv_life = engine.life
        self._note_told(handover.prompt_tokens, handover.cached_tokens)
        engine.handovers += 1
        return handover

    async def _read_for(self, engine: Engine, writer: Engine) -> Handover:
        """The prompt is read on one engine of a pair, while the other is waiting for it already."""
        self.prefill_engine, self.decode_engine = engine, writer
        heard = writer.adapter.heard
        writer.expect_answer(self._give_up)
        try:
            async with self._leg("prefill", engine, own_words=True) as call:
                handover = await engine.adapter.read_prompt(call, writer.adapter)
        except EngineUnreachable as error:
            if error.url == writer.url:
                self._heard, self._company = heard, writer.unanswered
            raise
        finally:
            writer.answered(self._give_up)
        self.service.monitor.served(engine)
        self._note_told(handover.prompt_tokens, handover.cached_tokens)
        engine.handovers += 1
        return handover

    def _speaks(self, error: BaseException | None) -> Engine:
        """The engine that an error is of: the one at work, or of a pair the other."""
        if isinstance(error, EngineRefused | EngineUnreachable) and (named := self.decode_engine) is not None:
            return named if named.url == error.url else self._at
        return self._at

    @asynccontextmanager
    async def _leg(self, name: str, engine: Engine, *, own_words: bool = False) -> AsyncIterator[Call]:
        """What is asked of an engine within; `own_words` if that is what the client has said, and no part of it."""
        self._at, self._own_words, self._heard = engine, own_words, engine.adapter.heard
        engine.expect_answer(self._give_up)
        try:
            with self.trace.step(name, engine.url) as headers:
                yield replace(self.call, headers={**self.call.headers, **headers}) if headers else self.call
        except asyncio.CancelledError:
            if self._gone is None or self.stopped is not None or self._task is None:
                raise
            gone, self._gone = self._gone, None
            self._task.uncancel()
            raise gone from None
        finally:
            self._company = engine.unanswered
            engine.answered(self._give_up)

    def _give_up(self, why: EngineUnreachable) -> None:
        """The engine that is waited for has gone without a word."""
        if self._task is not None:
            self._gone = why
            self._task.cancel()

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
            with self.trace.step(f"wait for {what}"):
                async with asyncio.timeout(seconds):
                    return await asyncio.shield(turn)
        except TimeoutError:
            if turn.done():
                return turn.result()
            raise self.service.admission.waited_too_long(self.ticket, seconds, what) from None

    async def _single_leg(self, engine: Engine) -> None:
        """Prompt and answer in one call: the prefill has ended when the first token comes, or, where none is seen, when
        it should have. The next prompt does not wait for word of one that is read in less time than the word takes.
        """
        self.prefill_engine = self.decode_engine = engine
        self._reads_here = True
        self.prompt_tokens = self.request.prompt_tokens
        timer = None
        seconds = self.service.prefill_seconds(self.ticket.unread)
        hidden = not self.request.stream and self.request.end_point.work is Work.GENERATE
        if hidden or seconds < ROUND_TRIP:
            timer = asyncio.get_running_loop().call_later(seconds, self._prompt_is_read)
        try:
            async with (
                self._leg("request", engine, own_words=True) as call,
                engine.adapter.write_answer(call, None) as answer,
            ):
                await self._relay(answer)
        finally:
            if timer is not None:
                timer.cancel()

    def _prompt_is_read(self) -> None:
        if math.isnan(self.times.prompt_read):
            self.times.prompt_read = self.times.decode = self.service.clock()
            self.service.dispatcher.prompt_read(self.ticket, self.prompt_tokens)

    async def _relay(self, answer: Answer) -> None:
        """Hand the answer on as it comes; a whole one when it is whole."""
        if not self.request.stream:
            await self._hand_over_whole(answer)
            return
        relay = StreamRelay(
            self.response,
            self.request.path,
            begins=self._begins,
            drop_usage=self.drop_usage,
            said=gathered(self.request.path, ids=self._in_ids, choices=self.request.answers) if self._goes_on else None,
        )
        counter = relay.counter
        try:
            await relay.run(answer)
        except EngineUnreachable as error:
            await self._broke_off(error)
        finally:
            self.output_tokens = counter.tokens
            if counter.tokens:
                self.times.last_token = self.service.clock()
        if counter.failed:
            await self._end_failed()
            return
        if not counter.finished:
            await self._broke_off(EngineUnreachable(self._at.url, "no end of the answer", taken=True))
        if counter.said is not None:
            self._note_answers(counter.said.said)
        self._complete(counter.usage)
        await self.response.end(relay.rest)

    def _begins(self, tokens: int) -> None:
        """The first byte is about to be sent; without tokens, the answer is empty."""
        self._believe_kv()
        if tokens:
            self.times.first_token = self.service.clock()
        self._prompt_is_read()
        self._at.answered(self._give_up)
        self._faults.served_by(self._at, self._other_half)

    def _believe_kv(self) -> None:
        """
        Raises:
            KvLost: the engine that read the prompt has gone since: what was fetched of it may be anything.
        """
        reader = self.prefill_engine
        if reader is None or reader is self._at or reader.adapter.abilities.pairs:
            return  # a pair's writer has had the KV before its reader answered
        if reader.life != self._kv_life or not reader.answers:
            raise KvLost(f"{reader.url} went down between the prompt and the answer")

    @property
    def _other_half(self) -> Engine | None:
        """Of a pair, the one that has read the prompt."""
        reader = self.prefill_engine
        return reader if reader is not None and reader.adapter.abilities.pairs else None

    async def _broke_off(self, error: EngineUnreachable) -> NoReturn:
        """The engine has gone within the answer."""
        if not self.response.begun:
            raise error
        await self._faults.of_cut(error, self._at)
        raise ApiError(502, "engine_failed", f"the engine failed within the answer ({error})")

    async def _end_failed(self) -> None:
        """The engine has told of an error in the stream, which the client has by now, unless nothing was sent."""
        if not self.response.begun:
            raise EngineUnreachable(self._at.url, "an error before the first token", taken=True)
        self.outcome = "engine_failed"
        self._leave()
        await self.response.end()

    async def _hand_over_whole(self, answer: Answer) -> None:
        body = await answer.read()
        self._believe_kv()
        self.times.last_token = self.service.clock()
        self._prompt_is_read()
        self.output_tokens = stated_tokens(body) or 0
        self._faults.served_by(self._at, self._other_half)
        if self._goes_on:
            self._note_answers(said_in(self.request.path, body, ids=self._in_ids))
        self._complete(body)
        await self.response.whole(answer.status, answer.headers, body)

    @property
    def _goes_on(self) -> bool:
        """Whether a later prompt may begin with this one and its answer, in a way that can be told."""
        generates = self.request.end_point.work is Work.GENERATE
        return self.ticket.chain is not None and generates and not self.call.body.get("echo")

    @property
    def _in_ids(self) -> bool:
        """Whether prompts are known by their token ids, and so their answers."""
        return self.ticket.chain is not None and not self.ticket.chain.text

    def _note_answers(self, said: Iterable[Said]) -> None:
        chain, kind = self.ticket.chain, self.request.end_point.prompt
        if chain is not None and kind is not None:
            self.ticket.answers = tuple(answered(kind, chain, each) for each in said)

    def _note_told(self, prompt: int | None, cached: int | None) -> None:
        """What the engine that has read the prompt says of it."""
        if prompt is not None:
            self.service.dispatcher.note_told(self.ticket, prompt, cached)

    def _complete(self, usage: bytes) -> None:
        """The engine has ended the answer: its slot is free, however slowly the client reads."""
        self.outcome = "completed"
        if self._reads_here and self.ticket.sent is not None:
            self._note_told(*stated_prompt(usage))
        self.service.dispatcher.note_completed(self.ticket, self.output_tokens)
        self.service.dispatcher.leave(self.ticket)

    async def _hand_on(self, refused: EngineRefused) -> None:
        """An engine's error that is the client's to mend, as the engine said it."""
        self.outcome = "engine_refused"
        self._leave()
        status = refused.status if refused.status in STATUSES else 400
        await self.response.refuse(status, refused.headers, refused.body)
