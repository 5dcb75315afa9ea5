"""The end points that take a body: each request is read, let in, handled, and leaves a record."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from uuid import uuid4

from fluidgate.gateway.client.api_error import ApiError, invalid, unavailable
from fluidgate.gateway.client.asgi import ClientGone, Receive, Scope, read_body
from fluidgate.gateway.client.classifier import Header, Traits
from fluidgate.gateway.client.completion_request import CompletionRequest
from fluidgate.gateway.client.end_points import Work
from fluidgate.gateway.client.passing_by import PassingBy
from fluidgate.gateway.client.pings import pinged
from fluidgate.gateway.client.prompt_meter import PromptMeter
from fluidgate.gateway.client.protocol import client_of
from fluidgate.gateway.client.quotas import Grant, Quotas
from fluidgate.gateway.client.request_handler import RequestHandler
from fluidgate.gateway.client.response import Response
from fluidgate.gateway.client.service import Service
from fluidgate.gateway.client.tracing import UNTRACED, Tracing
from fluidgate.gateway.dispatch.ticket import Ticket
from fluidgate.gateway.ended import EndedRequest, Times
from fluidgate.gateway.engines import Call
from fluidgate.gateway.gateway_tables import LimitsTable
from fluidgate.gateway.prefixes import Chain

SLOWEST_TOKEN = 1.0
"""s that each token of an answer in one piece may take."""

LONGEST_ANSWER = 1 << 17
"""Tokens, where neither the request nor the engines say."""

WAIT_HEADER = "x-fluidgate-max-wait"
"""The longest wait for a prefill, and again for a decode, that a client bears, s."""

TRACE_HEADERS = ("traceparent", "tracestate")

LARGE_BODY = 1 << 20
"""Bytes; larger bodies are parsed one at a time, and the event loop has its turn between two."""


class Completions:
    """Serves requests, however many at a time."""

    def __init__(
        self,
        find: Callable[[str], tuple[Service, str] | None],
        drawn: Callable[[Service, str, CompletionRequest, int, Header], tuple[Service, str]],
        meter: PromptMeter,
        limits: LimitsTable,
        ping_seconds: float,
        *,
        quotas: Quotas,
        tracing: Tracing | None,
        ended: Callable[[EndedRequest], None],
    ) -> None:
        """
        Args:
            find: gives what serves a model, "" for any, and what the engines call it; None if nothing does.
            drawn: gives the same for a request of a class, by what `find` gave for its model, and its headers.
            meter: says how long a prompt is.
            ping_seconds: between comments on a stream that waits; 0 for none.
            quotas: what each key may use.
            tracing: keeps traces; None for none.
            ended: called with what each request has left behind.
        """
        self._find = find
        self._drawn = drawn
        self._meter = meter
        self._limits = limits
        self._ping_seconds = ping_seconds
        self._quotas = quotas
        self._tracing = tracing
        self._ended = ended
        self._under_way: set[RequestHandler] = set()
        self._passing_by = PassingBy()
        self._one_large = asyncio.Lock()

    @property
    def under_way(self) -> int:
        """Requests that are being served."""
        return len(self._under_way)

    def adopt(self, meter: PromptMeter, limits: LimitsTable, ping_seconds: float) -> None:
        """What requests are measured and bounded by from now on."""
        self._meter, self._limits, self._ping_seconds = meter, limits, ping_seconds

    async def serve(
        self, scope: Scope, header: Header, key: str | None, client_id: str, receive: Receive, response: Response
    ) -> None:
        """Answer one request.

        Args:
            header: gives the values of a header by its lower-case name.
            key: name of the API key, if one was given.
            client_id: the client's own name of the request, "" if it gave none.
            response: where the answer goes.

        Raises:
            ApiError: it is refused; nothing has been sent.
            ClientGone: the client left before the end of its request.
        """
        raw = await read_body(scope["headers"], receive, self._limits.max_body_bytes)
        request = await self._request(scope["path"], raw)
        service, model = self._served_by(request.model)
        name = request.end_point.name
        cls = service.classifier.class_of(Traits(header, key, request.model, name, request.prompt_tokens))
        service, model = self._drawn(service, model, request, cls, header)
        request = request if model == request.model else request.of_model(model)
        service.admission.check(request)
        if request.end_point.work is Work.NONE:
            await self._passing_by.serve(service, self._call(service, request, header), response)
            return
        max_wait = min(service.max_wait[cls], client_max_wait(header))
        drop_usage = service.group.settings.engines.ask_usage and request.stream and not request.wants_usage
        call = self._call(service, request.with_usage() if drop_usage else request, header)
        ticket = Ticket(
            cls,
            request.prompt_tokens,
            stays=not call.splits or service.may_overflow(request),
            most_output=request.answers * (request.output_limit or math.inf),
            key=key or "",
            weight=self._quotas.weight_of(key),
            chain=await self._chain(service, request),
        )
        grant = self._let_in(service, ticket, key, request)
        response.request_id = client_id or call.id
        response.add_headers(grant.headers)
        times = Times(arrived=service.clock())
        trace = UNTRACED if self._tracing is None else self._tracing.begin(request.path, header)
        handler = RequestHandler(service, request, call, response, ticket, max_wait, drop_usage, times, trace)
        watch = asyncio.create_task(_stop_when_gone(receive, handler))
        self._under_way.add(handler)
        service.group.under_way += 1
        try:
            async with pinged(response, self._ping_seconds if request.stream else 0.0):
                await handler.run()
        finally:
            watch.cancel()
            self._under_way.discard(handler)
            service.group.under_way -= 1
            times.end = service.clock()
            ended = ended_request(handler, service.class_names[cls], key, client_id, client_of(scope.get("client")))
            trace.end(ended)
            self._quotas.end(grant, ended)
            self._ended(ended)
            service.admission.note_end(cls)

    def break_off(self) -> None:
        """End what is still under way, each with an error of its own."""
        for handler in list(self._under_way):
            handler.stop(unavailable("shutting_down", "the gateway is shutting down"))

    async def _chain(self, service: Service, request: CompletionRequest) -> Chain | None:
        """The prompt as a chain of hashes, where its group looks for its beginning."""
        prefixes, kind = service.dispatcher.prefixes, request.end_point.prompt
        if prefixes is None or kind is None:
            return None
        chain, seconds = await self._meter.hashed(kind, request.body, len(request.raw))
        prefixes.hash_seconds += seconds
        return chain

    def _let_in(self, service: Service, ticket: Ticket, key: str | None, request: CompletionRequest) -> Grant:
        """What its key's quota grants a request that is let in; without a limit of its answer, of its class's mean.

        Raises:
            ApiError: it is refused, by its quota or at the door.
        """
        name, grant = service.class_names[ticket.cls], None
        try:
            mean = service.group.settings.scenario.classes[ticket.cls].output_tokens
            output = request.answers * (request.output_limit or math.ceil(mean))
            grant = self._quotas.admit(key, name, ticket.prompt, output)
            service.admission.admit(ticket)
        except ApiError as error:
            error.class_name = name
            if grant is not None:
                self._quotas.withdraw(grant)
                error.headers |= grant.headers
            raise
        return grant

    async def _request(self, path: str, raw: bytes) -> CompletionRequest:
        if len(raw) <= LARGE_BODY:
            request = CompletionRequest.parsed(path, raw)
        else:
            async with self._one_large:
                request = CompletionRequest.parsed(path, raw)
                await asyncio.sleep(0)
        if request.answers > self._limits.max_answers:
            what = f"the request asks for {request.answers} answers (its prompts times n)"
            raise invalid(f"{what}; {self._limits.max_answers} are given")
        return await request.measured(self._meter)

    def _served_by(self, model: str) -> tuple[Service, str]:
        """What serves a model, and what the engines call it.

        Raises:
            ApiError: there is no such model.
        """
        found = self._find(model)
        if found is None:
            raise ApiError(404, "model_not_found", f"no model '{model[:100]}' is served here", param="model")
        return found

    def _call(self, service: Service, request: CompletionRequest, header: Header) -> Call:
        passed = (*TRACE_HEADERS, *request.end_point.headers, *service.group.settings.engines.pass_headers)
        headers = {name: values[0] for name in passed if (values := header(name))}
        silence = self._silence(service, request)
        return Call(request.path, request.body, request.raw, f"fg-{uuid4().hex}", headers, silence)

    def _silence(self, service: Service, request: CompletionRequest) -> float:
        """The longest that an engine may say nothing, s: of a whole answer nothing is heard until its end."""
        seconds = self._limits.token_seconds
        if request.stream:
            return seconds
        return seconds + SLOWEST_TOKEN * (request.output_limit or service.backends.context_length or LONGEST_ANSWER)


def client_max_wait(header: Header) -> float:
    """The longest wait that the client itself will bear, s; inf if it does not say.

    Raises:
        ApiError: it says what is no time.
    """
    given = header(WAIT_HEADER)
    if not given:
        return math.inf
    try:
        seconds = float(given[0])
    except ValueError:
        seconds = math.nan
    if len(given) > 1 or not 0.0 <= seconds < math.inf:
        raise invalid(f"the header '{WAIT_HEADER}' must be a number of seconds", reason="invalid_header")
    return seconds


async def _stop_when_gone(receive: Receive, handler: RequestHandler) -> None:
    """Break the request off when its client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    handler.stop(ClientGone())


def ended_request(
    handler: RequestHandler, class_name: str, key: str | None, client_id: str, client: str
) -> EndedRequest:
    """What a request has left behind."""
    request, ticket = handler.request, handler.ticket
    return EndedRequest(
        id=handler.call.id,
        client_id=client_id,
        client=client,
        model=handler.service.group.settings.name,
        class_name=class_name,
        pricing=handler.service.group.settings.scenario.prices,
        key=key,
        path=request.path,
        stream=request.stream,
        status=handler.response.status,
        outcome=handler.outcome,
        prompt_tokens=handler.prompt_tokens or request.prompt_tokens,
        output_tokens=handler.output_tokens,
        prefill_engine=None if handler.prefill_engine is None else handler.prefill_engine.url,
        decode_engine=None if handler.decode_engine is None else handler.decode_engine.url,
        attempts=ticket.attempts,
        lost_kv=handler.lost_kv,
        times=handler.times,
        error=handler.error,
    )
