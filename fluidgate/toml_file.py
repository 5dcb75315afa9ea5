"""TOML files of the program: read, checked against a table of keys, and written whole or not at all.

Every error is one line, `FILE: KEY: REASON; MEND`.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from fluidgate.errors import FluidgateError, nearest, one_line

SCHEMA = 1
LARGEST_WHOLE = 2**31 - 1

Loc = tuple[int | str, ...]


class Table(BaseModel):
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
    return decoded(read_bytes(path, what), str(path))


def read_bytes(path: str | Path, what: str) -> bytes:
    """The content of a file; `what` names its kind in errors.

    Raises:
        FluidgateError: the file is missing, a folder, or unreadable.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        fail(str(path), [f"no such file; give the path of {what}"])
    except IsADirectoryError:
        fail(str(path), [f"a folder; give the path of {what}"])
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        fail(str(path), [f"cannot be read ({reason}); give {what} that can"])


def decoded(content: bytes, source: str) -> str:
    """UTF-8 text, perhaps with a byte-order mark.

    Raises:
        FluidgateError: it is not UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
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
        fail(source, [f"{where}: not TOML: {what}; mend this line"])
    except RecursionError:
        fail(source, ["not TOML: too deeply nested; remove the brackets that nest"])
    except ValueError as error:
        fail(source, [f"not TOML: {error}; mend this value"])


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
        case "greater_than":
            return f"must be greater than {limits['gt']:g}, but is {value}; give {wanted}", None
        case "greater_than_equal":
            return f"must be at least {limits['ge']:g}, but is {value}; give {wanted}", None
        case "less_than":
            return f"must be less than {limits['lt']:g}, but is {value}; give {wanted}", None
        case "less_than_equal":
            return f"must be at most {limits['le']:.10g}, but is {value}; give {wanted}", None
        case "finite_number":
            return f"must be a finite number, but is {value}; give {wanted}", None
        case "float_type":
            return f"must be a number, but is {value}; give {wanted}", None
        case "int_type":
            return f"must be a whole number, but is {value}; give {wanted}", None
        case "string_type":
            return f"must be a text in quotes, but is {value}; give {wanted}", None
        case "string_too_short":
            return f"must not be empty; give {wanted}", None
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
            return f"{error['msg']}, but is {value}; give {wanted}", None


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
