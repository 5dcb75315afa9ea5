"""The program in token rates over GPUs of several types: which class is served where, and by how many engines.

Each type has the rows and columns of its own program, and of its capacity a column in engines. The classes tie them
together: what is prefilled of a class on all types is what arrives of it, times a growth of the whole load. A request
is read and answered on GPUs of one type.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import highspy
import numpy as np
from numpy.typing import NDArray

from fluidgate.model import Array
from fluidgate.planning.batches.instance import BatchInstance
from fluidgate.planning.batches.program import BatchProgram
from fluidgate.planning.linear_program import Entries, LinearProgram, Vertex

_GAP = 1e-6
"""Relative excess over the least cost at which the solver ends its search for whole numbers."""

_WHOLE = 1e-6
"""Of an engine, that is the solver's."""

_MOST = 10_000.0
"""Engines of a type, where no other limit is given."""


def losses(engines: Sequence[int], spare: int) -> list[tuple[int, ...]]:
    """Each way to lose so many of some engines of each type, or all there are."""
    lost = min(spare, sum(engines))
    ways = product(*(range(min(lost, count) + 1) for count in engines))
    return [each for each in ways if sum(each) == lost]


@dataclass(frozen=True, eq=False)
class GpuType:
    """GPUs of one type, set in one way.

    Attributes:
        instance: the whole load, as it is there.
        price: of an engine.
        ranks: GPUs of the program in an engine.
        serves: classes that may go there, shape (classes,).
        most: engines that there are; inf for no limit.
        gpus: of an engine, as they are counted against all that there are.
        use: share of an engine's time and memory that is planned with; the rest is room for queues.
    """

    instance: BatchInstance
    price: float
    ranks: int
    serves: NDArray[np.bool_]
    most: float = math.inf
    gpus: int = 1
    use: float = 1.0


@dataclass(frozen=True, eq=False)
class Mixture:
    """Engines of each type, and which class goes where.

    Attributes:
        engines: shape (types,).
        cost: of all, in the unit of the types' prices.
        flows: requests/s, shape (classes, types).
        growth: of the load that is carried.
    """

    engines: Array
    cost: float
    flows: Array
    growth: float

    @property
    def shares(self) -> Array:
        """Of each class by type, shape (classes, types)."""
        return np.asarray(self.flows / self.flows.sum(axis=1, keepdims=True))


