"""Engines that are added, cordoned, drained, killed and removed under load; groups; a file that is read anew."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fluidgate.emulator import EngineServer, EngineSettings, serve_engines
from fluidgate.errors import FluidgateError
from fluidgate.gateway.client.running import running_gateway
from fluidgate.gateway.gateway_file import GatewaySettings, parse_gateway
from fluidgate.scenario_file import write_scenario
from tests.gateway.asynchronous import asynchronous
from tests.gateway.moody_engine import MoodyEngine, before_moody_engines
from tests.gateway.served import MODEL, Live, Reply, live_gateway, scenario

KEY = "of-the-operator"
ADMIN = f'[admin]\nsha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"\n'


async def order(live: Live, path: str, body: dict[str, Any] | None = None, key: str = KEY) -> Reply:
    headers = {"authorization": f"Bearer {key}"}
    if body is None:
        return await live.get(f"/admin/{path}", headers)
    return await live.send(f"/admin/{path}", json.dumps(body).encode(), headers)


async def states(live: Live) -> dict[str, str]:
    return {each["url"]: each["state"] for each in (await order(live, "engines")).json["engines"]}


@asynchronous
async def test_only_the_admins_key_opens_the_admin_api(tmp_path: Path) -> None:
    async with before_moody_engines(tmp_path, 1) as (live, _):
        assert (await order(live, "engines")).status == 404, "there is none without a key"
    async with before_moody_engines(tmp_path, 1, more=ADMIN) as (live, _):
        assert (await order(live, "engines", key="other")).status == 401
        assert (await live.get("/admin/engines")).status == 401
        assert (await order(live, "engines")).status == 200
        assert (await order(live, "nothing", {})).json["error"]["code"] == "not_found"
        assert (await order(live, "engines", {"url": "nonsense"})).status == 400
        assert (await order(live, "engines/drain", {"url": "http://nobody:1"})).json["error"][
            "code"
        ] == "no_such_engine"
        assert (await live.send("/admin/engines", b"{", {"authorization": f"Bearer {KEY}"})).status == 400


@asynchronous
async def test_an_engine_is_added_cordoned_drained_and_removed(tmp_path: Path) -> None:
    async with before_moody_engines(tmp_path, 1, more=ADMIN) as (live, engines):
        new = MoodyEngine()
        await new.start()
        assert (await order(live, "engines", {"url": new.url})).json["state"] == "joining"
        await live.until(lambda: live.gateway.backends.up_count == 2)
        assert live.gateway.controller is not None
        assert live.gateway.controller.engines == 2
        assert (await order(live, "engines/cordon", {"url": engines[0].url})).json["state"] == "cordoned"
        before = served(engines[0])
        replies = [await live.post(prompt="hi", max_tokens=2) for _ in range(4)]
        assert [reply.status for reply in replies] == [200] * 4
        assert served(engines[0]) == before
        await order(live, "engines/uncordon", {"url": engines[0].url})

        slow = asyncio.create_task(live.post(prompt="hi", max_tokens=2, user="slow"))
        await live.until(lambda: any(e.running for e in (*engines, new)))
        busy = next(e for e in (*engines, new) if e.running)
        drained = await order(live, "engines/drain", {"url": busy.url, "wait": True})
        assert (drained.json["state"], drained.json["holds"]) == ("cordoned", 0)
        assert (await slow).status == 200
        await order(live, "engines/uncordon", {"url": busy.url})

        assert (await order(live, "engines/remove", {"url": new.url})).status == 202
        await live.until(lambda: len(live.gateway.backends) == 1)
        assert list(await states(live)) == [engines[0].url]
        await new.stop()


def served(engine: MoodyEngine) -> int:
    """What it was asked by clients."""
    return sum(body["prompt"] == "hi" for body in engine.asked)


@asynchronous
async def test_the_last_engine_may_go_and_come_back(tmp_path: Path) -> None:
    async with before_moody_engines(tmp_path, 1, more=ADMIN) as (live, engines):
        await order(live, "engines/cordon", {"url": engines[0].url})
        assert (await live.post(prompt="hi", max_tokens=2)).json["error"]["code"] == "no_engine"
        assert (await live.get("/ready")).status == 503
        await order(live, "engines/uncordon", {"url": engines[0].url})
        assert (await live.post(prompt="hi", max_tokens=2)).status == 200


@asynchronous
async def test_engines_follow_a_watched_file(tmp_path: Path) -> None:
    named = tmp_path / "engines.txt"
    async with AsyncExitStack() as stack:
        engines = [MoodyEngine() for _ in range(3)]
        for engine in engines:
            await engine.start()
            stack.push_async_callback(engine.stop)
        named.write_text(engines[0].url)
        text = file_of(tmp_path, f'file = "{named}"\nrefresh_seconds = 0.05')
        gateway, url = await stack.enter_async_context(running_gateway(parse_gateway(text, "g.toml", tmp_path)))
        live = await stack.enter_async_context(Live.before(gateway, url, tmp_path))
        assert live.gateway.backends.up_count == 1
        named.write_text("\n".join(engine.url for engine in engines))
        await live.until(lambda: live.gateway.backends.up_count == 3)
        named.write_text("\n".join([engines[2].url, "not a URL"]))
        await asyncio.sleep(0.2)
        assert live.gateway.backends.up_count == 3, "half a file changes nothing"
        named.write_text(engines[2].url)
        await live.until(lambda: [engine.url for engine in live.gateway.backends] == [engines[2].url])
        assert (await live.post(prompt="hi", max_tokens=2)).status == 200


@asynchronous
async def test_it_starts_without_engines_where_they_may_come(tmp_path: Path) -> None:
    (tmp_path / "engines.txt").write_text("http://127.0.0.1:1\n")
    text = file_of(tmp_path, 'file = "engines.txt"')
    async with (
        running_gateway(parse_gateway(text, "g.toml", tmp_path)) as (gateway, url),
        Live.before(gateway, url, tmp_path) as live,
    ):
        assert (await live.get("/ready")).status == 503
        assert (await live.post(prompt="hi")).json["error"]["code"] == "no_engine"


def file_of(folder: Path, engines: str, more: str = "") -> str:
    write_scenario(scenario(), folder / "scenario.toml")
    return f"""schema = 1
