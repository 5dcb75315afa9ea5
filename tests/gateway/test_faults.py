"""Nothing is lost: engines that refuse, fall silent, die or lose KV, at every moment of a request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fluidgate.gateway.client.running import running_gateway
from tests.gateway.asynchronous import asynchronous
from tests.gateway.scripted_engine import ScriptedEngine, dies, says, scripted, streams
from tests.gateway.served import MODEL, Live, Reply, live_gateway, scenario, settings_of

TOKEN = b'data: {"choices":[{"text":"a","index":0}]}\n\n'
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
DONE = b"data: [DONE]\n\n"
PERSISTENT = "[limits]\nattempts = 12\n"
CHAT = "/v1/chat/completions"
PAGES = {
    "/metrics": 'vllm:cache_config_info{enable_prefix_caching="True"} 1\nvllm:num_requests_running 0\n'
    "vllm:num_requests_waiting 0\n",
    "/v1/models": '{"data": [{"id": "emulated", "max_model_len": 1000}]}',
}


async def settled(live: Live, *, requests: int, outcome: str | None = None) -> list[dict[str, Any]]:
    """Nothing of ours is left anywhere, and each request has one line of the log and one count in the metrics."""
    await live.until(live.at_rest)
    records = live.records()
    assert len(records) == requests
    assert len({record["id"] for record in records}) == requests
    if outcome is not None:
        assert [record["outcome"] for record in records] == [outcome] * requests
    page = (await live.get("/metrics")).content.decode()
    lines = [line for line in page.splitlines() if line.startswith("fluidgate_requests_total{")]
    assert sum(float(line.split()[-1]) for line in lines) == requests
    return records


def error_of(reply: Reply) -> dict[str, Any]:
    """The one error of an answer, in OpenAI's form."""
    if reply.status == 200:
        errors = [event["error"] for event in reply.events if "error" in event]
        assert len(errors) == 1
        assert "error" in reply.events[-1], "an error is the last event"
        assert not reply.done
        error = errors[0]
    else:
        error = reply.json["error"]
        assert reply.headers["x-fluidgate-reason"] == error["code"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


STREAMS = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
KINDS = pytest.mark.parametrize("kind", ["vllm", "vllm-coupled"])


@STREAMS
@KINDS
@pytest.mark.parametrize(
    "fault", [("refuse", 503.0), ("refuse", 500.0), ("die", 0.0), ("lose-kv", None)], ids=lambda f: f"{f[0]}{f[1]}"
)
def test_before_the_first_token_it_goes_elsewhere(
    tmp_path: Path, kind: str, fault: tuple[str, float | None], stream: bool
) -> None:
    async def run() -> None:
        async with live_gateway(tmp_path, kind=kind, more=PERSISTENT) as live:
            live.engines[0].fault(*fault)
            replies = await asyncio.gather(*(live.complete(3, stream=stream) for _ in range(4)))
            assert [reply.status for reply in replies] == [200] * 4
            records = await settled(live, requests=4, outcome="completed")
            assert all(record["output_tokens"] == 3 for record in records)
            if fault[0] != "lose-kv":
                assert any(record["attempts"] > 1 for record in records)
                assert all(record["decode_engine"] == live.engines[1].url for record in records)

    asyncio.run(run())


@STREAMS
@KINDS
def test_where_every_engine_fails_there_is_one_clear_error(tmp_path: Path, kind: str, stream: bool) -> None:
    async def run() -> None:
        async with live_gateway(tmp_path, kind=kind) as live:
            for engine in live.engines:
                engine.fault("refuse", 500.0)
            reply = await live.complete(3, stream=stream)
            assert (reply.status, reply.json["error"]["type"]) == (500, "InjectedFault"), "as the engines say it"
            await settled(live, requests=1, outcome="engine_refused")
            assert all(engine.up for engine in live.gateway.backends), "the fault is the request's"
            for engine in live.engines:
                engine.clear_faults()
            assert (await live.complete(3, stream=stream)).status == 200

    asyncio.run(run())


@KINDS
def test_after_the_first_token_the_stream_ends_with_an_error(tmp_path: Path, kind: str) -> None:
    async def run() -> None:
        async with live_gateway(tmp_path, kind=kind) as live:
            for engine in live.engines:
                engine.fault("die", 2.0)
            reply = await live.complete(9)
            assert error_of(reply)["code"] == "engine_failed"
            records = await settled(live, requests=1, outcome="engine_failed")
            assert records[0]["error"] == error_of(reply)["message"]
            assert "it broke off within its answer" in records[0]["error"]
            assert records[0]["output_tokens"] in (1, 2)

    asyncio.run(run())


def test_a_whole_answer_that_breaks_off_is_begun_again(tmp_path: Path) -> None:
    async def run() -> None:
        async with live_gateway(tmp_path, kind="vllm-coupled", more=PERSISTENT) as live:
            live.engines[0].fault("die", 2.0)
            replies = await asyncio.gather(*(live.complete(5, stream=False) for _ in range(2)))
            assert [reply.json["usage"]["completion_tokens"] for reply in replies] == [5, 5]
            await settled(live, requests=2, outcome="completed")

    asyncio.run(run())


@STREAMS
@KINDS
def test_an_engine_that_is_silent_to_all_is_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, stream: bool
) -> None:
    """It answers looks, but none of the requests on it: they go elsewhere, and it is down in the end."""

    async def run() -> None:
        more = "token_seconds = 0.5\n"
        async with live_gateway(tmp_path, kind=kind, policy="vllm-round-robin", more=PERSISTENT + more) as live:
            live.engines[0].fault("stall")
            replies = await asyncio.gather(*(live.complete(1, stream=stream) for _ in range(8)))
            assert [reply.status for reply in replies] == [200] * 8
            await live.until(lambda: "failures" in live.gateway.backends[0].downs)

    asyncio.run(run())
    told = [line for line in caplog.messages if " is down (" in line]
    assert told
    assert [line.count("http://") for line in told] == [1] * len(told)