class MixedProgram(LinearProgram):
    """Several types at once, in a live solver: as it stands, the load is carried as it is, by as many engines as it
    takes, in fractions.

    With `spare` engines that may be gone, the load is carried by what is left in each way to lose so many, each with
    flows of its own; a type of which there are fewer than are lost at once is then left out.
    """

    def __init__(self, types: Sequence[GpuType], most_gpus: float = math.inf, spare: int = 0) -> None:
        super().__init__()
        self.types, self._most_gpus = tuple(types), most_gpus
        self.losses = losses([spare] * len(types), spare)
        self.programs = tuple(BatchProgram() for _ in types)
        for program, each in zip(self.programs, types, strict=True):
            program.load(each.instance)
        self.arrival = types[0].instance.arrival
        self._columns_from = np.cumsum([0, *(program.column_count for program in self.programs)])
        self._rows_from = np.cumsum([0, *(program.row_count for program in self.programs)])
        self._load()

    # Columns: for each loss those of each type, then engines, whether there are any, and growth.

    def columns(self, kind: int, own: slice, loss: int = 0) -> slice:
        """Those of a type, by their place in its own program."""
        start = loss * int(self._columns_from[-1]) + int(self._columns_from[kind])
        return slice(start + own.start, start + own.stop)

    def fed(self, kind: int, loss: int = 0) -> slice:
        """Requests/s of each class that a type reads."""
        return self.columns(kind, self.programs[kind].fed, loss)

    @property
    def engines(self) -> NDArray[np.intp]:
        """Columns of the engines, one a type."""
        start = len(self.losses) * int(self._columns_from[-1])
        return np.arange(start, start + len(self.types), dtype=np.intp)

    @property
    def there(self) -> NDArray[np.intp]:
        """Columns of whether there are engines of a type, 0 or 1."""
        return self.engines + len(self.types)

    @property
    def growth(self) -> int:
        """Column of the load that is carried over the load that arrives, fixed at 1."""
        return int(self.there[-1]) + 1

    @property
    def column_count(self) -> int:
        return self.growth + 1

    # Rows: for each loss those of each type, its classes, its engines left; then of engines there, and of all GPUs.

    @property
    def _rows_of_loss(self) -> int:
        return int(self._rows_from[-1]) + len(self.arrival) + len(self.types)

    def rows(self, kind: int, loss: int = 0) -> slice:
        """Those of a type."""
        start = loss * self._rows_of_loss + int(self._rows_from[kind])
        return slice(start, start + self.programs[kind].row_count)

    @property
    def arriving(self) -> slice:
        """Rows by which each class is served, one a class; of the first loss."""
        start = int(self._rows_from[-1])
        return slice(start, start + len(self.arrival))

    @property
    def row_count(self) -> int:
        return len(self.losses) * self._rows_of_loss + len(self.types) + 1

    def column_bounds(self) -> tuple[Array, Array]:
        lower, upper = np.zeros(self.column_count), np.full(self.column_count, np.inf)
        for loss in range(len(self.losses)):
            for kind, (each, program) in enumerate(zip(self.types, self.programs, strict=True)):
                whole, fed = self.columns(kind, slice(0, program.column_count), loss), self.fed(kind, loss)
                lower[whole], upper[whole] = program.column_bounds()
                lower[fed], upper[fed] = 0.0, np.where(each.serves, np.inf, 0.0)
                left = whole.start + program.capacity
                lower[left], upper[left] = 0.0, np.inf
        upper[self.engines], upper[self.there] = [each.most for each in self.types], 1.0
        lower[self.growth] = upper[self.growth] = 1.0
        return lower, upper

    def row_bounds(self) -> tuple[Array, Array]:
        lower, upper = np.full(self.row_count, -np.inf), np.zeros(self.row_count)
        for loss in range(len(self.losses)):
            for kind, program in enumerate(self.programs):
                lower[self.rows(kind, loss)], upper[self.rows(kind, loss)] = program.row_bounds()
            served = self.arriving.start + loss * self._rows_of_loss
            lower[served : served + len(self.arrival)] = 0.0
        upper[-1] = self._most_gpus
        return lower, upper

    def _load(self) -> None:
        entries: list[Entries] = []
        self.column_unit, self.row_unit = np.ones(self.column_count), np.ones(self.row_count)
        for loss, lost in enumerate(self.losses):
            for kind in range(len(self.types)):
                entries += self._of_type(kind, loss, lost[kind])
            served = self.arriving.start + loss * self._rows_of_loss + np.arange(len(self.arrival))
            entries.append((served, self.growth, -self.arrival))
            self.row_unit[served] = self.arrival
        kinds = np.arange(len(self.types))
        there = self.row_count - 1 - len(self.types) + kinds
        entries += [
            (there, self.engines, 1.0),
            (there, self.there, -np.array([min(each.most, _MOST) for each in self.types])),
            (self.row_count - 1, self.engines, np.array([float(each.gpus) for each in self.types])),
        ]
        self._pass_matrix(entries)
        self.restore()

    def _of_type(self, kind: int, loss: int, lost: int) -> list[Entries]:
        """Its own rows, what it serves, and its engines that are left."""
        each, program = self.types[kind], self.programs[kind]
        rows, columns = self.rows(kind, loss), self.columns(kind, slice(0, program.column_count), loss)
        matrix = program.matrix.copy()
        matrix[:, program.capacity] *= each.ranks * each.use
        row, column = np.nonzero(matrix)
        self.column_unit[columns] = program.column_unit
        self.row_unit[rows] = np.maximum(program.row_unit, np.abs(matrix[:, program.capacity]))
        classes = np.arange(len(self.arrival))
        served = self.arriving.start + loss * self._rows_of_loss
        left = served + len(classes) + kind
        return [
            (rows.start + row, columns.start + column, matrix[row, column]),
            (served + classes, self.fed(kind, loss).start + classes, 1.0),
            (left, columns.start + program.capacity, 1.0),
            (left, int(self.engines[kind]), -1.0),
            (left, int(self.there[kind]), float(lost)),
        ]

    # What is asked of it.

    @property
    def _prices(self) -> Array:
        cost = np.zeros(self.column_count)
        cost[self.engines] = [-each.price for each in self.types]
        return cost

    def in_fractions(self) -> Vertex | None:
        """The least cost of engines in fractions, with its prices; None if there are too few."""
        return self.maximise(self._prices)

    def in_whole_engines(self) -> Mixture | None:
        """The least cost of whole engines, and the flows of the first loss; None if there are too few.

        Raises:
            ArithmeticError: the solver fails.
        """
        kind = highspy.HighsVarType
        self._highs.setOptionValue("mip_rel_gap", _GAP)
        whole = np.concatenate([self.engines, self.there]).astype(np.int32)
        self._highs.changeColsIntegrality(len(whole), whole, [kind.kInteger] * len(whole))
        try:
            vertex = self.maximise(self._prices)
        finally:
            self._highs.changeColsIntegrality(len(whole), whole, [kind.kContinuous] * len(whole))
        return None if vertex is None else self._mixture(vertex, np.round(vertex.columns[self.engines]))

    def at_most(self, engines: Sequence[int]) -> Mixture | None:
        """The greatest growth of the load that these engines carry, and which class goes where; None if they carry
        none."""
        self.bound(self.growth, 0.0, np.inf)
        for column, count in zip(self.engines, engines, strict=True):
            self.bound(int(column), float(count), float(count))
        cost = np.zeros(self.column_count)
        cost[self.growth] = 1.0
        vertex = self.maximise(cost)
        self.restore()
        if vertex is None or vertex.columns[self.growth] <= _WHOLE:
            return None
        return self._mixture(vertex, np.array(engines, dtype=float))

    def own_vertex(self, kind: int, vertex: Vertex) -> Vertex:
        """The part of a vertex that is a type's own program's."""
        program = self.programs[kind]
        columns = self.columns(kind, slice(0, program.column_count))
        return replace(
            vertex,
            columns=vertex.columns[columns],
            column_prices=vertex.column_prices[columns],
            row_prices=vertex.row_prices[self.rows(kind)],
        )

    def _mixture(self, vertex: Vertex, engines: Array) -> Mixture:
        flows = np.stack([vertex.columns[self.fed(kind)] for kind in range(len(self.types))], axis=1)
        prices = np.array([each.price for each in self.types])
        return Mixture(engines, float(engines @ prices), np.maximum(flows, 0.0), float(vertex.columns[self.growth]))
