"""The API of an emulated engine: vLLM's, and an administrator's that only the emulated one has."""

from __future__ import annotations

import asyncio
import logging
import uuid

from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from fluidgate import __version__
from fluidgate.emulator.answer import Answer, Wish
from fluidgate.emulator.bodies import ApiError, Body, ChatBody, CompletionBody, bad_request, parse
from fluidgate.emulator.engine import Engine
from fluidgate.emulator.faults import BadFault, Faults
from fluidgate.emulator.request import EngineRequest, Finish
from fluidgate.emulator.server import EngineServer
from fluidgate.emulator.transfer import PATH, KvRequest, remote_of
from fluidgate.errors import FluidgateError

FAULT_HEADER = "x-fluidgate-fault"
log = logging.getLogger("fluidgate")


class FaultBody(BaseModel):
    """`POST /admin/fault`."""

    kind: str
    value: float | None = None
    count: int | None = None


class KillBody(BaseModel):
    """`POST /admin/kill`: seconds of the engine after which it comes back; None for never."""

    seconds: float | None = Field(None, ge=0.0)


class Api:
    """The endpoints of one server."""

    def __init__(self, server: EngineServer) -> None:
        self._server = server

    async def completions(self, request: Request) -> Response:
        return await self._answer(request, CompletionBody)

    async def chat(self, request: Request) -> Response:
        return await self._answer(request, ChatBody)

    async def models(self, request: Request) -> Response:
        settings = self._server.settings
        model = {"id": settings.model, "object": "model", "created": 0, "owned_by": "fluidgate", "root": settings.model}
        model |= {"parent": None, "max_model_len": settings.max_model_len}
        return JSONResponse({"object": "list", "data": [model]})

    async def health(self, request: Request) -> Response:
        return Response(status_code=200)

    async def version(self, request: Request) -> Response:
        return JSONResponse({"version": __version__})

    async def metrics(self, request: Request) -> Response:
        return PlainTextResponse(
            self._server.engine.metrics_page(), media_type="text/plain; version=0.0.4; charset=utf-8"
        )

    async def hand_out(self, request: Request) -> Response:
        """KV to another engine."""
        wanted = parse(KvRequest, await request.body())
        engine = self._server.engine
        tokens = engine.hand_out(wanted.request_id) if wanted.engine_id == engine.id else None
        if tokens is None:
            raise ApiError(404, "NotFoundError", "The KV of this request is no more.")
        return JSONResponse({"tokens": tokens})

    async def add_fault(self, request: Request) -> Response:
        body = parse(FaultBody, await request.body())
        try:
            self._server.fault(body.kind, body.value, body.count)
        except BadFault as error:
            raise bad_request(str(error), "kind") from None
        log.info("engine on port %d: fault %s", self._server.port, body.kind)
        return JSONResponse({"schema": 1, "kind": body.kind, "value": body.value, "count": body.count})

    async def clear_faults(self, request: Request) -> Response:
        self._server.clear_faults()
        return JSONResponse({"schema": 1})

    async def kill(self, request: Request) -> Response:
        body = parse(KillBody, await request.body() or b"{}")
        self._server.kill_soon(body.seconds)
        return JSONResponse({"schema": 1, "port": self._server.port})

    async def revive(self, request: Request) -> Response:
        """All engines of the cluster that are dead."""
        dead = [sibling for sibling in self._server.siblings if not sibling.alive]
        await asyncio.gather(*(sibling.revive() for sibling in dead))
        return JSONResponse({"schema": 1, "ports": [sibling.port for sibling in dead]})

    async def state(self, request: Request) -> Response:
        return JSONResponse(self._server.state)

    async def _answer(self, request: Request, kind: type[Body]) -> Response:
        engine, headers = self._server.engine, request.headers
        arrival = engine.clock.now()
        data = await request.body()
        faults = _faults(engine, headers.get(FAULT_HEADER))
        if faults.refuse is not None:
            raise ApiError(faults.refuse, "InjectedFault", "The engine was asked to refuse this request.")
        body = parse(kind, data)
        body.check()
        if engine.full:
            engine.metrics.rejected += 1
            raise ApiError(503, "ServiceUnavailableError", "The engine's queue is full.")
        chat = kind is ChatBody
        name = ("chatcmpl-" if chat else "cmpl-") + (headers.get("x-request-id") or uuid.uuid4().hex)
        made = engine_request(engine, body, name, arrival)
        options = body.stream_options
        wish = Wish(
            chat=chat,
            stream=bool(body.stream),
            usage_at_end=bool(options and options.include_usage),
            usage_always=bool(options and options.continuous_usage_stats),
            load=headers.get("endpoint-load-metrics-format"),
            remote=remote_of(body.kv_transfer_params),
            faults=faults,
        )
        server = self._server
        return Answer(engine, made, wish, (server.host, server.port), server.session)


