"""The end points for completions: each request is read, let in, handled, and leaves a record."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from uuid import uuid4

from fluidgate.gateway.backends import Backends
from fluidgate.gateway.client.api_error import ApiError, invalid, unavailable
from fluidgate.gateway.client.asgi import ClientGone, Receive, Scope, Send, read_body
from fluidgate.gateway.client.classifier import Classifier, Header, Traits
from fluidgate.gateway.client.completion_request import CHAT, CompletionRequest
from fluidgate.gateway.client.prompt_meter import PromptMeter
from fluidgate.gateway.client.quotas import Grant, Quotas
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
        mean_output: Sequence[float],
        quotas: Quotas,
        engines: EnginesTable,
        ended: Callable[[EndedRequest], None],
    ) -> None:
        """
        Args:
            service: what every request is served by.
            meter: says how long a prompt is; `classifier`, of which class a request.
            max_wait: by class, s; `mean_output`, tokens that count for an answer whose limit is not given.
            quotas: what each key may use.
            engines: what is asked of engines, and passed on to them.
            ended: called with what each request has left behind.
        """
        self._service = service
        self._meter = meter
        self._classifier = classifier
        self._class_names = class_names
        self._limits = limits
        self._max_wait = max_wait
        self._mean_output = mean_output
        self._quotas = quotas
        self._engines = engines
        self._ended = ended
        self._under_way: set[RequestHandler] = set()

    async def serve(
        self, scope: Scope, header: Header, key: str | None, client_id: str, receive: Receive, send: Send
    ) -> None:
        """Answer one request.

        Args:
            header: gives the values of a header by its lower-case name.
            key: name of the API key, if one was given.
            client_id: the client's own name of the request, "" if it gave none.

        Raises:
            ApiError: it is refused; nothing has been sent.
            ClientGone: the client left before the end of its request.
        """
        service, path = self._service, scope["path"]
        raw = await read_body(scope["headers"], receive, self._limits.max_body_bytes)
        request = CompletionRequest.of(path, raw, self._meter)
        service.admission.check(request)
        kind = "chat" if path == CHAT else "completions"
        cls = self._classifier.class_of(Traits(header, key, request.model, kind, request.prompt_tokens))
        max_wait = min(self._max_wait[cls], client_max_wait(header))
        drop_usage = self._engines.ask_usage and request.stream and not request.wants_usage
        call = self._call(request.with_usage() if drop_usage else request, header)
        ticket = Ticket(
            cls,
            request.prompt_tokens,
            stays=not call.splits,
            most_output=request.output_limit or math.inf,
            key=key or "",
            weight=self._quotas.weight_of(key),
        )
        grant = self._let_in(ticket, key, request.output_limit or math.ceil(self._mean_output[cls]))
        response = Response(send, client_id or call.id, grant.headers)
        times = Times(arrived=service.clock())
        handler = RequestHandler(service, request, call, response, ticket, max_wait, drop_usage, times)
        watch = asyncio.create_task(_stop_when_gone(receive, handler))
        self._under_way.add(handler)
        try:
            await handler.run()
        finally:
            watch.cancel()
            self._under_way.discard(handler)
            times.end = service.clock()
            ended = ended_request(handler, self._class_names[cls], service.backends, key, client_id)
            self._quotas.end(grant, ended)
            self._ended(ended)
            service.admission.note_end(cls)

    def break_off(self) -> None:
        """End what is still under way, each with an error of its own."""
        for handler in list(self._under_way):
            handler.stop(unavailable("shutting_down", "the gateway is shutting down"))

    def _let_in(self, ticket: Ticket, key: str | None, output: int) -> Grant:
        """What its key's quota grants a request that is let in.

        Raises:
            ApiError: it is refused, by its quota or at the door.
        """
        name, grant = self._class_names[ticket.cls], None
        try:
            grant = self._quotas.admit(key, name, ticket.prompt, output)
            self._service.admission.admit(ticket)
        except ApiError as error:
            error.class_name = name
            if grant is not None:
                self._quotas.withdraw(grant)
                error.headers |= grant.headers
            raise
        return grant

    def _call(self, request: CompletionRequest, header: Header) -> Call:
        passed = (*TRACE_HEADERS, *self._engines.pass_headers)
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
