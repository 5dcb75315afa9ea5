"""A linear program alive in the solver: bounds and costs change, and each solution starts from the last basis."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
from numpy.typing import NDArray

from fluidgate.model import Array

TOLERANCE = 1e-10
"""Feasibility tolerance of the solver, primal and dual (relative to the dearest column)."""

TIE = 1e-9
"""A reduced cost below this share of the dearest column's value counts as none."""

_LEVEL = 1e-9
"""Shares that differ by less are level."""

Entries = tuple[NDArray[np.intp] | int, NDArray[np.intp] | int, Array | float]
"""Rows, columns and values of some entries of the matrix, broadcast against each other."""


@dataclass(frozen=True)
class Vertex:
    """An optimal basic solution.

    Attributes:
        columns: values, shape (columns,).
        column_prices: d objective / d binding bound, shape (columns,).
        row_prices: d objective / d right-hand side, shape (rows,).
        objective: value of the objective.
        scale: value of the dearest column in the objective.
        worth: the same of a column in the solver's unit.
    """

    columns: Array
    column_prices: Array
    row_prices: Array
    objective: float
    scale: float
    worth: float


def flattened(entries: list[Entries]) -> tuple[NDArray[np.intp], NDArray[np.intp], Array]:
    """Rows, columns and values of all entries, shape (entries,) each."""
    blocks = [np.broadcast_arrays(*entry) for entry in entries]
    row, column, value = (np.concatenate([np.ravel(block[k]) for block in blocks]) for k in range(3))
    return row, column, value


class _SilentHighs(highspy.Highs):
    """The solver without its banner, which the constructor prints as it enables callbacks."""

    def enableCallbacks(self) -> None:
        self.setOptionValue("output_flag", False)
        super().enableCallbacks()  # type: ignore[no-untyped-call]


