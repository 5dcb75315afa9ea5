"""One event for all who listen, none while nobody does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from fluidgate.gateway.client.api_error import ApiError
from fluidgate.gateway.client.dashboard import Feed
from tests.gateway.asynchronous import asynchronous, until


class Source:
    """Counts how often it is begun and read."""

    def __init__(self) -> None:
        self.begun = self.read = 0
        self.broken = False

    def __call__(self) -> Callable[[], bytes]:
        self.begun += 1

        def read() -> bytes:
            self.read += 1
            if self.broken:
                raise RuntimeError("no reading")
            return b"%d" % self.read

        return read


async def first(events: AsyncIterator[bytes], count: int) -> list[bytes]:
    async with asyncio.timeout(20):
        return [await anext(events) for _ in range(count)]


@asynchronous
async def test_nothing_is_read_while_nobody_listens() -> None:
    source = Source()
    feed = Feed(source, seconds=0.001)
    await asyncio.sleep(0.02)
    assert source.read == 0
    with feed.listening() as events:
        assert await first(events, 1) == [b"data: 1\n\n"]
    seen = source.read
    await asyncio.sleep(0.02)
    assert (source.begun, source.read, feed.listeners) == (1, seen, 0)
    with feed.listening() as events:
        await first(events, 1)
    assert source.begun == 2, "what it remembered is of another time"


@asynchronous
async def test_one_reading_serves_all() -> None:
    source = Source()
    feed = Feed(source, seconds=0.05)
    with feed.listening() as one, feed.listening() as two:
        heard = await asyncio.gather(first(one, 3), first(two, 3))
        assert heard[0] == heard[1] == [b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"]
        assert source.begun == 1


@asynchronous
async def test_who_comes_between_two_events_gets_the_last_at_once() -> None:
    feed = Feed(Source(), seconds=3600.0)
    with feed.listening() as one:
        await first(one, 1)
        with feed.listening() as two:
            assert await first(two, 1) == [b"data: 1\n\n"]


@asynchronous
async def test_who_is_slow_misses_events() -> None:
    source = Source()
    feed = Feed(source, seconds=0.001)
    with feed.listening() as events:
        await first(events, 1)

        async def many() -> bool:
            return source.read >= 10

        await until(many)
        (latest,) = await first(events, 1)
        assert int(latest.removeprefix(b"data: ")) >= 10


@asynchronous
async def test_there_is_room_for_so_many() -> None:
    feed = Feed(Source(), most=2)
    with feed.listening():
        with feed.listening():
            with pytest.raises(ApiError, match="2 others listen") as caught, feed.listening():
                pass
            assert (caught.value.status, caught.value.reason) == (503, "too_many_listeners")
        with feed.listening():
            assert feed.listeners == 2


@asynchronous
async def test_streams_end_and_may_begin_again_unless_it_is_closed() -> None:
    feed = Feed(Source(), seconds=0.01)

    async def all_of(events: AsyncIterator[bytes]) -> None:
        async for _ in events:
            pass

    for finish in (feed.end, feed.close):
        with feed.listening() as events:
            await first(events, 1)
            listening = asyncio.create_task(all_of(events))
            await asyncio.sleep(0)
            finish()
            async with asyncio.timeout(20):
                await listening
    with pytest.raises(ApiError) as caught, feed.listening():
        pass
    assert caught.value.reason == "shutting_down"


@asynchronous
async def test_an_event_that_can_not_be_made_ends_no_stream(caplog: pytest.LogCaptureFixture) -> None:
    source = Source()
    source.broken = True
    feed = Feed(source, seconds=0.001)
    with feed.listening() as events:
        assert await first(events, 1) == [b": ping\n\n"]
        source.broken = False

        async def heals() -> bool:
            return (await first(events, 1))[0].startswith(b"data: ")

        await until(heals)
    assert "could not be made" in caplog.text
