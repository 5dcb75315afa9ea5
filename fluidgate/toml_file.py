"""TOML files of the program: read, checked against a table of keys, and written whole or not at all.

Every error is one line, `FILE: KEY: REASON; MEND`.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, NoReturn, TypeVar

from pydantic import ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from fluidgate.errors import FluidgateError, nearest, one_line
from fluidgate.noun import Spoken
from fluidgate.refusals import limit_broken
from fluidgate.toml_mends import mend_of

SCHEMA = 1
LARGEST_WHOLE = 2**31 - 1

STDIN = "stdin"
"""What standard input is called."""

LARGEST_OF_A_DEVICE = 2**26
"""Bytes; `/dev/zero` has no end."""

MOST_NAMES = 5000
"""Files of a folder that are looked at for one that was meant."""

NO_TEXT = {
    b"\x1f\x8b": ("packed by gzip", "unpack it first (gunzip)"),
    b"BZh": ("packed by bzip2", "unpack it first (bunzip2)"),
    b"\xfd7zXZ\x00": ("packed by xz", "unpack it first (unxz)"),
    b"PK\x03\x04": ("a zip archive", "unpack it first (unzip)"),
    b"\x28\xb5\x2f\xfd": ("packed by zstd", "unpack it first (unzstd)"),
    b"\xff\xfe": ("text in UTF-16", "save the file as UTF-8"),
    b"\xfe\xff": ("text in UTF-16", "save the file as UTF-8"),
    b"PAR1": ("a Parquet file", "give a text file"),
    b"%PDF": ("a PDF", "give a text file"),
}
"""By how a file begins that is no text in UTF-8: what it is, and the mend."""

NOT_TOML = (".csv", ".tsv", ".json", ".jsonl", ".yaml", ".yml", ".txt", ".py", ".parquet")
"""Endings of files that are no TOML."""

Loc = tuple[int | str, ...]


class Table(Spoken):
    """The keys of one TOML table.

    The description of each field is a noun phrase that can follow "give" or "add" in an error; its first
    example is shown when the key is missing.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    elsewhere: ClassVar[Mapping[str, str]] = {}
    """Keys of another form of this table, each with "REASON; MEND" for who writes them in this one."""


SchemaKey = Annotated[
    int,
    Field(ge=SCHEMA, le=SCHEMA, description="the version of the file format", examples=[SCHEMA]),
]

T = TypeVar("T", bound=Table)


def without_default(schema: dict[str, Any]) -> None:
    """A key that has no value when it is absent, for a JSON Schema; TOML has no null."""
    schema.pop("default")
    match schema:
        case {"anyOf": [form, {"type": "null"}]}:
            del schema["anyOf"]
            schema.update(form)


def absent(description: str, **limits: Any) -> Any:
    """A field for a key that has no value when it is absent."""
    return Field(None, description=description, json_schema_extra=without_default, **limits)


def read_text(path: str | Path, what: str) -> str:
    """The UTF-8 text of a file; `what` names its kind in errors, such as "a scenario file".

    Raises:
        FluidgateError: the file is missing, a folder, unreadable, or not UTF-8.
    """
    return decoded(read_bytes(path, what), source_of(path))


def source_of(path: str | Path) -> str:
    """What a file is called in errors."""
    return STDIN if str(path) == "-" else str(path)


def read_bytes(path: str | Path, what: str) -> bytes:
    """The content of a file, or of standard input where its path is `-`; `what` names its kind in errors.

    Raises:
        FluidgateError: the file is missing, a folder, or unreadable.
    """
    if str(path) == "-":
        return _standard_input(what)
    if not str(path):
        raise FluidgateError(f"the name of {what} is empty; give its path")
    try:
        return _device(path, what) if Path(path).is_char_device() else Path(path).read_bytes()
    except FileNotFoundError:
        fail(str(path), [f"no such file; {_meant(Path(path)) or f'give the path of {what}'}"])
    except IsADirectoryError:
        fail(str(path), [f"a folder; give the path of {what}"])
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        fail(str(path), [f"cannot be read ({reason}); give {what} that can"])


