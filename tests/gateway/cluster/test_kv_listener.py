"""KV events: what of them counts, and that those of an emulated engine are heard."""

from __future__ import annotations

import asyncio
import sys

import aiohttp
import pytest

from fluidgate.emulator import EngineSettings, serve_engines
from fluidgate.errors import FluidgateError
from fluidgate.gateway.cluster.backends import Backends
from fluidgate.gateway.cluster.kv_count import KvCount, KvEvent
from fluidgate.gateway.cluster.kv_listener import KvListener
from fluidgate.gateway.prefixes import PrefixIndex, chain_of_ids
from tests.gateway.asynchronous import asynchronous, until
from tests.gateway.fakes import FakeAdapter
from tests.gateway.served import GPU, MODEL


def stored(*hashes: int, medium: str | None = "GPU") -> KvEvent:
    return KvEvent("BlockStored", hashes, 16, medium)


def removed(*hashes: int) -> KvEvent:
    return KvEvent("BlockRemoved", hashes, 0, "GPU")


CLEARED = KvEvent("AllBlocksCleared")


def test_blocks_are_counted_from_the_first_event_on() -> None:
    count = KvCount()
    assert not count.take(0, [stored(1, 2, 3), stored(3), stored(9, medium="CPU")])
    assert (count.tokens, count.full) == (48, False)
    assert not count.take(1, [removed(2), removed(7)])
    assert (count.tokens, count.full) == (32, True)
    assert count.take(2, [CLEARED, stored(5)])
    assert (count.tokens, count.full) == (16, False)


def test_after_missed_events_nothing_is_known_until_all_is_cleared() -> None:
    count = KvCount()
    count.take(4, [stored(1)])
    assert count.tokens is None
    count.take(5, [removed(1)])
    assert (count.tokens, count.full) == (None, False)
    count.take(6, [CLEARED, stored(1)])
    assert count.tokens == 16
    count.take(8, [stored(2)])
    assert count.tokens is None
    count.take(0, [stored(1)])
    assert count.tokens == 16, "the engine has begun anew"


@asynchronous
async def test_an_emulated_engine_is_heard() -> None:
    pytest.importorskip("msgspec", reason="needs the extra kv-events")
    pytest.importorskip("zmq", reason="needs the extra kv-events")
    settings = EngineSettings(GPU, model=MODEL, speed=200.0, max_model_len=400, kv_tokens=1600, kv_events=0)
    async with serve_engines(settings, 1) as (server,), aiohttp.ClientSession() as session:
        index = PrefixIndex(16_000)
        listener = KvListener(index, server.kv_event_ports[0], 1, lambda url: 0)
        listener.listen(0, server.url)
        await asyncio.sleep(0.3)

        async def ask(k: int) -> None:
            prompt = [1000 * k + n for n in range(320)]
            index.sent(0, chain_of_ids(prompt), 320)
            body = {"model": MODEL, "prompt": prompt, "max_tokens": 2}
            async with session.post(f"{server.url}/v1/completions", json=body) as answer:
                assert answer.status == 200
                await answer.read()

        for k in range(12):
            await ask(k)

        async def learnt() -> bool:
            return index.snapshot(0)["room"] <= 1600

        await until(learnt)
        assert index.snapshot(0)["room"] >= 1600 - 320
        assert index.snapshot(0)["blocks"] <= 100

        async with session.post(f"{server.url}/reset_prefix_cache") as answer:
            assert answer.status == 200

        async def forgotten() -> bool:
            return index.snapshot(0)["blocks"] == 0

        await until(forgotten)
        await listener.close()


def test_without_the_extra_the_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msgspec", None)
    with pytest.raises(FluidgateError, match=r"kv_events_port needs .* pip install 'fluidgate\[kv-events\]'"):
        KvListener(PrefixIndex(), 5557, 1, lambda url: 0)


def test_engines_of_a_host_have_one_port_after_the_other() -> None:
    urls = ("http://a:8002", "http://a:8001", "http://b:8009", "http://a:8003")
    backends = Backends([FakeAdapter(url) for url in urls], 4)
    assert [backends.lower_on_host(url) for url in urls] == [1, 0, 0, 2]
