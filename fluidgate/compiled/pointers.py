"""Functions handed to compiled code as pointers: a kernel that calls them is compiled once for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

from fluidgate.compiled.disk import KernelCache
from fluidgate.compiled.functions import entry_point
from fluidgate.compiled.mode import is_interpreted

FUNCTIONS_KEPT = 200
"""On disk, of all policies."""

_interpreted: dict[int, Callable[..., int]] = {}
_kept_alive: list[Any] = []


def pointer_to(function: Callable[..., int], view: Any, tables: Any, what: str = "") -> int:
    """The address of a function `(view, tables, number, draw) -> int` for `call_pointer`; it stays valid.

    Args:
        view, tables: such references as it will be called with.
        what: the function as a user would call it, for the message that it is compiled; empty for none.

    Raises:
        numba.core.errors.NumbaError: it can't be compiled.
        TypeError: it may answer something else than a whole number.
    """
    if is_interpreted():
        _interpreted[id(function)] = function
        return id(function)
    compiled = entry_point(function)
    compiled._cache = KernelCache(function, what, seconds=1, states=FUNCTIONS_KEPT)
    signature = (view._numba_type_, tables._numba_type_, types.int64, types.float64)
    compiled.compile(signature)
    found = compiled.overloads[signature]
    answer = types.unliteral(found.signature.return_type)
    if isinstance(answer, types.Optional | types.NoneType):
        raise TypeError("it may end without an answer")
    if answer is not types.int64:
        raise TypeError(f"it may answer a {answer}, which is no whole number")
    _kept_alive.append(found)
    return int(found.library.get_pointer_to_function(found.fndesc.llvm_cfunc_wrapper_name))


def call_pointer(address: int, view: Any, tables: Any, number: int, draw: float) -> int:
    """What the function at an address answers."""
    return _interpreted[address](view, tables, number, draw)


@overload(call_pointer)
def _call_pointer(address, view, tables, number, draw):
    return lambda address, view, tables, number, draw: _call(address, view, tables, number, draw)


_call_of: Any = intrinsic


@_call_of  # type: ignore[untyped-decorator]
def _call(context: Any, address: Any, view: Any, tables: Any, number: Any, draw: Any) -> Any:
    signature = types.int64(types.int64, view, tables, types.int64, types.float64)

    def lowered(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = [context.get_value_type(kind) for kind in signature.args[1:]]
        function = ir.FunctionType(ir.IntType(64), kinds).as_pointer()
        return builder.call(builder.inttoptr(arguments[0], function), arguments[1:])

    return signature, lowered
