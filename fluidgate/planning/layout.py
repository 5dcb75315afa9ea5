"""Where the columns and rows of the fluid program stand."""

from __future__ import annotations

from dataclasses import dataclass

from fluidgate.planning.class_blocks import ClassBlocks


@dataclass(frozen=True)
class Gap:
    """The 2 columns and 2 I + 1 rows of a fairness gap `high - low`, with `low <= value_i <= high`."""

    classes: int
    values: slice
    high: int
    row: int

    @property
    def low(self) -> int:
        return self.high + 1

    @property
    def above(self) -> slice:
        """Rows `high - value_i >= 0`."""
        return slice(self.row + 1, self.row + 1 + self.classes)

    @property
    def below(self) -> slice:
        """Rows `value_i - low >= 0`."""
        return slice(self.above.stop, self.above.stop + self.classes)


@dataclass(frozen=True)
class Layout(ClassBlocks):
    """Place of every column and row, from the number of classes and the gaps present.

    Columns, one per class unless said otherwise (slots at mixed speed, see `Instance`):
        fed: decode slots fed by prefills, `mu_p x / mu_m`; at most the load.
        lost: slots' worth of prefilled requests that leave the decode buffer, `theta q_d / mu_m`.
        mixed: `y_m`.
        solo: `kappa y_s`.
        fraction (1): `sum x`.
        capacity (1): GPUs for each GPU there is, fixed at 1 (freed to measure a shortage).
        high and low of the prefill gap (of `C x_i`), and of the solo gap (of `kappa y_s,i`).

    Rows, one unless said otherwise:
        decode_balance (one per class): `fed - lost - mixed - solo = 0`.
        mixed_fraction: `C fraction - sum (P/D) fed = 0`.
        prefill_capacity, mixed_capacity, solo_capacity: (33)-(35).
        tpot: (47).
        the gaps (43) and (45).
    """

    classes: int
    has_prefill_gap: bool
    has_solo_gap: bool

    @property
    def class_count(self) -> int:
        return self.classes

    @property
    def fraction(self) -> int:
        return 4 * self.classes

    @property
    def capacity(self) -> int:
        return self.fraction + 1

    @property
    def decode_balance_row(self) -> slice:
        return self._block(0)

    @property
    def mixed_fraction_row(self) -> int:
        return self.classes

    @property
    def prefill_capacity_row(self) -> int:
        return self.classes + 1

    @property
    def mixed_capacity_row(self) -> int:
        return self.classes + 2

    @property
    def solo_capacity_row(self) -> int:
        return self.classes + 3

    @property
    def tpot_row(self) -> int:
        return self.classes + 4

    @property
    def prefill_gap(self) -> Gap:
        return Gap(self.classes, self.fed, self.capacity + 1, self.tpot_row + 1)

    @property
    def solo_gap(self) -> Gap:
        before = self.prefill_gap
        if self.has_prefill_gap:
            return Gap(self.classes, self.solo, before.low + 1, before.below.stop)
        return Gap(self.classes, self.solo, before.high, before.row)

    @property
    def columns(self) -> int:
        return self.capacity + 1 + 2 * (self.has_prefill_gap + self.has_solo_gap)

    @property
    def rows(self) -> int:
        return self.tpot_row + 1 + (2 * self.classes + 1) * (self.has_prefill_gap + self.has_solo_gap)
