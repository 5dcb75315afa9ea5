"""An engine that reads prompts in iterations of their own, as SGLang does without mixed chunks."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from fluidgate.calibration.live_probe.client import Client, Stream
from fluidgate.calibration.live_probe.facts import look
from fluidgate.calibration.live_probe.measurements import Probed
from fluidgate.calibration.live_probe.pace import Pace
from fluidgate.calibration.live_probe.probe import LiveProbe
from tests.calibration.live_probe.virtual import Bench, settings_of

SOLO, PER_DECODE, PROMPT, PER_TOKEN = 0.24, 7e-3, 0.1, 2e-3


class Alternating(Client):
    """Reads a whole prompt, then lets all decodes go on by a token, and so on."""

    def __init__(self) -> None:
        super().__init__("http://virtual")
        self.waiting: list[tuple[Stream, int, int]] = []
        self.running: list[tuple[Stream, int, int]] = []

    async def page(self, path: str) -> bytes | None:
        return None

    async def models(self) -> list[dict[str, Any]]:
        return [{"id": "made", "max_model_len": 4096}]

    async def read(self, stream: Stream, body: bytes) -> None:
        asked = orjson.loads(body)
        entry = (stream, len(asked["prompt"]), asked["max_tokens"])
        self.waiting.append(entry)
        try:
            while stream.tokens < entry[2]:
                await asyncio.sleep(0.01)
        finally:
            for queue in (self.waiting, self.running):
                if entry in queue:
                    queue.remove(entry)

    async def work(self) -> None:
        while True:
            if self.waiting:
                entry = self.waiting.pop(0)
                await asyncio.sleep(PROMPT + PER_TOKEN * entry[1])
                self._write(entry)
                if entry[2] > 1:
                    self.running.append(entry)
            batch = list(self.running)
            await asyncio.sleep(SOLO + PER_DECODE * len(batch) if batch else 0.01)
            for entry in batch:
                self._write(entry)

    def _write(self, entry: tuple[Stream, int, int]) -> None:
        entry[0].events.tokens += 1
        entry[0].moved(asyncio.get_running_loop().time())


def test_prompts_that_are_read_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> Probed:
        client = Alternating()
        engine = asyncio.ensure_future(client.work())
        facts = await look(client, "")
        client.model = facts.model
        async with Pace() as pace:
            few = settings_of(batch_sizes=(1, 4), chunk_sizes=(64, 224), contexts=(192,), repeats=3)
            probed = await LiveProbe(few, client, facts, pace, lambda line: None, lambda done, total: None).run()
        engine.cancel()
        return probed

    probed = Bench(monkeypatch).run(work())
    assert probed.batching is not None
    assert probed.batching.apart
    assert "prompts in iterations of their own" in probed.warnings[0]
    assert {(row.batch_size, row.chunk_size) for row in probed.rows} == {(1, 0), (4, 0), (0, 64), (0, 224)}
    for row in probed.rows:
        wanted = PROMPT + PER_TOKEN * row.chunk_size if row.chunk_size else SOLO + PER_DECODE * row.batch_size
        assert row.seconds == pytest.approx(wanted, rel=0.02)
