"""One trace a request, as a collector gets it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.gateway.asynchronous import asynchronous
from tests.gateway.moody_engine import before_moody_engines

pytest.importorskip("opentelemetry.sdk")


@asynccontextmanager
async def collector(spans: list[Any]) -> AsyncIterator[str]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    async def export(request: web.Request) -> web.Response:
        sent = ExportTraceServiceRequest.FromString(await request.read())
        spans.extend(span for each in sent.resource_spans for scope in each.scope_spans for span in scope.spans)
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/traces", export)
    server = TestServer(app)
    await server.start_server()
    try:
        yield str(server.make_url("")).rstrip("/")
    finally:
        await server.close()


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


@asynchronous
async def test_one_trace_a_request_over_both_legs(tmp_path: Path) -> None:
    spans: list[Any] = []
    trace = "0af7651916cd43dd8448eb211c80319c"
    async with collector(spans) as url:
        more = f'[tracing]\nendpoint = "{url}"\n'
        async with before_moody_engines(tmp_path, 2, more=more) as (live, engines):
            headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
            assert (await live.post(prompt="hi", max_tokens=2, headers=headers)).status == 200
            assert (await live.post(prompt="hi", max_tokens=2, user="500")).status == 500
            seen = [each for engine in engines for each in engine.traceparents]
    ours = [span for span in spans if span.trace_id.hex() == trace]
    by_name = {span.name: span for span in ours}
    assert {"POST /v1/completions", "prefill", "decode"} <= set(by_name)
    root = by_name["POST /v1/completions"]
    assert root.parent_span_id.hex() == "b7ad6b7169203331", "the client's trace goes on"
    for name in ("prefill", "decode"):
        assert by_name[name].parent_span_id == root.span_id
        assert f"00-{trace}-{by_name[name].span_id.hex()}-01" in seen, "the engine's spans hang below"
    known = attributes(root)
    assert (known["fluidgate.class"], known["fluidgate.outcome"]) == ("chat", "completed")
    assert (known["gen_ai.usage.input_tokens"], known["http.response.status_code"]) == (10, 200)
    failed = next(s for s in spans if s.name.startswith("POST") and s.trace_id.hex() != trace)
    assert attributes(failed)["fluidgate.outcome"] == "engine_refused"
    assert failed.status.code == 2


@asynchronous
async def test_without_the_table_what_the_client_sent_is_passed_on(tmp_path: Path) -> None:
    async with before_moody_engines(tmp_path, 1, kind="vllm-coupled") as (live, engines):
        sent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        await live.post(prompt="hi", max_tokens=2, stream=True, headers={"traceparent": sent})
        assert engines[0].traceparents[-1] == sent
