"""The API of an emulated engine: vLLM's, and an administrator's that only the emulated one has."""

from __future__ import annotations

import asyncio
import logging
import uuid
from contextlib import suppress

from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from fluidgate import __version__
from fluidgate.emulator import adapters, sglang
from fluidgate.emulator.answer import Answer, Wish
from fluidgate.emulator.bodies import ApiError, Body, ChatBody, CompletionBody, bad_request, parse
from fluidgate.emulator.embeddings import EmbeddingBody
from fluidgate.emulator.engine import Engine
from fluidgate.emulator.faults import BadFault, Faults
from fluidgate.emulator.messages import PATH as MESSAGES
from fluidgate.emulator.messages import Conversation, MessagesBody, translated
from fluidgate.emulator.responses import ResponsesBody
from fluidgate.emulator.rooms import PATH as ROOMS
from fluidgate.emulator.rooms import Knock
from fluidgate.emulator.sequences import require_model, sequences
from fluidgate.emulator.server import EngineServer
from fluidgate.emulator.settings import EngineKind
from fluidgate.emulator.tokens import DetokenizeBody, TokenizeBody, detokenized, tokenized
from fluidgate.emulator.transfer import PATH, KvRequest, remote_of
from fluidgate.emulator.wire import Form
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


class ModelBody(BaseModel):
    """`POST /admin/model`."""

    model: str = Field(min_length=1)


