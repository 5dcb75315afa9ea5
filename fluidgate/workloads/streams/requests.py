"""A request, and blocks of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

NOTHING = 0
"""Of a `text`, an `answer` or a row of a script: there is none."""

REQUEST = np.dtype(
    [
        ("arrival", "f8"),  # s from 0, when the client sends it; not read in a closed loop
        ("cls", "i4"),  # number of its class
        ("prompt", "i4"),  # tokens
        ("output", "i4"),  # tokens
        ("patience", "f8"),  # s, inf: never leaves
        ("think", "f8"),  # s, from its answer to the next request of its session, or of its user in a closed loop
        ("text", "i4"),  # piece of text with which its prompt ends, see `Script`; NOTHING: like no other
        ("answer", "i4"),  # piece of text that its answer is; NOTHING: no prompt has it
        ("then", "i4"),  # row of the script that its session sends next; NOTHING: it is the last
        ("spawns", "i4"),  # row of the script with which a session starts that this one sets off; NOTHING: none
        ("beside", "i4"),  # of such a row: the next that the same request sets off; NOTHING: none
    ]
)
"""A request. Of a session's first row that another request sets off, `arrival` is in s from when that is sent; of
further rows of a session it is not read."""

BLOCK = 65_536
"""Requests in a block."""

Requests = NDArray[np.void]
"""An array of REQUEST."""


def requests_of(arrival: Any, cls: Any, prompt: Any, output: Any, patience: Any, think: Any = 0.0) -> Requests:
    """Requests from their columns, arrays of one shape: no prompt has anything of another, no session goes on."""
    block = np.zeros(len(arrival), REQUEST)
    for name, column in zip(REQUEST.names or (), (arrival, cls, prompt, output, patience, think), strict=False):
        block[name] = column
    return block


def until(blocks: Iterable[Requests], horizon: float, most: int | None) -> Iterator[Requests]:
    """The requests that arrive by `horizon`, at most `most` of them."""
    left = most
    for block in blocks:
        kept = block[: np.searchsorted(block["arrival"], horizon, side="right")]
        if left is not None:
            kept = kept[:left]
            left -= len(kept)
        if len(kept) > 0:
            yield kept
        if len(kept) < len(block) or left == 0:
            return


def in_blocks(pieces: Iterable[Requests], size: int) -> Iterator[Requests]:
    """The same requests in blocks of `size`; the last may be smaller."""
    held: list[Requests] = []
    count = 0
    for piece in pieces:
        held.append(piece)
        count += len(piece)
        if count < size:
            continue
        whole = np.concatenate(held)
        full = count - count % size
        for start in range(0, full, size):
            yield whole[start : start + size]
        held, count = [whole[full:].copy()], count - full
    if count > 0:
        yield np.concatenate(held)
