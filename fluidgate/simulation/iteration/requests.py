"""The stream of requests that a simulation reads: blocks in order of arrival."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from fluidgate.errors import FluidgateError
from fluidgate.workloads.streams import Requests


def checked(blocks: Iterable[Requests], classes: int) -> Iterator[Requests]:
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
            "has a think time below 0 s or without end": ~((block["think"] >= 0.0) & np.isfinite(block["think"])),
        }
        for fault, wrong in faults.items():
            if wrong.any():
                raise FluidgateError(f"requests: request {seen + int(wrong.argmax())} {fault}")
        seen, last = seen + len(block), float(block["arrival"][-1])
        yield np.ascontiguousarray(block)
