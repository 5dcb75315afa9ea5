"""`fluidgate watch`: what it reads of a gateway, the rates between readings, and the frame."""

from __future__ import annotations

import asyncio
import hashlib
import io
import math
from contextlib import suppress
from pathlib import Path

import pytest
from command import Command
from rich.console import Console

from fluidgate.cli.watch import follow
from fluidgate.gateway.rates import History, rates_between
from fluidgate.reports.watch_frame import frame
from fluidgate.reports.watch_reading import GatewayReader
from tests.gateway.served import live_gateway


def plain(url: str, history: History, away: str | None = None) -> str:
    screen = Console(file=io.StringIO(), width=200)
    screen.print(frame(url, history, away))
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_rates_are_those_of_the_requests_between_two_readings(tmp_path: Path) -> None:
    async def run() -> None:
        async with live_gateway(tmp_path) as live, GatewayReader(live.url) as reader:
            await live.complete(7)
            old = await reader.read()
            for _ in range(3):
                await live.complete(4)
            await live.post(prompt="hello", model="another")
            await live.until(lambda: len(live.records()) == 5)
            rates = rates_between(old, await reader.read())
            chat, code = rates.classes["chat"], rates.classes["code"]
            assert math.isclose(chat.completions * rates.seconds, 3)
            assert math.isclose(chat.output_tokens * rates.seconds, 12)
            assert math.isclose(rates.revenue * rates.seconds, 3 * (0.1 * 100 + 0.2 * 4))
            assert rates.refusals == {"model_not_found": 1}
            assert chat.outcomes == {}
            assert (code.completions, code.ttft.p50) == (0.0, None)
            first = max(record["first_token"] for record in live.records() if record.get("first_token"))
            assert chat.ttft.p90 is not None
            assert 0.0 < chat.ttft.p90 <= max(0.05, 2 * first)  # buckets double

    asyncio.run(run())


def test_the_frame_shows_engines_and_targets(tmp_path: Path) -> None:
    async def run() -> None:
        async with live_gateway(tmp_path, speed=2.0) as live, GatewayReader(live.url) as reader:
            history = History()
            history.add(await reader.read())
            assert "Rates come with the second reading" in plain(reader.url, history)
            answers = [asyncio.create_task(live.complete(400)) for _ in range(3)]
            await live.until(lambda: sum(state.decodes for state in live.states()) == 3)
            history.add(await reader.read())
            await live.engines[1].close()
            await live.until(lambda: not live.gateway.backends[1].up)
            history.add(await reader.read())
            for answer in answers:
                answer.cancel()
            there, away = plain(reader.url, history), plain(reader.url, history, "no answer within 5 s")
            assert "live · gate-and-route · decodes placed after their prefill" in there
            assert "1 of 2 engines up" in there
            assert f"{live.engines[1].url.removeprefix('http://')} down" in there
            assert "plan: " in there
            assert "is away (no answer within 5 s); trying again" in away
            assert away.endswith(there)

    asyncio.run(run())


def test_a_placement_has_no_targets(tmp_path: Path) -> None:
    async def run() -> None:
        async with live_gateway(tmp_path, policy="vllm-round-robin") as live, GatewayReader(live.url) as reader:
            history = History()
            history.add(await reader.read())
            shown = plain(reader.url, history)
            assert "Requests now\n" in shown
            assert shown.count("placed") >= 2
            assert "plan" not in shown

    asyncio.run(run())


def test_one_frame_where_the_output_is_no_terminal(tmp_path: Path, fluidgate: Command) -> None:
    async def run() -> None:
        async with live_gateway(tmp_path) as live:
            outcome = await asyncio.to_thread(fluidgate, "watch", live.url + "/v1/", "--interval", "0.1")
            assert outcome.status == 0
            assert "2 of 2 engines up" in outcome.output
            assert "\x1b" not in outcome.output
            found = (await asyncio.to_thread(fluidgate, "watch", live.url, "--interval", "0.1", "--json")).json
            assert found["schema"] == 1
            now = live.gateway.snapshot()["engines"]
            assert [each["url"] for each in found["gateway"]["engines"]] == [each["url"] for each in now]
            assert found["rates"]["seconds"] >= 0.1
            assert set(found["rates"]["classes"]) == {"chat", "code"}

    asyncio.run(run())


def test_a_key_comes_from_the_environment(tmp_path: Path, fluidgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITS_KEY", "a-secret\n")
    monkeypatch.delenv("NO_KEY", raising=False)
    digest = hashlib.sha256(b"a-secret").hexdigest()

    async def run() -> None:
        async with live_gateway(tmp_path, more=f'[[keys]]\nname = "team"\nsha256 = "{digest}"\n') as live:
            refused = await asyncio.to_thread(fluidgate, "watch", live.url, "--once")
            assert refused.status == 2
            assert refused.notices == [
                f"fluidgate: {live.url} asks for a key; name the variable that holds one: --key-env NAME"
            ]
            options = ("--interval", "0.1", "--key-env", "ITS_KEY")
            assert (await asyncio.to_thread(fluidgate, "watch", live.url, *options)).status == 0

    asyncio.run(run())
    unset = fluidgate("watch", "http://127.0.0.1:9", "--key-env", "NO_KEY")
    assert (unset.status, len(unset.notices)) == (2, 1)


def test_what_is_no_gateway_is_one_line(tmp_path: Path, fluidgate: Command) -> None:
    for url in ("nonsense", "ftp://127.0.0.1", "http://127.0.0.1:99999", "http://u@h", "http://127.0.0.1:8080/?x"):
        outcome = fluidgate("watch", url)
        assert outcome.status == 2
        assert outcome.notices == [
            f"fluidgate: '{url}' is no URL of a gateway; give one such as 'http://127.0.0.1:8080'"
        ]
    away = fluidgate("watch", "http://127.0.0.1:9")
    assert away.status == 2
    assert (
        "no gateway answers at http://127.0.0.1:9 (connection refused, nothing listens there); start it"
        in away.notices[0]
    )
    assert fluidgate("watch", "http://127.0.0.1:9", "--interval", "nan").status == 2

    async def run() -> None:
        async with live_gateway(tmp_path, engines=1) as live:
            engine = await asyncio.to_thread(fluidgate, "watch", live.engines[0].url)
            assert engine.status == 2
            assert "is no fluidgate gateway" in engine.notices[0]

    asyncio.run(run())


def test_the_view_outlives_its_gateway(tmp_path: Path) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=200, height=40)
    assert isinstance(screen.file, io.StringIO)
    written = screen.file.getvalue

    async def run() -> None:
        async with live_gateway(tmp_path) as live:
            view = asyncio.create_task(follow(GatewayReader(live.url), 0.05, screen))
            await live.until(lambda: "Over the last" in written() or view.done())
            assert "away" not in written()
        async with asyncio.timeout(20):
            while "is away" not in written():
                await asyncio.sleep(0.01)
        assert not view.done()
        view.cancel()
        with suppress(asyncio.CancelledError):
            await view

    asyncio.run(run())
