"""State behind a reference: compiled code reads what the tuple holds and writes where its arrays are."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest

from fluidgate.compiled import by_reference, called, entry_point, inlined

PAIR = np.dtype([("number", "i4"), ("share", "f8")], align=True)


class Inner(NamedTuple):
    """A tuple within a tuple."""

    factor: float
    flags: Any


class State(NamedTuple):
    """One field of each kind."""

    size: int
    yes: bool
    inner: Inner
    table: Any
    pairs: Any
    last: float


def state(**given: Any) -> State:
    fields: dict[str, Any] = {
        "size": -3,
        "yes": True,
        "inner": Inner(2.5, np.array([1, 0, 1], np.int8)),
        "table": np.arange(6.0).reshape(2, 3),
        "pairs": np.array([(1, 0.5), (2, 0.25)], PAIR),
        "last": 7.0,
    }
    return State(**(fields | given))


@inlined
def weighed(s, k):  # type: ignore[no-untyped-def]
    return s.pairs[k].number * s.pairs[k].share * s.inner.factor


@called
def add_row(s, row, more):  # type: ignore[no-untyped-def]
    for k in range(s.table.shape[1]):
        s.table[row, k] += more
    s.pairs[row].number += 1


@entry_point
def read(s):  # type: ignore[no-untyped-def]
    total = s.size + s.last + s.table.sum() + s.table[1].sum() + weighed(s, 0) + weighed(s, 1)
    return total + (100.0 if s.yes else 0.0) + s.inner.flags.sum() + s.inner.flags.size


@entry_point
def write(s, row, more):  # type: ignore[no-untyped-def]
    add_row(s, row, more)
    return s.table[row, 0]


def test_every_kind_of_field_is_read() -> None:
    expected = -3 + 7 + 15 + 12 + (0.5 + 0.5) * 2.5 + 100 + 2 + 3
    assert read(by_reference(state())) == pytest.approx(expected)
    assert read(by_reference(state(yes=False))) == pytest.approx(expected - 100)


def test_arrays_are_shared() -> None:
    s = state()
    assert write(by_reference(s), 1, 10.0) == 13.0
    assert s.table.tolist() == [[0, 1, 2], [13, 14, 15]]
    assert s.pairs["number"].tolist() == [1, 3]


def test_other_values_of_the_same_kinds_need_no_other_code() -> None:
    read(by_reference(state()))
    before = len(read.signatures)
    read(by_reference(state(table=np.ones((4, 1)), pairs=np.zeros(9, PAIR), size=np.int32(4), last=np.float64(1))))
    assert len(read.signatures) == before


def test_the_type_of_a_tuple_is_made_once_for_all_of_its_kinds() -> None:
    """A fleet that fails refers to its state at each of thousands of pauses."""
    kind = by_reference(state())._numba_type_
    assert by_reference(state(table=np.ones((4, 1)), size=np.int32(4)))._numba_type_ is kind
    packed = np.dtype([("number", "i4"), ("share", "f8")])
    for other in (state(size=1.0), state(table=np.ones(4)), state(pairs=np.zeros(2, packed))):
        assert by_reference(other)._numba_type_ != kind


def test_what_compiled_code_could_not_share_is_refused() -> None:
    with pytest.raises(TypeError, match=r"State.table is no contiguous array"):
        by_reference(state(table=np.ones((4, 4))[:, ::2]))
    with pytest.raises(TypeError, match=r"State.last is no number and no array"):
        by_reference(state(last="soon"))


def test_without_compilation_the_same_functions_run_on_the_tuple() -> None:
    program = (
        "from tests.compiled.test_reference import *\n"
        "s = state()\n"
        "print(read(by_reference(s)), write(by_reference(s), 1, 10.0), s.pairs['number'].tolist())\n"
    )
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split(maxsplit=2) == [str(read(by_reference(state()))), "13.0", "[1, 3]\n"]
