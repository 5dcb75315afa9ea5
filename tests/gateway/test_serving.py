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
