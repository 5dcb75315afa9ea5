"""A client that plays a stream of requests against a live server, and notes what becomes of each."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp
import numpy as np
import orjson

from fluidgate.model import Array, Pricing
from fluidgate.workloads.streams import Requests

PLAYED = np.dtype(
    [
        ("sent", "f8"),
        ("first", "f8"),
        ("last", "f8"),
        ("cls", "i4"),
        ("prompt", "i4"),
        ("output", "i4"),
        ("tokens", "i4"),
        ("status", "i4"),
        ("done", "?"),
    ],
    align=True,
)
"""`sent`, `first` and `last` token in s of the load's own clock, nan where none came; `tokens` came of `output` asked
for; `status` of HTTP, 0 for none; `done`: the answer came to its end."""

WAIT_HEADER = "x-fluidgate-max-wait"
CLASS_HEADER = "x-class"
EVENT = b'data: {"'


@dataclass
class Player:
    """How a stream is played.

    Attributes:
        url: of the server.
        model: asked for.
        classes: names, sent in the header `x-class`.
        speed: seconds of the load in one of the wall clock.
        leaves: how the impatient leave: by itself when its first token does not come within its patience ("client"), or
            from the gateway's queues, by a header ("gateway"), or nobody does ("never").
        headers: sent with each request.
    """

    url: str
    model: str
    classes: tuple[str, ...]
    speed: float = 1.0
    leaves: str = "client"
    headers: dict[str, str] = field(default_factory=dict)

    async def play(self, requests: Requests, until: float = math.inf) -> np.ndarray:
        """Send each request at its time; returns dtype PLAYED, in the order of arrival.

        Args:
            until: s of the load, at which those still under way leave.
        """
        played = np.zeros(len(requests), PLAYED)
        for name in ("cls", "prompt", "output"):
            played[name] = requests[name]
        for name in ("sent", "first", "last"):
            played[name] = np.nan
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
            self._began = time.monotonic()
            seconds = None if math.isinf(until) else until / self.speed
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                    for k, request in enumerate(requests):
                        await asyncio.sleep(
                            max(0.0, request["arrival"] / self.speed - (time.monotonic() - self._began))
                        )
                        group.create_task(self._one(session, k, request, played[k]))
        return played

    def _now(self) -> float:
        return (time.monotonic() - self._began) * self.speed

    async def _one(self, session: aiohttp.ClientSession, number: int, request: np.void, row: np.void) -> None:
        row["sent"] = self._now()
        try:
            async with asyncio.timeout(None) as limit:
                if self.leaves == "client" and np.isfinite(request["patience"]):
                    limit.reschedule(asyncio.get_running_loop().time() + request["patience"] / self.speed)
                await self._exchange(session, number, request, row, limit)
        except (TimeoutError, aiohttp.ClientError):
            return

    async def _exchange(
        self,
        session: aiohttp.ClientSession,
        number: int,
        request: np.void,
        row: np.void,
        limit: asyncio.Timeout,
    ) -> None:
        headers = {"content-type": "application/json", CLASS_HEADER: self.classes[request["cls"]], **self.headers}
        if self.leaves == "gateway" and np.isfinite(request["patience"]):
            headers[WAIT_HEADER] = repr(float(request["patience"]) / self.speed)
        url, body = f"{self.url}/v1/completions", self._body(number, request)
        async with session.post(url, data=body, headers=headers) as answer:
            row["status"] = answer.status
            if answer.status != 200:
                return
            async for chunk in answer.content.iter_any():
                now, tokens = self._now(), chunk.count(EVENT)
                if tokens and row["tokens"] == 0:
                    row["first"] = now
                    limit.reschedule(None)
                if tokens:
                    row["tokens"] += tokens
                    row["last"] = now
                if b"data: [DONE]" in chunk:
                    row["done"] = True

    def _body(self, number: int, request: np.void) -> bytes:
        """Token ids, so that the prompt's length is exact, and no two alike."""
        prompt = [1] * int(request["prompt"])
        prompt[0] = 10 + number
        return orjson.dumps(
            {
                "model": self.model,
                "prompt": prompt,
                "max_tokens": int(request["output"]),
                "ignore_eos": True,
                "stream": True,
            }
        )


def revenue(played: np.ndarray, pricing: Pricing, classes: int) -> Array:
    """Money earned by completed answers, by class; prompts that were read alone are not seen from outside."""
    done = played[played["done"]]
    earned = pricing.prompt * done["prompt"] + pricing.output * done["output"]
    return np.asarray(np.bincount(done["cls"], earned, minlength=classes), float)
