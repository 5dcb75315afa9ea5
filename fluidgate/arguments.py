"""What public functions do with their arguments before they start: names and kinds are looked over, once for all."""

from __future__ import annotations

import collections.abc
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cache, wraps
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    ParamSpec,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from fluidgate.errors import ArgumentError, nearest, one_line

if TYPE_CHECKING:
    from inspect import Signature

P = ParamSpec("P")
R = TypeVar("R")

WORDS: dict[Any, str] = {
    NoneType: "None",
    bool: "True or False",
    float: "a number",
    int: "a whole number",
    collections.abc.Mapping: "a dictionary",
    os.PathLike: "a path",
    str: "a text",
}
LISTS = (collections.abc.Sequence, collections.abc.Iterable, list, tuple)


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which refuses names that it does not know, and values of another kind than it takes.

    What can be said of a value by its annotation is said here; ranges, and what goes together, are the function's own.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        signature, further = _signature(function), _further(function)
        try:
            given = signature.bind(*args, **kwargs)
            if further and (unknown := given.arguments.get(further.name, {}).keys() - further.hints):
                raise TypeError(f"unknown: {unknown}")
        except TypeError as error:
            known = () if further is None else tuple(further.hints)
            raise _wrong_call(function.__name__, signature, kwargs, error, known) from None
        for name, value in given.arguments.items():
            if further is None or name != further.name:
                hint = _hint(function, name)
                given.arguments[name] = _dictionary(value, hint) if hasattr(value, "keys") else plain(value)
                check_kind(name, given.arguments[name], hint)
            else:
                given.arguments[name] = {key: plain(each) for key, each in value.items()}
                for key, each in given.arguments[name].items():
                    check_kind(key, each, further.hints[key])
        return function(*given.args, **given.kwargs)

    return call


def plain(value: Any) -> Any:
    """A number of numpy as one of Python, which JSON takes and which does not overflow."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def _dictionary(value: Any, hint: Any) -> Any:
    """A row of pandas as a dictionary, where one is wanted."""
    wanted = any(get_origin(kind) is collections.abc.Mapping for kind in _kinds(hint))
    is_row = not isinstance(value, Mapping) and not hasattr(value, "columns") and hasattr(value, "to_dict")
    return value.to_dict() if wanted and is_row else value


def listed(values: Any, *, commas: bool = False) -> list[Any]:
    """Several values, or one by itself; paths as texts.

    Args:
        commas: whether a text may name several, `A,B`.
    """
    if isinstance(values, str) and commas:
        return [text.strip() for text in values.split(",") if text.strip()]
    several = not isinstance(values, str | os.PathLike) and hasattr(values, "__iter__")
    return [os.fspath(each) if isinstance(each, os.PathLike) else each for each in (values if several else [values])]


def check_kind(name: str, value: Any, hint: Any) -> None:
    """Refuse a value that its annotation does not allow.

    Raises:
        ArgumentError: naming what is taken.
    """
    kinds = list(_kinds(hint))
    if not kinds or any(_fits(value, kind) for kind in kinds):
        return
    words = [kind for kind in kinds if get_origin(kind) is Literal]
    known = [repr(word) for kind in words for word in get_args(kind)]
    others = dict.fromkeys(_words(kind) for kind in kinds if kind not in (*words, NoneType))
    hint_of = nearest(value, [word for kind in words for word in get_args(kind)]) if isinstance(value, str) else ""
    if not hint_of and any(_fits(getattr(value, name, None), kind) for kind in kinds if kind not in (NoneType, str)):
        hint_of = f"; give its {name}"
    raise ArgumentError(f"{name}: must be {_either([*known, *others])}, but is {shown_value(value)}{hint_of}")


class _Further(NamedTuple):
    """Keywords that a function takes as one `**name: Unpack[TypedDict]`, with what each may be."""

    name: str
    hints: dict[str, Any]


@cache
def _signature(function: Callable[..., Any]) -> Signature:
    from inspect import signature

    return signature(function)


@cache
def _further(function: Callable[..., Any]) -> _Further | None:
    for name, each in _signature(function).parameters.items():
        if each.kind is each.VAR_KEYWORD and isinstance(each.annotation, str) and each.annotation.startswith("Unpack["):
            kind = eval(each.annotation.removeprefix("Unpack[").removesuffix("]"), function.__globals__)
            return _Further(name, get_type_hints(kind))
    return None


def _wrong_call(
    function: str, signature: Signature, given: dict[str, Any], error: TypeError, further: tuple[str, ...]
) -> ArgumentError:
    own = {name: each for name, each in signature.parameters.items() if name not in ("self", "cls")}
    known = [*(name for name, each in own.items() if each.kind is not each.VAR_KEYWORD), *further]
    for name in given:
        if name not in known:
            mend = nearest(name, known) or f"; it takes {', '.join(known)}"
            return ArgumentError(f"{function}() has no argument '{name}'{mend}")
    if "too many positional" in str(error):
        first = [name for name, each in own.items() if each.kind is each.POSITIONAL_OR_KEYWORD]
        mend = f"give all but {', '.join(first)} by name" if first else "it takes none"
        return ArgumentError(f"{function}(): {error}; {mend}")
    return ArgumentError(f"{function}(): {error}")


@cache
def _hint(function: Callable[..., Any], name: str) -> Any:
    """The annotation of a parameter; Any where it is of a name that is there for type checkers alone."""
    parameter = _signature(function).parameters[name]
    text = parameter.annotation
    if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) or text is parameter.empty:
        return Any
    try:
        return eval(text, function.__globals__) if isinstance(text, str) else text
    except NameError:
        return Any


def _kinds(hint: Any) -> Iterator[Any]:
    """What a value may be; nothing where that can't be told."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        parts = [list(_kinds(each)) for each in get_args(hint)]
        if all(parts):
            for part in parts:
                yield from part
    elif origin is Annotated:
        yield from _kinds(get_args(hint)[0])
    elif hint is None:
        yield NoneType
    elif hint is not Any and (origin is not None or isinstance(hint, type)):
        yield hint


