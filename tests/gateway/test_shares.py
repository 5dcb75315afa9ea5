"""Groups of engines that serve one model: who gets how much of it, and what is done when one of them is gone."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fluidgate.errors import FluidgateError
from fluidgate.gateway.client.running import check, running_gateway
from fluidgate.gateway.gateway_file import GatewaySettings, parse_gateway
from fluidgate.scenario_file import write_scenario
from tests.gateway.asynchronous import asynchronous
from tests.gateway.moody_engine import MoodyEngine
from tests.gateway.served import MODEL, Live, scenario

GROUP = """[[groups]]
name = "{name}"
model = "emulated"
scenario = "scenario.toml"
policy = "vllm-round-robin"
shares = {{ chat = {chat}, code = {code} }}
[groups.engines]
kind = "vllm-coupled"
urls = {urls}
check_seconds = 0.05
[[groups.rules]]
class = "code"
header = {{ x-class = "code" }}
"""


def file_text(folder: Path, fast: list[str], cheap: list[str]) -> str:
    """A third of the chats goes to the fast engines, and all code."""
    head = f'schema = 1\nsession_header = "X-Session-Id"\n[server]\nport = 0\nlog = "{folder / "requests.log"}"\n'
    return (
        head
        + GROUP.format(name="fast", chat=0.3333, code=1, urls=json.dumps(fast))
        + GROUP.format(name="cheap", chat=0.6667, code=0, urls=json.dumps(cheap))
    )


@asynccontextmanager
async def shared(
    folder: Path, *, gone: int | None = None, **keys: Any
) -> AsyncIterator[tuple[Live, list[MoodyEngine]]]:
    """A fast engine and two cheap ones; one may be gone from the start."""
    async with AsyncExitStack() as stack:
        engines = [MoodyEngine(context=context, **keys) for context in (1000, 100, 100)]
        for engine in engines:
            await engine.start()
            stack.push_async_callback(engine.stop)
        if gone is not None:
            await engines[gone].stop()
        write_scenario(scenario(), folder / "scenario.toml")
        path = folder / "gateway.toml"
        path.write_text(file_text(folder, [engines[0].url], [each.url for each in engines[1:]]))
        gateway, url = await stack.enter_async_context(running_gateway(GatewaySettings.load(path)))
        yield await stack.enter_async_context(Live.before(gateway, url, folder)), engines


async def ask(live: Live, user: str, count: int, *, prompt: Any = "hi", **headers: str) -> set[int]:
    """So many requests at once; their statuses."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    asked = (live.post(prompt=prompt, max_tokens=2, user=user, headers=named) for _ in range(count))
    return {reply.status for reply in await asyncio.gather(*asked)}


async def lent(live: Live, engine: MoodyEngine) -> None:
    """One of the cheap engines serves an adapter, too."""
    engine.models.append("lora")
    engine.parents["lora"] = "emulated"
    await live.until(lambda: "lora" in live.whole.groups[1].backends.models)


def got(engines: list[MoodyEngine], user: str) -> list[int]:
    return [len(engine.of(user)) for engine in engines]


@asynchronous
async def test_each_class_goes_by_its_shares(tmp_path: Path) -> None:
    async with shared(tmp_path) as (live, engines):
        assert await ask(live, "chats", 90) == {200}
        fast, *cheap = got(engines, "chats")
        assert 18 <= fast <= 42, "30 are wanted, within three standard deviations"
        assert fast + sum(cheap) == 90
        assert await ask(live, "code", 10, x_class="code") == {200}
        assert got(engines, "code") == [10, 0, 0]
        await live.until(lambda: len(live.records()) == 100)
        by_group = [(record["model"], record["class"]) for record in live.records()]
        assert by_group.count(("fast", "chat")) == fast
        assert by_group.count(("fast", "code")) == 10
        plan = (await live.get("/v1/plan?model=cheap")).json
        assert (plan["shares"], plan["groups"]) == ({"chat": 0.6667, "code": 0.0}, ["fast", "cheap"])


@asynchronous
async def test_a_session_stays_with_its_group(tmp_path: Path) -> None:
    async with shared(tmp_path) as (live, engines):
        for number in range(12):
            assert await ask(live, f"s{number}", 3, x_session_id=f"session {number}") == {200}
        of_fast = [got(engines, f"s{number}")[0] for number in range(12)]
        assert set(of_fast) == {0, 3}


@asynchronous
async def test_prompts_go_where_they_fit(tmp_path: Path) -> None:
    async with shared(tmp_path) as (live, engines):
        assert await ask(live, "long", 10, prompt=[1] * 300) == {200}
        assert got(engines, "long") == [10, 0, 0]
        assert await ask(live, "too long", 1, prompt=[1] * 3000) == {400}


@asynchronous
async def test_an_adapter_is_asked_for_where_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with shared(tmp_path) as (live, engines):
        await lent(live, engines[1])
        replies = [await live.post(prompt="hi", max_tokens=2, user="lora", model="lora") for _ in range(9)]
        assert {reply.status for reply in replies} == {200}
        assert got(engines, "lora") == [0, 9, 0]
        assert "goes to" not in caplog.text


