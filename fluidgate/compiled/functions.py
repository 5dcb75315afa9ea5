"""How functions are compiled: those that Python calls, and those that only compiled code does.

All state is held by the caller, so nothing is allocated in a kernel and reference counts are left out (`_nrt=False`):
they cost ten times the work itself. A function that the hot loop calls is inlined. Decision functions therefore may not
make arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit

from fluidgate.compiled.disk import KernelCache
from fluidgate.compiled.linking import LinkedCompiler, with_one_integer_type
from fluidgate.compiled.mode import is_interpreted

Function = TypeVar("Function", bound=Callable[..., Any])

_LINKED: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "_nrt": False,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "pipeline_class": LinkedCompiler,
}


def inlined(function: Function) -> Function:
    """For functions that only compiled code calls, in the hot loop."""
    return _linked(function, forceinline=True)


def called(function: Function) -> Function:
    """For functions that only compiled code calls, and rarely or from many places."""
    return _linked(function, forceinline=False)  # else numba takes it over from the first caller


def _linked(function: Function, **options: Any) -> Function:
    if is_interpreted():
        return function
    made: Any = njit
    compiled: Function = with_one_integer_type(made(**_LINKED, **options)(function))
    return compiled


def entry_point(function: Callable[..., Any], *, allocates: bool = False) -> Any:
    """`function` compiled, to be called from Python; `allocates` if it makes arrays or takes a numpy Generator.

    Without reference counts each call would leak what unboxing a Generator allocates.
    """
    made: Any = njit
    return made(nogil=True, error_model="numpy", _nrt=allocates)(function)


def kept(function: Callable[..., Any], what: str = "", *, seconds: int = 0, allocates: bool = False) -> Any:
    """An entry point whose code is kept on disk for later processes.

    Args:
        what: the kernel as a user would call it, for the message that it is compiled; empty for none.
        seconds: that compilation takes, about, for the message.
        allocates: as for `entry_point`.
    """
    if is_interpreted():
        return np.errstate(over="ignore")(function)  # random bits overflow as they should
    compiled = entry_point(function, allocates=allocates)
    compiled._cache = KernelCache(function, what, seconds=seconds)
    return compiled


def is_on_disk(kernel: Any) -> bool:
    """Whether later processes will find the code of a `kept` kernel."""
    return not is_interpreted() and kernel._cache.is_there()


def needs_compilation(kernel: Any) -> bool:
    """Whether a `kept` kernel has no code yet, in this process or on disk."""
    return not is_interpreted() and not kernel.signatures and not kernel._cache.is_there()
