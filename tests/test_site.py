"""The documentation as a site: built strictly, every page in a table of contents, links and anchors, search."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

DOCS = Path(__file__).parents[1] / "docs"
MARKDOWN_LINK = re.compile(r"\]\(([^)\s]*)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


class Links(HTMLParser):
    """Where a page of HTML leads to, what it shows, and which anchors it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.leads: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.leads.add(value)
            elif name == "id" and value:
                self.anchors.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = ["-m", "sphinx", "-W", "-n", "--keep-going", "--quiet", "-d", str(folder / "trees"), str(DOCS)]
    done = subprocess.run([sys.executable, *build, str(folder / "html")], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_every_page_is_built_and_found(site: Path) -> None:
    index = (site / "searchindex.js").read_text("utf-8")
    searched = json.loads(index.removeprefix("Search.setIndex(").removesuffix(")"))["docnames"]
    pages = {page.relative_to(DOCS).with_suffix("").as_posix() for page in DOCS.rglob("*.md")}
    assert pages == set(searched)
    assert all((site / f"{page}.html").exists() for page in pages)


def test_links_of_the_site_lead_somewhere(site: Path) -> None:
    pages = {page: Links(page.read_text("utf-8")) for page in site.rglob("*.html")}
    lost = []
    for page, links in pages.items():
        for lead in links.leads:
            parts = urlsplit(lead)
            if parts.scheme:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            anchors = pages[target].anchors if target in pages else {parts.fragment}
            if not target.exists() or (parts.fragment and parts.fragment not in anchors):
                lost.append(f"{page.relative_to(site)}: {lead}")
    assert lost == []


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    page = (site / "search.html").read_text("utf-8")
    assert not re.search(r'<(?:script|link|img)[^>]*(?:src|href)="(?:https?:)?//', page)


def anchors_on_github(page: Path) -> set[str]:
    """As GitHub makes them: lower case, letters, digits, hyphens, underscores; spaces are hyphens."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCE.sub("", page.read_text("utf-8"))):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        while slug in found:
            slug += "-1"
        found.add(slug)
    return found


@pytest.mark.parametrize(
    "page", [*sorted(DOCS.rglob("*.md")), *sorted(DOCS.parent.glob("*.md"))], ids=lambda page: page.stem
)
def test_links_on_github_lead_somewhere(page: Path) -> None:
    lost = []
    for link in MARKDOWN_LINK.findall(FENCE.sub("", page.read_text("utf-8"))):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors_on_github(target)):
            lost.append(link)
    assert lost == []
