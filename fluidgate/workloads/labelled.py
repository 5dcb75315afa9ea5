"""Labelled data: prompts and answers with a category, such as databricks-dolly-15k; no arrivals.

A JSONL or CSV file, told by its first character. Prompt and answer are texts or lengths (numbers); the first
record says which. Default names, the first that the first record has:

- prompt: `instruction` and `context` together (dolly), `prompt`, `prompt_tokens`, `input_length`, `ContextTokens`;
- answer: `response` (dolly), `answer`, `output`, `output_tokens`, `output_length`, `GeneratedTokens`;
- category: `category`, `class`, `label`; without any, all requests are of one category, `all`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from fluidgate.errors import FluidgateError, nearest, one_line
from fluidgate.model import Array
from fluidgate.packed_file import read_packed_text
from fluidgate.toml_file import fail, shown, source_of

PROMPTS: tuple[tuple[str, ...], ...] = (
    ("instruction", "context"),
    ("prompt",),
    ("prompt_tokens",),
    ("input_length",),
    ("ContextTokens",),
)
ANSWERS = ("response", "answer", "output", "output_tokens", "output_length", "GeneratedTokens")
CATEGORIES = ("category", "class", "label")
EVERYTHING = "all"
"""The category of data without categories."""

GIVEN = "as given"
"""The unit of lengths that stand in the file."""

LONGEST_CELL = 2**31 - 1

Record = tuple[int, Mapping[str, Any]]
"""The line that a record begins on, and its cells."""

Measure = Callable[[str], Any]
"""The tokens of a text: a number, or anything with a length."""


@dataclass(frozen=True)
class Labelled:
    """Lengths of prompts and of answers, arrays of shape (records,), in the order of the file.

    Attributes:
        prompt: prompt lengths, at least 0; several fields count together.
        output: answer lengths, greater than 0.
        category: names.
        unit: `characters`, `words`, `tokens` (of the tokenizer), or `as given` where the file has lengths.
        source: name of the file, without its folder.
        empty: records left out because their answer was empty.
    """

    prompt: Array
    output: Array
    category: NDArray[np.object_]
    unit: str
    source: str
    empty: int = 0

    def __len__(self) -> int:
        return len(self.output)

    @property
    def categories(self) -> list[str]:
        """Distinct categories, sorted."""
        return sorted(set(self.category.tolist()))


def read_labelled(
    path: str | Path,
    *,
    prompt: str | Sequence[str] | None = None,
    answer: str | None = None,
    category: str | None = None,
    tokenizer: str | Path | Measure | None = None,
    skip_empty: bool = False,
) -> Labelled:
    """Read labelled data.

    Args:
        path: a JSONL file (one object a line) or a CSV file with a header; further keys are ignored.
        prompt: key of the prompt, or several whose lengths add up.
        answer: key of the answer.
        category: key of the category.
        tokenizer: how texts are measured: `characters` (the default), `words` (parted by white space), the path
            of a `tokenizer.json` (no special tokens added), or a function from a text to its tokens or their
            number. Lengths that stand in the file are taken as they are.
        skip_empty: leave out records with an empty answer instead of refusing them.

    Raises:
        FluidgateError: the file is missing or wrong, has no record, or the tokenizer can't be had; the
            message names file, line and mend.
    """
    text, source = read_packed_text(path, "a file of labelled data"), source_of(path)
    if not text.strip():
        fail(source, ["empty; give JSONL or CSV with prompts and answers"])
    records = list(_jsonl(text, source) if text.lstrip().startswith(("{", "[")) else _csv(text, source))
    if not records:
        fail(source, ["a header without records; give a file with records"])
    keys = _Keys.of(records[0], source, prompt, answer, category)
    measure, unit = _measure(tokenizer)
    columns = _columns(keys, records[0], source, tokenizer is not None)
    lengths = {
        key: np.array([column.length(r, n, measure) for n, r in records], float) for key, column in columns.items()
    }
    output = lengths[keys.answer]
    if not skip_empty:
        for index in np.flatnonzero(output == 0):
            mend = "correct it, or leave such records out with skip_empty"
            fail(source, [f"line {records[index][0]}: {keys.answer}: empty; {mend}"])
    kept = output > 0
    if not kept.any():
        fail(source, ["every answer is empty; give records with answers"])
    names = np.empty(len(records), dtype=object)
    names[:] = [_category(record, keys.category, line, source) for line, record in records]
    return Labelled(
        prompt=np.sum([lengths[key] for key in keys.prompt], axis=0)[kept],
        output=output[kept],
        category=names[kept],
        unit=unit if columns[keys.answer].texts else GIVEN,
        source=Path(source).name,
        empty=int(len(kept) - kept.sum()),
    )


@dataclass(frozen=True)
class _Keys:
    """The keys of a record that count."""

    prompt: tuple[str, ...]
    answer: str
    category: str | None

    @staticmethod
    def of(
        record: Record, source: str, prompt: str | Sequence[str] | None, answer: str | None, category: str | None
    ) -> _Keys:
        """The keys asked for, else the default ones that the record has."""
        line, cells = record
        asked = (prompt,) if isinstance(prompt, str) else tuple(prompt or ())
        prompts = asked or next((keys for keys in PROMPTS if all(key in cells for key in keys)), ())
        answer = answer or next((key for key in ANSWERS if key in cells), None)
        category = category or next((key for key in CATEGORIES if key in cells), None)
        if not prompts or answer is None:
            what = "answer" if prompts else "prompt"
            fail(source, [f"line {line}: no {what} among {', '.join(cells)}; name its key with {what}="])
        for key in (*prompts, answer, *([category] if category else [])):
            if key not in cells:
                hint = nearest(key, list(cells)) or f"; there are {', '.join(cells)}"
                fail(source, [f"line {line}: no {shown(key)}{hint}"])
        return _Keys(prompts, answer, category)


@dataclass(frozen=True)
class _Column:
    """A key that holds texts or lengths, as its `example` on `line` says."""

    key: str
    example: Any
    line: int
    source: str
    only_texts: bool

    @property
    def texts(self) -> bool:
        return isinstance(self.example, str) and (self.only_texts or _as_number(self.example) is None)

    def length(self, record: Mapping[str, Any], line: int, measure: Callable[[str], float]) -> float:
        if self.key not in record:
            fail(self.source, [f"line {line}: {self.key}: missing; add it"])
        value = record[self.key]
        if self.texts:
            if not isinstance(value, str):
                self._refuse(line, "a text", value)
            return measure(value)
        number = _as_number(value)
        if number is not None and 0 <= number < np.inf:
            return number
        self._refuse(line, "a length of at least 0", value)

    def _refuse(self, line: int, wanted: str, value: Any) -> NoReturn:
        like = f" (as on line {self.line})" if line != self.line else ""
        mend = "correct it" + ("" if self.texts else ", or name a tokenizer if these are texts")
        fail(self.source, [f"line {line}: {self.key}: must be {wanted}{like}, but is {shown(value)}; {mend}"])


def _columns(keys: _Keys, record: Record, source: str, only_texts: bool) -> dict[str, _Column]:
    line, cells = record
    columns = {key: _Column(key, cells[key], line, source, only_texts) for key in (*keys.prompt, keys.answer)}
    if len({column.texts for column in columns.values()}) > 1:
        mend = "name keys of one kind, or a tokenizer if all are texts"
        fail(source, [f"line {line}: some of {', '.join(columns)} are texts and some lengths; {mend}"])
    return columns


def _as_number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _category(record: Mapping[str, Any], key: str | None, line: int, source: str) -> str:
    if key is None:
        return EVERYTHING
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        held = "missing" if key not in record else f"must be a name, but is {shown(value)}"
        fail(source, [f"line {line}: {key}: {held}; give the name of a category"])
    return one_line(str(value))


def _measure(tokenizer: str | Path | Measure | None) -> tuple[Callable[[str], float], str]:
    """The length of a text, and its unit."""
    if tokenizer is None or tokenizer == "characters":
        return len, "characters"
    if tokenizer == "words":
        return lambda text: len(text.split()), "words"
    if isinstance(tokenizer, str | Path):
        return _tokenizer_file(Path(tokenizer)), "tokens"
    count = tokenizer

    def measured(text: str) -> float:
        tokens = count(text)
        return float(tokens) if isinstance(tokens, int | float) else float(len(tokens))

    return measured, "tokens"


def _tokenizer_file(path: Path) -> Callable[[str], float]:
    if not path.is_file():
        raise FluidgateError(f"{path}: no such file; give a tokenizer.json, 'characters' or 'words'")
    try:
        from tokenizers import Tokenizer  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise FluidgateError(
            f"{path}: reading a tokenizer needs the package 'tokenizers'; install it with pip install tokenizers"
        ) from None
    try:
        loaded = Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises bare Exceptions
        raise FluidgateError(one_line(f"{path}: not a tokenizer.json ({error}); give another file")) from None
    return lambda text: float(len(loaded.encode(text, add_special_tokens=False).ids))


def _jsonl(text: str, source: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", str(error))
            fail(source, [f"line {number}: not JSON ({reason}); give one object a line"])
        if not isinstance(record, dict):
            fail(source, [f"line {number}: must be an object, but is {shown(record)}; give one object a line"])
        yield number, cast("dict[str, Any]", record)


def _csv(text: str, source: str) -> Iterator[Record]:
    """Records by the line that they begin on; a quoted text may span lines."""
    rows = csv.reader(StringIO(text, newline=""), strict=True)
    before = csv.field_size_limit(LONGEST_CELL)
    header: list[str] = []
    begin = 1
    try:
        for row in rows:
            if any(cell.strip() for cell in row):
                if not header:
                    header = [cell.strip() for cell in row]
                elif len(row) != len(header):
                    mend = "quote texts that have commas"
                    fail(source, [f"line {begin}: {len(row)} fields where the header has {len(header)}; {mend}"])
                else:
                    yield begin, dict(zip(header, row, strict=True))
            begin = rows.line_num + 1
    except csv.Error as error:
        fail(source, [f"line {begin}: not CSV ({error}); give JSONL or CSV with a header"])
    finally:
        csv.field_size_limit(before)
