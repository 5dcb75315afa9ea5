"""The stream of requests that a simulation reads: blocks in order of arrival."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.lib.recfunctions import structured_to_unstructured

from fluidgate.errors import FluidgateError
from fluidgate.workloads.streams import NO_SCRIPT, NOTHING, Requests, Script

REFERENCES = ["text", "answer", "then", "spawns", "beside"]


def checked(
    blocks: Iterable[Requests], classes: int, script: Script = NO_SCRIPT, *, in_order: bool = True
) -> Iterator[Requests]:
    """The same blocks, each looked over before it is used.

    Args:
        script: what the requests refer to.
        in_order: whether they come by themselves, one after the other.

    Raises:
        FluidgateError: a request is out of order, belongs to no class, or has a length or patience it can't have.
    """
    seen, last = 0, 0.0
    for block in blocks:
        if len(block) == 0:
            continue
        faults = {
            "arrives before the one ahead of it or before 0 s; sort the requests by arrival": ~(
                (np.diff(block["arrival"], prepend=last) if in_order else block["arrival"]) >= 0.0
            ),
            "never arrives": ~np.isfinite(block["arrival"]),
            f"is of none of the {classes} classes": (block["cls"] < 0) | (block["cls"] >= classes),
            "has no prompt; give it at least 1 token": block["prompt"] < 1,
            "has no output; give it at least 1 token": block["output"] < 1,
            "has more than 1,000,000,000 tokens": block["prompt"].astype(np.int64) + block["output"] > 10**9,
            "has a patience below 0 s": ~(block["patience"] >= 0.0),
            "has a think time below 0 s or without end": ~((block["think"] >= 0.0) & np.isfinite(block["think"])),
            **wrong_references(block, script),
        }
        for fault, wrong in faults.items():
            if wrong.any():
                raise FluidgateError(f"requests: request {seen + int(wrong.argmax())} {fault}")
        seen, last = seen + len(block), float(block["arrival"][-1])
        yield np.ascontiguousarray(block)


def wrong_references(block: Requests, script: Script) -> dict[str, Any]:
    """Requests that refer to something that is not there, or is something else, by what is wrong of them."""

    def none_of(name: str, count: int) -> Any:
        return (block[name] < 0) | (block[name] >= count)

    if not structured_to_unstructured(block[REFERENCES]).any():
        return {}
    pieces, rows = len(script.pieces), len(script.rows)
    faults = {
        f"has {'an' if name == 'answer' else 'a'} {name} that is no piece of the script": none_of(name, pieces)
        for name in ("text", "answer")
    }
    faults |= {
        f"refers to a row of the script that is not there ({name})": none_of(name, rows)
        for name in ("then", "spawns", "beside")
    }
    if any(wrong.any() for wrong in faults.values()):
        return faults
    ends, parent = script.pieces["end"], script.pieces["parent"]
    text, answer = block["text"], block["answer"]
    return {
        "has a prompt of another length than its text": (text != NOTHING) & (ends[text] != block["prompt"]),
        "has an answer that does not go on from its text": (answer != NOTHING)
        & ((text == NOTHING) | (parent[answer] != text) | (ends[answer] != block["prompt"] + block["output"])),
    }


def checked_script(script: Script, classes: int) -> Script:
    """The same script, looked over before it is used.

    Raises:
        FluidgateError: a piece of text or a row is none that there can be.
    """
    pieces, rows = script.pieces, script.rows
    if len(pieces) < 1 or len(rows) < 1:
        raise FluidgateError("script: the first piece and the first row are there, and are none")
    number = np.arange(len(pieces))
    early = (pieces["parent"] < 0) | (pieces["parent"] > np.maximum(number - 1, 0))
    if early.any():
        raise FluidgateError(f"script: piece {int(early.argmax())} comes after none; name one before it")
    short = pieces["end"] < pieces["end"][pieces["parent"]]
    if short.any() or pieces["end"][0] != 0:
        raise FluidgateError(f"script: piece {int(short.argmax())} ends before it begins")
    for _ in checked([rows[1:]], classes, script, in_order=False):
        pass
    return script
