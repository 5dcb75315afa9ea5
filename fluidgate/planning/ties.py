"""The choice among optimal plans."""

from __future__ import annotations

import numpy as np

from fluidgate.model import Array
from fluidgate.planning.program import FluidProgram, Vertex
from fluidgate.planning.projection import nearest_within_gap

_NOISE = 1e-12


def settle_ties(program: FluidProgram, optimum: Vertex, fraction: float | None) -> Array:
    """The optimum that model.md, section 3, settles on: least `sum q_d`, most `sum y_s`, one proportion.

    Before the last step, the most completions: see `_most_completions`.

    Leaves the program restricted.

    Args:
        program: the program that `optimum` solves.
        optimum: step 1.
        fraction: `sum x` where the TPOT penalty fixes it.

    Returns:
        The columns of the program, shape (columns,).
    """
    program.restrict_to_optimal_face(optimum)
    if fraction is not None:
        program.bound(program.layout.fraction, fraction, fraction)
        optimum = _on_the_face(program, np.zeros(program.layout.columns))
    _least_decode_queue(program, optimum)
    _most_solo(program)
    columns = _most_completions(program)
    _share_solo(program, columns)
    return columns


def _on_the_face(program: FluidProgram, cost: Array) -> Vertex:
    vertex = program.maximise(cost)
    if vertex is None:
        raise ArithmeticError("the optimal face of the fluid program came out empty")
    return vertex


def _least_decode_queue(program: FluidProgram, vertex: Vertex) -> None:
    """Step 2: restrict the program to the least `sum q_d`."""
    layout, rates = program.layout, program.instance.rates
    if np.any(vertex.columns[layout.lost] > _NOISE * program.instance.load):
        cost = np.zeros(layout.columns)
        waits = rates.patience > 0
        cost[layout.lost][waits] = -rates.mixed_decode[waits] / rates.patience[waits]
        vertex = _on_the_face(program, cost)
    if np.any(vertex.columns[layout.lost] > _NOISE * program.instance.load):
        program.restrict_to_optimal_face(vertex)
    else:
        program.bound(layout.lost, 0.0, 0.0)


def _most_solo(program: FluidProgram) -> None:
    """Step 3: restrict the program to the most `sum y_s`."""
    cost = np.zeros(program.layout.columns)
    cost[program.layout.solo] = 1.0
    program.restrict_to_optimal_face(_on_the_face(program, cost))


def _most_completions(program: FluidProgram) -> Array:
    """The columns with the most requests/s completed.

    Ours, for what the steps leave open: where prefill and decode slots are both scarce, the revenue depends
    on their totals only, and many `x` earn the same. No plan may depend on the program solved before it.
    """
    cost, layout = np.zeros(program.layout.columns), program.layout
    cost[layout.fed] = program.instance.rates.mixed_decode
    cost[layout.lost] = -cost[layout.fed]
    return _on_the_face(program, cost).columns.copy()


def _share_solo(program: FluidProgram, columns: Array) -> None:
    """Step 4: split each class mixed : solo in one proportion, or as near to it as the solo gap allows."""
    layout, indicators = program.layout, program.instance.indicators
    decodes, solo = columns[layout.mixed] + columns[layout.solo], columns[layout.solo]
    if decodes.sum() <= 0:
        return
    proportional = decodes * min(1.0, solo.sum() / decodes.sum())
    gap = np.inf
    if indicators.max_solo_gap is not None:
        gap = indicators.max_solo_gap * program.instance.kappa
    if indicators.solo_gap_weight:
        gap = min(gap, float(np.ptp(solo)))
    columns[layout.solo] = nearest_within_gap(proportional, decodes, gap)
    columns[layout.mixed] = decodes - columns[layout.solo]
