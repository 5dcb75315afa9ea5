"""Listens to the KV events of vLLM engines: ZeroMQ and MessagePack, as vLLM 0.32 tells them.

They name blocks by token ids and by hashes of the engine's own. Texts are known here by their bytes, so no block of
theirs can be told from another. What is used is how much an engine keeps once it has begun to take blocks out, and that
it has cleared all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from fluidgate.errors import FluidgateError
from fluidgate.gateway.cluster.kv_count import KvCount, KvEvent
from fluidgate.gateway.prefixes import PrefixIndex

log = logging.getLogger("fluidgate.gateway")


class KvListener:
    """One task a rank."""

    def __init__(self, prefixes: PrefixIndex, port: int, ranks: int, neighbours: Callable[[str], int]) -> None:
        """
        Args:
            prefixes: told what engines keep.
            port: of the first rank of the first engine of a host; the others have the next ones.
            ranks: of an engine.
            neighbours: how many engines of the same host have a lower port than the one of a URL.

        Raises:
            FluidgateError: pyzmq or msgspec are missing.
        """
        self._decode = decoder()
        self._prefixes = prefixes
        self._port = port
        self._ranks = ranks
        self._neighbours = neighbours
        self._tasks: dict[int, list[asyncio.Task[None]]] = {}
        self._counts: dict[int, list[KvCount]] = {}

    def listen(self, place: int, url: str) -> None:
        """To an engine, from now on; whether it is there or not, and again when it comes back."""
        if place in self._tasks:
            return
        counts = self._counts[place] = [KvCount() for _ in range(self._ranks)]
        first = self._port + self._neighbours(url) * self._ranks
        host = urlsplit(url).hostname or ""
        shown = f"[{host}]" if ":" in host else host
        self._tasks[place] = [
            asyncio.create_task(self._hear(place, count, f"tcp://{shown}:{first + k}"))
            for k, count in enumerate(counts)
        ]

    async def leave(self, place: int) -> None:
        """Hear an engine no more."""
        tasks = self._tasks.pop(place, [])
        self._counts.pop(place, None)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        for place in list(self._tasks):
            await self.leave(place)

    async def _hear(self, place: int, count: KvCount, address: str) -> None:
        import zmq
        import zmq.asyncio

        with zmq.asyncio.Context.instance().socket(zmq.SUB) as socket:
            socket.setsockopt(zmq.IPV6, "[" in address)
            socket.setsockopt(zmq.LINGER, 0)
            socket.subscribe(b"")
            socket.connect(address)
            told = False
            while True:
                _, number, payload = await socket.recv_multipart()
                try:
                    events = self._decode(payload)
                except Exception as error:
                    if not told:
                        log.warning("%s: KV events that can't be read are passed over (%s)", address, error)
                    told = True
                    continue
                self._take(place, count, int.from_bytes(number), events)

    def _take(self, place: int, count: KvCount, number: int, events: Iterable[KvEvent]) -> None:
        cleared = count.take(number, events)
        ranks = self._counts.get(place, [])
        if cleared:
            self._prefixes.forget(place)
        elif ranks and all(rank.full and rank.tokens is not None for rank in ranks):
            self._prefixes.held(place, sum(rank.tokens or 0 for rank in ranks))


def decoder() -> Callable[[bytes], list[KvEvent]]:
    """Reads a batch; the token ids of its events are passed over.

    Raises:
        FluidgateError: pyzmq or msgspec are missing.
    """
    try:
        import msgspec
        import zmq  # noqa: F401
    except ImportError:
        raise FluidgateError(
            "prefixes.kv_events_port needs pyzmq and msgspec; pip install 'fluidgate[kv-events]', or leave the key out"
        ) from None
    event = msgspec.defstruct(
        "Event",
        [
            ("type", str),
            ("block_hashes", list[int | bytes], ()),
            ("block_size", int, 0),
            ("medium", str | None, None),
        ],
    )
    batch = msgspec.defstruct("Batch", [("ts", float), ("events", list[event])], array_like=True)  # type: ignore[valid-type]
    read: Any = msgspec.msgpack.Decoder(batch).decode
    return lambda payload: [
        KvEvent(each.type, tuple(each.block_hashes), each.block_size, each.medium) for each in read(payload).events
    ]
