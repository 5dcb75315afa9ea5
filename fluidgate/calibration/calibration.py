"""A calibration: measured iteration times in, a profile out, with the checks a reader should see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from fluidgate.arguments import checked
from fluidgate.calibration.checks import Flatness, Slope, curvature, flatness
from fluidgate.calibration.fit import Deviation, Fit, can_fit, fit
from fluidgate.calibration.measurements import Measurements, read_measurements
from fluidgate.calibration.provenance import Facts, provenance_of
from fluidgate.calibration.regression import FTest
from fluidgate.calibration.repeats import refuse_unlike_repeats
from fluidgate.errors import FluidgateError
from fluidgate.model import IterationTime
from fluidgate.profiles import Profile
from fluidgate.profiles.law import LawRow, table_of
from fluidgate.shown import Drawn, several
from fluidgate.toml_file import LARGEST_WHOLE, SCHEMA, fail
from fluidgate.wording import all_worded

if TYPE_CHECKING:
    import pandas as pd

MIN_CHUNK = 256
SIGNIFICANT = 0.05
NOTICEABLE = 0.05
BADLY_LOW = 0.1
DIGITS = 6
LONGEST_LIKELY = 5.0


@dataclass(frozen=True, repr=False)
class Calibration(Drawn):
    """Iteration times fitted, checked, and made a profile.

    Attributes:
        measurements: the rows used.
        fits: one; or one a batch size, ascending, where the profile holds a law over the batch size.
        curvature: F test of a quadratic term in the chunk size; None without degrees of freedom.
        flatness: slopes over the batch size, of all rows used.
        left_out: batch sizes whose rows were not enough for the law.
        profile: name, provenance, ranges and coefficients, which are rounded to 6 significant digits.
    """

    measurements: Measurements
    fits: tuple[Fit, ...]
    curvature: FTest | None
    flatness: Flatness
    left_out: tuple[int, ...]
    profile: Profile

    def headline(self) -> str:
        largest = self.largest_deviation
        rows = f"{several(len(self.fits), 'fit')} to {several(len(self.measurements), 'row')}"
        return f"'{self.profile.name}': {rows}, {low_or_high(largest.relative)} at most, at {place(largest)}"

    @property
    def largest_deviation(self) -> Deviation:
        """The fitted pair that its line misses most."""
        return max((each.largest for each in self.fits), key=lambda d: abs(d.relative))

    @property
    def below_min_chunk(self) -> tuple[Deviation, ...]:
        """At each chunk size too small to be fitted, the pair that its line misses most."""
        worst: dict[int, Deviation] = {}
        for each in self.fits:
            for deviation in each.deviations(fitted=False):
                before = worst.get(deviation.chunk_size)
                if before is None or abs(deviation.relative) > abs(before.relative):
                    worst[deviation.chunk_size] = deviation
        return tuple(worst[chunk] for chunk in sorted(worst))

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What a user of the profile should know, a sentence each."""
        return all_worded(_warnings(self))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the rows, fit for JSON."""
        return {
            "schema": SCHEMA,
            "name": self.profile.name,
            "measurements": {
                "file": self.measurements.source,
                "rows": len(self.measurements),
                "pairs": len(self.measurements.pairs.seconds),
            },
            "min_chunk": self.fits[0].min_chunk,
            "fits": [each.to_dict() for each in self.fits],
            "linearity": {
                "quadratic": None if self.curvature is None else self.curvature.to_dict(),
                "largest_deviation": self.largest_deviation.to_dict(),
                "below_min_chunk": [d.to_dict() for d in self.below_min_chunk],
            },
            "flatness": self.flatness.to_dict(),
            "left_out": list(self.left_out),
            "warnings": list(self.warnings),
            "profile": self.profile.to_dict(),
        }

    def to_dataframe(self) -> pd.DataFrame:
        """One row a pair: batch_size, chunk_size, repeats, seconds (mean), line (s; of mixed pairs), fitted."""
        import pandas as pd

        frames = []
        for each in self.fits:
            pairs = each.pairs
            mixed = pairs.chunk_size > 0
            line = np.where(mixed, each.alpha.value + each.beta.value * pairs.chunk_size, 1.0 / each.gamma.value)
            frames.append(
                pd.DataFrame(
                    {
                        "batch_size": pairs.batch_size,
                        "chunk_size": pairs.chunk_size,
                        "repeats": pairs.repeats,
                        "seconds": pairs.seconds,
                        "line": line,
                        "fitted": ~mixed | (pairs.chunk_size >= each.min_chunk),
                    }
                )
            )
        return pd.concat(frames, ignore_index=True)


@checked
def calibrate(
    measurements: Measurements | str | Path,
    *,
    name: str | None = None,
    min_chunk: int = MIN_CHUNK,
    batch_size: int | None = None,
    pooled: bool = False,
    **facts: Unpack[Facts],
) -> Calibration:
    """Fit the iteration time (2)-(3) of [LDHZ]: `tau = alpha + beta C` and `gamma = 1 / tau_solo`.

    Where at least two batch sizes each have solo rows and two chunk sizes, the profile holds a law over the batch
    size, fitted at each alone; otherwise one fit to all rows.

    Args:
        measurements: rows, or the path of a CSV file with the standard columns, in seconds.
        name: of the profile; by default the file's name without its ending.
        min_chunk: the least chunk size that the line is fitted to, tokens; smaller ones are only compared with it.
        batch_size: use the rows of this batch size only.
        pooled: one fit to all batch sizes together, even where each allows its own.
        facts: texts and numbers of the profile, before those that the file and its model and card say.

    Raises:
        FluidgateError: the file or an argument is wrong, rows of the same sizes are no repeats, or the rows do not tell
            alpha, beta and gamma.
    """
    if not 1 <= min_chunk <= LARGEST_WHOLE:
        raise FluidgateError(f"--min-chunk: must be from 1 to {LARGEST_WHOLE}, but is {min_chunk}; give tokens")
    if name is not None and not name:
        raise FluidgateError("--name: must not be empty; give the profile a name")
    rows = measurements if isinstance(measurements, Measurements) else read_measurements(measurements)
    if batch_size is not None:
        rows = _at_batch_size(rows, batch_size)
    refuse_unlike_repeats(rows)
    fits, left_out = _fits(rows, min_chunk, pooled)
    known = provenance_of(rows, facts).known
    return Calibration(
        measurements=rows,
        fits=fits,
        curvature=curvature(rows, min_chunk),
        flatness=flatness(rows, min_chunk),
        left_out=left_out,
        profile=_profile(name or Path(rows.source).stem or "measured", fits, known),
    )


def _at_batch_size(rows: Measurements, batch_size: int) -> Measurements:
    kept = rows.batch_size == batch_size
    if not kept.any():
        known = ", ".join(str(size) for size in np.unique(rows.batch_size)[:20])
        fail(rows.source, [f"--batch-size {batch_size}: no such row; the batch sizes are {known}"])
    return rows.select(kept)


def _fits(rows: Measurements, min_chunk: int, pooled: bool) -> tuple[tuple[Fit, ...], tuple[int, ...]]:
    """The fits, and the batch sizes left out of them."""
    if not pooled:
        groups = {int(size): rows.select(rows.batch_size == size) for size in np.unique(rows.batch_size)}
        complete = {size: group for size, group in groups.items() if size > 0 and can_fit(group, min_chunk)}
        if len(complete) > 1:
            fits = tuple(fit(group, min_chunk) for group in complete.values())
            return fits, tuple(size for size in groups if size not in complete)
    return (fit(rows, min_chunk),), ()


def _profile(name: str, fits: tuple[Fit, ...], known: Mapping[str, Any]) -> Profile:
    chunks = (min(each.chunk_sizes[0] for each in fits), max(each.chunk_sizes[1] for each in fits))
    batches = (max(1, fits[0].batch_sizes[0]), max(1, fits[-1].batch_sizes[1]))
    rest: dict[str, Any] = {**known, "name": name, "chunk_sizes": chunks, "batch_sizes": batches}
    if len(fits) == 1:
        return Profile(iteration=IterationTime(**_coefficients(fits[0])), r_squared=_rounded(fits[0].r_squared), **rest)
    rows = [LawRow(batch_size=each.batch_sizes[0], **_coefficients(each)) for each in fits]
    return Profile(iteration=table_of(rows, chunks), **rest)


def _coefficients(of: Fit) -> dict[str, float]:
    return {key: float(f"{getattr(of, key).value:.{DIGITS}g}") for key in ("alpha", "beta", "gamma")}


def _rounded(r_squared: float | None) -> float | None:
    return None if r_squared is None else min(1.0, float(f"{r_squared:.{DIGITS}g}"))


def _warnings(of: Calibration) -> Iterator[str]:
    typical = float(np.median(of.measurements.seconds))
    if typical > LONGEST_LIKELY:
        yield f"half of the iterations take more than {typical:.3g} s: are these milliseconds? give --unit ms"
    if of.left_out:
        sizes = ", ".join(map(str, of.left_out))
        yield f"left out batch size {sizes}: no solo rows, or fewer than two chunk sizes"
    largest, test = of.largest_deviation, of.curvature
    curved = test is not None and test.p is not None and test.p < SIGNIFICANT
    alone = all(each.batch_sizes[0] == each.batch_sizes[1] for each in of.fits)
    if curved and alone and abs(largest.relative) > NOTICEABLE:
        yield (
            f"not a line in the chunk size: it lies {low_or_high(largest.relative)} at {place(largest)}; "
            "fit a narrower range of chunk sizes"
        )
    below = max(of.below_min_chunk, key=lambda d: abs(d.relative), default=None)
    if below is not None and abs(below.relative) > BADLY_LOW:
        yield (
            f"the line lies {low_or_high(below.relative)} at {place(below)}: "
            f"keep chunk_size from {of.fits[0].chunk_sizes[0]} up"
        )
    if len(of.fits) == 1:
        yield from _not_flat(of.flatness.solo, "solo")
        yield from _not_flat(of.flatness.mixed, "mixed")
    fast = [each for each in of.fits if each.mixed(each.chunk_sizes[0]) * each.gamma.value < 1]
    if fast:
        chunk = fast[0].chunk_sizes[0]
        yield (
            f"at batch size {fast[0].batch_sizes[0]} a mixed iteration of {chunk} prompt tokens takes less time "
            f"({1e3 * fast[0].mixed(chunk):.4g} ms) than a solo one ({1e3 / fast[0].gamma.value:.4g} ms)"
        )


def _not_flat(slope: Slope | None, kind: str) -> Iterator[str]:
    if slope is not None and slope.p is not None and slope.p < SIGNIFICANT and abs(slope.change) > NOTICEABLE:
        yield (
            f"the {kind} time is not flat over the batch sizes ({100 * slope.change:+.0f} %): give --batch-size with "
            "the one you run at, or fit a law over them (enough rows at each, no --pooled)"
        )


def low_or_high(relative: float) -> str:
    """`12 % low` for a line that lies 12 % below the measured time."""
    return f"{100 * abs(relative):.2g} % {'low' if relative < 0 else 'high'}"


def place(deviation: Deviation) -> str:
    """`C = 64 (B = 8)`: the sizes of a pair."""
    return f"C = {deviation.chunk_size} (B = {deviation.batch_size})"
