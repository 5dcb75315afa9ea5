"""The live probe over HTTP, before an emulated engine: what it asks for, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import unused_port

from fluidgate.calibration import read_measurements
from fluidgate.calibration.live_probe import Settings, dry_run, probe_live
from fluidgate.errors import FluidgateError
from fluidgate.model import Gpu, IterationTime
from tests.emulator.served import cluster
from tests.gateway.asynchronous import asynchronous

LAW = IterationTime(alpha=0.012, beta=1e-4, delta=1e-4, solo_alpha=0.01)
ROOT = Path(__file__).parents[3]


def emulated(**engine: Any) -> Any:
    gpu = Gpu(batch_size=4, chunk_size=128, iteration=LAW)
    return cluster(gpu=gpu, speed=1.0, **{"batching": "token-budget", "max_model_len": 1024, **engine})


def quick(url: str, **given: Any) -> Settings:
    few = {"batch_sizes": (1, 2), "chunk_sizes": (64,), "contexts": (64,), "repeats": 1, "read_before": 0}
    return Settings(url, **{**few, "chunk_size": 128, **given})


@asynchronous
async def test_a_probe_over_http(tmp_path: Path) -> None:
    said: list[str] = []
    async with emulated(kind="vllm", max_batched_tokens=128) as engine:
        probed = await probe_live(quick(engine.servers[0].url + "/v1"), say=said.append)
        served = engine.servers[0].engine.served
        assert len(served) == probed.requests
        assert sum(each.prompt for each in served) == probed.prompt_tokens
        assert sum(each.output for each in served) >= probed.output_tokens
    assert "Will send at most 2000000 tokens" in said[0]
    assert probed.batching is not None
    assert (probed.batching.budget, probed.batching.shared) == (128, True)
    probed.write(tmp_path / "live.csv")
    text = (tmp_path / "live.csv").read_text()
    assert "# model: emulated\n# engine: vLLM " in text
    assert "# kv_tokens: 4096\n# block_size: 16\n" in text
    rows = read_measurements(tmp_path / "live.csv")
    assert set(zip(rows.batch_size.tolist(), rows.chunk_size.tolist(), strict=True)) == {
        (1, 0),
        (1, 64),
        (2, 0),
        (2, 64),
    }
    assert rows.seconds.min() > 0.008  # an iteration takes 10 ms at least, and no client is early


@asynchronous
@pytest.mark.parametrize("kind", ["sglang", "openai"])
async def test_other_engines(kind: str) -> None:
    async with emulated(kind=kind) as engine:
        probed = await probe_live(quick(engine.servers[0].url, chunk_size=None))
    assert probed.facts.engine.startswith("SGLang" if kind == "sglang" else "")
    assert probed.facts.batch_size == (4 if kind == "sglang" else None)
    assert {row.chunk_size for row in probed.rows} == {0, 64}


@asynchronous
async def test_a_dry_run_sends_nothing() -> None:
    async with emulated() as engine:
        text = await dry_run(quick(engine.servers[0].url))
        assert len(engine.servers[0].engine.served) == 0
    assert "3 requests at once" in text


@asynccontextmanager
async def stub(complete: Any, models: int = 200) -> AsyncIterator[str]:
    """A server that answers in its own way."""
    seen = web.Application()

    async def names(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "one", "max_model_len": 512}, {"id": "two"}]}, status=models)

    seen.router.add_get("/v1/models", names)
    seen.router.add_post("/v1/completions", complete)
    runner = web.AppRunner(seen)
    await runner.setup()
    port = unused_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def no_ids(request: web.Request) -> web.StreamResponse:
    """Takes texts only, of two tokens a word."""
    body = await request.json()
    if isinstance(body["prompt"], list):
        return web.json_response({"error": {"message": "prompt must be a string"}}, status=400)
    answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await answer.prepare(request)
    tokens = 2 * len(body["prompt"].split())
    for k in range(body["max_tokens"]):
        event = {"choices": [{"text": "a"}], "usage": {"prompt_tokens": tokens, "completion_tokens": k + 1}}
        await answer.write(b"data: " + json.dumps(event).encode() + b"\n\n")
    await answer.write(b"data: [DONE]\n\n")
    return answer


@asynchronous
async def test_words_where_token_ids_are_refused() -> None:
    from fluidgate.calibration.live_probe.client import Client
    from fluidgate.calibration.live_probe.prompts import try_prompts

    async with stub(no_ids) as url, Client(url) as client:
        prompts = await try_prompts(client, seed=0)
        assert prompts.ids is None
        text = prompts.draw(100)
        assert isinstance(text, str)
        assert len(text.split()) == 50


async def whole(_: web.Request) -> web.Response:
    return web.json_response({"choices": [{"text": "a"}]})


async def unknown(_: web.Request) -> web.Response:
    return web.json_response({"error": {"message": "quota\nis used up"}}, status=429)


@asynchronous
@pytest.mark.parametrize(
    ("answer", "models", "message"),
    [
        (whole, 200, r"^url: http://127.0.0.1:\d+ does not stream its answers"),
        (unknown, 200, r"^url: http://127.0.0.1:\d+ answers 429 \(quota is used up\); it is too busy"),
        (whole, 401, r"^url: http://127.0.0.1:\d+ answers 401; give api_key, or set OPENAI_API_KEY$"),
        (whole, 404, r"^url: http://127.0.0.1:\d+ answers 404; the engine needs /v1/models and /v1/completions"),
    ],
)
async def test_engines_that_will_not(answer: Any, models: int, message: str) -> None:
    async with stub(answer, models) as url:
        with pytest.raises(FluidgateError, match=message) as refused:
            await probe_live(quick(url))
    assert "\n" not in str(refused.value)


@asynchronous
async def test_a_model_that_is_not_there() -> None:
    async with stub(whole) as url:
        with pytest.raises(FluidgateError, match=r"^model: http://127.0.0.1:\d+ has no 'three'; it has one, two$"):
            await probe_live(quick(url, model="three"))


@asynchronous
async def test_nobody_there() -> None:
    with pytest.raises(
        FluidgateError, match=r"^url: http://127.0.0.1:\d+ does not answer \(connection refused.*\); start it"
    ):
        await probe_live(quick(f"http://127.0.0.1:{unused_port()}"))


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    asyncio.run(_interrupted(tmp_path / "live.csv"))
    text = (tmp_path / "live.csv").read_text()
    assert "# partial: interrupted\n" in text
    assert len(read_measurements(tmp_path / "live.csv")) > 0


async def _interrupted(path: Path) -> None:
    async with emulated(max_batched_tokens=128) as engine:
        command = [sys.executable, "-m", "fluidgate", "probe", "--url", engine.servers[0].url, "-o", str(path)]
        command += ["--batch-sizes", "1,2", "--chunk-sizes", "64", "--contexts", "64,128,192", "--chunk-size", "128"]
        command += ["--read-before", "0", "--repeats", "1", "--seed", "1"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        try:
            served = engine.servers[0].engine
            until = time.monotonic() + 60.0
            while len(served.served) < 25:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < until
                await asyncio.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, errors = await asyncio.to_thread(process.communicate, timeout=60.0)
        finally:
            process.kill()
        assert process.returncode == 130, errors
        assert errors.splitlines()[-1] == "fluidgate: interrupted"
        assert "Traceback" not in errors
        while served.gauges()["num_requests_running"]:
            await asyncio.sleep(0.01)
