"""Keys before a gateway that serves: quotas, shares, and what log and metrics say of each."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from fluidgate.errors import FluidgateError
from fluidgate.gateway.ended import RefusedRequest
from fluidgate.gateway.gateway_file import GatewaySettings, Key
from fluidgate.gateway.quota_table import KeyLimits
from fluidgate.gateway.tenants import Tenants
from tests.gateway.fakes import ended_request, waited_in_vain
from tests.gateway.served import Live, Reply, live_gateway, scenario, settings_of


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer sk-{name}"}


def key_table(name: str, more: str = "") -> str:
    return f'[[keys]]\nname = "{name}"\nsha256 = "{hashlib.sha256(f"sk-{name}".encode()).hexdigest()}"\n{more}\n'


async def complete(live: Live, name: str, tokens: int = 4, **body: object) -> Reply:
    return await live.complete(tokens, headers=bearer(name), **body)


async def fill(live: Live, name: str, slots: int) -> list[asyncio.Task[Reply]]:
    """Requests of a key that hold so many slots for some seconds."""
    work = []
    for k in range(slots):
        work.append(asyncio.create_task(complete(live, name, 4000)))
        await live.until(lambda k=k: sum(state.decodes for state in live.states()) == k + 1)
    return work


def test_quotas_are_said_to_clients_and_kept(tmp_path: Path) -> None:
    more = "[quota]\nrequests_per_minute = 3\n" + key_table("a") + key_table("b", "tokens_per_minute = 250")

    async def run() -> None:
        async with live_gateway(tmp_path, more=more) as live:
            whole = await complete(live, "a", stream=False)
            assert whole.status == 200
            assert whole.headers["x-ratelimit-limit-requests"] == "3"
            assert whole.headers["x-ratelimit-remaining-requests"] == "2"
            assert "x-ratelimit-limit-tokens" not in whole.headers
            streamed = await complete(live, "a")
            assert streamed.done
            assert streamed.headers["x-ratelimit-remaining-requests"] == "1"
            await complete(live, "a")
            refused = await complete(live, "a")
            assert (refused.status, refused.headers["x-fluidgate-reason"]) == (429, "quota_requests")
            assert refused.json["error"]["type"] == "rate_limit_error"
            assert "key 'a'" in refused.json["error"]["message"]
            assert "class 'chat'" in refused.json["error"]["message"]
            assert 1 <= int(refused.headers["retry-after"]) <= 20

            answered = await complete(live, "b", 100, ignore_eos=False, stop=["t"])
            assert answered.headers["x-ratelimit-remaining-tokens"] == "50", "100 of prompt, 100 that it may have"
            too_large = await complete(live, "b", 200)
            assert (too_large.status, too_large.headers["x-fluidgate-reason"]) == (400, "quota_exceeded")
            await live.until(lambda: len(live.records()) == 6)
            last = live.records()[-1]
            assert (last["key"], last["class"], last["status"], last["outcome"]) == ("b", "chat", 400, "quota_exceeded")

    asyncio.run(run())


def test_what_was_not_used_is_given_back(tmp_path: Path) -> None:
    async def run() -> None:
        async with live_gateway(tmp_path, more=key_table("a", "tokens_per_minute = 5000")) as live:
            (stream,) = await fill(live, "a", 1)
            refused = await complete(live, "a", 1500)
            assert refused.headers["x-fluidgate-reason"] == "quota_tokens"
            assert int(refused.headers["x-ratelimit-remaining-tokens"]) < 1600, "4100 are charged for now"
            stream.cancel()
            await asyncio.gather(stream, return_exceptions=True)
            await live.until(live.at_rest)
            await live.until(lambda: any(r["outcome"] == "client_gone" for r in live.records()))
            gone = next(r for r in live.records() if r["outcome"] == "client_gone")
            written = gone["output_tokens"]
            assert 0 < written < 4000, "what was written before it left is counted"
            answer = await complete(live, "a", 100)
            assert answer.status == 200
            assert int(answer.headers["x-ratelimit-remaining-tokens"]) >= 5000 - 100 - written - 200

    asyncio.run(run())


def test_a_keys_requests_under_way_and_waiting(tmp_path: Path) -> None:
    more = key_table("a", "max_waiting = 2") + key_table("b", "max_concurrent = 1")

    async def run() -> None:
        async with live_gateway(tmp_path, engines=1, kind="vllm-coupled", more=more) as live:
            work = await fill(live, "a", 4)
            work += [asyncio.create_task(complete(live, "a")) for _ in range(2)]
            work.append(asyncio.create_task(complete(live, "b")))
            await live.until(lambda: live.gateway.dispatcher.counts().waiting.sum() == 3)
            waiting = await complete(live, "a")
            assert (waiting.status, waiting.headers["x-fluidgate-reason"]) == (429, "quota_waiting")
            assert "2 requests of key 'a' wait already" in waiting.json["error"]["message"]
            under_way = await complete(live, "b")
            assert (under_way.status, under_way.headers["x-fluidgate-reason"]) == (429, "quota_concurrent")
            scraped = (await live.get("/metrics")).content.decode()
            for line in (
                'fluidgate_key_running{key="a"} 4.0',
                'fluidgate_key_waiting{key="a"} 2.0',
                'fluidgate_key_running{key="b"} 0.0',
                'fluidgate_key_waiting{key="b"} 1.0',
                'fluidgate_key_refusals_total{key="a",reason="quota_waiting"} 1.0',
            ):
                assert line in scraped
            for task in work[:4]:
                task.cancel()
            assert [reply.status for reply in await asyncio.gather(*work[4:])] == [200] * 3
            await live.until(live.at_rest)

    asyncio.run(run())


def test_one_keys_backlog_lets_another_through(tmp_path: Path) -> None:
    """The other's requests have all ended while most of the backlog still waits."""

    async def run() -> None:
        more = key_table("a") + key_table("b")
        async with live_gateway(tmp_path, engines=1, kind="vllm-coupled", more=more) as live:
            backlog = [asyncio.create_task(complete(live, "a", 300)) for _ in range(60)]
            await live.until(lambda: live.gateway.dispatcher.waiting_of("a") > 40)
            replies = await asyncio.gather(*(complete(live, "b", 4) for _ in range(3)))
            assert all(reply.done for reply in replies)
            assert live.gateway.dispatcher.waiting_of("a") > 20
            for task in backlog:
                task.cancel()
            await asyncio.gather(*backlog, return_exceptions=True)
            await live.until(live.at_rest)

    asyncio.run(run())