scenario = "scenario.toml"
policy = "gate-and-route"
[server]
port = 0
log = "{folder / "requests.log"}"
[engines]
kind = "vllm"
check_seconds = 0.1
{engines}
{more}"""


def random_load(live: Live, rng: random.Random, replies: list[Reply]) -> asyncio.Task[None]:
    """Requests that arrive until the task is cancelled, and are then waited for."""

    async def arrive() -> None:
        under_way: set[asyncio.Task[None]] = set()

        async def one() -> None:
            replies.append(await live.complete(rng.randint(1, 60), stream=rng.random() < 0.7))

        try:
            while True:
                task = asyncio.create_task(one())
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                await asyncio.sleep(rng.expovariate(30.0))
        except asyncio.CancelledError:
            await asyncio.gather(*under_way)

    return asyncio.create_task(arrive())


@pytest.mark.parametrize("kind", ["vllm", "vllm-coupled"])
@asynchronous
async def test_nothing_is_lost_by_what_is_planned(tmp_path: Path, kind: str) -> None:
    """Engines are added, drained, stopped once they hold nothing, and removed, at random; nobody notices."""
    rng = random.Random(5)
    async with live_gateway(tmp_path, kind=kind, engines=2, more=ADMIN) as live, AsyncExitStack() as stack:
        replies: list[Reply] = []
        load = random_load(live, rng, replies)
        spare: list[EngineServer] = []
        for _ in range(12):
            await asyncio.sleep(0.2)
            there = list(live.gateway.backends)
            if len(there) < 4 and rng.random() < 0.6:
                settings = EngineSettings(scenario().gpu, model=MODEL, speed=20.0)
                (new,) = await stack.enter_async_context(serve_engines(settings, 1))
                spare.append(new)
                assert (await order(live, "engines", {"url": new.url})).status == 201
                await live.until(lambda url=new.url: live.gateway.backends.find(url).up)
            elif len([engine for engine in there if engine.up]) > 1:
                chosen = rng.choice([engine for engine in there if engine.up])
                await order(live, "engines/drain", {"url": chosen.url, "wait": True})
                if rng.random() < 0.5:
                    await order(live, "engines/remove", {"url": chosen.url})
                else:
                    server = next(s for s in (*live.engines, *spare) if s.url == chosen.url)
                    server.kill()
                    await server.revive()
                    await order(live, "engines/uncordon", {"url": chosen.url})
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
        await live.until(lambda: len(live.records()) == len(replies))
        assert len(replies) > 50
        assert {reply.status for reply in replies} == {200}
        assert all(reply.done or not reply.headers["content-type"].startswith("text/event") for reply in replies)
        assert {record["outcome"] for record in live.records()} == {"completed"}
        await live.until(live.idle)


@asynchronous
async def test_the_log_says_when_an_engine_may_be_stopped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "fluidgate.gateway")
    async with before_moody_engines(tmp_path, 2, more=ADMIN) as (live, engines):
        slow = [asyncio.create_task(live.post(prompt="hi", max_tokens=2, user="slow")) for _ in range(2)]
        await live.until(lambda: all(engine.running for engine in engines))
        await order(live, "engines/drain", {"url": engines[0].url})
        assert f"engine {engines[0].url} is cordoned: it holds 1 request" in caplog.text
        assert "may be stopped" not in caplog.text
        await asyncio.gather(*slow)
        await live.until(lambda: f"{engines[0].url} is cordoned and holds nothing: it may be stopped" in caplog.text)
        await engines[1].stop()
        await live.until(lambda: "is down" in caplog.text)
        (down,) = [line for line in caplog.messages if "is down" in line]
        assert down.count(engines[1].url) == 1


@asynchronous
async def test_engines_that_are_there_at_the_start_make_one_plan(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fluidgate.gateway")
    async with before_moody_engines(tmp_path, 4) as (live, _):
        assert live.gateway.backends.up_count == 4
        assert not [line for line in caplog.messages if line.startswith("new plan")], "that of the file is for four"
        assert live.gateway.controller is not None
        assert live.gateway.controller.engines == 4


@asynccontextmanager
async def two_groups(folder: Path) -> AsyncIterator[tuple[Live, list[MoodyEngine], Path]]:
    async with AsyncExitStack() as stack:
        engines = [MoodyEngine(models=[name]) for name in ("small", "small", "large")]
        for engine in engines:
            await engine.start()
            stack.push_async_callback(engine.stop)
        write_scenario(scenario(), folder / "scenario.toml")
        path = folder / "gateway.toml"
        path.write_text(groups_file(folder, engines))
        gateway, url = await stack.enter_async_context(running_gateway(GatewaySettings.load(path)))
        yield await stack.enter_async_context(Live.before(gateway, url, folder)), engines, path


def groups_file(folder: Path, engines: list[MoodyEngine], policy: str = "gate-and-route", alias: str = "mini") -> str:
    return f"""schema = 1
