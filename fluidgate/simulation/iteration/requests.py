"""The stream of requests that a simulation reads: blocks in order of arrival."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluidgate.errors import FluidgateError

REQUEST = np.dtype([("arrival", "f8"), ("cls", "i4"), ("prompt", "i4"), ("output", "i4"), ("patience", "f8")])
"""A request: arrival in s from 0, class, prompt and output tokens, seconds it is willing to wait in a queue (inf)."""

Block = NDArray[Any]
"""Requests in order of arrival, dtype REQUEST."""


def checked(blocks: Iterable[Block], classes: int) -> Iterator[Block]:
    """The same blocks, each looked over before it is used.

    Raises:
        FluidgateError: a request is out of order, belongs to no class, or has a length or patience it can't have.
    """
    seen, last = 0, 0.0
    for block in blocks:
        if len(block) == 0:
            continue
        faults = {
            "arrives before the one ahead of it or before 0 s; sort the requests by arrival": ~(
                np.diff(block["arrival"], prepend=last) >= 0.0
            ),
            "never arrives": ~np.isfinite(block["arrival"]),
            f"is of none of the {classes} classes": (block["cls"] < 0) | (block["cls"] >= classes),
            "has no prompt; give it at least 1 token": block["prompt"] < 1,
            "has no output; give it at least 1 token": block["output"] < 1,
            "has more than 1,000,000,000 tokens": block["prompt"].astype(np.int64) + block["output"] > 10**9,
            "has a patience below 0 s": ~(block["patience"] >= 0.0),
        }
        for fault, wrong in faults.items():
            if wrong.any():
                raise FluidgateError(f"requests: request {seen + int(wrong.argmax())} {fault}")
        seen, last = seen + len(block), float(block["arrival"][-1])
        yield np.ascontiguousarray(block)