class Api:
    """The endpoints of one server."""

    def __init__(self, server: EngineServer) -> None:
        self._server = server

    async def completions(self, request: Request) -> Response:
        return await self._answer(request, CompletionBody)

    async def chat(self, request: Request) -> Response:
        return await self._answer(request, ChatBody)

    async def responses(self, request: Request) -> Response:
        return await self._answer(request, ResponsesBody)

    async def messages(self, request: Request) -> Response:
        return await self._answer(request, MessagesBody)

    async def embeddings(self, request: Request) -> Response:
        return await self._answer(request, EmbeddingBody)

    async def count_tokens(self, request: Request) -> Response:
        body = parse(Conversation, await request.body())
        require_model(self._server.engine, body.model)
        (prompt,) = body.prompts()
        known = {"original_input_tokens": prompt.tokens}
        return JSONResponse({"input_tokens": prompt.tokens, "context_management": known})

    async def tokenize(self, request: Request) -> Response:
        body = parse(TokenizeBody, await request.body())
        require_model(self._server.engine, body.model)
        if body.texts is None:
            raise bad_request("prompt: give a prompt, or messages", "prompt")
        strings = bool(body.return_token_strs)
        return JSONResponse(tokenized(body.texts, self._server.settings.max_model_len, strings=strings))

    async def detokenize(self, request: Request) -> Response:
        body = parse(DetokenizeBody, await request.body())
        require_model(self._server.engine, body.model)
        return JSONResponse({"prompt": detokenized(body.tokens)})

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": adapters.cards(self._server.engine)})

    async def model(self, request: Request) -> Response:
        wanted = request.path_params["id"]
        require_model(self._server.engine, wanted)
        return JSONResponse(next(card for card in adapters.cards(self._server.engine) if card["id"] == wanted))

    async def load_adapter(self, request: Request) -> Response:
        return Response(adapters.load(self._server.engine, parse(adapters.LoadBody, await request.body())))

    async def unload_adapter(self, request: Request) -> Response:
        return Response(adapters.unload(self._server.engine, parse(adapters.UnloadBody, await request.body())))

    async def health(self, request: Request) -> Response:
        return Response(status_code=200)

    async def version(self, request: Request) -> Response:
        return JSONResponse({"version": __version__})

    async def metrics(self, request: Request) -> Response:
        engine = self._server.engine
        await _linger(request, engine.faults.metrics_delay() / engine.settings.speed)
        page = sglang.metrics_page(engine) if engine.settings.kind == "sglang" else engine.metrics_page()
        return PlainTextResponse(page, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def reset_prefix_cache(self, request: Request) -> Response:
        return Response(status_code=200 if self._server.engine.reset_prefix_cache() else 503)

    async def server_info(self, request: Request) -> Response:
        return JSONResponse(sglang.server_info(self._server.settings, self._server.port))

    async def loads(self, request: Request) -> Response:
        engine = self._server.engine
        await _linger(request, engine.faults.metrics_delay() / engine.settings.speed)
        return JSONResponse(sglang.loads(engine))

    async def abort_request(self, request: Request) -> Response:
        self._server.engine.rooms.abort(parse(sglang.AbortBody, await request.body()).rid)
        return Response(status_code=200)

    async def knock(self, request: Request) -> Response:
        """The side of a pair that writes asks for its KV."""
        wanted = parse(Knock, await request.body())
        tokens = await self._server.engine.rooms.receive(wanted, lambda: _gone(request))
        if tokens is None:
            raise ApiError(404, "NotFoundError", "The KV of this room does not come.")
        return JSONResponse({"tokens": tokens})

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

    async def become(self, request: Request) -> Response:
        """Another model, at the same address."""
        body = parse(ModelBody, await request.body())
        self._server.become(body.model)
        log.info("engine on port %d: model %s", self._server.port, body.model)
        return JSONResponse({"schema": 1, "model": body.model})

    async def state(self, request: Request) -> Response:
        return JSONResponse(self._server.state)

    async def _answer(self, request: Request, kind: type[Body]) -> Response:
        engine, headers = self._server.engine, request.headers
        arrival = engine.clock.now()
        data = await request.body()
        faults = _faults(engine, headers.get(FAULT_HEADER))
        body = parse(kind, data)
        settings = self._server.settings
        remote = remote_of(body.kv_transfer_params) if settings.kind == "vllm" else None
        name = headers.get("x-request-id")
        meeting = sglang.meeting_of(settings, body, name)
        try:
            form = self._admitted(body, name, arrival, faults)
        except ApiError:
            if remote is not None:
                self._server.release(remote)
            raise
        wish = Wish(bool(body.stream), headers.get("endpoint-load-metrics-format"), remote, faults, meeting)
        server = self._server
        return Answer(engine, form, wish, (server.host, server.port), server.session)

    def _admitted(self, body: Body, name: str | None, arrival: float, faults: Faults) -> Form:
        """How a request will be answered that the engine takes."""
        engine = self._server.engine
        if faults.refuse is not None:
            raise ApiError(faults.refuse, "InjectedFault", "The engine was asked to refuse this request.")
        body.check()
        made = sequences(engine, body, body.prefix + (name or uuid.uuid4().hex), arrival)
        if engine.full(len(made)):
            engine.metrics.rejected += 1
            raise ApiError(503, "ServiceUnavailableError", "The engine's queue is full.")
        return body.form(made, body.model or engine.settings.model)


def application(server: EngineServer) -> Starlette:
    """The ASGI application of an engine's server."""
    api = Api(server)
    routes = [
        Route("/v1/completions", api.completions, methods=["POST"]),
        Route("/v1/chat/completions", api.chat, methods=["POST"]),
        Route("/v1/embeddings", api.embeddings, methods=["POST"]),
        Route("/v1/models", api.models),
        Route("/v1/models/{id:path}", api.model),
        Route("/health", api.health),
        *_own_routes(api, server.settings.kind),
        Route("/admin/fault", api.add_fault, methods=["POST"]),
        Route("/admin/fault", api.clear_faults, methods=["DELETE"]),
        Route("/admin/kill", api.kill, methods=["POST"]),
        Route("/admin/revive", api.revive, methods=["POST"]),
        Route("/admin/model", api.become, methods=["POST"]),
        Route("/admin/state", api.state),
    ]
    handlers = {ApiError: _api_error, HTTPException: _http_error, FluidgateError: _fluidgate_error}
    return Starlette(routes=routes, exception_handlers=handlers)  # type: ignore[arg-type]


def _own_routes(api: Api, kind: EngineKind) -> list[Route]:
    """What only engines of a kind have."""
    if kind == "openai":
        return []
    if kind == "sglang":
        return [
            Route("/server_info", api.server_info),
            Route("/get_server_info", api.server_info),
            Route("/v1/loads", api.loads),
            Route("/metrics", api.metrics),
            Route("/abort_request", api.abort_request, methods=["POST"]),
            Route(ROOMS, api.knock, methods=["POST"]),
        ]
    return [
        Route("/v1/responses", api.responses, methods=["POST"]),
        Route(MESSAGES, api.messages, methods=["POST"]),
        Route(MESSAGES + "/count_tokens", api.count_tokens, methods=["POST"]),
        Route("/tokenize", api.tokenize, methods=["POST"]),
        Route("/detokenize", api.detokenize, methods=["POST"]),
        Route("/v1/load_lora_adapter", api.load_adapter, methods=["POST"]),
        Route("/v1/unload_lora_adapter", api.unload_adapter, methods=["POST"]),
        Route("/reset_prefix_cache", api.reset_prefix_cache, methods=["POST"]),
        Route("/ping", api.health, methods=["GET", "POST"]),
        Route("/version", api.version),
        Route("/metrics", api.metrics),
        Route(PATH, api.hand_out, methods=["POST"]),
    ]


async def _linger(request: Request, seconds: float) -> None:
    """Wait, but not for a client that has gone."""
    if seconds > 0.0:
        with suppress(TimeoutError):
            await asyncio.wait_for(_gone(request), seconds)


async def _gone(request: Request) -> None:
    """Return when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _faults(engine: Engine, header: str | None) -> Faults:
    try:
        return engine.faults.draw(header)
    except BadFault as error:
        raise bad_request(f"{FAULT_HEADER}: {error}", FAULT_HEADER) from None


async def _api_error(request: Request, error: ApiError) -> Response:
    body = error.to_dict()
    return JSONResponse(translated(body) if request.url.path.startswith(MESSAGES) else body, error.status)


async def _http_error(request: Request, error: HTTPException) -> Response:
    kind = "NotFoundError" if error.status_code == 404 else "BadRequestError"
    return await _api_error(request, ApiError(error.status_code, kind, error.detail))


async def _fluidgate_error(request: Request, error: FluidgateError) -> Response:
    return JSONResponse(ApiError(409, "ConflictError", str(error)).to_dict(), 409)