def application(server: EngineServer) -> Starlette:
    """The ASGI application of an engine's server."""
    api = Api(server)
    routes = [
        Route("/v1/completions", api.completions, methods=["POST"]),
        Route("/v1/chat/completions", api.chat, methods=["POST"]),
        Route("/v1/models", api.models),
        Route("/health", api.health),
        Route("/version", api.version),
        Route("/metrics", api.metrics),
        Route(PATH, api.hand_out, methods=["POST"]),
        Route("/admin/fault", api.add_fault, methods=["POST"]),
        Route("/admin/fault", api.clear_faults, methods=["DELETE"]),
        Route("/admin/kill", api.kill, methods=["POST"]),
        Route("/admin/revive", api.revive, methods=["POST"]),
        Route("/admin/state", api.state),
    ]
    handlers = {ApiError: _api_error, HTTPException: _http_error, FluidgateError: _fluidgate_error}
    return Starlette(routes=routes, exception_handlers=handlers)  # type: ignore[arg-type]


def engine_request(engine: Engine, body: Body, name: str, arrival: float) -> EngineRequest:
    """What the engine is asked for.

    Raises:
        ApiError: 404 for another model, 400 for a request that is empty, too long or at odds with itself.
    """
    settings, prompt = engine.settings, body.prompt_of()
    if body.model not in (None, settings.model):
        raise ApiError(404, "NotFoundError", f"The model `{body.model}` does not exist.", "model")
    if prompt.tokens < 1:
        raise bad_request("prompt: must not be empty", "prompt")
    room = settings.max_model_len - prompt.tokens
    limit = body.token_limit(room)
    if limit > room or room < 1:
        raise bad_request(
            f"This model's maximum context length is {settings.max_model_len} tokens. However, you requested "
            f"{limit} output tokens and your prompt contains {prompt.tokens} input tokens. Please reduce the length of "
            "the input prompt or the number of requested output tokens.",
            "max_tokens",
        )
    remote_decode = bool((body.kv_transfer_params or {}).get("do_remote_decode"))
    if remote_decode and limit != 1:
        raise bad_request("kv_transfer_params: do_remote_decode needs max_tokens = 1", "max_tokens")
    output, ends = limit, _LENGTH
    if not (body.ignore_eos or remote_decode):
        stop = max(engine.output_length(prompt, body.seed), body.min_tokens)
        output, ends = min(stop, limit), "stop" if stop <= limit else _LENGTH
    return EngineRequest(name, prompt.key, prompt.tokens, output, ends, arrival, remote_decode=remote_decode)


_LENGTH: Finish = "length"


def _faults(engine: Engine, header: str | None) -> Faults:
    try:
        return engine.faults.draw(header)
    except BadFault as error:
        raise bad_request(f"{FAULT_HEADER}: {error}", FAULT_HEADER) from None


async def _api_error(request: Request, error: ApiError) -> Response:
    return JSONResponse(error.to_dict(), error.status)


async def _http_error(request: Request, error: HTTPException) -> Response:
    kind = "NotFoundError" if error.status_code == 404 else "BadRequestError"
    return JSONResponse(ApiError(error.status_code, kind, error.detail).to_dict(), error.status_code)


async def _fluidgate_error(request: Request, error: FluidgateError) -> Response:
    return JSONResponse(ApiError(409, "ConflictError", str(error)).to_dict(), 409)
