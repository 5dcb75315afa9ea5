"""The end points that take a body: each request is read, let in, handled, and leaves a record."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from uuid import uuid4

from fluidgate.gateway.backends import Backends
from fluidgate.gateway.client.api_error import invalid, unavailable
from fluidgate.gateway.client.asgi import ClientGone, Receive, Scope, read_body
from fluidgate.gateway.client.classifier import Classifier, Header, Traits
from fluidgate.gateway.client.completion_request import CompletionRequest
from fluidgate.gateway.client.end_points import Work
from fluidgate.gateway.client.passing_by import PassingBy
from fluidgate.gateway.client.pings import pinged
from fluidgate.gateway.client.prompt_meter import PromptMeter
from fluidgate.gateway.client.request_handler import RequestHandler
from fluidgate.gateway.client.response import Response
from fluidgate.gateway.client.service import Service
from fluidgate.gateway.dispatch.ticket import Ticket
from fluidgate.gateway.ended import EndedRequest, Times
from fluidgate.gateway.engines import Call
from fluidgate.gateway.gateway_file import EnginesTable, LimitsTable

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
        service: Service,
        meter: PromptMeter,
        classifier: Classifier,
        *,
        class_names: Sequence[str],
        limits: LimitsTable,
        max_wait: Sequence[float],
        engines: EnginesTable,
        ping_seconds: float,
        ended: Callable[[EndedRequest], None],
    ) -> None:
        """
        Args:
            service: what every request is served by.
            meter: says how long a prompt is; `classifier`, of which class a request.
            max_wait: by class, s.
            engines: what is asked of engines, and passed on to them.
            ping_seconds: between comments on a stream that waits; 0 for none.
            ended: called with what each request has left behind.
        """
        self._service = service
        self._meter = meter
        self._classifier = classifier
        self._class_names = class_names
        self._limits = limits
        self._max_wait = max_wait
        self._engines = engines
        self._ping_seconds = ping_seconds
        self._ended = ended
        self._under_way: set[RequestHandler] = set()
        self._passing_by = PassingBy(service)
        self._one_large = asyncio.Lock()

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
        service = self._service
        raw = await read_body(scope["headers"], receive, self._limits.max_body_bytes)
        request = await self._request(scope["path"], raw)
        service.admission.check(request)
        if request.end_point.work is Work.NONE:
            await self._passing_by.serve(self._call(request, header), response)
            return
        name = request.end_point.name
        cls = self._classifier.class_of(Traits(header, key, request.model, name, request.prompt_tokens))
        max_wait = min(self._max_wait[cls], client_max_wait(header))
        drop_usage = self._engines.ask_usage and request.stream and not request.wants_usage
        call = self._call(request.with_usage() if drop_usage else request, header)
        ticket = Ticket(cls, request.prompt_tokens, stays=not call.splits)
        service.admission.admit(ticket)
        response.request_id = client_id or call.id
        times = Times(arrived=service.clock())
        handler = RequestHandler(service, request, call, response, ticket, max_wait, drop_usage, times)
        watch = asyncio.create_task(_stop_when_gone(receive, handler))
        self._under_way.add(handler)
        try:
            async with pinged(response, self._ping_seconds if request.stream else 0.0):
                await handler.run()
        finally:
            watch.cancel()
            self._under_way.discard(handler)
            times.end = service.clock()
            self._ended(ended_request(handler, self._class_names[cls], service.backends, key, client_id))
            service.admission.note_end(cls)

    def break_off(self) -> None:
        """End what is still under way, each with an error of its own."""
        for handler in list(self._under_way):
            handler.stop(unavailable("shutting_down", "the gateway is shutting down"))

    async def _request(self, path: str, raw: bytes) -> CompletionRequest:
        async with self._one_large if len(raw) > LARGE_BODY else nullcontext():
            request = CompletionRequest.parsed(path, raw)
        return await request.measured(self._meter)

    def _call(self, request: CompletionRequest, header: Header) -> Call:
        passed = (*TRACE_HEADERS, *request.end_point.headers, *self._engines.pass_headers)
        headers = {name: values[0] for name in passed if (values := header(name))}
        return Call(request.path, request.body, request.raw, f"fg-{uuid4().hex}", headers, self._silence(request))

    def _silence(self, request: CompletionRequest) -> float:
        """The longest that an engine may say nothing, s: of a whole answer nothing is heard until its end."""
        seconds = self._limits.token_seconds
        if request.stream:
            return seconds
        return seconds + SLOWEST_TOKEN * (
            request.output_limit or self._service.backends.context_length or LONGEST_ANSWER
        )


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
    handler: RequestHandler, class_name: str, backends: Backends, key: str | None, client_id: str
) -> EndedRequest:
    """What a request has left behind."""
    request, ticket = handler.request, handler.ticket
    return EndedRequest(
        id=handler.call.id,
        client_id=client_id,
        class_name=class_name,
        key=key,
        path=request.path,
        stream=request.stream,
        status=handler.response.status,
        outcome=handler.outcome,
        prompt_tokens=handler.prompt_tokens or request.prompt_tokens,
        output_tokens=handler.output_tokens,
        prefill_engine=backends.url(ticket.engine),
        decode_engine=backends.url(ticket.decode_engine),
        attempts=ticket.attempts,
        lost_kv=handler.lost_kv,
        times=handler.times,
    )
