"""State behind one reference: compiled code takes a named tuple of numbers and arrays as one pointer.

A tuple of forty arrays passed by value is three hundred arguments of each function that takes it, and unboxed at each
call from Python. Behind a reference it is one word. `by_reference` lays the tuple's numbers and the places of its
arrays out in memory; compiled code reads a field as it would the tuple's, a tuple within it as a reference. During a
call nothing of that changes (only what the arrays hold), so that the compiler may keep what it has read.

With `NUMBA_DISABLE_JIT=1` the tuple itself is taken, its record arrays so that an element's fields are attributes.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.extending import NativeValue, infer_getattr, lower_getattr_generic, models, register_model, unbox
from numba.core.typing.templates import AttributeTemplate
from numba.extending import typeof_impl
from numba.np import arrayobj

from fluidgate.compiled.mode import is_interpreted

WORD = 8
"""Bytes of an entry."""


class Reference:
    """A named tuple laid out for compiled code; it keeps the tuple and its arrays alive.

    Attributes:
        value: the tuple.
        address: of its layout.
    """

    __slots__ = ("_memory", "_numba_type_", "address", "value")

    def __init__(self, value: Any) -> None:
        """
        Raises:
            TypeError: a field is no number, no contiguous array and no such tuple.
        """
        self.value = value
        self._numba_type_ = _referring(_kinds(value))
        self._memory = np.array(list(_words(value)), np.uint64)
        self.address = int(self._memory.ctypes.data)


def by_reference(value: Any) -> Any:
    """A named tuple of numbers, C-contiguous arrays and other such tuples, as an argument of a kernel."""
    return interpretable(value) if is_interpreted() else Reference(value)


def records(array: Any) -> Any:
    """A record array as an argument of a kernel."""
    return array.view(np.recarray) if is_interpreted() else array


def interpretable(value: Any) -> Any:
    """The same tuple, sharing memory, whose record arrays give records with attributes."""
    return value._make(
        interpretable(each)
        if hasattr(each, "_fields")
        else records(each)
        if isinstance(each, np.ndarray) and each.dtype.names
        else each
        for each in value
    )


class ReferenceType(types.Type):
    """The type of a reference to a named tuple of a type."""

    def __init__(self, target: Any) -> None:
        self.target = target
        self.places, self.words = _layout(target)
        digest = hashlib.sha256(repr(target).encode()).hexdigest()[:12]
        super().__init__(name=f"reference({target.instance_class.__name__}, {digest})")

    def field(self, name: str) -> Any:
        """The type of a field; None if there is none."""
        return self.target.types[self.target.fields.index(name)] if name in self.target.fields else None


def type_of(value: Any) -> Any:
    """The type of such a tuple: all integers are int64, all arrays C-contiguous and writable."""
    return _target(_kinds(value))


def _kinds(value: Any) -> tuple[Any, ...]:
    """What the type of a tuple depends on, cheap to make and to compare: its class, and what each field is."""
    kinds: list[Any] = [type(value)]
    for name, each in zip(value._fields, value, strict=True):
        if isinstance(each, np.ndarray):
            if not each.flags.c_contiguous:
                raise TypeError(f"{type(value).__name__}.{name} is no contiguous array")
            kinds.append((each.dtype, each.dtype.isalignedstruct, each.ndim))
        elif hasattr(each, "_fields"):
            kinds.append(_kinds(each))
        elif isinstance(each, bool | np.bool_):
            kinds.append(bool)
        elif isinstance(each, int | np.integer):
            kinds.append(int)
        elif isinstance(each, float | np.floating):
            kinds.append(float)
        else:
            raise TypeError(f"{type(value).__name__}.{name} is no number and no array, but {each!r}")
    return tuple(kinds)


@lru_cache(maxsize=256)
def _target(kinds: tuple[Any, ...]) -> Any:
    cls, *fields = kinds
    return types.NamedTuple([_field(kind) for kind in fields], cls)


def _field(kind: Any) -> Any:
    if not isinstance(kind, tuple):
        return {bool: types.boolean, int: types.int64, float: types.float64}[kind]
    if isinstance(kind[0], np.dtype):
        dtype, _, dimensions = kind
        return types.Array(numba.from_dtype(dtype), dimensions, "C")
    return _target(kind)


@lru_cache(maxsize=256)
def _referring(kinds: tuple[Any, ...]) -> ReferenceType:
    """A state is referred to again and again, at every pause of a run."""
    return ReferenceType(_target(kinds))


def _words(value: Any) -> Any:
    """The layout of a tuple: a number is a word; an array its address, its size, its shape and its strides."""
    for each in value:
        if isinstance(each, np.ndarray):
            yield from (each.ctypes.data, each.size, *each.shape, *each.strides)
        elif isinstance(each, tuple):
            yield from _words(each)
        elif isinstance(each, float | np.floating):
            yield int(np.float64(each).view(np.uint64))
        else:
            yield int(each) & 0xFFFFFFFFFFFFFFFF


def _layout(target: Any) -> tuple[dict[str, int], int]:
    """The place of each field, and the size of all, in words."""
    places, size = {}, 0
    for name, kind in zip(target.fields, target.types, strict=True):
        places[name] = size
        if isinstance(kind, types.Array):
            size += 2 + 2 * kind.ndim
        else:
            size += _layout(kind)[1] if isinstance(kind, types.BaseTuple) else 1
    return places, size


@typeof_impl.register(Reference)
def _typeof_reference(value: Reference, context: Any) -> ReferenceType:
    return value._numba_type_


@register_model(ReferenceType)
class _ReferenceModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: ReferenceType) -> None:
        super().__init__(manager, kind, ir.IntType(8).as_pointer())


@unbox(ReferenceType)  # type: ignore[untyped-decorator]
def _unbox_reference(kind: ReferenceType, value: Any, c: Any) -> NativeValue:
    boxed = c.pyapi.object_getattr_string(value, "address")
    address = c.pyapi.long_as_ulonglong(boxed)
    c.pyapi.decref(boxed)
    return NativeValue(c.builder.inttoptr(address, ir.IntType(8).as_pointer()))


@infer_getattr
class _ReferenceFields(AttributeTemplate):
    key = ReferenceType

    def generic_resolve(self, kind: ReferenceType, name: str) -> Any:  # type: ignore[override]
        found = kind.field(name)
        return ReferenceType(found) if isinstance(found, types.BaseTuple) else found


@lower_getattr_generic(ReferenceType)  # type: ignore[untyped-decorator]
def _read_field(context: Any, builder: Any, kind: ReferenceType, pointer: Any, name: str) -> Any:
    found, place = kind.field(name), kind.places[name]
    whole = ir.IntType(64)

    def word(at: int, of: Any) -> Any:
        address = builder.gep(pointer, [ir.Constant(whole, WORD * at)])
        loaded = builder.load(builder.bitcast(address, of.as_pointer()))
        loaded.set_metadata("invariant.load", builder.module.add_metadata([]))
        return loaded

    if isinstance(found, types.BaseTuple):
        return builder.gep(pointer, [ir.Constant(whole, WORD * place)])
    if isinstance(found, types.Boolean):
        return builder.icmp_unsigned("!=", word(place, whole), ir.Constant(whole, 0))
    if isinstance(found, types.Float):
        return word(place, ir.DoubleType())
    if not isinstance(found, types.Array):
        return word(place, whole)
    element = context.get_data_type(found.dtype)
    array = arrayobj.make_array(found)(context, builder)
    arrayobj.populate_array(
        array,
        data=word(place, element.as_pointer()),
        shape=[word(place + 2 + k, whole) for k in range(found.ndim)],
        strides=[word(place + 2 + found.ndim + k, whole) for k in range(found.ndim)],
        itemsize=context.get_constant(types.intp, context.get_abi_sizeof(element)),
        meminfo=None,
    )
    return array._getvalue()
