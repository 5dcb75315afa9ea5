"""The fluid program: one linear program for both schemes, kept alive in the solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
from numpy.typing import NDArray

from fluidgate.model import Array
from fluidgate.planning.instance import Instance
from fluidgate.planning.layout import Gap, Layout

TOLERANCE = 1e-10
"""Feasibility tolerance of the solver, primal (slots) and dual (relative to the dearest slot)."""

TIE = 1e-9
"""A reduced cost below this share of the dearest slot's value counts as none."""

_SAME = 1e-13
"""Relative difference below which lengths are the same: they come out of rates, with their rounding."""

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
        scale: value of the dearest slot in the objective.
    """

    columns: Array
    column_prices: Array
    row_prices: Array
    objective: float
    scale: float


@dataclass(frozen=True)
class GapIndicator:
    """A fairness indicator of the program, (43)-(46).

    Attributes:
        name: "prefill_gap" or "solo_gap".
        place: its columns and rows.
        unit: what the program's gap is multiplied by: C or kappa.
        coefficients: of the values in the program, shape (classes,).
        limit: eta, or None.
        weight: eta', or 0.
    """

    name: str
    place: Gap
    unit: float
    coefficients: Array
    limit: float | None
    weight: float


class _SilentHighs(highspy.Highs):
    """The solver without its banner, which the constructor prints as it enables callbacks."""

    def enableCallbacks(self) -> None:
        self.setOptionValue("output_flag", False)
        super().enableCallbacks()  # type: ignore[no-untyped-call]


class FluidProgram:
    """The program (40) or (42) with its indicators, (49), in a live solver.

    `load` puts an instance in; another with as many classes and the same lengths only changes bounds, costs
    and a few coefficients, and `maximise` starts from the last basis. The load stands in the bounds of `fed`,
    the prices in the costs, the GPU in the columns `fraction` and `capacity`, the lengths in the row of the
    mixed fraction (and of the prefill gap).
    """

    instance: Instance
    layout: Layout

    def __init__(self) -> None:
        self._highs: Any = _SilentHighs()  # type: ignore[no-untyped-call]
        for option, value in (
            ("output_flag", False),
            ("parallel", "off"),
            ("primal_feasibility_tolerance", TOLERANCE),
            ("dual_feasibility_tolerance", TOLERANCE),
        ):
            self._highs.setOptionValue(option, value)
        self._lengths: Array = np.empty(0)
        self._columns: Array = np.empty(0)
        self._coefficients: dict[tuple[int, int], float] = {}

    def load(self, instance: Instance) -> None:
        """Make `instance` the program's; the solver's basis stays where the structure does."""
        indicators = instance.indicators
        layout = Layout(
            instance.classes,
            has_prefill_gap=indicators.max_prefill_gap is not None or indicators.prefill_gap_weight > 0,
            has_solo_gap=indicators.max_solo_gap is not None or indicators.solo_gap_weight > 0,
        )
        fresh = not self._coefficients or layout != self.layout
        basis = None if fresh else self._resting_basis()
        self.instance, self.layout = instance, layout
        if fresh or not np.allclose(self._lengths, instance.prompt_per_output, rtol=_SAME, atol=0.0):
            self._pass_model()
        else:
            self._change_coefficients()
        self.restore()
        if basis is not None:
            self._highs.setBasis(basis)

    @property
    def gaps(self) -> list[GapIndicator]:
        """The fairness indicators that are set."""
        instance, layout, indicators = self.instance, self.layout, self.instance.indicators
        prefill = GapIndicator(
            "prefill_gap",
            layout.prefill_gap,
            unit=instance.chunk,
            coefficients=instance.prompt_per_output,
            limit=indicators.max_prefill_gap,
            weight=indicators.prefill_gap_weight,
        )
        solo = GapIndicator(
            "solo_gap",
            layout.solo_gap,
            unit=instance.kappa,
            coefficients=np.ones(instance.classes),
            limit=indicators.max_solo_gap,
            weight=indicators.solo_gap_weight,
        )
        return [prefill] * layout.has_prefill_gap + [solo] * layout.has_solo_gap

    def objective(self, fraction_cost: float = 0.0) -> Array:
        """Costs of the objective, money/s, less those of the gap penalties (44), (46), shape (columns,).

        `fraction_cost` is charged on `sum x` besides, for the tangents of the TPOT penalty.
        """
        instance, layout = self.instance, self.layout
        cost = np.zeros(layout.columns)
        cost[layout.fed] = instance.prefill_value
        cost[layout.mixed] = cost[layout.solo] = instance.decode_value
        cost[layout.fraction] = -fraction_cost
        for gap in self.gaps:
            cost[gap.place.high], cost[gap.place.low] = -gap.weight / gap.unit, gap.weight / gap.unit
        return cost

    def maximise(self, cost: Array) -> Vertex | None:
        """The best vertex for `cost` (shape (columns,)) under the present bounds; None if there is none.

        Raises:
            ArithmeticError: the solver fails.
        """
        per_class = np.abs(cost[: self.layout.fraction]).max()
        scale = float(per_class or np.abs(cost).max() or 1.0)
        everywhere = np.arange(self.layout.columns, dtype=np.int32)
        self._highs.changeColsCost(self.layout.columns, everywhere, cost / scale)
        status = self._run()
        if status != highspy.HighsModelStatus.kOptimal:
            self._highs.clearSolver()
            status = self._run()
        if status in (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible):
            self._columns = np.empty(0)
            return None
        if status != highspy.HighsModelStatus.kOptimal:
            raise ArithmeticError(f"the solver stopped with '{self._highs.modelStatusToString(status)}'")
        solution = self._highs.getSolution()
        columns = self._columns = np.array(solution.col_value)
        return Vertex(
            columns=columns,
            column_prices=np.array(solution.col_dual) * scale,
            row_prices=np.array(solution.row_dual) * scale,
            objective=float(cost @ columns),
            scale=scale,
        )

    def restrict_to_optimal_face(self, vertex: Vertex) -> None:
        """Keep only the solutions as good as `vertex`: complementary slackness turned into bounds."""
        least = TIE * vertex.scale
        for prices, lower, upper in (
            (vertex.column_prices, self._column_lower, self._column_upper),
            (vertex.row_prices, self._row_lower, self._row_upper),
        ):
            at_upper = (prices > least) & np.isfinite(upper)
            at_lower = (prices < -least) & np.isfinite(lower)
            lower[at_upper] = upper[at_upper]
            upper[at_lower] = lower[at_lower]
        self._push_bounds()

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
        """Take back every `restrict_to_optimal_face`, `bound` and `relax`."""
        self._column_lower, self._column_upper = self._column_bounds()
        self._row_lower, self._row_upper = self._row_bounds()
        self._push_bounds()

    def _resting_basis(self) -> Any:
        """The last basis, in which columns rest at their upper bounds even if they were fixed there; or None.

        Of a fixed column the solver says that it rests at its lower bound, far off once it is freed.
        """
        basis = self._highs.getBasis()
        if not basis.valid or not self._columns.size:
            return None
        _, upper = self._column_bounds()
        status = basis.col_status
        for column in np.flatnonzero((self._columns == upper) & (upper > 0)):
            if status[column] != highspy.HighsBasisStatus.kBasic:
                status[column] = highspy.HighsBasisStatus.kUpper
        basis.col_status = status
        return basis

    def _run(self) -> Any:
        self._highs.run()
        return self._highs.getModelStatus()

    def _push_bounds(self) -> None:
        columns = np.arange(self.layout.columns, dtype=np.int32)
        rows = np.arange(self.layout.rows, dtype=np.int32)
        self._highs.changeColsBounds(len(columns), columns, self._column_lower, self._column_upper)
        self._highs.changeRowsBounds(len(rows), rows, self._row_lower, self._row_upper)

    def _column_bounds(self) -> tuple[Array, Array]:
        instance, layout = self.instance, self.layout
        lower, upper = np.zeros(layout.columns), np.full(layout.columns, np.inf)
        lower[layout.fed] = np.where(instance.waits_for_ever, instance.load, 0.0)
        upper[layout.fed] = instance.load
        if not instance.decode_buffer:
            upper[layout.lost] = 0.0
        upper[layout.lost][instance.waits_for_ever] = 0.0
        lower[layout.capacity] = upper[layout.capacity] = 1.0
        return lower, upper

    def _row_bounds(self) -> tuple[Array, Array]:
        layout = self.layout
        lower, upper = np.full(layout.rows, -np.inf), np.zeros(layout.rows)
        lower[layout.decode_balance_row] = 0.0
        lower[layout.mixed_fraction_row] = 0.0
        if self.instance.indicators.max_tpot is None:
            upper[layout.tpot_row] = np.inf
        for gap in self.gaps:
            upper[gap.place.row] = np.inf if gap.limit is None else gap.limit * gap.unit
            for rows in (gap.place.above, gap.place.below):
                lower[rows], upper[rows] = 0.0, np.inf
        return lower, upper

    def _gpu_coefficients(self) -> dict[tuple[int, int], float]:
        """Coefficients (row, column) in which the GPU and the TPOT limit stand: (33)-(35) and (47)."""
        instance, layout, limit = self.instance, self.layout, self.instance.indicators.max_tpot
        batch, kappa = instance.batch, instance.kappa
        solo_steps = limit * instance.scenario.gpu.gamma if limit is not None else 0.0
        return {
            (layout.mixed_fraction_row, layout.fraction): float(instance.chunk),
            (layout.prefill_capacity_row, layout.fraction): 1.0,
            (layout.prefill_capacity_row, layout.capacity): -1.0,
            (layout.mixed_capacity_row, layout.fraction): 1.0 - batch,
            (layout.solo_capacity_row, layout.fraction): kappa * batch,
            (layout.solo_capacity_row, layout.capacity): -kappa * batch,
            (layout.tpot_row, layout.fraction): (kappa * (batch - 1) - batch + solo_steps) / batch,
            (layout.tpot_row, layout.capacity): 1.0 - solo_steps,
        }

    def _change_coefficients(self) -> None:
        coefficients = self._gpu_coefficients()
        for place, value in coefficients.items():
            if value != self._coefficients[place]:
                self._highs.changeCoeff(*place, value)
        self._coefficients = coefficients

    def _pass_model(self) -> None:
        layout, each = self.layout, np.arange(self.layout.classes)
        self._lengths, self._coefficients = self.instance.prompt_per_output, self._gpu_coefficients()
        entries: list[Entries] = [
            (each, each + layout.fed.start, 1.0),
            (each, each + layout.lost.start, -1.0),
            (each, each + layout.mixed.start, -1.0),
            (each, each + layout.solo.start, -1.0),
            (layout.mixed_fraction_row, each + layout.fed.start, -self._lengths),
            (layout.mixed_capacity_row, each + layout.mixed.start, 1.0),
            (layout.solo_capacity_row, each + layout.solo.start, 1.0),
        ]
        entries += [(row, column, value) for (row, column), value in self._coefficients.items()]
        for gap in self.gaps:
            place, values = gap.place, each + gap.place.values.start
            entries += [
                (place.row, place.high, 1.0),
                (place.row, place.low, -1.0),
                (each + place.above.start, place.high, 1.0),
                (each + place.above.start, values, -gap.coefficients),
                (each + place.below.start, values, gap.coefficients),
                (each + place.below.start, place.low, -1.0),
            ]
        self._pass_matrix(entries)

    def _pass_matrix(self, entries: list[Entries]) -> None:
        layout = self.layout
        blocks = [np.broadcast_arrays(*entry) for entry in entries]
        row, column, value = (np.concatenate([np.ravel(block[k]) for block in blocks]) for k in range(3))
        order = np.argsort(column, kind="stable")
        start = np.searchsorted(column[order], np.arange(layout.columns))
        self._highs.passModel(
            layout.columns,
            layout.rows,
            len(value),
            int(highspy.MatrixFormat.kColwise),
            int(highspy.ObjSense.kMaximize),
            0.0,
            np.zeros(layout.columns),
            *self._column_bounds(),
            *self._row_bounds(),
            start.astype(np.int32),
            row[order].astype(np.int32),
            value[order].astype(float),
            np.zeros(layout.columns, dtype=np.int32),
        )
