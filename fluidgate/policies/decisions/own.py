"""A user's decision functions, each compiled alone and handed to the kernels as a pointer.

The kernels are compiled once for everybody; a function takes a second or two, and is kept on disk too. With
`NUMBA_DISABLE_JIT=1` nothing is compiled, and a debugger steps through functions and kernels.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
from numba.core.errors import NumbaError, UnsupportedBytecodeError

from fluidgate.arguments import a
from fluidgate.compiled import by_reference, inlined, pointer_to
from fluidgate.errors import FluidgateError, nearest, one_line, shown_file
from fluidgate.policies.decisions import stages
from fluidgate.policies.decisions.board import GPU_FIELDS, Functions, empty_board
from fluidgate.policies.decisions.moves import FAULTS
from fluidgate.policies.decisions.tables import Tables
from fluidgate.policies.decisions.view import View

Decision = Callable[..., int]

ALLOWED = "use numbers, loops and the fields of view and tables, and answer a whole number"


def functions_of(gate: Decision | None, route: Decision | None, refill: Decision | None) -> Functions:
    """The addresses of a user's decision functions in this process, 0 for those that are None.

    Raises:
        FluidgateError: one can't be compiled; the message names its file, its line and the mend.
    """
    return Functions(_address("gate", gate), _address("route", route), _address("refill", refill))


def describe_fault(fault: int, functions: dict[str, Decision | None]) -> str:
    """What a policy has answered that it may not, and whose function it was.

    Args:
        fault: what stands in `Board.round[FAULT]`.
        functions: the user's, by name.
    """
    name, wrong = FAULTS[fault]
    function = functions.get(name)
    return wrong if function is None else f"{_place(function)}: decision function '{_name(function)}': {wrong}"


@cache
def _address(kind: str, function: Decision | None) -> int:
    if function is None:
        return 0
    if not isinstance(_plain(function), FunctionType):
        raise FluidgateError(f"decision function '{_name(function)}': no Python function; write one, def {kind}(...)")
    view, tables = _samples()
    decide: Any = function if hasattr(function, "py_func") else inlined(function)
    try:
        what = f"decision function '{_name(function)}' of {shown_file(_file(function))}"
        return pointer_to(_as_pointer(kind, decide), view, tables, what)
    except (NumbaError, UnsupportedBytecodeError) as error:
        raise FluidgateError(_cause(str(error), function)) from error
    except TypeError as error:
        raise FluidgateError(f"{_place(function)}: decision function '{_name(function)}': {error}; {ALLOWED}") from None


def _as_pointer(kind: str, decide: Any) -> Any:
    """The function in the form of a pointer, `(view, tables, number, draw) -> int`."""
    if kind == "gate":

        def gate_pointer(view, tables, number, draw):
            return decide(view, tables)

        return gate_pointer

    def pointer(view, tables, number, draw):
        return decide(view, tables, number, draw)

    return pointer


@cache
def _samples() -> tuple[Any, Any]:
    """A view and tables as decisions get them, for their types."""
    counts, since = np.zeros((stages.STAGES, 1), np.int64), np.zeros((stages.QUEUES, 1))
    gpu = np.zeros(1, np.dtype(list(GPU_FIELDS)))
    draws = np.zeros(4, np.uint64)
    board = empty_board(
        gpu, batch_size=1, reserve=False, counts=counts, since=since, draws=draws, functions=Functions()
    )
    return by_reference(board.state), by_reference(Tables.nothing(1))


def _cause(report: str, function: Decision) -> str:
    """What numba objects to, in one line: the file, the line, the function and the reason."""
    file = _file(function)
    places = [line for line in report.splitlines() if file in line or Path(file).name in line]
    numbers = [found for line in places if (found := re.search(r"\((\d+)\)|line (\d+)", line))]
    where = f"{shown_file(file)}, line {numbers[0][1] or numbers[0][2]}" if numbers else _place(function)
    return one_line(f"{where}: decision function '{_name(function)}' can't be compiled: {_reason(report)}; {ALLOWED}")


def _reason(report: str) -> str:
    """The first thing that numba says is wrong, in a user's words."""
    if any(sign in report for sign in ("NRT required", "Only accept returning of array")):
        return "it makes an array, a list or a dictionary, which a decision may not"
    lines = [line.strip() for line in report.splitlines()]
    reason = next((line for line in lines if line and not line.startswith("Failed in")), "unknown reason")
    reason = re.sub(r"reference\((View|Tables), \w+\)", lambda found: found[1], reason)
    if unknown := re.match(r"Unknown attribute '(\w+)' of type (View|Tables)", reason):
        fields = View._fields if unknown[2] == "View" else Tables._fields
        return f"{unknown[2].lower()} has no field '{unknown[1]}'{nearest(unknown[1], list(fields))}"
    if missing := re.match(r"No implementation of function Function\(<[\w-]+ (?:function )?(\S+?)[ >]", reason):
        return f"it calls {missing[1]}, which compiled code does not have for such arguments"
    if unsupported := re.search(r"unsupported opcode \((\w+)\)", reason):
        return "it imports; do so at the top of the file" if "IMPORT" in unsupported[1] else f"it has {unsupported[1]}"
    if outside := re.search(r"Untyped global name '(\w+)'.*<class '(\w+)'>", reason):
        if outside[2] == "function":
            return f"it calls {outside[1]}, which is not compiled (numba.njit before it compiles it), or itself"
        return f"it reads {outside[1]}, {a(outside[2])} from outside, which compiled code has not"
    if reason.startswith("Cannot bind"):
        return "a gate takes (view, tables), a route (view, tables, cls, draw), a refill (view, tables, group, draw)"
    return reason.rstrip(":. ")


def _name(function: Decision) -> str:
    return str(getattr(function, "__name__", "a decision function"))


def _plain(function: Decision) -> Any:
    return getattr(function, "py_func", function)


def _file(function: Decision) -> str:
    return str(_plain(function).__code__.co_filename)


def _place(function: Decision) -> str:
    return f"{shown_file(_file(function))}, line {_plain(function).__code__.co_firstlineno}"
