"""Traces: when requests arrived, and how long they were.

Formats, told apart by the first line:

- Azure CSV: `TIMESTAMP,ContextTokens,GeneratedTokens`, ISO 8601 times (Azure/AzurePublicDataset).
- Mooncake JSONL: `timestamp` (ms), `input_length`, `output_length` (kvcache-ai/Mooncake).
- vLLM JSONL: `queued_ts` (s, the engine's clock), `input_toks`, `output_toks`: a logged run, request by request, and
  where they are in it `first_token_ts` and `last_token_ts`, what became of them.
- plain CSV: `arrival_time,prompt_tokens,output_tokens[,class]`, times in seconds.

Further columns and keys are ignored.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from fluidgate.errors import nearest, one_line
from fluidgate.model import Array
from fluidgate.toml_file import fail, read_text, shown

if TYPE_CHECKING:
    import pandas as pd

Lengths = NDArray[np.int64]
LONGEST = 2**31 - 1


@dataclass(frozen=True)
class Format:
    """A kind of trace file: its columns, and the unit of its times."""

    name: str
    kind: Literal["csv", "jsonl"]
    time: str
    prompt: str
    output: str
    unit: Literal["date", "s", "ms"]

    @property
    def columns(self) -> list[str]:
        return [self.time, self.prompt, self.output]


AZURE = Format("Azure CSV", "csv", "TIMESTAMP", "ContextTokens", "GeneratedTokens", "date")
MOONCAKE = Format("Mooncake JSONL", "jsonl", "timestamp", "input_length", "output_length", "ms")
VLLM = Format("vLLM JSONL", "jsonl", "queued_ts", "input_toks", "output_toks", "s")
PLAIN = Format("plain CSV", "csv", "arrival_time", "prompt_tokens", "output_tokens", "s")
FORMATS = (AZURE, MOONCAKE, VLLM, PLAIN)
PLAIN_CLASS = "class"
FIRST_TOKEN, LAST_TOKEN = MEASURED = ("first_token_ts", "last_token_ts")


@dataclass(frozen=True)
class Trace:
    """The requests of one file, in order of arrival; arrays of shape (requests,).

    Attributes:
        arrival_time: seconds since the first arrival, ascending.
        prompt_tokens: prompt lengths, at least 1.
        output_tokens: output lengths, at least 1.
        labels: the class of each request, or None where the file has no class column.
        source: name of the file, without its folder.
        empty: requests that were left out because their prompt or output had no tokens.
        first_token, last_token: when they came, seconds since the first arrival; None where the file does not say.
    """

    arrival_time: Array
    prompt_tokens: Lengths
    output_tokens: Lengths
    labels: NDArray[np.object_] | None
    source: str
    empty: int = 0
    first_token: Array | None = None
    last_token: Array | None = None

    def __len__(self) -> int:
        return len(self.arrival_time)

    @property
    def span(self) -> float:
        """Seconds from the first arrival to the last."""
        return float(self.arrival_time[-1])


def read_trace(
    path: str | Path, class_column: str | None = None, *, skip_empty: bool = False, sort: bool = False
) -> Trace:
    """Read a trace file.

    Args:
        path: a file in one of the formats above; Windows line ends and blank lines are no matter.
        class_column: the column (or JSON key) that names each request's class; by default a plain CSV's
            `class` if it has one.
        skip_empty: leave out requests without prompt or output tokens instead of refusing them.
        sort: put the requests in order of arrival instead of refusing those out of order.

    Raises:
        FluidgateError: the file is missing or wrong, or has no request; the message names file, line and
            mend.
    """
    text = read_text(path, "a trace file")
    source = str(path)
    if not text.strip():
        fail(source, [f"empty; {_known_formats()}"])
    form, table, labels = _table(text, class_column, source)
    if table.empty:
        fail(source, ["a header without requests; give a trace with requests"])
    times = _times(table[form.time], form, source)
    prompt = _tokens(table[form.prompt], source, skip_empty)
    output = _tokens(table[form.output], source, skip_empty)
    kept = (prompt > 0) & (output > 0)
    if not kept.any():
        fail(source, ["every request is empty; give a trace with prompt and output tokens"])
    names = None if labels is None else _labels(table[labels], source)
    first, last = _measured(table, form, source)
    order = np.flatnonzero(kept)[_order(times[kept], form.time, table.index[kept], source, sort)]
    return Trace(
        arrival_time=times[order] - times[order[0]],
        prompt_tokens=prompt[order],
        output_tokens=output[order],
        labels=None if names is None else names[order],
        source=Path(path).name,
        empty=int(len(kept) - kept.sum()),
        first_token=None if first is None else first[order] - times[order[0]],
        last_token=None if last is None else last[order] - times[order[0]],
    )


def _known_formats() -> str:
    def columns(form: Format) -> str:
        return ("with the keys " if form.kind == "jsonl" else "") + ",".join(form.columns)

    return "the formats are " + "; ".join(f"{form.name} ({columns(form)})" for form in FORMATS)


def _table(text: str, class_column: str | None, source: str) -> tuple[Format, pd.DataFrame, str | None]:
    """The format, its columns as text by line number, and the name of the class column."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.lstrip().startswith("{"):
        return _read_csv(text, class_column, source)
    first = _first_object(text)
    form = VLLM if VLLM.time in first else MOONCAKE
    measured = MEASURED if form is VLLM and set(MEASURED) <= set(first) else ()
    wanted = dict.fromkeys([*form.columns, *measured, *([class_column] if class_column else [])])
    return form, _read_jsonl(text.split("\n"), list(wanted), source), class_column


def _first_object(text: str) -> dict[str, Any]:
    """The first request of a JSONL text; empty where it is none, which is told where all of them are read."""
    try:
        found = json.loads(text.lstrip().partition("\n")[0])
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _read_csv(text: str, class_column: str | None, source: str) -> tuple[Format, pd.DataFrame, str | None]:
    import pandas as pd

    before = text[: len(text) - len(text.lstrip())].count("\n")
    try:
        cells = pd.read_csv(
            StringIO(text),
            header=None,
            dtype=str,
            skiprows=before,
            skip_blank_lines=False,
            keep_default_na=False,
        )
    except pd.errors.ParserError as error:
        _refuse_csv(error, source)
    header = [str(cell).strip() for cell in cells.iloc[0]]
    form = next((f for f in FORMATS if f.kind == "csv" and set(f.columns) <= set(header)), None)
    if form is None:
        fail(source, [f"line {before + 1}: unknown header {shown(','.join(header))}; {_known_formats()}"])
    if class_column is not None and class_column not in header:
        hint = nearest(class_column, header) or f"; the columns are {', '.join(header)}"
        fail(source, [f"line {before + 1}: no column {shown(class_column)}{hint}"])
    if class_column is None and form is PLAIN and PLAIN_CLASS in header:
        class_column = PLAIN_CLASS
    wanted = dict.fromkeys([*form.columns, *([class_column] if class_column else [])])
    table = cells.iloc[1:, [header.index(name) for name in wanted]].set_axis(list(wanted), axis="columns")
    table.index = table.index + before + 1
    unset = table[form.time].str.strip() == ""
    maybe = cells.iloc[1:][unset.to_numpy()]
    blank = maybe.apply(lambda column: column.str.strip() == "").all(axis="columns").to_numpy(bool)
    return form, table.drop(table.index[unset.to_numpy()][blank]), class_column


def _refuse_csv(error: Exception, source: str) -> NoReturn:
    what = one_line(str(error).removeprefix("Error tokenizing data. C error: "))
    if fields := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", what):
        expected, line, seen = fields.groups()
        fail(source, [f"line {line}: {seen} fields where the header has {expected}; remove what is too much"])
    if row := re.search(r"EOF inside string starting at row (\d+)", what):
        fail(source, [f"line {int(row[1]) + 1}: a quote that is never closed; close or remove it"])
    fail(source, [f"not CSV ({what}); {_known_formats()}"])


def _read_jsonl(lines: list[str], wanted: list[str], source: str) -> pd.DataFrame:
    """The keys `wanted` of each object, as text, by line number."""
    import pandas as pd

    numbers, rows = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            request = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", str(error))
            fail(source, [f"line {number}: not JSON ({reason}); give one object a line"])
        if not isinstance(request, dict):
            fail(source, [f"line {number}: must be an object, but is {shown(request)}; give one object a line"])
        for key in wanted:
            if key not in request:
                fail(source, [f"line {number}: {key}: missing; add it ({_known_formats()})"])
        numbers.append(number)
        rows.append([_json_text(request[key]) for key in wanted])
    return pd.DataFrame(rows, columns=wanted, index=numbers, dtype=str)


def _json_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _times(column: pd.Series[str], form: Format, source: str) -> Array:
    """Seconds since the first row, in the order of the file."""
    import pandas as pd

    if form.unit != "date":
        times = _numbers(column, source) / (1000.0 if form.unit == "ms" else 1.0)
        since_first: Array = times - times[0]
        return since_first
    dates = pd.to_datetime(column.str.strip(), format="ISO8601", utc=True, errors="coerce")
    for line in column.index[dates.isna()]:
        _refuse(column, line, "a date and time such as 2023-11-16 18:17:03.9799600", source)
    return np.asarray((dates - dates.iloc[0]).dt.total_seconds(), dtype=float)


def _measured(table: pd.DataFrame, form: Format, source: str) -> tuple[Array | None, Array | None]:
    """First and last tokens, s on the clock of `_times`; None where the file does not have them."""
    if FIRST_TOKEN not in table:
        return None, None
    queued, first, last = (_numbers(table[name], source) for name in (form.time, FIRST_TOKEN, LAST_TOKEN))
    for wrong, what in (
        (first < queued, f"{FIRST_TOKEN}: before the request was queued"),
        (last < first, f"{LAST_TOKEN}: before the first token"),
    ):
        if wrong.any():
            fail(source, [f"line {table.index[int(wrong.argmax())]}: {what}; correct it"])
    return first - queued[0], last - queued[0]


def _numbers(column: pd.Series[str], source: str) -> Array:
    import pandas as pd

    numbers: Array = pd.to_numeric(column.str.strip(), errors="coerce").to_numpy(float)
    for line in column.index[~np.isfinite(numbers)]:
        _refuse(column, line, "a finite number", source)
    return numbers


def _tokens(column: pd.Series[str], source: str, skip_empty: bool) -> Lengths:
    numbers = _numbers(column, source)
    for line in column.index[(numbers < 0) | (numbers != np.floor(numbers)) | (numbers > LONGEST)]:
        _refuse(column, line, f"a whole number from 1 to {LONGEST}", source)
    for line in column.index[numbers == 0]:
        if not skip_empty:
            mend = "correct it, or leave such requests out with --skip-empty"
            fail(source, [f"line {line}: {column.name}: no tokens; {mend}"])
    return numbers.astype(np.int64)


def _labels(column: pd.Series[str], source: str) -> NDArray[np.object_]:
    labels = column.str.strip()
    for line in column.index[labels == ""]:
        _refuse(column, line, "the name of a class", source)
    return labels.to_numpy(dtype=object)


def _refuse(column: pd.Series[str], line: int, wanted: str, source: str) -> NoReturn:
    text = str(column[line]).strip()
    reason = f"must be {wanted}, but is {shown(text)}; correct it" if text else f"missing; give {wanted}"
    fail(source, [f"line {line}: {column.name}: {reason}"])


def _order(times: Array, name: str, lines: pd.Index[int], source: str, sort: bool) -> NDArray[np.intp]:
    if sort:
        return np.argsort(times, kind="stable")
    for late in np.flatnonzero(np.diff(times) < 0):
        mend = "sort the file, or have it sorted with --sort"
        fail(source, [f"line {lines[int(late) + 1]}: {name}: earlier than the request before; {mend}"])
    return np.arange(len(times))
