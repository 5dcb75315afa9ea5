"""Requests through the gateway to emulated engines and back."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.gateway.served import live_gateway


def test_a_stream_goes_through_whole(tmp_path: Path) -> None:
    async def run() -> None:
        async with live_gateway(tmp_path) as live:
            reply = await live.complete(5)
            assert (reply.status, reply.tokens, reply.done) == (200, 5, True)
            await live.until(live.idle)
            record = live.records()[0]
            assert (record["outcome"], record["output_tokens"], record["attempts"]) == ("completed", 5, 1)
            assert record["prompt_tokens"] == 100

    asyncio.run(run())


def test_the_engine_says_how_long_a_prompt_is(tmp_path: Path) -> None:
    """The gateway's own estimate, 10 bytes a token here, is only for what comes before the engine has read it."""

    async def run() -> None:
        async with live_gateway(tmp_path, more="[tokens]\nbytes_per_token = 10.0\n") as live:
            reply = await live.complete(2, prompt="word " * 80)
            assert reply.status == 200
            await live.until(live.idle)
            assert live.records()[0]["prompt_tokens"] == 100
            load = live.gateway.controller.estimator.at(live.gateway.clock())  # type: ignore[union-attr]
            assert load.prompts[0] > 0

    asyncio.run(run())


def test_usage_is_passed_on_to_those_who_asked_for_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with live_gateway(tmp_path) as live:
            plain = await live.complete(3)
            asked = await live.complete(3, stream_options={"include_usage": True})
            assert (plain.status, plain.tokens, plain.done) == (200, 3, True)
            assert [bool(event.get("usage")) for event in plain.events] == [False] * 3
            assert asked.events[-1]["usage"]["completion_tokens"] == 3
            await live.until(live.idle)
            assert [record["output_tokens"] for record in live.records()] == [3, 3]

    asyncio.run(run())
