"""The end points beside completions: passed through, counted, and wrong in the words of their own API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.asynchronous import asynchronous
from tests.gateway.client.test_requests import KEYED, SECRET
from tests.gateway.moody_engine import MoodyEngine, before_moody_engines
from tests.gateway.served import Reply, live_gateway
from tests.gateway.versed_engine import STREAMED, WHOLE, VersedEngine

HI = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/responses": {"input": "hi", "instructions": "be brief"},
    "/v1/messages": {"messages": HI, "max_tokens": 9},
    "/v1/embeddings": {"input": ["hi", "there"]},
}
PASSING: dict[str, dict[str, Any]] = {
    "/v1/messages/count_tokens": {"messages": HI},
    "/tokenize": {"prompt": "hi"},
    "/detokenize": {"tokens": [1]},
}
KINDS = pytest.mark.parametrize("kind", ["vllm", "vllm-coupled"])


def names(reply: Reply) -> list[str]:
    return [line[7:].decode() for line in reply.content.splitlines() if line.startswith(b"event: ")]


@KINDS
@pytest.mark.parametrize("path", STREAMED)
@asynchronous
async def test_a_stream_goes_through_whole_and_its_tokens_are_counted(tmp_path: Path, kind: str, path: str) -> None:
    async with before_moody_engines(tmp_path, make=VersedEngine, kind=kind) as (live, engines):
        reply = await live.post(path, stream=True, **BODIES[path], headers={"anthropic-version": "2023-06-01"})
        assert names(reply) == [name for name, _ in STREAMED[path]]
        await live.until(live.idle)
        (record,) = live.records()
        assert (record["outcome"], record["path"], record["attempts"]) == ("completed", path, 1)
        assert record["output_tokens"] == (5 if path == "/v1/responses" else 4), "as the engine states"
        assert record["first_token"] is not None
        (asked,) = (body for engine in engines for body in engine.asked if "headers" in body)
        assert ("anthropic-version" in asked["headers"]) == (path == "/v1/messages")


@pytest.mark.parametrize("path", BODIES)
@asynchronous
async def test_a_whole_answer_goes_through(tmp_path: Path, path: str) -> None:
    async with before_moody_engines(tmp_path, make=VersedEngine) as (live, _):
        reply = await live.post(path, **BODIES[path])
        assert (reply.status, reply.json) == (200, WHOLE[path])
        await live.until(live.idle)
        (record,) = live.records()
        assert record["output_tokens"] == {"/v1/responses": 5, "/v1/messages": 4, "/v1/embeddings": 0}[path]
        assert record["prompt_tokens"] > 0
        assert record["outcome"] == "completed"


@pytest.mark.parametrize("path", PASSING)
@asynchronous
async def test_what_costs_next_to_nothing_waits_for_no_gate(tmp_path: Path, path: str) -> None:
    async with before_moody_engines(tmp_path, make=VersedEngine) as (live, engines):
        for body in (PASSING[path], {"model": "emulated", **PASSING[path]}):
            reply = await live.send(path, json.dumps(body).encode())
            assert (reply.status, reply.json) == (200, WHOLE[path])
        assert (await live.post(path, **PASSING[path], user="400")).status == 400
        assert (await live.post(path, **PASSING[path], user="500")).status == 503
        assert live.gateway.backends.up_count == len(engines)
        assert live.gateway.dispatcher.taken[:2] == [0, 0]


@pytest.mark.parametrize("status", [404, 405, 501])
@asynchronous
async def test_an_engine_without_an_end_point_is_not_harmed(tmp_path: Path, status: int) -> None:
    async with before_moody_engines(tmp_path, make=VersedEngine) as (live, engines):
        for _ in range(6):
            for path, body in (BODIES | PASSING).items():
                reply = await live.post(path, **body, user=str(status))
                assert (reply.status, reply.json["error"]["message"]) == (status, f"scripted {status}")
        assert live.gateway.backends.up_count == len(engines)
        assert all(not engine.downs for engine in live.gateway.backends)


@asynchronous
async def test_errors_are_in_the_form_of_the_api(tmp_path: Path) -> None:
    more = f"[limits]\nmax_prompt_tokens = 50\n{KEYED}"
    async with before_moody_engines(tmp_path, make=VersedEngine, more=more) as (live, _):
        known = {"x-api-key": SECRET}
        long = [{"role": "user", "content": "word " * 100}]

        async def error(status: int, headers: dict[str, str], **body: Any) -> dict[str, Any]:
            reply = await live.post("/v1/messages", headers=headers, **body)
            assert reply.status == status
            assert reply.json["type"] == "error"
            assert set(reply.json["error"]) == {"type", "message"}
            return reply.json["error"]

        assert (await error(401, {"x-api-key": "no"}, **BODIES["/v1/messages"]))["type"] == "authentication_error"
        assert (await error(400, known, messages=long))["type"] == "invalid_request_error"
        assert (await error(404, known, model="other", messages=HI))["type"] == "not_found_error"
        assert (await live.post("/v1/messages", headers=known, **BODIES["/v1/messages"])).status == 200
        told = (await live.post("/v1/responses", headers=known, input="word " * 100)).json["error"]
        assert told["code"] == "prompt_too_long"
        assert (await live.post("/tokenize", prompt="a")).status == 401


@pytest.mark.parametrize("path", STREAMED)
@asynchronous
async def test_a_stream_that_fails_ends_with_an_error_of_its_api(tmp_path: Path, path: str) -> None:
    async with before_moody_engines(tmp_path, make=VersedEngine) as (live, _):
        for user in ("fails", "cut"):
            reply = await live.post(path, stream=True, user=user, **BODIES[path])
            assert names(reply)[-1] == "error"
            last = reply.content.rstrip().split(b"\n\n")[-1].split(b"data: ")[1]
            told = json.loads(last)
            assert told["type"] == "error"
            assert "message" in told.get("error", told)
        await live.until(live.idle)
        assert {record["outcome"] for record in live.records()} == {"engine_failed"}


@asynchronous
async def test_the_page_of_one_model(tmp_path: Path) -> None:
    async with before_moody_engines(tmp_path, make=lambda: MoodyEngine(models=["emulated", "org/name/of a model"])) as (
        live,
        _,
    ):
        assert (await live.get("/v1/models/emulated")).json["id"] == "emulated"
        listed = {model["id"]: model for model in (await live.get("/v1/models")).json["data"]}
        for quoted in ("org/name/of%20a%20model", "org%2Fname%2Fof%20a%20model"):
            assert (await live.get(f"/v1/models/{quoted}")).json == listed["org/name/of a model"]
        missing = await live.get("/v1/models/other")
        assert (missing.status, missing.json["error"]["code"]) == (404, "model_not_found")
        assert (await live.get("/v1/models/")).status == 404


@KINDS
@asynchronous
async def test_several_prompts_and_several_answers_go_out_whole(tmp_path: Path, kind: str) -> None:
    async with before_moody_engines(tmp_path, kind=kind, more="[limits]\nmax_answers = 6\n") as (live, engines):
        several: list[dict[str, Any]] = [
            {"prompt": ["abcd" * 3, "abcd" * 5]},
            {"prompt": [[1] * 3, [2] * 5]},
            {"prompt": "abcd" * 8, "n": 3},
            {"prompt": "abcd" * 8, "best_of": 2},
        ]
        for k, body in enumerate(several):
            assert (await live.post(**body, user=f"u{k}")).status == 200
            (sent,) = (body for engine in engines for body in engine.of(f"u{k}"))
            assert {key: sent[key] for key in body} == body, "in one leg, as it came"
        await live.until(live.idle)
        assert [record["prompt_tokens"] for record in live.records()] == [8] * 4
        for body in ({"prompt": ["a", "b"], "n": 4}, {"prompt": "a", "n": 7}):
            assert (await live.post(**body)).status == 400
        assert (await live.post(prompt=[[1] * 600, [1] * 600])).status == 200, "each of them fits the context of 1000"
        assert (await live.post(prompt=[[1] * 6, [1] * 1600])).json["error"]["code"] == "prompt_too_long"


@asynchronous
async def test_usage_in_every_event_comes_only_to_who_asked_for_usage(tmp_path: Path) -> None:
    async with live_gateway(tmp_path) as live:
        silent = await live.complete(4, stream_options={"continuous_usage_stats": True})
        assert b'"completion_tokens"' not in silent.content
        assert silent.done
        asked = await live.complete(4, stream_options={"continuous_usage_stats": True, "include_usage": True})
        assert asked.content.count(b'"completion_tokens"') > 1
        await live.until(live.at_rest)
        assert [record["output_tokens"] for record in live.records()] == [4, 4]
