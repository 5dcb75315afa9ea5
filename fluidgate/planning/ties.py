"""The choice among optimal plans."""

from __future__ import annotations

import numpy as np

from fluidgate.model import Array
from fluidgate.planning.linear_program import Vertex
from fluidgate.planning.program import FluidProgram
from fluidgate.planning.projection import nearest_within_gap

_NOISE = 1e-12


def settle_ties(program: FluidProgram, optimum: Vertex, fraction: float | None) -> Array:
    """The optimum that model.md, section 3, settles on: least `sum q_d`, most `sum y_s`, one proportion.

    Between the last two, classes that are worth the same share what is left, in proportion to their arrivals, and
    then the most completions: see `_most_completions`.

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
        optimum = program.on_the_face(np.zeros(program.layout.columns))
    _least_decode_queue(program, optimum)
    _most_solo(program)
    _share_what_is_left(program)
    columns = _most_completions(program)
    _share_solo(program, columns)
    return columns


def _least_decode_queue(program: FluidProgram, vertex: Vertex) -> None:
    """Step 2: restrict the program to the least `sum q_d`."""
    layout, rates = program.layout, program.instance.rates
    if np.any(vertex.columns[layout.lost] > _NOISE * program.instance.load):
        cost = np.zeros(layout.columns)
        waits = rates.patience > 0
        cost[layout.lost][waits] = -rates.mixed_decode[waits] / rates.patience[waits]
        vertex = program.on_the_face(cost)
    if np.any(vertex.columns[layout.lost] > _NOISE * program.instance.load):
        program.restrict_to_optimal_face(vertex)
    else:
        program.bound(layout.lost, 0.0, 0.0)


def _most_solo(program: FluidProgram) -> None:
    """Step 3: restrict the program to the most `sum y_s`."""
    cost = np.zeros(program.layout.columns)
    cost[program.layout.solo] = 1.0
    program.restrict_to_optimal_face(program.on_the_face(cost))


def _share_what_is_left(program: FluidProgram) -> None:
    """Restrict the program to shares as level as they can be, served and then lost, among the classes left open."""
    for block in (program.layout.fed, program.layout.lost):
        left_open = np.flatnonzero(program.is_free(block) & ~program.instance.waits_for_ever)
        if len(left_open) > 1:
            program.level(left_open + block.start, 1.0 / program.instance.load[left_open])


def _most_completions(program: FluidProgram) -> Array:
    """The columns with the most requests/s completed.

    Ours, for what the steps leave open: where prefill and decode slots are both scarce, the revenue depends
    on their totals only, and many `x` earn the same. No plan may depend on the program solved before it.
    """
    cost, layout = np.zeros(program.layout.columns), program.layout
    cost[layout.fed] = program.instance.rates.mixed_decode
    cost[layout.lost] = -cost[layout.fed]
    return program.on_the_face(cost).columns.copy()


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
