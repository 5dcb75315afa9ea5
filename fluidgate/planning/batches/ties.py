"""The choice among optimal flows."""

from __future__ import annotations

import numpy as np

from fluidgate.planning.batches.program import BatchProgram
from fluidgate.planning.batches.running import Flows
from fluidgate.planning.linear_program import Vertex

_NOISE = 1e-12


def settle_ties(program: BatchProgram, optimum: Vertex, *, alike: bool = True) -> Flows:
    """The flows that plans settle on: least `sum q_d`, classes that are worth the same alike, most decodes in solo
    iterations, each class split mixed : solo in one proportion where the memory holds it.

    Leaves the program restricted.

    Args:
        alike: whether classes that are worth the same are taken alike, which takes the longest.
    """
    program.restrict_to_optimal_face(optimum)
    _least_decode_queue(program, optimum)
    if alike:
        _share_what_is_left(program)
    cost = np.zeros(program.column_count)
    cost[program.solo] = 1.0
    return _in_one_proportion(program, program.on_the_face(cost))


def flows_of(program: BatchProgram, vertex: Vertex) -> Flows:
    """The flows of a vertex, without the solver's dust."""
    columns, instance = vertex.columns, program.instance
    fed, lost = columns[program.fed], columns[program.lost]
    fed = np.where(fed > _NOISE * instance.arrival, fed, 0.0)
    fed = np.where(fed > (1.0 - _NOISE) * instance.arrival, instance.arrival, fed)
    lost = np.where(lost > _NOISE * instance.arrival, np.minimum(lost, fed), 0.0)
    tokens = instance.decodes * (fed - lost)
    solo = np.clip(columns[program.solo], 0.0, tokens)
    solo = np.where(tokens - solo > _NOISE * tokens, solo, tokens)
    return Flows(fed, lost, tokens - solo, solo)


def _least_decode_queue(program: BatchProgram, vertex: Vertex) -> None:
    instance = program.instance
    if np.any(vertex.columns[program.lost] > _NOISE * instance.arrival):
        cost = np.zeros(program.column_count)
        waits = ~instance.waits_for_ever
        cost[program.lost][waits] = -1.0 / instance.patience[waits]
        vertex = program.on_the_face(cost)
        if np.any(vertex.columns[program.lost] > _NOISE * instance.arrival):
            program.restrict_to_optimal_face(vertex)
            return
    program.bound(program.lost, 0.0, 0.0)


def _share_what_is_left(program: BatchProgram) -> None:
    """Shares as level as they can be, served and then lost, among the classes left open."""
    for block in (program.fed, program.lost):
        left_open = np.flatnonzero(program.is_free(block) & ~program.instance.waits_for_ever)
        if len(left_open) > 1:
            program.level(left_open + block.start, 1.0 / program.instance.arrival[left_open])


def _in_one_proportion(program: BatchProgram, vertex: Vertex) -> Flows:
    flows = flows_of(program, vertex)
    tokens = flows.mixed + flows.solo
    if tokens.sum() <= 0.0 or program.limits is not None:
        return flows
    share = float(flows.solo.sum() / tokens.sum())
    alike = Flows(flows.fed, flows.lost, tokens * (1.0 - share), tokens * share)
    columns = vertex.columns.copy()
    columns[program.mixed], columns[program.solo] = alike.mixed, alike.solo
    try:
        program.check(columns)
    except ArithmeticError:
        return flows
    return alike
