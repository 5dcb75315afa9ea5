"""The most that any policy earns in a microscopic system, by linear programming over state-action frequencies.

A literal reading of the decision problem, GPUs told apart, nothing shared with the product. What is waiting beyond its
limit is lost: an arrival at a full queue; and one that waits for decode, when a full buffer is joined and none placed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import highspy
import numpy as np
import scipy.sparse as sp

from fluidgate import Scenario

Gpu = tuple[int, tuple[int, ...]]  # class in prefill or -1, decodes


class State(NamedTuple):
    gpus: tuple[Gpu, ...]
    waiting: tuple[int, ...]
    buffered: tuple[int, ...]


def plus(counts: tuple[int, ...], i: int, by: int) -> tuple[int, ...]:
    return tuple(c + by * (k == i) for k, c in enumerate(counts))


class BruteForce:
    def __init__(self, scenario: Scenario, gpus: int, queue_limit: int, buffer_limit: int) -> None:
        self.rates, self.scheme, self.slots = scenario.rates, scenario.pricing.scheme, scenario.gpu.batch_size
        self.gpus, self.queue_limit, self.buffer_limit = gpus, queue_limit, buffer_limit
        self.classes = range(len(scenario.classes))

    def gain(self) -> float:
        """Revenue per GPU and second."""
        none = (0,) * len(self.classes)
        empty = State(((-1, none),) * self.gpus, none, none)
        number, todo = {empty: 0}, [empty]
        columns: list[tuple[int, State]] = []  # a decision: in which state, and what it leaves
        futures: dict[State, tuple[float, float, dict[State, float]]] = {}
        while todo:
            state = todo.pop()
            for after in self.decisions(state):
                columns.append((number[state], after))
                if after in futures:
                    continue
                earned, moves = 0.0, {}
                for rate, reward, end in self.events(after):
                    earned += rate * reward
                    moves[end] = moves.get(end, 0.0) + rate
                    if end not in number:
                        number[end] = len(number)
                        todo.append(end)
                futures[after] = (earned, sum(moves.values()), moves)
        rows, cols, data, value = [], [], [], []
        for k, (here, after) in enumerate(columns):
            earned, out, moves = futures[after]
            value.append(earned)  # a column's unit is the share of the time that its decision holds
            for end, rate in moves.items():
                rows.append(number[end]), cols.append(k), data.append(-rate)
            rows.append(here), cols.append(k), data.append(out)
            rows.append(len(number)), cols.append(k), data.append(1.0)
        matrix = sp.csc_matrix((data, (rows, cols)), shape=(len(number) + 1, len(columns)))
        right = np.zeros(len(number) + 1)
        right[-1] = 1.0
        return maximum(np.array(value), matrix, right) / self.gpus

    def decisions(self, state: State) -> set[State]:
        """All that decisions can make of a state at once."""
        found, todo = set(), [state]
        while todo:
            here = todo.pop()
            if here in found:
                continue
            found.add(here)
            for g, (prefill, decodes) in enumerate(here.gpus):
                if sum(decodes) + (prefill >= 0) == self.slots:
                    continue
                for i in self.classes:
                    if here.buffered[i]:
                        gpus = (*here.gpus[:g], (prefill, plus(decodes, i, 1)), *here.gpus[g + 1 :])
                        todo.append(State(gpus, here.waiting, plus(here.buffered, i, -1)))
                    if here.waiting[i] and prefill < 0:
                        gpus = (*here.gpus[:g], (i, decodes), *here.gpus[g + 1 :])
                        todo.append(State(gpus, plus(here.waiting, i, -1), here.buffered))
            if sum(here.buffered) > self.buffer_limit:
                todo += [here._replace(buffered=plus(here.buffered, i, -1)) for i in self.classes if here.buffered[i]]
        return {s for s in found if sum(s.buffered) <= self.buffer_limit}

    def events(self, state: State) -> Iterator[tuple[float, float, State]]:
        r = self.rates
        for i in self.classes:
            room = state.waiting[i] < self.queue_limit
            yield self.gpus * r.arrival[i], 0.0, state._replace(waiting=plus(state.waiting, i, 1)) if room else state
            if state.waiting[i]:
                yield r.patience[i] * state.waiting[i], 0.0, state._replace(waiting=plus(state.waiting, i, -1))
            if state.buffered[i]:
                yield r.patience[i] * state.buffered[i], 0.0, state._replace(buffered=plus(state.buffered, i, -1))
        separate = self.scheme == "separate"
        for g, (prefill, decodes) in enumerate(state.gpus):
            if prefill >= 0:
                end = State(
                    (*state.gpus[:g], (-1, decodes), *state.gpus[g + 1 :]),
                    state.waiting,
                    plus(state.buffered, prefill, 1),
                )
                yield r.prefill[prefill], r.prompt_value[prefill] * separate, end
            speed = r.mixed_decode if prefill >= 0 else r.solo_decode
            for i in self.classes:
                if decodes[i]:
                    gpus = (*state.gpus[:g], (prefill, plus(decodes, i, -1)), *state.gpus[g + 1 :])
                    value = r.output_value[i] + r.prompt_value[i] * (not separate)
                    yield speed[i] * decodes[i], value, state._replace(gpus=gpus)


def maximum(value: np.ndarray, matrix: sp.csc_matrix, right: np.ndarray) -> float:
    """The maximum of `value x` over `matrix x = right`, `x >= 0`."""
    program = highspy.HighsLp()
    program.num_col_, program.num_row_ = matrix.shape[1], matrix.shape[0]
    program.col_cost_ = -value
    program.col_lower_, program.col_upper_ = np.zeros(len(value)), np.full(len(value), highspy.kHighsInf)
    program.row_lower_ = program.row_upper_ = right
    program.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    program.a_matrix_.start_, program.a_matrix_.index_ = matrix.indptr, matrix.indices
    program.a_matrix_.value_ = matrix.data
    solver = highspy.Highs()
    solver.silent()
    for name in ("primal_feasibility_tolerance", "dual_feasibility_tolerance"):
        solver.setOptionValue(name, 1e-10)
    solver.passModel(program)
    solver.run()
    assert solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return -float(solver.getObjectiveValue())
