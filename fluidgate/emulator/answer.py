"""The answer to one request: it goes through the engine and out, as a stream or whole."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import aiohttp
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fluidgate.emulator.engine import Engine
from fluidgate.emulator.faults import Faults
from fluidgate.emulator.rooms import Meeting, Room, knock
from fluidgate.emulator.transfer import Remote, fetch
from fluidgate.emulator.wire import Form

Session = Callable[[], aiohttp.ClientSession]


INTERNAL = {"error": {"message": "Internal server error", "type": "InternalServerError", "param": None, "code": 500}}
"""What vLLM says where a request has failed, for whatever reason."""


@dataclass(frozen=True)
class Wish:
    """How a request is to be answered.

    Attributes:
        stream: chunk by chunk.
        load: value of the request header `endpoint-load-metrics-format`.
        remote: where the KV of the prompt is; None if it is to be read here.
        faults: what goes wrong.
        meeting: where the engine meets the other side of its pair; None if it takes the whole request.
    """

    stream: bool
    load: str | None
    remote: Remote | None
    faults: Faults
    meeting: Meeting | None = None


class Answer(Response):
    """The ASGI answer to a request; what it asked for is aborted when its client goes.

    Args:
        form: writes the answer; has the sequences that it is made of, which share a bell.
        place: host and port that other engines fetch KV from.
        session: for KV that is elsewhere.
    """

    def __init__(self, engine: Engine, form: Form, wish: Wish, place: tuple[str, int], session: Session) -> None:
        self.status_code = 200
        self.background = None
        self._engine = engine
        self._form = form
        self._requests = form.requests
        self._bell = form.requests[0].bell
        self._gone = asyncio.Event()
        self._wish = wish
        self._place = place
        self._session = session
        self._room: Room | None = None
        self._parting: asyncio.Future[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watcher = asyncio.ensure_future(self._watch(receive))
        try:
            await self._enter()
            await self._stall()
            await (self._stream if self._wish.stream else self._whole)(scope, send)
        finally:
            watcher.cancel()
            self._abort()
            self._leave_room()
            for request in self._requests:
                self._engine.record(request)

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone.set()
        self._abort()

    def _abort(self) -> None:
        for request in self._requests:
            self._engine.abort(request)

    async def _enter(self) -> None:
        """Into the engine; first the KV comes, if it is elsewhere."""
        remote, faults = self._wish.remote, self._wish.faults
        for request in self._requests:
            request.lost = faults.lose_kv
            request.slow = faults.slow
        if self._wish.meeting is not None:
            await self._meet(self._wish.meeting)
            return
        if remote is None:
            for request in self._requests:
                self._engine.submit(request)
            return
        tokens = await fetch(self._session(), remote)
        for request in self._requests:
            request.found_there = remote.remote_prefill_cached_tokens
            if not request.broken:
                self._engine.submit_fetched(request, tokens)

    async def _meet(self, meeting: Meeting) -> None:
        """Wait for the other side of the pair: one that reads for one that writes, and that for the KV."""
        engine, rooms = self._engine, self._engine.rooms
        patience = engine.settings.pair_timeout / engine.settings.speed
        rooms.begin(meeting.rid, self._fail)
        if engine.settings.role == "prefill":
            room = self._room = rooms.room(meeting.room)
            came = await rooms.wait(meeting.rid, room.writer_came.wait(), patience)
            for request in self._requests:
                engine.submit(request) if came else engine.fail(request)
            self._parting = asyncio.ensure_future(self._fail_without_writer(room))
            return
        has = engine.found(self._requests[0])
        fetching = knock(self._session(), meeting.host, meeting.port, meeting.room, has)
        tokens = await rooms.wait(meeting.rid, fetching, patience)
        for request in self._requests:
            if not request.broken:
                engine.submit_fetched(request, tokens, there=True)

    async def _fail_without_writer(self, room: Room) -> None:
        await room.writer_left.wait()
        self._fail()

    def _fail(self) -> None:
        for request in self._requests:
            self._engine.fail(request)

    async def _hand_over(self) -> None:
        """What has been read goes to the side that writes, and takes its time; once."""
        room = self._room
        if room is None or self._broken or room.kv.done():
            return
        settings = self._engine.settings
        handed = [self._engine.hand_out(request.pin) for request in self._requests]
        if None not in handed:
            seconds = self._engine.transfer_seconds(self._requests[0].prompt - room.writer_has)
            await asyncio.sleep(seconds / settings.speed)
        room.hand_over(handed[0] if None not in handed else None)
        if None in handed or room.writer_left.is_set():
            for request in self._requests:
                request.finish = "error"

    def _leave_room(self) -> None:
        if self._parting is not None:
            self._parting.cancel()
        if self._wish.meeting is not None:
            self._engine.rooms.end(self._wish.meeting.rid)
        if self._room is not None and self._wish.meeting is not None:
            self._engine.rooms.leave(self._wish.meeting.room)

    async def _stall(self) -> None:
        seconds = self._wish.faults.stall / self._engine.settings.speed
        if seconds > 0.0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._gone.wait(), None if math.isinf(seconds) else seconds)

    async def _stream(self, scope: Scope, send: Send) -> None:
        await send(self._start("text/event-stream; charset=utf-8"))
        form, requests, most = self._form, self._requests, self._most_tokens
        await self._send(send, form.at_once())
        sent, total = [0] * len(requests), 0
        while True:
            while not self._moved(sent):
                await self._bell.wait()
            if self._complete:
                await self._hand_over()
            if self._failed:
                await self._send(send, form.failure(INTERNAL), last=True)
            if self._broken:
                return
            parts = [form.opening()] if total == 0 and most > 0 else []
            for index, request in enumerate(requests):
                after, upto = sent[index], min(request.written, sent[index] + most - total)
                if upto > after:
                    parts.append(form.tokens(index, after, int(upto)))
                    sent[index], total = int(upto), total + int(upto) - after
            body = b"".join(parts)
            if total >= most:
                await self._die(scope, send, body)
                return
            if all(request.finish is not None for request in requests):
                await self._send(send, body + form.closing(), last=True)
                return
            await self._send(send, body)

    async def _whole(self, scope: Scope, send: Send) -> None:
        requests, most = self._requests, self._most_tokens
        for request in requests:
            request.every_token = most < math.inf
        while not self._complete and sum(request.written for request in requests) < most:
            await self._bell.wait()
        if self._complete:
            await self._hand_over()
        if self._failed:
            refusal = self._form.refusal(INTERNAL)
            await send(self._start("application/json", len(refusal), status=500))
            await self._send(send, refusal, last=True)
        if self._broken:
            return
        if sum(request.written for request in requests) >= most:
            await self._die(scope, send, b"")
            return
        read = requests[0]
        pinned = read.remote_decode and self._room is None
        transfer = self._engine.transfer_params(read, *self._place) if pinned else None
        body = self._form.whole(transfer)
        await send(self._start("application/json", len(body)))
        await self._send(send, body, last=True)

    def _moved(self, sent: list[int]) -> bool:
        """Whether there is more to send than so many tokens of each choice, or nothing will come any more."""
        for request, seen in zip(self._requests, sent, strict=True):
            if request.written > seen or request.broken:
                return True
        return self._complete

    @property
    def _complete(self) -> bool:
        """Whether all choices have ended, or one without its answer."""
        return self._broken or all(request.finish is not None for request in self._requests)

    @property
    def _broken(self) -> bool:
        return any(request.broken for request in self._requests)

    @property
    def _failed(self) -> bool:
        """Whether the engine could not go on; not if the client has gone."""
        return not self._gone.is_set() and any(request.finish == "error" for request in self._requests)

    @property
    def _most_tokens(self) -> float:
        die = self._wish.faults.die
        return math.inf if die is None else die

    @staticmethod
    async def _send(send: Send, body: bytes, *, last: bool = False) -> None:
        if body or last:
            await send({"type": "http.response.body", "body": body, "more_body": not last})

    async def _die(self, scope: Scope, send: Send, body: bytes) -> None:
        """Send these last chunks and cut the connection."""
        await self._send(send, body)
        scope["transport"].abort()
        await self._gone.wait()

    def _start(self, content_type: str, length: int | None = None, *, status: int = 200) -> dict[str, object]:
        headers = [(b"content-type", content_type.encode())]
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        load = load_header(self._engine, self._wish.load)
        if load is not None:
            headers.append((b"endpoint-load-metrics", load.encode()))
        return {"type": "http.response.start", "status": status, "headers": headers}


def load_header(engine: Engine, form: str | None) -> str | None:
    """The engine's load in the form that a request asks for, JSON or TEXT; None for another form or none."""
    if form is None or form.lower() not in ("json", "text"):
        return None
    gauges = engine.gauges()
    named = {name: gauges[name] for name in ("kv_cache_usage_perc", "num_requests_waiting")}
    if form.lower() == "json":
        return "JSON " + json.dumps({"named_metrics": named})
    return "TEXT " + ", ".join(f"named_metrics.{name}={value}" for name, value in named.items())
