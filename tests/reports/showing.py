"""What every result can do, looked over."""

from __future__ import annotations

import inspect
import json
import pickle
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fluidgate.noun import Noun
from fluidgate.shown import Drawn, Shown

DEEPEST = 7


class Page(HTMLParser):
    """What a page says, and which of its elements are open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def shows_itself(result: Any, *, drawn: bool = True) -> None:
    """One line, tables of a notebook, LaTeX, a data frame, JSON, a picture; and whole again from a file."""
    assert isinstance(result, Shown)
    assert repr(result) == str(result)
    page = Page(result._repr_html_())
    assert page.open == []
    assert page.tags.count("table") >= 1
    assert "color:#" not in result._repr_html_()
    assert len(result.to_dataframe().columns) > 0
    latex = result.to_latex()
    assert latex.count(r"\begin{tabular}") == latex.count(r"\toprule") == page.tags.count("table")
    assert json.loads(result.to_json())
    assert all(isinstance(each, str) for each in result.warnings)
    assert repr(pickle.loads(pickle.dumps(result))) == repr(result)
    if isinstance(result, Drawn) and drawn:
        figure = result.plot()
        assert isinstance(figure, Figure)
        assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


def long_winded(result: Any) -> dict[str, str]:
    """By how they are reached: the parts of a result that do not show themselves in one short line.

    Nouns show what they were given, however much that is.
    """
    return {path: repr(part) for path, part in _parts(result, "result", 0, set()) if not _is_short(part)}


def _is_short(part: Any) -> bool:
    text, longest = repr(part), 300 if isinstance(part, Noun) else 160
    return len(text) < longest and "\n" not in text and " object at 0x" not in text and "array(" not in text


def _parts(found: Any, path: str, depth: int, seen: set[type]) -> Iterator[tuple[str, Any]]:
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, tuple | list | set) and not _ours(found):
        for k, each in enumerate(list(found)[:3]):
            yield from _parts(each, f"{path}[{k}]", depth, seen)
    if not _ours(found) or type(found) in seen or depth > DEEPEST:
        return
    seen.add(type(found))
    yield path, found
    for name in dir(found):
        if name.startswith(("_", "model_")) or inspect.isroutine(inspect.getattr_static(found, name)):
            continue
        try:
            value = getattr(found, name)
        except AssertionError:  # a table that a law does not have
            continue
        yield from _parts(value, f"{path}.{name}", depth + 1, seen)
    if isinstance(found, tuple):
        yield from _parts(list(found), path, depth + 1, seen)


def _ours(found: Any) -> bool:
    return type(found).__module__.startswith("fluidgate") and not isinstance(found, type | np.ndarray)