[server]
port = 0
log = "{folder / "requests.log"}"
{ADMIN}
[[groups]]
model = "small"
aliases = ["{alias}"]
scenario = "scenario.toml"
policy = "{policy}"
[groups.engines]
kind = "vllm"
urls = {json.dumps([engine.url for engine in engines[:-1]])}
check_seconds = 0.1
[[groups]]
model = "large"
scenario = "scenario.toml"
policy = "vllm-round-robin"
[groups.engines]
kind = "vllm-coupled"
urls = ["{engines[-1].url}"]
[[groups.rules]]
class = "code"
header = {{ x-class = "code" }}
"""


@asynchronous
async def test_a_request_goes_to_the_group_of_its_model(tmp_path: Path) -> None:
    async with two_groups(tmp_path) as (live, engines, _):
        for model in ("small", "mini", "large"):
            reply = await live.post(model=model, prompt="hi", max_tokens=2, user=model, headers={"x-class": "code"})
            assert reply.status == 200
        assert [len(engines[2].of(user)) for user in ("small", "mini", "large")] == [0, 0, 1]
        assert all(body["model"] == "small" for engine in engines[:2] for body in engine.of("mini"))
        assert [(r["model"], r["class"]) for r in live.records()] == [
            ("small", "chat"),
            ("small", "chat"),
            ("large", "code"),
        ]
        models = (await live.get("/v1/models")).json["data"]
        assert [model["id"] for model in models] == ["small", "mini", "large"]
        assert (await live.post(model="other", prompt="hi")).status == 404
        plan = (await live.get("/v1/plan?model=large")).json
        assert (plan["model"], plan["policy"], plan["groups"]) == ("large", "vllm-round-robin", ["small", "large"])
        page = (await live.get("/metrics")).content.decode()
        assert 'fluidgate_requests_total{class="code",model="large",outcome="completed"} 1.0' in page


@asynchronous
async def test_a_file_that_is_read_anew(tmp_path: Path) -> None:
    async with two_groups(tmp_path) as (live, engines, path):
        small = live.whole.groups[0]
        slow = asyncio.create_task(live.post(model="small", prompt="hi", max_tokens=2, user="slow"))
        await live.until(lambda: any(engine.running for engine in engines))

        path.write_text("schema = 1\n[[groups]]\nmodel = 3\n")
        refused = await order(live, "reload", {})
        assert (refused.status, refused.json["error"]["code"]) == (400, "invalid_gateway_file")
        assert "groups[0]: model: must be a text" in refused.json["error"]["message"]

        path.write_text(groups_file(tmp_path, engines[1:], alias="tiny"))
        assert (await order(live, "reload", {})).status == 200
        assert live.whole.groups[0] is small, "what changes lightly changes in place"
        assert (await live.post(model="tiny", prompt="hi", max_tokens=2)).status == 200
        assert (await live.post(model="mini", prompt="hi", max_tokens=2)).status == 404
        await live.until(lambda: [engine.url for engine in small.backends] == [engines[1].url])

        path.write_text(groups_file(tmp_path, engines, policy="index-and-pool"))
        assert (await order(live, "reload", {})).status == 200
        assert live.whole.groups[0] is not small
        assert live.whole.groups[0].settings.policy.name == "index-and-pool"
        assert (await slow).status == 200, "it ends under the settings that it began with"
        assert (await live.post(model="small", prompt="hi", max_tokens=2)).status == 200
        await live.until(lambda: not live.whole._retiring)


@asynchronous
async def test_a_group_that_does_not_start_changes_nothing(tmp_path: Path) -> None:
    async with two_groups(tmp_path) as (live, engines, path):
        nobody = MoodyEngine(url="http://127.0.0.1:1")
        path.write_text(groups_file(tmp_path, [nobody, engines[2]], policy="index-and-pool"))
        assert (await order(live, "reload", {})).status == 400
        assert (await live.post(model="small", prompt="hi", max_tokens=2)).status == 200


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda text: text.replace("schema = 1", "schema = 1\nscenario = 'x'"), "scenario: stands beside"),
        (lambda text: text.replace('model = "large"', ""), "groups: each of several needs a model"),
        (lambda text: text.replace('"mini"', '"large"'), "groups: 'large' stands twice"),
        (lambda text: text.replace('kind = "vllm-coupled"\n', ""), "groups[1]: engines.kind: missing"),
        (lambda text: text.replace('class = "code"', 'class = "cod"'), "groups[1].rules[0].class"),
    ],
)
def test_what_a_file_of_groups_may_not_say(tmp_path: Path, change: Any, problem: str) -> None:
    write_scenario(scenario(), tmp_path / "scenario.toml")
    engines = [MoodyEngine(url=f"http://e{k}") for k in range(3)]
    with pytest.raises(FluidgateError) as raised:
        parse_gateway(change(groups_file(tmp_path, engines)), "g", tmp_path)
    assert problem in str(raised.value)