@STREAMS
def test_a_prompt_that_is_read_slowly_is_not_read_elsewhere_too(tmp_path: Path, stream: bool) -> None:
    async def run() -> None:
        async with live_gateway(tmp_path, kind="vllm-coupled", more="[limits]\ntoken_seconds = 0.5\n") as live:
            for engine in live.engines:
                engine.fault("stall")
            reply = await live.complete(1, stream=stream)
            assert (reply.status, error_of(reply)["code"]) == (504, "engine_silent")
            assert live.records()[0]["attempts"] == 1
            assert all(engine.up for engine in live.gateway.backends)

    asyncio.run(run())


def test_a_slow_engine_is_waited_for(tmp_path: Path) -> None:
    async def run() -> None:
        async with live_gateway(tmp_path, engines=1) as live:
            live.engines[0].fault("slow", 10.0)
            assert (await live.complete(3)).tokens == 3
            records = await settled(live, requests=1, outcome="completed")
            assert records[0]["attempts"] == 1

    asyncio.run(run())


@KINDS
def test_an_engine_dies_and_comes_back(tmp_path: Path, kind: str) -> None:
    """Requests keep flowing; the plan is for those that are there."""

    async def run() -> None:
        async with live_gateway(tmp_path, kind=kind, engines=3) as live:
            controller = live.gateway.controller
            assert controller is not None
            work = [asyncio.create_task(live.complete(600)) for _ in range(9)]
            await live.until(lambda: all(e.state["running"] for e in live.engines))
            live.engines[0].kill()
            work += [asyncio.create_task(live.complete(4)) for _ in range(6)]
            await live.until(lambda: not live.gateway.backends[0].up)
            assert controller.engines == 2
            replies = await asyncio.gather(*work)
            assert [reply.status for reply in replies] == [200] * 15
            for reply in replies:
                assert reply.done or error_of(reply)["code"] == "engine_failed"
            assert all(reply.done for reply in replies[9:])
            await live.engines[0].revive()
            await live.until(lambda: live.gateway.backends[0].up)
            assert controller.engines == 3
            await asyncio.gather(*(live.complete(4) for _ in range(9)))
            await settled(live, requests=24)
            assert live.engines[0].engine.served, "it works again"

    asyncio.run(run())


def test_without_engines_nobody_is_taken(tmp_path: Path) -> None:
    async def run() -> None:
        async with live_gateway(tmp_path, more="[limits]\nmax_wait = 1.0\n") as live:
            work = [asyncio.create_task(live.complete(400, stream=k % 2 == 0)) for k in range(4)]
            await live.until(lambda: sum(e.state["running"] for e in live.engines) == 4)
            for engine in live.engines:
                engine.kill()
            await live.until(lambda: not live.gateway.backends.any_up)
            refused = await live.complete(3)
            assert (refused.status, error_of(refused)["code"]) == (503, "no_engine")
            assert int(refused.headers["retry-after"]) >= 1
            assert (await live.get("/ready")).status == 503
            replies = await asyncio.gather(*work)
            codes = [error_of(reply)["code"] for reply in replies]
            assert set(codes) <= {"no_engine", "engine_failed", "kv_lost"}
            await live.until(live.idle)
            assert len(live.records()) == 5
            for engine in live.engines:
                await engine.revive()
            await live.until(lambda: all(engine.up for engine in live.gateway.backends))
            assert (await live.complete(3)).done

    asyncio.run(run())


@KINDS
def test_what_the_engine_finds_wrong_with_a_request_is_handed_on(tmp_path: Path, kind: str) -> None:
    async def run() -> None:
        async with live_gateway(tmp_path, kind=kind) as live:
            for engine in live.engines:
                engine.fault("refuse", 422.0)
            for stream in (True, False):
                reply = await live.complete(3, stream=stream)
                assert (reply.status, reply.json["error"]["type"]) == (422, "InjectedFault")
            records = await settled(live, requests=2, outcome="engine_refused")
            assert all(record["attempts"] <= 2 for record in records), "a refused leg is asked again as a whole"
            assert all(engine.up for engine in live.gateway.backends)

    asyncio.run(run())