def _device(path: str | Path, what: str) -> bytes:
    """What a device gives, up to its end."""
    with Path(path).open("rb") as stream:
        content = stream.read(LARGEST_OF_A_DEVICE)
    if len(content) == LARGEST_OF_A_DEVICE:
        fail(str(path), [f"a device that gives bytes without end; give the path of {what}"])
    return content


_input: list[tuple[object, bytes]] = []
"""What stood on standard input, which can be read but once."""


def _standard_input(what: str) -> bytes:
    stream = sys.stdin
    if not _input or _input[0][0] is not stream:
        try:
            _input[:] = [(stream, stream.buffer.read())]
        except (AttributeError, OSError, ValueError):
            fail(STDIN, [f"cannot be read; give the path of {what}"])
    return _input[0][1]


def _meant(path: Path) -> str:
    """The mend for the path of a file that is not there, where it can be told."""
    name, equals, rest = str(path).partition("=")
    if re.match(r"(\w+=)?\w+:/", str(path)):
        return "URLs are not read, so download it first, and give the file"
    if name.startswith("~"):
        return "'~' stands for no folder here, so give the whole path"
    if equals and not rest:
        return f"name the file behind {shown(f'{name}=')}"
    if equals and Path(rest).is_file():
        return f"CLASS=FILE is not taken here, so give {shown(rest)} alone" if name else "name a class before '='"
    try:
        beside = list(islice(path.parent.iterdir(), MOST_NAMES))
    except (OSError, ValueError):
        return f"there is no folder {shown(str(path.parent))}" if path.parent != Path() else ""
    alike = [each.stem for each in beside if each.suffix == path.suffix]
    if stem := nearest(path.stem, alike, 0.7):
        return stem.removeprefix("; ").removesuffix("'?") + f"{path.suffix}'?"
    hint = nearest(path.name, [each.name for each in beside], 0.85)
    return hint.removeprefix("; ")


