"""The page in a browser, before a gateway and emulated engines."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.browser import Tab, browser, needs_chromium
from tests.gateway.asynchronous import asynchronous
from tests.gateway.served import Live, live_gateway

KEY = "let-me-in"
KEYS = f'[[keys]]\nname = "ours"\nsha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"\n'
STATUS = "document.querySelector('#status').textContent"
LIVE = f"{STATUS} === 'live'"
ENTER = 13


@pytest.fixture
def chromium() -> str:
    return needs_chromium()


def tile(label: str) -> str:
    """What stands in a tile."""
    return (
        f"[...document.querySelectorAll('.tile')].find(t => t.querySelector('dt').textContent === '{label}')"
        ".querySelector('.value').textContent"
    )


def assert_clean(tab: Tab, live: Live) -> None:
    assert tab.errors == []
    hosts = {urlsplit(url).netloc for url in tab.requested if not url.startswith("data:")}
    assert hosts == {urlsplit(live.url).netloc}


@asynchronous
async def test_it_shows_numbers_an_engine_that_dies_and_that_it_is_stale(tmp_path: Path, chromium: str) -> None:
    async with browser(chromium, tmp_path) as tab, live_gateway(tmp_path, engines=3, speed=5.0) as live:
        await tab.open(live.url + "/")
        await tab.until(LIVE)
        assert await tab.value(tile("Engines up")) == "3of 3"
        work = asyncio.gather(*(live.complete(2000) for _ in range(3)), return_exceptions=True)
        await live.complete(5)
        await tab.until(f"parseFloat({tile('Revenue/s')}) > 0")
        await tab.until("document.querySelectorAll('.slots .decode').length >= 1")
        rows = await tab.value("[...document.querySelectorAll('tbody th')].map(t => t.textContent)")
        assert rows == ["chat", "code", "chat", "code"]
        assert await tab.value("document.querySelectorAll('.engine.down').length") == 0

        victim = live.engines[1]
        async with live.session.post(victim.url + "/admin/kill") as answer:
            assert answer.status == 200
        await tab.until("document.querySelectorAll('.engine.down').length === 1")
        cell = await tab.value("document.querySelector('.engine.down').innerText")
        assert urlsplit(victim.url).netloc in cell
        assert "down for" in cell
        assert "has been down: " in cell
        assert await tab.value(tile("Engines up")) == "2of 3"
        assert await tab.value("document.querySelectorAll('.engine.up').length") == 2
        await tab.until("document.querySelector('#told').textContent.includes('is down')")
        assert (await tab.value("document.title")).startswith("2/3 up")
        assert_clean(tab, live)
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
        # the page stays open while the gateway leaves
        stale = f"/trying again/.test({STATUS}) && document.body.classList.contains('stale')"
        leaving = asyncio.create_task(tab.until(stale))
    await leaving
    assert tab.errors == []


@asynchronous
async def test_it_asks_for_a_key_and_keeps_it_for_its_tab(tmp_path: Path, chromium: str) -> None:
    async with browser(chromium, tmp_path) as tab, live_gateway(tmp_path, more=KEYS) as live:
        await tab.open(live.url + "/")
        await tab.until("document.querySelector('#ask').open && document.activeElement.id === 'key'")
        await tab.write("another")
        await tab.press("Enter", ENTER)
        await tab.until("document.querySelector('#ask-why').textContent.includes('does not know')")
        await tab.until("document.querySelector('#ask').open && document.activeElement.id === 'key'")
        await tab.press("Escape", 27)
        await tab.until("!document.querySelector('#ask').open && !document.querySelector('#unlock').hidden")
        assert await tab.value(STATUS) == "needs a key"
        await tab.value("document.querySelector('#unlock').click()")
        await tab.until("document.querySelector('#ask').open && document.activeElement.id === 'key'")
        await tab.write(KEY)
        await tab.press("Enter", ENTER)
        await tab.until(LIVE)
        assert await tab.value(tile("Engines up")) == "2of 2"
        assert await tab.value("localStorage.length") == 0
        assert await tab.value("document.cookie") == ""
        await tab.open(live.url + "/")
        await tab.until(LIVE)
        assert not await tab.value("document.querySelector('#ask').open"), "the tab remembers it"
        assert_clean(tab, live)
        assert not any(KEY in url for url in tab.requested)
        await tab.value("document.querySelector('#forget').click()")
        await tab.until("document.querySelector('#ask')?.open")
        assert await tab.value("sessionStorage.length") == 0


@asynchronous
async def test_what_engines_and_classes_are_called_is_only_text(tmp_path: Path, chromium: str) -> None:
    evil = '<img src=x onerror="document.title=1">'
    async with browser(chromium, tmp_path) as tab, live_gateway(tmp_path) as live:
        snapshot = live.whole.snapshots

        def with_evil() -> list[dict[str, object]]:
            (told,) = snapshot()
            told["classes"] = {evil: told["classes"]["chat"]}
            told["model"] = told["scenario"] = evil
            told["plan"] = None
            told["engines"] = [each | {"url": evil, "state": "down", "why": evil} for each in told["engines"][:1]]
            return [told]

        live.whole.snapshots = with_evil  # type: ignore[method-assign]
        await tab.open(live.url + "/")
        await tab.until("document.querySelector('.engine')")
        assert await tab.value("document.querySelector('.engine .name').textContent") == evil
        assert await tab.value("document.querySelector('.engine .why').textContent") == evil
        assert await tab.value("document.querySelectorAll('img').length") == 0
        assert tab.errors == []


@pytest.mark.parametrize("width", [400, 1000, 1800])
@asynchronous
async def test_it_fits_a_window(tmp_path: Path, chromium: str, width: int) -> None:
    async with browser(chromium, tmp_path) as tab, live_gateway(tmp_path) as live:
        await tab.look(width, 900)
        await tab.open(live.url + "/")
        await tab.until(LIVE)
        assert await tab.value("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
