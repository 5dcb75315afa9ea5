"""The fluid program: one linear program for both schemes, kept alive in the solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np

from fluidgate.model import Array
from fluidgate.planning.instance import Instance
from fluidgate.planning.layout import Gap, Layout
from fluidgate.planning.linear_program import Entries, LinearProgram, flattened

_SOLVED = 1e-6
"""Relative excess over a limit that is rounding."""

_SAME = 1e-13
"""Relative difference below which lengths are the same: they come out of rates, with their rounding."""


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


class FluidProgram(LinearProgram):
    """The program (40) or (42) with its indicators, (49), in a live solver.

    `load` puts an instance in; another with as many classes and the same lengths only changes bounds, costs
    and a few coefficients, and `maximise` starts from the last basis. The load stands in the bounds of `fed`,
    the prices in the costs, the GPU in the columns `fraction` and `capacity`, the lengths in the row of the
    mixed fraction (and of the prefill gap).
    """

    instance: Instance
    layout: Layout

    def __init__(self, *, careful: bool = False) -> None:
        """
        Args:
            careful: count in each class's own load rather than in slots, whatever the instance.
        """
        super().__init__()
        self._careful = careful
        self._lengths: Array = np.empty(0)
        self._coefficients: dict[tuple[int, int], float] = {}
        self._in_loads = False

    def load(self, instance: Instance) -> None:
        """Make `instance` the program's; the solver's basis stays where the structure does."""
        indicators = instance.indicators
        layout = Layout(
            instance.classes,
            has_prefill_gap=indicators.max_prefill_gap is not None or indicators.prefill_gap_weight > 0,
            has_solo_gap=indicators.max_solo_gap is not None or indicators.solo_gap_weight > 0,
        )
        fresh = not self._coefficients or layout != self.layout or self._in_loads
        in_loads = instance.is_odd or self._careful
        fresh |= in_loads
        basis = None if fresh else self._resting_basis()
        self.instance, self.layout, self._in_loads = instance, layout, in_loads
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

    @property
    def column_count(self) -> int:
        return self.layout.columns

    @property
    def row_count(self) -> int:
        return self.layout.rows

    def value_of(self, cost: Array) -> float:
        """Value of the dearest slot, or of what else has one."""
        per_class = np.abs(cost[: self.layout.fraction]).max()
        return float(per_class or np.abs(cost).max() or 1.0)

    def check(self, columns: Array) -> None:
        """Hold a solution against its rows in their own units.

        Raises:
            ArithmeticError: a class is served that did not arrive, or a capacity is exceeded.
        """
        layout, instance = self.layout, self.instance
        fed, decodes = columns[layout.fed], columns[layout.mixed] + columns[layout.solo]
        prefills = float(instance.prefill_per_slot @ fed)
        mixed, solo = columns[layout.mixed].sum(), columns[layout.solo].sum()
        batch, kappa, room = instance.batch, instance.kappa, _SOLVED * instance.slots
        holds = (
            np.all(np.maximum(fed, decodes) <= instance.load * (1.0 + _SOLVED))
            and prefills <= 1.0 + _SOLVED
            and mixed <= (batch - 1) * prefills + room
            and solo <= kappa * batch * (1.0 - prefills) + room
        )
        if not holds:
            raise ArithmeticError(
                "the plan does not keep its own limits: the numbers lie too far apart for the solver; "
                "bring rates and lengths closer together"
            )

    def _resting_basis(self) -> Any:
        """The last basis, in which columns rest at their upper bounds even if they were fixed there; or None.

        Of a fixed column the solver says that it rests at its lower bound, far off once it is freed.
        """
        basis = self._highs.getBasis()
        if not basis.valid or not self._columns.size:
            return None
        _, upper = self.column_bounds()
        status = basis.col_status
        for column in np.flatnonzero((self._columns == upper) & (upper > 0)):
            if status[column] != highspy.HighsBasisStatus.kBasic:
                status[column] = highspy.HighsBasisStatus.kUpper
        basis.col_status = status
        return basis

    def column_bounds(self) -> tuple[Array, Array]:
        instance, layout = self.instance, self.layout
        lower, upper = np.zeros(layout.columns), np.full(layout.columns, np.inf)
        lower[layout.fed] = np.where(instance.waits_for_ever, instance.load, 0.0)
        upper[layout.fed] = instance.load
        if not instance.decode_buffer:
            upper[layout.lost] = 0.0
        upper[layout.lost][instance.waits_for_ever] = 0.0
        lower[layout.capacity] = upper[layout.capacity] = 1.0
        return lower, upper

    def row_bounds(self) -> tuple[Array, Array]:
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
        self._choose_units(entries)
        self._pass_matrix(entries)

    def _choose_units(self, entries: list[Entries]) -> None:
        """Slots, unless they would be lost in what the solver takes for zero; then each class's own load."""
        layout, instance = self.layout, self.instance
        self.column_unit, self.row_unit = np.ones(layout.columns), np.ones(layout.rows)
        if not self._in_loads:
            return
        for block in (layout.fed, layout.lost, layout.mixed, layout.solo):
            self.column_unit[block] = np.minimum(instance.load, instance.slots)
        row, column, value = flattened(entries)
        largest = np.zeros(layout.rows)
        np.maximum.at(largest, row, np.abs(value * self.column_unit[column]))
        self.row_unit = np.where(largest > 0.0, largest, 1.0)
