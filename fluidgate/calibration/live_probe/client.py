"""A client of an OpenAI-compatible engine: pages that tell of it, and completions as they stream."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import orjson

from fluidgate.calibration.live_probe.events import TokenEvents
from fluidgate.errors import FluidgateError, one_line
from fluidgate.no_answer import no_answer

SILENCE = 120.0
"""s without a byte after which an engine is given up."""

Prompt = list[int] | str


class Refused(FluidgateError):
    """The engine answered a request with an error.

    Attributes:
        status: of HTTP.
        reason: what it said.
    """

    def __init__(self, message: str, status: int, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class StreamEnded(Exception):
    """A stream has no more tokens."""


class Spent(Exception):
    """The tokens that may be asked for do not suffice for the next request."""


class Client:
    """Talks to one engine, in the running event loop.

    Args:
        url: of the server, with or without `/v1`.
        key: sent as a bearer token; empty for none.
        most_tokens: of prompts and answers together that may be asked for.

    Attributes:
        model, extra: of every completion's body: the model, and keys beside those that all engines know.
        requests, prompt_tokens, output_tokens: what was asked for so far; `output_tokens` as they came.
    """

    def __init__(self, url: str, key: str = "", most_tokens: float = math.inf) -> None:
        self.url = server_of(url)
        self.model = ""
        self.extra: Mapping[str, Any] = {}
        self.most_tokens = most_tokens
        self.requests = 0
        self._open: set[Stream] = set()
        self.prompt_tokens = 0
        self.output_tokens = 0
        self._headers = {"authorization": f"Bearer {key}"} if key else {}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=SILENCE),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def page(self, path: str) -> bytes | None:
        """What stands at a path; None where there is nothing, or not for this client."""
        try:
            async with self._session.get(self.url + path, timeout=aiohttp.ClientTimeout(total=10.0)) as answer:
                return await answer.read() if answer.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None

    async def models(self) -> list[dict[str, Any]]:
        """The entries of `/v1/models`.

        Raises:
            FluidgateError: no such host, a wrong key, or no such API.
        """
        try:
            async with self._session.get(f"{self.url}/v1/models", timeout=aiohttp.ClientTimeout(total=15.0)) as answer:
                body = await answer.read()
                self._check(answer.status, body)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._unreachable(error) from error
        try:
            return [entry for entry in orjson.loads(body)["data"] if isinstance(entry.get("id"), str)]
        except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
            raise FluidgateError(
                f"--url: {self.url}/v1/models is no list of models; give the address of an OpenAI-compatible engine"
            ) from None

    def complete(self, prompt: Prompt, tokens: int, output: int) -> Stream:
        """Send a prompt of `tokens` tokens, to be answered by `output` tokens, and read the answer as it comes.

        Raises:
            Spent: that would be more tokens than may be asked for.
        """
        if tokens + output > self.left:
            raise Spent
        body = {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": output,
            "temperature": 0.0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            **self.extra,
        }
        self.requests += 1
        self.prompt_tokens += tokens
        stream = Stream(self, tokens, output, orjson.dumps(body))
        self._open.add(stream)
        return stream

    @property
    def left(self) -> float:
        """Tokens that may still be asked for; what is being answered counts as a whole."""
        self._open = {stream for stream in self._open if not stream.ended}
        coming = sum(stream.output - stream.tokens for stream in self._open)
        return self.most_tokens - self.prompt_tokens - self.output_tokens - coming

    async def read(self, stream: Stream, body: bytes) -> None:
        """Read an answer to its end into a stream.

        A server may close a connection that was kept, just as it is used again: then once more, on another.
        """
        try:
            try:
                await self._read(stream, body)
            except (aiohttp.ServerDisconnectedError, ConnectionResetError):
                if stream.times:
                    raise
                stream.sent = time.perf_counter()
                await self._read(stream, body)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._unreachable(error) from error

    async def _read(self, stream: Stream, body: bytes) -> None:
        events = stream.events
        headers = {"content-type": "application/json"}
        async with self._session.post(f"{self.url}/v1/completions", data=body, headers=headers) as answer:
            if answer.status != 200:
                self._check(answer.status, await answer.read())
            if answer.content_type != "text/event-stream":
                raise FluidgateError(f"--url: {self.url} does not stream its answers; the probe reads streams only")
            async for piece in answer.content.iter_any():
                before = events.tokens
                events.feed(piece)
                if events.tokens > before:
                    self.output_tokens += events.tokens - before
                    stream.moved(time.perf_counter())
                if events.error is not None:
                    raise Refused(self._says(500, events.error), 500, _reason(events.error))

    def _check(self, status: int, body: bytes) -> None:
        if status in (401, 403):
            raise FluidgateError(f"--url: {self.url} answers {status}; give --api-key, or set OPENAI_API_KEY")
        if status != 200:
            raise Refused(self._says(status, body), status, _reason(body))

    def _says(self, status: int, body: bytes) -> str:
        reason = _reason(body)
        mend = "give the address of an OpenAI-compatible engine, as http://HOST:8000"
        if status == 404 and "model" in reason.lower():
            mend = "give --model with a name of /v1/models"
        elif status == 404:
            mend = "the engine needs /v1/models and /v1/completions; " + mend
        elif status in (429, 503):
            mend = "it is too busy for a probe; try again when it is idle"
        elif status == 400:
            mend = "give shorter --contexts, or what it wants otherwise"
        return f"--url: {self.url} answers {status}" + (f" ({reason})" if reason else "") + f"; {mend}"

    def _unreachable(self, error: BaseException) -> FluidgateError:
        found = no_answer(error)
        return FluidgateError(f"--url: {self.url} does not answer ({found.reason}); {found.mend}")


class Stream:
    """The answer to one request, read by a task of its own.

    Attributes:
        prompt: tokens of the prompt, as the engine states them, else as they were meant.
        output: most tokens of the answer.
        sent: when the request was handed to the network, s of `time.perf_counter`.
        times, counts: at each event, when it came, and the tokens there were by then.
    """

    def __init__(self, client: Client, prompt: int, output: int, body: bytes) -> None:
        self.events = TokenEvents()
        self.sent = time.perf_counter()
        self.times: list[float] = []
        self.counts: list[int] = []
        self.output = output
        self._meant = prompt
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._task = asyncio.ensure_future(client.read(self, body))
        self._task.add_done_callback(self._ended)

    @property
    def prompt(self) -> int:
        return self.events.prompt or self._meant

    @property
    def tokens(self) -> int:
        return self.events.tokens

    @property
    def ended(self) -> bool:
        return self._task.done()

    def moved(self, now: float) -> None:
        """Tokens have come."""
        self.times.append(now)
        self.counts.append(self.events.tokens)
        for waiter in [each for each in self._waiters if each[0] <= self.events.tokens]:
            self._waiters.remove(waiter)
            if not waiter[1].done():
                waiter[1].set_result(None)

    async def until(self, tokens: int) -> None:
        """Wait until there are so many tokens.

        Raises:
            StreamEnded: there never will be.
            FluidgateError: the engine refused or broke off.
        """
        if self.events.tokens >= tokens:
            return
        if self._task.done():
            self._raise()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((tokens, waiter))
        await waiter

    async def finish(self) -> None:
        """Read it to its end.

        Raises:
            FluidgateError: the engine refused or broke off.
        """
        await self._task

    async def close(self) -> None:
        """Leave, so that the engine stops writing."""
        self._task.cancel()
        with suppress(asyncio.CancelledError, FluidgateError):
            await self._task

    def _ended(self, task: asyncio.Task[None]) -> None:
        error: BaseException | None = StreamEnded() if task.cancelled() else task.exception() or StreamEnded()
        for _, waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(error or StreamEnded())
        self._waiters.clear()

    def _raise(self) -> None:
        if self._task.cancelled():
            raise StreamEnded
        raise self._task.exception() or StreamEnded


def server_of(url: str) -> str:
    """The address without `/v1` and without a last slash.

    Raises:
        FluidgateError: it is no address of HTTP.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good:
        raise FluidgateError(f"--url: {url!r} is no address; give one such as http://localhost:8000")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _reason(body: bytes) -> str:
    """What an error says, in one line of some length."""
    try:
        said = orjson.loads(body)
        error = said.get("error", said)
        text = error.get("message") or error.get("detail") or "" if isinstance(error, dict) else error
    except (orjson.JSONDecodeError, AttributeError):
        text = body.decode("utf-8", "replace")
    return one_line(str(text))[:200]
