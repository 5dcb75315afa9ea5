"""The fewest GPUs that serve a load, by the program in token rates: a bound, and what requests cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from fluidgate.batching import Batching
from fluidgate.model import TOKENS, Array, Indicators, Scenario
from fluidgate.planning.batches.instance import BatchInstance
from fluidgate.planning.batches.prices import Prices
from fluidgate.planning.batches.program import BatchProgram
from fluidgate.planning.linear_program import Vertex

_ROUNDING = 1e-6
"""Relative excess of GPUs that is the solver's."""

SHORT = {
    "memory_mixed": "KV memory",
    "memory_solo": "KV memory",
    "mixed_slots": "decode slots",
    "solo_slots": "decode slots",
    "prompts_fit": "decode slots",
    "chunks": "iterations with a chunk",
}
"""What a row with a price says is short, besides time."""


@dataclass(frozen=True, eq=False)
class Need:
    """The fewest GPUs for a load, as a fraction.

    Attributes:
        gpus: for each GPU of the scenario's load.
        short: what besides time decides it.
        prefill: GPU seconds that one request more takes to be read, at the margin, shape (classes,).
        decode: the same of its answer.
    """

    gpus: float
    short: tuple[str, ...]
    prefill: Array
    decode: Array

    def engines(self, load: int) -> int:
        """The whole number for the load of `load` GPUs."""
        return max(1, math.ceil(self.gpus * load * (1.0 - _ROUNDING)))


def need(scenario: Scenario, batching: Batching, served: Array | float = 1.0) -> Need:
    """The fewest GPUs that can serve a share of each class, whatever the policy, at loads in the long run.

    Args:
        scenario: its load per GPU.
        batching: how batches are formed.
        served: share of the requests, shape (classes,) or one for all.

    Raises:
        FluidgateError: a trace of empirical lengths is wrong.
    """
    program = BatchProgram()
    vertex, share = least_gpus(program, wanted_of(scenario, batching, served))
    prices = Prices.of(program, vertex)
    gpus = float(vertex.columns[program.capacity]) / share
    return Need(gpus, short_of(program, vertex), prices.prefill, prices.decode)


def wanted_of(scenario: Scenario, batching: Batching, served: Array | float = 1.0) -> BatchInstance:
    """What a share of each class asks of GPUs where nobody leaves, per GPU of the scenario's load.

    Raises:
        FluidgateError: a trace of empirical lengths is wrong.
    """
    classes = tuple(c.model_copy(update={"patience_rate": 0.0}) for c in scenario.classes)
    patient = scenario.replace(classes=classes, pricing=TOKENS)
    instance = BatchInstance.of(patient, "bundled", Indicators(), batching, False)
    return replace(instance, chunks_end=True, arrival=instance.arrival * np.asarray(served))


def least_gpus(program: BatchProgram, instance: BatchInstance) -> tuple[Vertex, float]:
    """The fewest GPUs, for each there is, that serve the classes with `theta = 0`, the others as it pays.

    Found for a share of the load, returned beside, so small that one GPU about serves it: the solver's zero is one for
    all. The program is left with that share loaded.
    """
    share = 1.0 / max(float(program_seconds(program, instance) @ instance.arrival), 1.0)
    program.load(replace(instance, arrival=instance.arrival * share))
    program.bound(program.capacity, 0.0, np.inf)
    cost = np.zeros(program.column_count)
    cost[program.capacity] = -1.0
    vertex = program.maximise(cost)
    assert vertex is not None, "enough GPUs serve any load"
    return vertex, share


def program_seconds(program: BatchProgram, instance: BatchInstance) -> Array:
    """About the seconds of a GPU that a request takes, shape (classes,)."""
    program.load(instance)
    return program.request_seconds()


def short_of(program: BatchProgram, vertex: Vertex) -> tuple[str, ...]:
    """What besides time has a price."""
    priced = program.is_short(vertex)
    found = (what for row, what in SHORT.items() if (place := program.row(row)) is not None and priced[place])
    return tuple(dict.fromkeys(found))
