"""One OpenTelemetry trace a request, over both of its legs; nothing at all where the gateway file asks for none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from fluidgate.errors import FluidgateError
from fluidgate.gateway.ended import EndedRequest
from fluidgate.gateway.gateway_tables import TracingTable

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

Header = Callable[[str], Sequence[str]]

CARRIED = ("traceparent", "tracestate")
NOTHING: Mapping[str, str] = {}


class RequestTrace(ABC):
    """The trace of one request."""

    @abstractmethod
    def step(self, name: str, engine: str = "") -> AbstractContextManager[Mapping[str, str]]:
        """A part of the request, on an engine's URL or on none, as a span of its own for as long as the context lasts;
        it gives the headers by which the engine's spans belong to it."""

    @abstractmethod
    def end(self, ended: EndedRequest) -> None:
        """The request has ended."""


class Untraced(RequestTrace):
    """No trace is wanted."""

    _step = nullcontext(NOTHING)

    def step(self, name: str, engine: str = "") -> AbstractContextManager[Mapping[str, str]]:
        return self._step

    def end(self, ended: EndedRequest) -> None:
        """Nothing is kept."""


UNTRACED = Untraced()


class Traced(RequestTrace):
    """A span for the request, and one below it for each step. The client's own trace is gone on with."""

    def __init__(self, tracer: Tracer, path: str, header: Header) -> None:
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = tracer
        self._wire = TraceContextTextMapPropagator()
        came = {name: values[0] for name in CARRIED if (values := header(name))}
        above = self._wire.extract(came)
        self._span: Span = tracer.start_span(f"POST {path}", context=above, kind=SpanKind.SERVER)
        self._context = set_span_in_context(self._span, above)

    @contextmanager
    def step(self, name: str, engine: str = "") -> Iterator[Mapping[str, str]]:
        from opentelemetry.trace import SpanKind, set_span_in_context

        kind = SpanKind.CLIENT if engine else SpanKind.INTERNAL
        attributes = {"url.full": engine} if engine else {}
        with self._tracer.start_as_current_span(name, self._context, kind, attributes) as span:
            headers: dict[str, str] = {}
            self._wire.inject(headers, set_span_in_context(span, self._context))
            yield headers

    def end(self, ended: EndedRequest) -> None:
        from opentelemetry.trace import Status, StatusCode

        span = self._span
        span.set_attributes(
            {
                "gen_ai.request.model": ended.model,
                "gen_ai.usage.input_tokens": ended.prompt_tokens,
                "gen_ai.usage.output_tokens": ended.output_tokens,
                "http.response.status_code": ended.status,
                "fluidgate.request_id": ended.id,
                "fluidgate.class": ended.class_name,
                "fluidgate.outcome": ended.outcome,
                "fluidgate.attempts": ended.attempts,
            }
        )
        if ended.key is not None:
            span.set_attribute("fluidgate.key", ended.key)
        if ended.status >= 500 or ended.outcome == "engine_failed":
            span.set_status(Status(StatusCode.ERROR, ended.outcome))
        span.end()


class Tracing:
    """Sends spans by OTLP over HTTP."""

    def __init__(self, table: TracingTable, exporter: SpanExporter | None = None) -> None:
        """
        Args:
            exporter: in the place of the one that the table asks for.

        Raises:
            FluidgateError: the packages are not installed.
        """
        try:
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

            if exporter is None:
                from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

                exporter = OTLPSpanExporter(endpoint=f"{table.endpoint.rstrip('/')}/v1/traces")
        except ImportError:
            raise FluidgateError(
                "tracing: needs OpenTelemetry; install fluidgate[otel], or leave the table out"
            ) from None
        self._provider: TracerProvider = TracerProvider(
            resource=Resource.create({"service.name": table.service}),
            sampler=ParentBased(TraceIdRatioBased(table.share)),
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("fluidgate")

    def begin(self, path: str, header: Header) -> RequestTrace:
        """The trace of a request that has come."""
        return Traced(self._tracer, path, header)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()
