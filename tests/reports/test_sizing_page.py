"""The report of a sizing: what the command's tables say, in one file that asks for nothing."""

from __future__ import annotations

import asyncio
import re
from html import unescape
from pathlib import Path

import pytest

from fluidgate.reports.sizing import sizing_tables
from fluidgate.reports.sizing_page import sizing_page, write_sizing_page
from fluidgate.sizing import Sizing, size
from tests.browser import browser, needs_chromium
from tests.sizing.instances import chat

COMMAND = "fluidgate size 'a & b.toml' --batch-size 8,128"


@pytest.fixture(scope="module")
def found() -> Sizing:
    return size(chat(rate=12.0), batch_sizes=[8, 128], spare=1, seed=5, workers=1)


def test_the_page_says_what_the_tables_say(found: Sizing) -> None:
    page = unescape(re.sub(r"<svg.*?</svg>", "", sizing_page(found, command=COMMAND), flags=re.S))
    tables = list(sizing_tables(found))
    assert len(tables) >= 4
    for table in tables:
        assert str(table.title) in page
        for column in table.columns:
            for cell in column.cells:
                assert f">{cell}<" in page
    assert COMMAND in page
    assert "seed 5" in page
    assert found.best is not None
    assert f"{found.best.gpus} GPUs keep the targets of 'chat'" in page


def test_names_are_text_and_nothing_else() -> None:
    page = sizing_page(Sizing("<script>alert(1)</script>", (), (), (), 0, 1.0, warnings=("<b>",)), command="<i>")
    assert "<script" not in page
    assert "<b>" not in page
    assert "<i>" not in page
    assert "Nothing keeps the targets of" in page


def test_a_browser_asks_for_nothing_else_and_reads_it_in_both_lights(found: Sizing, tmp_path: Path) -> None:
    chromium = needs_chromium()
    path = tmp_path / "page.html"
    write_sizing_page(found, path, command=COMMAND)

    async def look() -> dict[str, tuple[str, str, str]]:
        seen = {}
        async with browser(chromium, tmp_path) as tab:
            for scheme in ("light", "dark"):
                await tab.look(1200, 1000, scheme)
                await tab.open(path.as_uri())
                style = "getComputedStyle(document.querySelector('{}')).{}"
                asked = [("body", "color"), ("body", "backgroundColor"), ("svg text, svg g[id^=text] use, svg", "fill")]
                seen[scheme] = tuple([await tab.value(style.format(*each)) for each in asked])
            assert "of them spare" in await tab.value("document.body.innerText")
            assert await tab.value("document.querySelectorAll('svg path').length > 10")
            assert await tab.value("document.documentElement.scrollWidth <= window.innerWidth")
            assert tab.errors == []
            assert set(tab.requested) == {path.as_uri()}
        return seen

    seen = asyncio.run(look())
    for text, back, drawn in seen.values():
        assert drawn == text
        assert abs(brightness(text) - brightness(back)) > 150
    assert seen["light"] != seen["dark"]


def brightness(colour: str) -> float:
    """Of `rgb(r, g, b)`, from 0 to 255."""
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3
