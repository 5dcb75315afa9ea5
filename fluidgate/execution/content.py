"""A digest of any value by what it holds: the same in every process and on every machine.

Pickles of equal values differ: by what they share inside, by the order of sets, by properties that were asked for
before. So the value is walked here: numbers, texts, arrays and containers as they are; dataclasses and nouns by their
fields; a function by its name where it is of this package, whose version counts elsewhere, and by its code where not;
anything else by what a pickle would rebuild it from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cached_property
from inspect import getattr_static
from itertools import chain
from pathlib import Path, PurePath
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np

from fluidgate.execution.version import PACKAGE

PLAIN = (type(None), type(...), bool, int, float, complex, str, bytes)


class Contents:
    """Digests of values; what several of them share is walked once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, bytes]] = {}

    def digest(self, value: Any) -> bytes:
        """Of 32 bytes."""
        shared = isinstance(value, np.ndarray) or is_dataclass(value) or hasattr(type(value), "model_fields")
        if not shared:
            return self._digest(value)
        if id(value) not in self._known:
            self._known[id(value)] = value, self._digest(value)  # with the value, whose id then stays its own
        return self._known[id(value)][1]

    def _digest(self, value: Any) -> bytes:
        kind = type(value)
        if kind in PLAIN:
            return _hashed(kind.__name__, repr(value))
        if isinstance(value, Enum):
            return _hashed(_name(kind), value.name)
        if isinstance(value, np.ndarray):
            return self._array(value)
        if isinstance(value, np.generic):
            return _hashed(_name(kind), value.tobytes())
        if isinstance(value, PurePath):
            return _hashed("path", value.as_posix())
        if isinstance(value, type | BuiltinFunctionType):
            return _hashed("name", _name(value))
        if isinstance(value, FunctionType) or hasattr(value, "py_func"):
            return self._function(value)
        return _hashed(_name(kind), *self._parts(value))

    def _parts(self, value: Any) -> Iterator[bytes]:
        if isinstance(value, tuple | list):
            yield from map(self.digest, value)
        elif isinstance(value, Mapping):
            yield from map(self.digest, chain.from_iterable(value.items()))
        elif isinstance(value, set | frozenset):
            yield from sorted(map(self.digest, value))
        elif is_dataclass(value):
            yield from self._fields(value, (field.name for field in fields(value)))
        elif hasattr(type(value), "model_fields"):
            yield from self._fields(value, type(value).model_fields)
        else:
            yield from self._rebuilt(value)

    def _fields(self, value: Any, names: Iterable[str]) -> Iterator[bytes]:
        for name in names:
            yield _hashed(name)
            yield self.digest(getattr(value, name))
        for path in getattr(value, "files_read", ()):
            yield _hashed("file", _bytes_of(path))

    def _rebuilt(self, value: Any) -> Iterator[bytes]:
        found = value.__reduce_ex__(4)
        if isinstance(found, str):
            yield _hashed(found)
            return
        make, arguments, state, listed, mapped = (*found, None, None, None)[:5]
        if isinstance(state, dict):
            asked = (k for k in state if isinstance(getattr_static(type(value), k, None), cached_property))
            state = {key: state[key] for key in state.keys() - set(asked)}
            state = dict(sorted(state.items()))
        yield from map(self.digest, (make, arguments, state, list(listed or ()), list(mapped or ())))

    def _array(self, value: Any) -> bytes:
        if value.dtype.names is not None:  # what lies between the fields is anything
            parts = chain.from_iterable((_hashed(name), self._array(value[name])) for name in value.dtype.names)
            return _hashed("records", repr(value.shape), *parts)
        if value.dtype.hasobject:
            return _hashed("objects", repr(value.shape), *map(self.digest, value.ravel().tolist()))
        return _hashed("array", value.dtype.str, repr(value.shape), np.ascontiguousarray(value).tobytes())

    def _function(self, function: Any) -> bytes:
        plain = getattr(function, "py_func", function)
        if Path(plain.__code__.co_filename).is_relative_to(PACKAGE):
            inside = [cell.cell_contents for cell in plain.__closure__ or ()]
            return _hashed("function", _name(plain), *map(self.digest, inside))
        from fluidgate.compiled.contents import code_of

        return _hashed("function", *code_of(function))


def _hashed(*parts: str | bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        each = part.encode() if isinstance(part, str) else part
        digest.update(len(each).to_bytes(8, "little"))
        digest.update(each)
    return digest.digest()


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _bytes_of(path: str | Path) -> bytes:
    try:
        return hashlib.sha256(Path(path).read_bytes()).digest()
    except OSError:  # who reads it says so
        return b""