def test_a_lease_that_would_end_in_the_buffer_means_reading_again(tmp_path: Path) -> None:
    """Two prompts are read, one slot is free: the second decode waits beyond its KV's lease."""

    async def run() -> None:
        more = "[limits]\nattempts = 100\nmax_wait = 60.0\n"
        async with live_gateway(tmp_path, engines=2, speed=4.0, more=more) as live:
            live.gateway.backends.lease = 0.001
            replies = await asyncio.gather(*(live.complete(60) for _ in range(20)))
            assert all(reply.done and reply.tokens == 60 for reply in replies)
            records = await settled(live, requests=20, outcome="completed")
            assert any(record["attempts"] > 1 for record in records)
            page = (await live.get("/metrics")).content.decode()
            lost = next(line for line in page.splitlines() if line.startswith('fluidgate_kv_lost_total{class="chat",'))
            assert float(lost.split()[-1]) == sum(record["attempts"] - 1 for record in records)

    asyncio.run(run())


def coupled(folder: Path, *engines: ScriptedEngine, more: str = "") -> Any:
    return settings_of(folder, [engine.url for engine in engines], scenario(), kind="vllm-coupled", more=more)


Step = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.mark.parametrize(
    ("first", "outcome"),
    [
        (streams(ROLE, then=dies), "completed"),
        (streams(ROLE), "completed"),
        (streams(ROLE + b'data: {"error":{"message":"oom","code":500}}\n\n' + DONE), "completed"),
        (streams(b'data: {"error":{"message":"oom","code":500}}\n\n'), "engine_refused"),
        (dies, "completed"),
        (streams(ROLE, TOKEN, then=dies), "engine_failed"),
        (streams(ROLE, TOKEN), "engine_failed"),
        (streams(ROLE, TOKEN, b'data: {"error":{"message":"oom","code":500}}\n\n' + DONE), "engine_failed"),
        (streams(ROLE, TOKEN, DONE, then=dies), "completed"),
        (streams(ROLE, DONE), "completed"),
        (says({"error": {"message": "odd"}}, status=499), "engine_refused"),
    ],
    ids=[
        "dies after the role", "ends after the role", "error after the role", "error first", "dies at once",
        "dies after a token", "no end", "error after a token", "dies after the end", "no token", "odd status",
    ],
)  # fmt: skip
def test_how_a_stream_ends(tmp_path: Path, first: Step, outcome: str) -> None:
    """The only engine does something odd; a second try would be whole."""

    async def run() -> None:
        whole = streams(ROLE, TOKEN, DONE)
        async with (
            scripted(first, whole, pages=PAGES) as engine,
            running_gateway(coupled(tmp_path, engine)) as (gateway, url),
            Live.before(gateway, url, tmp_path) as live,
        ):
            body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
            reply = await live.post(CHAT, **body)
            await live.until(live.idle)
            assert [record["outcome"] for record in live.records()] == [outcome]
            if outcome == "completed":
                assert reply.done
                assert reply.content.count(b'"role"') == 1, "nothing is sent twice"
                assert not [event for event in reply.events if "error" in event]
            elif outcome == "engine_failed":
                assert len([event for event in reply.events if "error" in event]) == 1
            else:
                assert reply.status in (400, 500)

    asyncio.run(run())


@asynchronous
async def test_an_engine_of_another_model_is_not_used_when_it_comes_back(tmp_path: Path) -> None:
    async with live_gateway(tmp_path) as live:
        live.engines[0].kill()
        await live.until(lambda: not live.gateway.backends[0].up and live.gateway.backends[0].facts is None)
        object.__setattr__(live.engines[0].settings, "model", "another")
        await live.engines[0].revive()
        await live.until(lambda: "another" in live.gateway.backends[0].why)
        assert not live.gateway.backends[0].up
        object.__setattr__(live.engines[0].settings, "model", MODEL)
        await live.until(lambda: live.gateway.backends[0].up)


@asynchronous
async def test_odds_of_the_prompt_are_asked_for_in_one_call(tmp_path: Path) -> None:
    """The engine that reads such a prompt must write its answer too, also where decodes are placed late."""
    async with live_gateway(tmp_path) as live:
        replies = await asyncio.gather(*(live.complete(4, prompt_logprobs=1, stream=k % 2 == 0) for k in range(6)))
        assert [reply.status for reply in replies] == [200] * 6
        records = await settled(live, requests=6, outcome="completed")
        assert all(record["prefill_engine"] == record["decode_engine"] for record in records)
        assert sum(len(e.engine.served) for e in live.engines) == 6 + probes(live), "one call each"


def probes(live: Live) -> int:
    """What the gateway has asked for by itself on start-up."""
    return sum(served.id.startswith("cmpl-fluidgate-probe") for e in live.engines for served in e.engine.served)