@asynchronous
async def test_others_serve_while_a_group_is_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fluidgate.gateway")
    async with shared(tmp_path, gone=0) as (live, engines):
        assert await ask(live, "code", 5, x_class="code") == {200}
        assert got(engines, "code")[0] == 0
        assert "no engine of fast is up: class 'code' goes to whatever group of its model is" in caplog.text
        assert caplog.text.count("class 'code'") == 1
        await lent(live, engines[1])
        reply = await live.post(prompt="hi", max_tokens=2, model="lora", headers={"x-class": "code"})
        assert reply.status == 200
        assert caplog.text.count("class 'code'") == 1
        back = int(engines[0].url.rpartition(":")[2])
        await engines[0].start(back)
        await live.until(lambda: live.whole.groups[0].backends.up_count == 1)
        assert await ask(live, "again", 5, x_class="code") == {200}
        assert got(engines, "again") == [5, 0, 0]
        assert "class 'code' goes to fast again" in caplog.text


@asynchronous
async def test_shares_fall_with_engines_that_are_down(tmp_path: Path) -> None:
    async with shared(tmp_path, gone=2) as (live, engines):
        assert await ask(live, "chats", 80) == {200}
        assert 27 <= got(engines, "chats")[0] <= 53, "as many as to the one cheap engine that is left"


@asynchronous
async def test_nobody_at_all_is_told(tmp_path: Path) -> None:
    write_scenario(scenario(), tmp_path / "scenario.toml")
    (tmp_path / "gateway.toml").write_text(file_text(tmp_path, ["http://127.0.0.1:1"], ["http://127.0.0.1:2"]))
    with pytest.raises(
        FluidgateError, match=r"no engine of fast, cheap is fit: http.*:1: .* \(and 1 more, for the same"
    ):
        await check(GatewaySettings.load(tmp_path / "gateway.toml"))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "chat = 0.6667",
            "chat = 0.5",
            "groups: the shares of class 'chat' come to 0.8333 in all; make them come to 1",
        ),
        ("shares = { chat = 0.6667, code = 0 }\n", "", "groups[0].shares: all groups of one model need shares"),
        ("chat = 0.6667", "chatt = 0.6667", "groups[1].shares.chatt: the scenario has no class 'chatt'"),
        ("chat = 0.6667", "chat = 1.5", "shares.chat: must be at most 1, but is 1.5"),
        ('name = "cheap"', 'name = "fast"', "groups: two are called 'fast'; give each of them a name of its own"),
        ('name = "cheap"\nmodel = "emulated"', 'name = "cheap"', "groups: each of several needs a model"),
        ('name = "cheap"\nmodel = "emulated"', 'model = "other"', "groups[0].shares: no other group has its model"),
        ('name = "cheap"', 'name = "cheap"\ndefault_class = "code"', "groups[1].default_class: differs from that of"),
        ('name = "cheap"', 'name = "cheap"\naliases = ["x"]', "groups[1].aliases: differs from that of groups[0]"),
    ],
)
def test_what_shares_may_not_say(tmp_path: Path, old: str, new: str, problem: str) -> None:
    write_scenario(scenario(), tmp_path / "scenario.toml")
    text = file_text(tmp_path, ["http://a:1"], ["http://b:1"])
    assert parse_gateway(text, "g", tmp_path).groups[1].shares == (0.6667, 0.0)
    with pytest.raises(FluidgateError) as raised:
        parse_gateway(text.replace(old, new), "g", tmp_path)
    assert problem in str(raised.value)


@asynchronous
async def test_a_file_whose_groups_lack_all_engines_is_not_followed(tmp_path: Path) -> None:
    async with shared(tmp_path) as (live, _):
        text = file_text(tmp_path, ["http://127.0.0.1:1"], ["http://127.0.0.1:2"])
        other = parse_gateway(text.replace("fast", "quick").replace("cheap", "slow"), "g", tmp_path)
        with pytest.raises(FluidgateError, match="no engine of quick, slow is fit"):
            await live.whole.adopt(other)
        assert await ask(live, "chats", 3) == {200}


def test_groups_without_names_are_not_called_alike(tmp_path: Path) -> None:
    write_scenario(scenario(), tmp_path / "scenario.toml")
    text = file_text(tmp_path, ["http://a:1"], ["http://b:1"]).replace(f'model = "{MODEL}"\n', "")
    with pytest.raises(FluidgateError, match="groups: two are called 'live'; give each of them a name of its own"):
        parse_gateway(text.replace('name = "fast"\n', "").replace('name = "cheap"\n', ""), "g", tmp_path)


def test_a_model_that_nobody_names_is_shared_too(tmp_path: Path) -> None:
    write_scenario(scenario(), tmp_path / "scenario.toml")
    text = file_text(tmp_path, ["http://a:1"], ["http://b:1"]).replace(f'model = "{MODEL}"\n', "")
    assert [each.model for each in parse_gateway(text, "g", tmp_path).groups] == [None, None]