def test_the_429s_of_a_class_name_the_key_too(tmp_path: Path) -> None:
    more = "[limits]\nmax_waiting = 1\n" + key_table("a") + key_table("b", "requests_per_minute = 9")

    async def run() -> None:
        async with live_gateway(tmp_path, engines=1, kind="vllm-coupled", more=more) as live:
            work = await fill(live, "a", 4)
            late = asyncio.create_task(complete(live, "a"))
            await live.until(lambda: live.gateway.dispatcher.waiting_of("a") == 1)
            full = await complete(live, "b")
            assert full.headers["x-fluidgate-reason"] == "queue_full"
            assert full.headers["x-ratelimit-remaining-requests"] == "9", "it does not count"
            assert "class 'chat'" in full.json["error"]["message"]
            assert "key 'b'" in full.json["error"]["message"]
            late.cancel()
            await live.until(lambda: live.gateway.dispatcher.waiting_of("a") == 0)
            impatient = await live.complete(4, headers=bearer("a") | {"x-fluidgate-max-wait": "0.1"})
            said = impatient.json["error"]
            assert said["code"] == "wait_limit"
            assert said["message"].endswith("in class 'chat' (key 'a')")
            for task in work:
                task.cancel()
            await asyncio.gather(*work, late, return_exceptions=True)
            await live.until(live.at_rest)
            refused = next(r for r in live.records() if r["outcome"] == "queue_full")
            assert (refused["key"], refused["class"], refused["status"]) == ("b", "chat", 429)

    asyncio.run(run())


def test_books_of_keys() -> None:
    keys = [Key("a", b"", KeyLimits()), Key("b", b"", KeyLimits())]
    tenants = Tenants(keys, ("chat", "code"), {"a": 3, "b": 0}.__getitem__)
    tenants.ended(ended_request(key="a"))
    tenants.ended(waited_in_vain())
    tenants.ended(ended_request(key="a", outcome="client_gone", output_tokens=2))
    tenants.ended(ended_request(key="nobody's"))
    tenants.refused(RefusedRequest(429, "quota_requests", key="b"))
    tenants.refused(RefusedRequest(401, "invalid_api_key"))
    usual = {"running": 0, "waiting": 0, "requests": 0, "prompt_tokens": 0, "output_tokens": 0, "refused": 0}
    assert tenants.keys() == {
        "a": usual | {"waiting": 3, "requests": 2, "prompt_tokens": 200, "output_tokens": 7},
        "b": usual | {"refused": 1},
    }
    registry = CollectorRegistry()
    registry.register(tenants)
    value = registry.get_sample_value
    of_a = {"key": "a", "class": "chat"}
    assert value("fluidgate_key_requests_total", of_a | {"outcome": "completed"}) == 1
    assert value("fluidgate_key_requests_total", of_a | {"outcome": "client_gone"}) == 1
    assert value("fluidgate_key_output_tokens_total", of_a) == 7
    assert value("fluidgate_key_output_tokens_total", {"key": "b", "class": "code"}) == 0, "there from the first"
    assert value("fluidgate_key_refusals_total", {"key": "b", "reason": "quota_requests"}) == 1
    labels = {sample.labels["key"] for family in registry.collect() for sample in family.samples}
    assert labels == {"a", "b"}, "none but those of the file"
    tenants.adopt(keys[:1])
    assert list(tenants.keys()) == ["a"]
    assert tenants.keys()["a"]["requests"] == 2


def test_a_key_has_its_own_limits_or_the_usual_ones(tmp_path: Path) -> None:
    usual = "[quota]\nrequests_per_minute = 60\nmax_concurrent = 8\nweight = 2\n"
    more = usual + key_table("a") + key_table("b", "max_concurrent = 3\nweight = 0.5")
    a, b = (key.limits for key in settings_of(tmp_path, ["http://127.0.0.1:1"], scenario(), more=more).keys)
    assert a == KeyLimits(60, None, 8, None, 2.0)
    assert b == KeyLimits(60, None, 3, None, 0.5)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("[quota]\nmax_waiting = 3\n", "quota: there is no key to which it applies; add"),
        (key_table("a", "requests_per_minute = 0"), "requests_per_minute"),
        (key_table("a", "weight = 0.0"), "weight"),
        (key_table("a", "weight = inf"), "weight"),
        (key_table("a", "token_per_minute = 1"), "tokens_per_minute"),
    ],
)
def test_wrong_quotas_are_one_line(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(FluidgateError, match=said) as raised:
        settings_of(tmp_path, ["http://127.0.0.1:1"], scenario(), more=more)
    assert "\n" not in str(raised.value)


def test_the_example_has_no_quotas() -> None:
    settings = GatewaySettings.load(Path(__file__).parents[2] / "examples" / "gateway.toml")
    assert all(key.limits == KeyLimits() for key in settings.keys)
