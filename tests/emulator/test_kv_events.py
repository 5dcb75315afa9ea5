"""What an engine tells of its KV memory, read as a subscriber of vLLM's reads it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fluidgate.emulator.prompt import token_prompt
from fluidgate.emulator.server import EngineServer
from fluidgate.errors import FluidgateError
from tests.emulator.served import GPU, cluster
from tests.emulator.test_prefix_cache import text_of

msgspec = pytest.importorskip("msgspec", reason="needs the extra kv-events")
zmq = pytest.importorskip("zmq", reason="needs the extra kv-events")

PATIENCE = 30.0


class Event(msgspec.Struct, tag=True):  # type: ignore[name-defined,misc]
    """As vLLM 0.32 declares them: a map for each event, its type under `type`."""


class BlockStored(Event):
    block_hashes: list[bytes | int]
    parent_block_hash: bytes | int | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None
    medium: str | None
    lora_name: str | None
    extra_keys: list[tuple[Any, ...] | None] | None = None
    group_idx: int | None = None


class BlockRemoved(Event):
    block_hashes: list[bytes | int]
    medium: str | None
    group_idx: int | None = None


class AllBlocksCleared(Event):
    pass


class Batch(msgspec.Struct, array_like=True):  # type: ignore[name-defined,misc]
    ts: float
    events: list[BlockStored | BlockRemoved | AllBlocksCleared]
    data_parallel_rank: int | None = None


class Subscriber:
    """Hears one rank, from its next batch on."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._decoder = msgspec.msgpack.Decoder(Batch)
        self._events: deque[Any] = deque()
        self.number = -1
        self.rank: int | None = None

    async def next(self, wanted: type) -> Any:
        """The next event of a type."""
        while True:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, wanted):
                    return event
            topic, number, payload = await asyncio.wait_for(self._socket.recv_multipart(), PATIENCE)
            assert topic == b""
            assert int.from_bytes(number) == self.number + 1 or self.number < 0
            self.number = int.from_bytes(number)
            batch = self._decoder.decode(payload)
            self.rank = batch.data_parallel_rank
            self._events.extend(batch.events)


@asynccontextmanager
async def hearing(server: EngineServer, rank: int = 0) -> AsyncIterator[Subscriber]:
    import zmq.asyncio as sockets

    socket = sockets.Context.instance().socket(zmq.SUB)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    socket.connect(f"tcp://127.0.0.1:{server.kv_event_ports[rank]}")
    try:
        await asyncio.wait_for(monitor.recv_multipart(), PATIENCE)
        await asyncio.sleep(0.1)  # until the subscription is there
        yield Subscriber(socket)
    finally:
        socket.disable_monitor()
        socket.close(0)


def small() -> Any:
    return cluster(kv_events=0, kv_tokens=160, max_model_len=160, batching="token-budget")


def test_what_is_stored_and_removed_is_told() -> None:
    async def run() -> None:
        async with small() as client, hearing(client.servers[0]) as heard:
            prompt = list(range(40, 140))
            reply = await client.complete(prompt=prompt, max_tokens=29)
            first = await heard.next(BlockStored)
            many = len(first.block_hashes)
            assert first.block_hashes == list(token_prompt(prompt).hashes)[:many]
            assert first.token_ids == prompt[: 16 * many]
            assert (first.parent_block_hash, first.block_size, first.medium) == (None, 16, "GPU")
            assert heard.rank == 0
            rest = await heard.next(BlockStored)
            assert rest.parent_block_hash == first.block_hashes[-1]
            assert many + len(rest.block_hashes) == 6
            said = text_of(reply.text)
            answer = [await heard.next(BlockStored) for _ in range(2)]
            assert [each.token_ids for each in answer] == [[*prompt[96:], *said[:12]], list(said[12:28])]
            assert [each.parent_block_hash for each in answer] == [rest.block_hashes[-1], *answer[0].block_hashes]
            await client.complete(prompt=[1] * 100, max_tokens=2)
            # of ten blocks two are untouched, then the first request's last go
            removed = [await heard.next(BlockRemoved) for _ in range(3)]
            assert [each.block_hashes for each in removed] == [
                answer[1].block_hashes,
                answer[0].block_hashes,
                rest.block_hashes[-1:],
            ]

    asyncio.run(run())


def test_all_is_cleared_at_once_and_numbers_begin_anew_with_the_engine() -> None:
    async def run() -> None:
        async with cluster(kv_events=0) as client:
            server = client.servers[0]
            async with hearing(server) as heard:
                await client.complete()
                await heard.next(BlockStored)
                server.engine.reset_prefix_cache()
                await heard.next(AllBlocksCleared)
                assert heard.number > 0
            port = server.kv_event_ports
            server.kill()
            await server.revive()
            assert server.kv_event_ports == port
            async with hearing(server) as heard:
                await client.complete()
                await heard.next(BlockStored)
                assert heard.number == 0

    asyncio.run(run())


def test_each_rank_tells_on_a_port_of_its_own_and_an_adapter_is_named() -> None:
    async def run() -> None:
        async with cluster(kv_events=0, data_parallel=2) as client:
            (server,) = client.servers
            server.engine.adapters["sql"] = "/x"
            async with hearing(server, 0) as first, hearing(server, 1) as second:
                await asyncio.gather(*(client.complete(prompt=[k] * 100, model="sql") for k in range(12)))
                told = [await each.next(BlockStored) for each in (first, second)]
                assert (first.rank, second.rank) == (0, 1)
                assert [event.lora_name for event in told] == ["sql"] * 2
                assert [event.extra_keys[0] for event in told] == [("sql",)] * 2

    asyncio.run(run())


def test_a_port_that_is_taken() -> None:
    async def run() -> None:
        async with cluster(kv_events=0) as client:
            with pytest.raises(FluidgateError, match=r"KV events on 127\.0\.0\.1 port .*give another kv_events"):
                async with cluster(kv_events=client.servers[0].kv_event_ports[0]):
                    pass

    asyncio.run(run())


def test_only_vllm_tells() -> None:
    async def run() -> None:
        with pytest.raises(FluidgateError, match="kv_events: told by kind vllm only; leave it out, or the kind"):
            async with cluster(kind="openai", kv_events=0, gpu=GPU):
                pass

    asyncio.run(run())