def _fits(value: Any, kind: Any) -> bool:
    origin = get_origin(kind)
    if origin is Literal:
        return value in get_args(kind) and isinstance(value, str)
    if origin in LISTS:
        if isinstance(value, str | bytes | dict) or not hasattr(value, "__iter__") or hasattr(value, "columns"):
            return False
        (item, *others) = get_args(kind)
        kinds = list(_kinds(item)) if others in ([], [...]) else []  # of several parts, each of its own kind
        return not kinds or not hasattr(value, "__len__") or all(any(_fits(v, k) for k in kinds) for v in value)
    if origin is collections.abc.Callable:
        return callable(value)
    if origin is collections.abc.Mapping and get_args(kind) == (str, str):
        return isinstance(value, Mapping) and all(isinstance(text, str) for pair in value.items() for text in pair)
    kind = origin or kind
    if kind is bool:
        return isinstance(value, bool)
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    try:
        return isinstance(value, kind)
    except TypeError:  # a protocol
        return True


def _words(kind: Any) -> str:
    origin = get_origin(kind)
    if origin in LISTS:
        items = [_words(each) for each in _kinds(get_args(kind)[0])]
        return f"a list of {_either([_several(item) for item in dict.fromkeys(items)])}" if items else "a list"
    if origin is collections.abc.Callable:
        return "a function"
    if origin is collections.abc.Mapping and get_args(kind) == (str, str):
        return "a dictionary of texts"
    kind = origin or kind
    if isinstance(kind, type) and issubclass(kind, os.PathLike):
        return "a path"
    if kind.__name__.endswith("Policy"):
        return "a policy"
    return WORDS.get(kind) or a(kind.__name__)


def _several(word: str) -> str:
    noun = word.removeprefix("a ").removeprefix("an ")
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"


def _either(words: list[str]) -> str:
    """`A, B or C`."""
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def a(noun: str) -> str:
    """The noun with its article."""
    return f"{'an' if noun[0] in 'aeiouAEIO' else 'a'} {noun}"


def shown_value(value: Any) -> str:
    """A value as an error shows it, short."""
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:37] + "...")
    text = one_line(repr(value))
    kind = type(value).__name__
    plain = value is None or isinstance(value, bool | int | float)
    if plain:
        return text
    return a(kind) + (f", {text}" if len(text) <= 40 else "")
