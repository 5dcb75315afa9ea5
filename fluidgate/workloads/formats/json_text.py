"""JSON: an object a line, an array of objects, or one report that holds the requests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fluidgate.toml_file import fail, shown
from fluidgate.workloads.formats.documents import holds_requests, requests_in
from fluidgate.workloads.formats.table import Table, whole_numbers

if TYPE_CHECKING:
    import pandas as pd

Record = tuple[int, dict[str, Any]]
"""A request, with the number of its line, or its own where a line holds several."""

DEEPEST = 8
"""Keys inside each other that are looked at."""

PLACE = re.compile(r"-?\d{1,9}")
"""A key that is a place in a list."""


def json_table(text: str, source: str) -> Table:
    """The table of a JSON text; keys inside others are columns with dots in their names.

    Raises:
        FluidgateError: it is no JSON, or has no object.
    """
    reports = _reports(text)
    place = "line" if reports is None else "request"

    def records() -> Iterator[Record]:
        return _of_lines(text, source) if reports is None else enumerate(_of_reports(reports, source), start=1)

    first = next(records(), None)
    if first is None:
        fail(source, ["no request in it; give a trace with requests"])

    def take(wanted: Sequence[str], lists: Sequence[str] = ()) -> pd.DataFrame:
        import pandas as pd

        numbers, rows = [], []
        more: dict[str, list[Any]] = {name: [] for name in lists}
        for number, request in records():
            numbers.append(number)
            rows.append([_text(_at(request, name)) for name in wanted])
            for name, values in more.items():
                values.append(whole_numbers(_at(request, name)))
        table = pd.DataFrame(rows, columns=list(wanted), index=numbers, dtype=str)
        return table.assign(**{name: pd.Series(values, numbers, object) for name, values in more.items()})

    return Table(list(_names(first[1])), take, place, f"{place} {first[0]}", loose=True)


def _reports(text: str) -> list[dict[str, Any]] | None:
    """The objects of a text that is not a request a line: an array, a report, or a report a line; None for others."""
    first = _parsed(text.lstrip().partition("\n")[0])
    if isinstance(first, dict):
        return [_parsed(line) or {} for line in text.split("\n") if line.strip()] if holds_requests(first) else None
    whole = _parsed(text)
    found = whole if isinstance(whole, list) else [whole]
    return found if all(isinstance(each, dict) for each in found) else None


def _of_reports(reports: list[dict[str, Any]], source: str) -> Iterator[dict[str, Any]]:
    for number, each in enumerate(reports, start=1):
        yield from requests_in(each, number, source) if holds_requests(each) else (each,)


def _of_lines(text: str, source: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            request = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", str(error))
            fail(source, [f"line {number}: not JSON ({reason}); give one object a line"])
        if not isinstance(request, dict):
            fail(source, [f"line {number}: must be an object, but is {shown(request)}; give one object a line"])
        yield number, request


def _parsed(text: str) -> Any:
    """None where the text is no JSON, which is told where its lines are read."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _names(request: dict[str, Any], inside: str = "") -> Iterator[str]:
    for key, value in request.items():
        if isinstance(value, dict) and inside.count(".") < DEEPEST:
            yield from _names(value, f"{inside}{key}.")
        else:
            yield inside + key


def _at(request: dict[str, Any], name: str) -> Any:
    """The value of a key, or of one inside others; None where there is none."""
    if name in request:
        return request[name]
    found: Any = request
    for key in name.split("."):
        if isinstance(found, list) and PLACE.fullmatch(key):
            place = int(key)
            found = found[place] if -len(found) <= place < len(found) else None
        else:
            found = found.get(key) if isinstance(found, dict) else None
    return found


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return shown(value) if isinstance(value, dict | list) else json.dumps(value)
