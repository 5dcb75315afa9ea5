"""Why the classes that never leave exceed what a GPU can do, and what is short."""

from __future__ import annotations

import math

import numpy as np

from fluidgate.errors import one_line
from fluidgate.model import Array
from fluidgate.planning.batches.need import least_gpus, short_of
from fluidgate.planning.batches.program import BatchProgram
from fluidgate.planning.wording import listed, rounded_up

_ROUNDING = 1e-9

_MENDS = {
    "KV memory": "give more (kv_tokens)",
    "decode slots": "raise batch_size",
    "iterations with a chunk": "raise chunk_size or max_batched_tokens",
}


def explain(program: BatchProgram) -> str:
    """One line: the classes, the multiple of GPUs that they need, and the resource that is short; and a mend.

    Leaves the program's bounds as its instance sets them.
    """
    instance = program.instance
    multiple, short = _gpus_needed(program)
    unserved = _least_unserved(program)
    program.restore()
    largest = np.flatnonzero(unserved > _ROUNDING * instance.arrival)
    largest = largest[np.argsort(-unserved[largest], kind="stable")]
    rates = [f"class '{instance.scenario.classes[i].name}' {unserved[i]:.4g}" for i in largest]
    gpus = instance.scenario.cluster_gpus
    more = f"use {math.ceil(gpus * multiple * (1 - _ROUNDING))} GPUs instead of {gpus}, " if gpus else ""
    mends = "".join(f"{_MENDS[what]}, " for what in short)
    lacking = ", ".join(short) + " and time" if short else "time"
    return one_line(
        f"scenario '{instance.scenario.name}': requests that never leave (patience_rate 0) need "
        f"{rounded_up(multiple, 4)} times the GPUs there are, short of {lacking}: "
        f"at least {unserved.sum():.4g} requests/s per GPU stay unserved ({listed(rates)}); "
        f"{more}{mends}lower the arrival rates, or set a patience_rate above 0"
    )


def is_overloaded(program: BatchProgram) -> bool:
    """Whether the classes that never leave need more GPUs than there are; leaves the program as it was."""
    if not program.instance.waits_for_ever.any():
        return False
    multiple, _ = _gpus_needed(program)
    program.restore()
    return multiple > 1.0 + _ROUNDING


def _gpus_needed(program: BatchProgram) -> tuple[float, tuple[str, ...]]:
    """GPUs, for each GPU there is, that the classes with `theta = 0` need, and what is short besides time."""
    instance = program.instance
    vertex, share = least_gpus(program, instance)
    found = float(vertex.columns[program.capacity]) / share, short_of(program, vertex)
    program.load(instance)
    return found


def _least_unserved(program: BatchProgram) -> Array:
    """Requests/s per GPU of the classes with `theta = 0` when most of them are served, shape (classes,)."""
    program.restore()
    instance = program.instance
    must = instance.waits_for_ever
    program.bound(program.fed, 0.0, np.where(must, instance.arrival, 0.0))
    cost = np.zeros(program.column_count)
    cost[program.fed] = 1.0
    vertex = program.maximise(cost)
    assert vertex is not None, "serving nobody is feasible"
    return np.where(must, np.maximum(instance.arrival - vertex.columns[program.fed], 0.0), 0.0)
