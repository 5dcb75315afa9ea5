"""What a compiled function is made of: itself, the functions it calls and the constants they read.

Two functions with the same contents compile to the same code, so their digest names it on disk. What does not reach
the compiler (comments, docstrings, the place in a file, functions of the same file that are not compiled) is not in it.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import llvmlite
import numba
import numpy as np

PACKAGE = __name__.split(".")[0]


def digest_of(function: Any) -> str:
    """A name for the contents of a function, compiled or not, by this version of the compiler."""
    digest = hashlib.sha256(_compiler())
    for part in code_of(function):
        digest.update(part.encode())
    return digest.hexdigest()[:20]


def code_of(function: Any) -> Iterator[str]:
    """The contents of a function, compiled or not, whatever the compiler and the machine."""
    return _parts(function, set())


@cache
def _compiler() -> bytes:
    """Whatever else code depends on: versions, the processor, and how this folder has things compiled."""
    from numba.core.registry import cpu_target

    told = [numba.__version__, llvmlite.__version__, np.__version__, sys.version]
    told += map(str, cpu_target.target_context.codegen().magic_tuple())
    told += [source.read_text() for source in sorted(Path(__file__).parent.glob("*.py"))]
    return "\0".join(told).encode()


def _parts(value: Any, seen: set[int]) -> Iterator[str]:
    function = getattr(value, "py_func", value)
    if isinstance(function, FunctionType):
        if id(function) not in seen:
            seen.add(id(function))
            yield f"function {function.__name__} {getattr(value, 'targetoptions', None) and _options(value)}"
            yield from _code_parts(function.__code__, function, seen)
            yield repr(function.__defaults__)
            for cell in function.__closure__ or ():
                yield from _parts(cell.cell_contents, seen)
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype} {value.shape} {value.tobytes().hex()}"
    elif isinstance(value, type) and hasattr(value, "_fields"):
        yield f"{value.__name__} {value._fields}"
    elif isinstance(value, tuple):
        yield "("
        for each in value:
            yield from _parts(each, seen)
        yield ")"
    elif isinstance(value, bool | int | float | complex | str | bytes | np.generic | np.dtype | None):
        yield f"{type(value).__name__} {value!r}"
    else:
        yield f"{type(value).__name__} {getattr(value, '__name__', '')}"


def _options(value: Any) -> str:
    return str(sorted((key, str(each)) for key, each in value.targetoptions.items() if key != "pipeline_class"))


def _code_parts(code: CodeType, function: FunctionType, seen: set[int]) -> Iterator[str]:
    yield code.co_code.hex()
    yield f"{code.co_names} {code.co_varnames} {code.co_freevars}"
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code_parts(constant, function, seen)
        else:
            is_docstring = isinstance(constant, str) and constant == function.__doc__
            yield repr(None if is_docstring else constant)
    for name in code.co_names:
        value = function.__globals__.get(name)
        if isinstance(value, ModuleType):
            yield value.__name__
            if value.__name__.split(".")[0] == PACKAGE:
                for word in code.co_names:
                    if hasattr(value, word):
                        yield from _parts(getattr(value, word), seen)
        elif name in function.__globals__:
            yield name
            yield from _parts(value, seen)
