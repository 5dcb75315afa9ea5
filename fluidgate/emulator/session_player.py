"""A client that plays sessions against a live server: chats of several turns, each sent when the last was answered."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

import aiohttp
import numpy as np
import orjson

from fluidgate.emulator.player import CLASS_HEADER
from fluidgate.emulator.prompt import BYTES_PER_TOKEN

TURN = np.dtype(
    [
        ("session", "i4"),
        ("turn", "i4"),
        ("sent", "f8"),
        ("first", "f8"),
        ("last", "f8"),
        ("prompt", "i4"),
        ("cached", "i4"),
        ("tokens", "i4"),
        ("status", "i4"),
        ("done", "?"),
    ],
    align=True,
)
"""`sent`, `first` and `last` token in s of the load's own clock, nan where none came; `prompt` and `cached` tokens as
the engine counts them, `tokens` of the answer; `status` of HTTP, 0 for none; `done`: the answer came to its end."""

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
DATA = b"data: {"


@dataclass(frozen=True)
class Sessions:
    """What sessions are like; lengths in tokens of the emulated engines, times in s of the load.

    Attributes:
        prefix: of the system prompt; sessions share one of `prefixes` different ones, drawn alike.
        new: of what a user says in a turn.
        output: of an answer.
        turns: mean of a session, geometric on 1, 2, ...
        think: mean from an answer's end to the next turn, exponential.
        seed: of all that is drawn.
    """

    prefix: int = 30_000
    prefixes: int = 4
    new: int = 1_500
    output: int = 300
    turns: float = 6.0
    think: float = 5.0
    seed: int = 0

    def one(self, number: int) -> Iterator[tuple[dict[str, str], float]]:
        """What the user of a session says, and how long before that he thinks; the first message is the system's."""
        random = Random(f"{self.seed} {number}")
        stem = random.randrange(self.prefixes)
        yield {"role": "system", "content": _text(Random(f"{self.seed} prefix {stem}"), self.prefix)}, 0.0
        thought = 0.0
        while True:
            yield {"role": "user", "content": _text(random, self.new)}, thought
            if random.random() < 1.0 / self.turns:
                return
            thought = random.expovariate(1.0 / self.think) if self.think > 0.0 else 0.0


@dataclass
class SessionPlayer:
    """How sessions are played.

    Attributes:
        url: of the server.
        model: asked for.
        sessions: what they are like.
        users: sessions at a time; the next begins when one has ended.
        speed: seconds of the load in one of the wall clock.
        label: sent in the header `x-class`.
        ramp: s of the load over which the first sessions of the users begin.
    """

    url: str
    model: str
    sessions: Sessions
    users: int
    speed: float = 1.0
    label: str = "chat"
    ramp: float = 0.0
    rows: list[np.ndarray] = field(default_factory=list)

    async def play(self, until: float = math.inf, most: int | None = None) -> np.ndarray:
        """Play up to `most` sessions; returns dtype TURN, in the order of sending.

        Args:
            until: s of the load, at which those still under way leave.
        """
        self.rows, self._numbers, self._most = [], count(), most
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as http:
            self._began = time.monotonic()
            seconds = None if math.isinf(until) else until / self.speed
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                    for user in range(self.users):
                        group.create_task(self._user(http, self.ramp * user / self.users))
        return np.concatenate(self.rows) if self.rows else np.zeros(0, TURN)

    def now(self) -> float:
        """Seconds of the load since it began."""
        return (time.monotonic() - self._began) * self.speed

    async def _user(self, http: aiohttp.ClientSession, start: float) -> None:
        await asyncio.sleep(start / self.speed)
        while True:
            number = next(self._numbers)
            if self._most is not None and number >= self._most:
                return
            await self._session(http, number)

    async def _session(self, http: aiohttp.ClientSession, number: int) -> None:
        """One after the other, until an answer does not come to its end."""
        talk: list[dict[str, str]] = []
        for turn, (message, thought) in enumerate(self.sessions.one(number)):
            talk.append(message)
            if turn == 0:
                continue
            await asyncio.sleep(thought / self.speed)
            row = np.zeros(1, TURN)
            row["session"], row["turn"] = number, turn
            row["first"] = row["last"] = np.nan
            row["sent"] = self.now()
            self.rows.append(row)
            said: list[str] = []
            with suppress(aiohttp.ClientError):
                await self._exchange(http, talk, row, said)
            if not row["done"][0]:
                return
            talk.append({"role": "assistant", "content": "".join(said)})

    async def _exchange(
        self, http: aiohttp.ClientSession, talk: list[dict[str, str]], row: np.ndarray, said: list[str]
    ) -> None:
        body = {
            "model": self.model,
            "messages": talk,
            "max_tokens": self.sessions.output,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        headers = {"content-type": "application/json", CLASS_HEADER: self.label}
        url = f"{self.url}/v1/chat/completions"
        async with http.post(url, data=orjson.dumps(body), headers=headers) as answer:
            row["status"] = answer.status
            if answer.status != 200:
                return
            async for line in answer.content:
                if line.startswith(DATA):
                    self._hear(orjson.loads(line[len(DATA) - 1 :]), row, said)
                elif line.startswith(b"data: [DONE]"):
                    row["done"] = True

    def _hear(self, chunk: dict[str, Any], row: np.ndarray, said: list[str]) -> None:
        for choice in chunk.get("choices", ()):
            text = choice["delta"].get("content")
            if text:
                now = self.now()
                if not said:
                    row["first"] = now
                row["last"] = now
                row["tokens"] += 1
                said.append(text)
        if usage := chunk.get("usage"):
            row["prompt"] = usage["prompt_tokens"]
            row["cached"] = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0


def _text(random: Random, tokens: int) -> str:
    """Letters that make so many tokens."""
    return "".join(random.choices(ALPHABET, k=tokens * BYTES_PER_TOKEN))
