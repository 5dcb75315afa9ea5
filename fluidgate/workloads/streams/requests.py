"""A request, and blocks of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

REQUEST = np.dtype(
    [("arrival", "f8"), ("cls", "i4"), ("prompt", "i4"), ("output", "i4"), ("patience", "f8"), ("think", "f8")]
)
"""`arrival` in s from 0, when the client sends it; `cls` the class's number; `prompt`, `output` in tokens; `patience`
in s, inf: never leaves; `think` in s, from the answer to the user's next request. In a closed loop `arrival` is not
read, without one `think` is not."""

BLOCK = 65_536
"""Requests in a block."""

Requests = NDArray[np.void]
"""An array of REQUEST."""


def requests_of(arrival: Any, cls: Any, prompt: Any, output: Any, patience: Any, think: Any = 0.0) -> Requests:
    """Requests from their columns, arrays of one shape."""
    block = np.empty(len(arrival), REQUEST)
    for name, column in zip(REQUEST.names or (), (arrival, cls, prompt, output, patience, think), strict=True):
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