class LinearProgram(ABC):
    """A program of which a subclass passes the matrix and says the bounds.

    `restore` puts its own bounds back, after any `bound`, `relax` and `restrict_to_optimal_face`. All values are in the
    program's own units; the solver has its columns in `column_unit` and its rows in `row_unit`, so that what it takes
    for zero is small for each of them.
    """

    def __init__(self) -> None:
        self._highs: Any = _SilentHighs()  # type: ignore[no-untyped-call]
        for option, value in (
            ("output_flag", False),
            ("parallel", "off"),
            ("primal_feasibility_tolerance", TOLERANCE),
            ("dual_feasibility_tolerance", TOLERANCE),
        ):
            self._highs.setOptionValue(option, value)
        self._columns: Array = np.empty(0)
        self.column_unit: Array = np.empty(0)
        self.row_unit: Array = np.empty(0)

    @property
    @abstractmethod
    def column_count(self) -> int: ...

    @property
    @abstractmethod
    def row_count(self) -> int: ...

    @abstractmethod
    def column_bounds(self) -> tuple[Array, Array]:
        """The program's own, shape (columns,) each."""

    @abstractmethod
    def row_bounds(self) -> tuple[Array, Array]:
        """The program's own, shape (rows,) each."""

    def value_of(self, cost: Array) -> float:
        """Value of the dearest column, by which costs are divided in the solver."""
        return float(np.abs(cost).max() or 1.0)

    def maximise(self, cost: Array) -> Vertex | None:
        """The best vertex for `cost` (shape (columns,)) under the present bounds; None if there is none.

        Raises:
            ArithmeticError: the solver fails.
        """
        in_units = cost * self.column_unit
        worth = self.value_of(in_units)
        everywhere = np.arange(self.column_count, dtype=np.int32)
        self._highs.changeColsCost(self.column_count, everywhere, in_units / worth)
        status = self._solved_status()
        if status in (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible):
            self._columns = np.empty(0)
            return None
        solution = self._highs.getSolution()
        columns = self._columns = np.array(solution.col_value) * self.column_unit
        return Vertex(
            columns=columns,
            column_prices=np.array(solution.col_dual) * worth / self.column_unit,
            row_prices=np.array(solution.row_dual) * worth / self.row_unit,
            objective=float(cost @ columns),
            scale=self.value_of(cost),
            worth=worth,
        )

    def level(self, members: NDArray[np.intp], shares: Array) -> Array:
        """Restrict the program to the solutions whose shares are the most level: the least is raised first, then the
        least of the others, and so on (lexicographic max-min).

        Args:
            members: columns whose shares are levelled, shape (m,).
            shares: what a unit of each is of its class's load, shape (m,).

        Returns:
            The shares, shape (m,).
        """
        found, left = np.zeros(len(members)), np.arange(len(members))
        while left.size:
            least, binding = self._raise_least(members[left], shares[left])
            settled = left[binding]
            found[settled] = least
            self._column_lower[members[settled]] = self._column_upper[members[settled]] = least / shares[settled]
            left = np.setdiff1d(left, settled)
            self._push_bounds()
        return found

    def _raise_least(self, members: NDArray[np.intp], shares: Array) -> tuple[float, NDArray[np.bool_]]:
        """The largest least share, and of which members it is."""
        rows, column = self.row_count, self.column_count
        everywhere = np.arange(column, dtype=np.int32)
        self._highs.changeColsCost(column, everywhere, np.zeros(column))
        self._highs.addCol(1.0, -np.inf, np.inf, 0, np.empty(0, np.int32), np.empty(0))
        for member, share in zip(members, shares, strict=True):
            values = np.array([share * self.column_unit[member], -1.0])
            self._highs.addRow(0.0, np.inf, 2, np.array([member, column], np.int32), values)
        try:
            if self._solved_status() != highspy.HighsModelStatus.kOptimal:
                raise ArithmeticError("the optimal face of the fluid program came out empty")
            solution = self._highs.getSolution()
            least = float(solution.col_value[column])
            price = np.abs(np.array(solution.row_dual)[rows:])
        finally:
            self._highs.deleteRows(len(members), np.arange(rows, rows + len(members), dtype=np.int32))
            self._highs.deleteCols(1, np.array([column], np.int32))
        return least, price > _LEVEL

    def restrict_to_optimal_face(self, vertex: Vertex) -> None:
        """Keep only the solutions as good as `vertex`: complementary slackness turned into bounds."""
        least = TIE * vertex.worth
        for prices, unit, lower, upper in (
            (vertex.column_prices, self.column_unit, self._column_lower, self._column_upper),
            (vertex.row_prices, self.row_unit, self._row_lower, self._row_upper),
        ):
            at_upper = (prices * unit > least) & np.isfinite(upper)
            at_lower = (prices * unit < -least) & np.isfinite(lower)
            lower[at_upper] = upper[at_upper]
            upper[at_lower] = lower[at_lower]
        self._push_bounds()

    def on_the_face(self, cost: Array) -> Vertex:
        """The best vertex among those to which the program is restricted.

        Raises:
            ArithmeticError: there is none, though there was before the restriction.
        """
        vertex = self.maximise(cost)
        if vertex is None:
            raise ArithmeticError("the optimal face of the fluid program came out empty")
        return vertex

    def is_free(self, columns: slice) -> NDArray[np.bool_]:
        """Which of some columns the present bounds leave open."""
        lower, upper = self._column_lower[columns], self._column_upper[columns]
        return np.asarray(upper - lower > TIE * np.maximum(self.column_unit[columns], np.abs(lower)))

    def bound(self, columns: int | slice, lower: Array | float, upper: Array | float) -> None:
        """Bounds of some columns, until `restore`."""
        self._column_lower[columns] = lower
        self._column_upper[columns] = upper
        self._push_bounds()

    def relax(self, row: int) -> None:
        """Drop a row, until `restore`."""
        self._row_lower[row], self._row_upper[row] = -np.inf, np.inf
        self._push_bounds()

    def restore(self) -> None:
        """Take back every restriction, `bound` and `relax`."""
        self._column_lower, self._column_upper = self.column_bounds()
        self._row_lower, self._row_upper = self.row_bounds()
        self._push_bounds()

    def _solved_status(self) -> Any:
        """Run the solver, from scratch if it gets lost.

        Raises:
            ArithmeticError: it stops with neither an optimum nor a proof that there is none.
        """
        known = (
            highspy.HighsModelStatus.kOptimal,
            highspy.HighsModelStatus.kInfeasible,
            highspy.HighsModelStatus.kUnboundedOrInfeasible,
        )
        status = self._run()
        if status != highspy.HighsModelStatus.kOptimal:
            self._highs.clearSolver()
            status = self._run()
        if status not in known:
            raise ArithmeticError(f"the solver stopped with '{self._highs.modelStatusToString(status)}'")
        return status

    def _run(self) -> Any:
        self._highs.run()
        return self._highs.getModelStatus()

    def _push_bounds(self) -> None:
        columns = np.arange(self.column_count, dtype=np.int32)
        rows = np.arange(self.row_count, dtype=np.int32)
        unit, row_unit = self.column_unit, self.row_unit
        self._highs.changeColsBounds(len(columns), columns, self._column_lower / unit, self._column_upper / unit)
        self._highs.changeRowsBounds(len(rows), rows, self._row_lower / row_unit, self._row_upper / row_unit)

    def _pass_matrix(self, entries: list[Entries]) -> None:
        row, column, value = flattened(entries)
        value = value * self.column_unit[column] / self.row_unit[row]
        (column_lower, column_upper), (row_lower, row_upper) = self.column_bounds(), self.row_bounds()
        order = np.argsort(column, kind="stable")
        start = np.searchsorted(column[order], np.arange(self.column_count))
        self._highs.passModel(
            self.column_count,
            self.row_count,
            len(value),
            int(highspy.MatrixFormat.kColwise),
            int(highspy.ObjSense.kMaximize),
            0.0,
            np.zeros(self.column_count),
            column_lower / self.column_unit,
            column_upper / self.column_unit,
            row_lower / self.row_unit,
            row_upper / self.row_unit,
            start.astype(np.int32),
            row[order].astype(np.int32),
            value[order].astype(float),
            np.zeros(self.column_count, dtype=np.int32),
        )