def decoded(content: bytes, source: str) -> str:
    """UTF-8 text, perhaps with a byte-order mark.

    Raises:
        FluidgateError: it is not UTF-8.
    """
    for beginning, (kind, mend) in NO_TEXT.items():
        if content.startswith(beginning):
            fail(source, [f"{kind}; {mend}"])
    if b"\0" in content:
        fail(source, ["not a text but binary; give a text file in UTF-8"])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        sample = content[:1000]
        if sum(byte < 9 or 13 < byte < 32 for byte in sample) > len(sample) / 50:
            fail(source, ["not a text but binary; give a text file in UTF-8"])
        line = content.count(b"\n", 0, error.start) + 1
        fail(source, [f"line {line}: not UTF-8; save the file as UTF-8"])


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """The keys and values of a TOML text.

    Raises:
        FluidgateError: a syntax error, with its line.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        last = f"line {max(1, len(text.splitlines()))}"
        what, _, where = str(error).rpartition(" (at ")
        where = last if where.startswith("end") else where.rstrip(")")
        if Path(source).suffix.lower() in NOT_TOML:
            fail(source, [f"not TOML, as its name says; give the path of a TOML file ({where}: {what})"])
        if what == "Cannot overwrite a value":
            fail(source, [f"{where}: this key is given twice; remove one of the two"])
        if twice := re.fullmatch(r"Cannot declare \((.*?),?\) twice", what):
            table = ".".join(part.strip(" '") for part in twice[1].split(","))
            fail(source, [f"{where}: the table [{table}] is given twice; write its keys into one"])
        fail(source, [f"{where}: not TOML: {what}; {mend_of(_line(text, where))}"])
    except RecursionError:
        fail(source, ["not TOML: too deeply nested; remove the brackets that nest"])
    except ValueError as error:
        fail(source, [f"not TOML: {error}; mend this value"])


def _line(text: str, where: str) -> str:
    """The line that `line 7, column 3` names."""
    lines, found = text.splitlines(), re.match(r"line (\d+)", where)
    number = int(found[1]) if found else 1
    return lines[number - 1] if 0 < number <= len(lines) else ""


KINDS = {
    "alpha": "a profile file",
    "law": "a profile file",
    "engines": "a gateway file",
    "groups": "a gateway file",
    "gpu": "a scenario",
    "classes": "a scenario",
    "policy": "a policy file",
}
"""What a file is that has such a key, the first of these."""


def other_kind(data: Mapping[str, Any], wanted: str) -> str | None:
    """What a file is that is not what is wanted; None where nothing says so."""
    kind = next((kind for key, kind in KINDS.items() if key in data), wanted)
    of_card = isinstance(data.get("gpu"), str) and "classes" not in data and wanted == "a profile file"
    return None if kind == wanted or of_card else kind


def check(table: type[T], data: Mapping[str, Any], source: str) -> T:
    """`data` as a `table`.

    Raises:
        FluidgateError: the first key that is unknown, missing, of a wrong type or out of range, and how many
            more there are.
    """
    try:
        return table.model_validate(data)
    except ValidationError as error:
        fail(source, _problems(table, data, error.errors(include_url=False)))


def fail(source: str, problems: Sequence[str]) -> NoReturn:
    """Raise the first of the problems, each `KEY: REASON; MEND`, and say how many more there are."""
    more = f" (and {len(problems) - 1} more to mend)" if len(problems) > 1 else ""
    raise FluidgateError(_printable(f"{source}: {problems[0]}{more}"))


def key_path(loc: Loc, data: Any) -> str:
    """`gpu.beta` or `classes[1] ('chat'): prompt_tokens` for a place in the data."""
    path = ""
    for step in loc:
        data = _item(data, step)
        if isinstance(step, int):
            name = _item(data, "name")
            path += f"[{step}] ({shown(name)}):" if isinstance(name, str) and name else f"[{step}]:"
        else:
            key = step if re.fullmatch(r"[\w-]+", step, re.ASCII) else repr(step)
            path += ("" if not path else " " if path.endswith(":") else ".") + key
    return path.rstrip(":")


def shown(value: object) -> str:
    """A TOML value as an error shows it, short."""
    match value:
        case bool():
            return "true" if value else "false"
        case dict():
            return "a table"
        case list():
            return "an array"
        case int() if value.bit_length() > 128:
            return "a very large number"
        case str():
            return repr(value if len(value) <= 40 else value[:37] + "...")
        case _:
            return str(value)


def write_whole(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8; the file is there whole, or as it was before.

    Raises:
        FluidgateError: the folder is missing, or the file cannot be written.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        _write_through(path, text)
        return
    part = path.parent / f".{path.name[:100]}.{os.getpid()}.part"
    try:
        part.write_bytes(text.encode("utf-8"))
        part.replace(path)
    except FileNotFoundError:
        fail(str(path), [f"no folder {shown(str(path.parent))}; make it, or give another path"])
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        fail(str(path), [f"cannot be written ({reason}); give another path"])
    finally:
        with suppress(OSError, ValueError):
            part.unlink(missing_ok=True)


def _write_through(path: Path, text: str) -> None:
    """To a device or a pipe, which stays what it is."""
    try:
        path.write_bytes(text.encode("utf-8"))
    except OSError as error:
        fail(str(path), [f"cannot be written ({error.strerror or error}); give another path"])


def _problems(table: type[Table], data: Any, errors: Sequence[ErrorDetails]) -> list[str]:
    """One `KEY: REASON; MEND` for each mistake; a misspelt key and the key then missing are one mistake."""
    missing = {e["loc"] for e in errors if e["type"] == "missing"}
    instead: dict[Loc, str] = {}
    problems: dict[Loc, str] = {}
    for error in errors:
        loc = error["loc"]
        reason, meant = _reason(table, data, error, missing)
        problems[loc] = f"{key_path(loc, data)}: {reason}"
        if meant is not None and meant not in instead:
            instead[meant] = problems[loc]
    moved = set(instead.values())
    stay = {loc: problem for loc, problem in problems.items() if loc in instead or problem not in moved}
    return [instead.get(loc, problem) for loc, problem in stay.items()]


def _reason(table: type[Table], data: Any, error: ErrorDetails, missing: set[Loc]) -> tuple[str, Loc | None]:
    """`REASON; MEND`, and the missing key that an unknown key was meant to be."""
    loc, value = error["loc"], shown(error["input"])
    if error["type"] == "extra_forbidden":
        return _unknown_key(table, data, loc, missing)
    _, field = _field(table, loc)
    wanted = field.description or "another value"
    example = f"'{loc[-1]} = {_toml(field.examples[0])}', " if field.examples else ""
    limits = error.get("ctx", {})
    match error["type"]:
        case _ if loc[-1] == "schema":
            return f"is {value}, but this fluidgate reads schema {SCHEMA}; write 'schema = {SCHEMA}'", None
        case "missing":
            return f"missing; add {example}{wanted}", None
        case "string_type":
            return f"must be a text in quotes, but is {value}; give {wanted}", None
        case "literal_error":
            known = re.findall(r"'([^']*)'", limits["expected"])
            hint = nearest(error["input"], known) if isinstance(error["input"], str) else ""
            return f"must be {limits['expected']}, but is {value}{hint or f'; give {wanted}'}", None
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"must be a table, but is {value}; give {wanted}", None
        case "list_type":
            return f"must be an array, but is {value}; give {wanted}", None
        case "too_short" | "too_long":
            return f"must have {_length(limits)}, but has {limits['actual_length']}; give {wanted}", None
        case _:
            said = limit_broken(error, value) or f"{error['msg']}, but is {value}"
            return f"{said}; give {wanted}", None


def _unknown_key(table: type[Table], data: Any, loc: Loc, missing: set[Loc]) -> tuple[str, Loc | None]:
    key = str(loc[-1])
    owner, _ = _field(table, loc)
    absent = [str(name[-1]) for name in missing if name[:-1] == loc[:-1]]
    hint = nearest(key, absent)
    meant = (*loc[:-1], hint.split("'")[1]) if hint else None
    if key in owner.elsewhere:
        return owner.elsewhere[key], meant
    if hint:
        return f"unknown key{hint}", meant
    here = data
    for step in loc[:-1]:
        here = _item(here, step)
    known = [name for name in _keys(owner) if name not in here]
    mend = nearest(key, known) or f"; remove it (the keys here: {', '.join(_keys(owner))})"
    return f"unknown key{mend}", None


def _field(table: type[Table], loc: Loc) -> tuple[type[Table], FieldInfo]:
    """The table that holds the last key of `loc`, and that key's field (of the array, for an item)."""
    field = FieldInfo()
    for step in loc:
        if isinstance(step, str):
            inner = _table_of(field)
            table = inner or table
            field = _keys(table).get(step, FieldInfo())
    return table, field


def _table_of(field: FieldInfo) -> type[Table] | None:
    types = (field.annotation, *getattr(field.annotation, "__args__", ()))
    return next((t for t in types if isinstance(t, type) and issubclass(t, Table)), None)


def _keys(table: type[Table]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in table.model_fields.items()}


def _item(data: Any, step: int | str) -> Any:
    try:
        return data[step]
    except (KeyError, IndexError, TypeError):
        return None


def _length(limits: Mapping[str, Any]) -> str:
    if "min_length" in limits:
        return f"at least {limits['min_length']}"
    return f"at most {limits['max_length']}"


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in one_line(text))
