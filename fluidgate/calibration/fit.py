"""The iteration time (2)-(3) of [LDHZ] fitted to measurements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fluidgate.calibration.estimate import Estimate, mean_of
from fluidgate.calibration.knee import Knee, find_knee
from fluidgate.calibration.measurements import Measurements, Pairs
from fluidgate.calibration.regression import least_squares
from fluidgate.profiles.profile import Range
from fluidgate.shown import Brief, rate
from fluidgate.toml_file import fail


@dataclass(frozen=True, repr=False)
class Deviation(Brief):
    """How far the line lies from one measured pair.

    `relative` is the line over the measured time, less 1: -0.3 where the line lies 30 % low.
    """

    batch_size: int
    chunk_size: int
    seconds: float
    line: float

    @property
    def relative(self) -> float:
        return self.line / self.seconds - 1.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "chunk_size": self.chunk_size,
            "seconds": self.seconds,
            "line": self.line,
            "relative": self.relative,
        }


@dataclass(frozen=True, repr=False)
class Fit(Brief):
    """`tau = alpha + beta C` on mixed iterations and `gamma` from solo ones.

    Attributes:
        batch_sizes: least and greatest of the mixed and solo rows fitted.
        chunk_sizes: least and greatest of the mixed rows fitted, tokens.
        alpha: s.
        beta: s/token.
        gamma: 1 / mean solo time, tokens/s; its standard error by the delta method.
        r_squared: of the line over the pairs' means; None where they do not vary.
        knee: of the form (1) over all pairs, where the data show one.
        pairs: what was fitted, with the pairs at smaller chunks.
        min_chunk: the least chunk size that the line is fitted to, tokens.
    """

    batch_sizes: Range
    chunk_sizes: Range
    alpha: Estimate
    beta: Estimate
    gamma: Estimate
    r_squared: float | None
    knee: Knee | None
    pairs: Pairs
    min_chunk: int

    def headline(self) -> str:
        sizes = " to ".join(map(str, dict.fromkeys(self.batch_sizes)))
        law = f"alpha {rate(self.alpha.value)} s, beta {rate(self.beta.value)} s/token"
        return f"at batch size {sizes}: {law}, gamma {rate(self.gamma.value)} tokens/s"

    def mixed(self, chunk_size: float) -> float:
        """Seconds of a mixed iteration by the line, (3)."""
        return self.alpha.value + self.beta.value * chunk_size

    def deviations(self, *, fitted: bool) -> Iterator[Deviation]:
        """The mixed pairs that were fitted, or those at chunks too small for that."""
        rows = zip(self.pairs.batch_size, self.pairs.chunk_size, self.pairs.seconds, strict=True)
        for batch, chunk, seconds in rows:
            if chunk > 0 and (chunk >= self.min_chunk) == fitted:
                yield Deviation(int(batch), int(chunk), float(seconds), self.mixed(int(chunk)))

    @property
    def largest(self) -> Deviation:
        """The fitted pair that the line misses most, relatively."""
        return max(self.deviations(fitted=True), key=lambda d: abs(d.relative))

    def to_dict(self) -> dict[str, Any]:
        return {
            "batch_sizes": self.batch_sizes,
            "chunk_sizes": self.chunk_sizes,
            "alpha": self.alpha.to_dict(),
            "beta": self.beta.to_dict(),
            "gamma": self.gamma.to_dict(),
            "r_squared": self.r_squared,
            "largest_deviation": self.largest.to_dict(),
            "below_min_chunk": [d.to_dict() for d in self.deviations(fitted=False)],
            "knee": None if self.knee is None else self.knee.to_dict(),
        }


def can_fit(rows: Measurements, min_chunk: int) -> bool:
    """Whether the rows have solo iterations and at least two chunk sizes to fit a line to."""
    return bool(rows.solo.any()) and len(_fitted_chunks(rows, min_chunk)) >= 2


def fit(rows: Measurements, min_chunk: int) -> Fit:
    """The fit to all rows together, whatever their batch sizes; each pair of sizes counts once.

    Raises:
        FluidgateError: no solo rows, fewer than two chunk sizes, or a time that does not grow with the chunk.
    """
    if not rows.solo.any():
        mend = "measure iterations without a prefill, chunk_size 0"
        fail(rows.source, [f"no solo rows: gamma, the speed of a decode beside no prefill, is unknown; {mend}"])
    chunks = _fitted_chunks(rows, min_chunk)
    if len(chunks) < 2:
        found = "no chunk size" if not len(chunks) else f"only one chunk size, {chunks[0]},"
        fail(
            rows.source,
            [f"{found} from --min-chunk {min_chunk} up, and a line needs two; measure more, or lower --min-chunk"],
        )
    pairs = rows.pairs
    line = pairs.select(pairs.chunk_size >= min_chunk)
    regression = least_squares(np.column_stack([np.ones(len(line.seconds)), line.chunk_size]), line.seconds)
    beta = regression.estimate(1)
    if beta.value <= 0:
        mend = "measure larger chunks, or check the columns"
        reason = f"the mixed time does not grow with the chunk size ({beta.value:.3g} s/token)"
        fail(rows.source, [f"beta: {reason}; {mend}"])
    used = (rows.chunk_size == 0) | (rows.chunk_size >= min_chunk)
    return Fit(
        batch_sizes=_ends(rows.batch_size[used]),
        chunk_sizes=_ends(chunks),
        alpha=regression.estimate(0),
        beta=beta,
        gamma=_speed(rows),
        r_squared=regression.r_squared,
        knee=find_knee((pairs.batch_size + pairs.chunk_size).astype(float), pairs.seconds),
        pairs=pairs,
        min_chunk=min_chunk,
    )


def _fitted_chunks(rows: Measurements, min_chunk: int) -> Any:
    return np.unique(rows.chunk_size[rows.chunk_size >= max(1, min_chunk)])


def _speed(rows: Measurements) -> Estimate:
    """Tokens/s of a solo decode: 1 over the mean solo time, whose error is passed on by the delta method."""
    time = mean_of([float(seconds) for seconds in rows.seconds[rows.solo]])
    speed = 1.0 / time.value
    if time.std_error is None or time.ci95 is None:
        return Estimate(speed, None, None)
    half = (time.ci95[1] - time.value) * speed**2
    return Estimate(speed, time.std_error * speed**2, (speed - half, speed + half))


def _ends(sizes: Any) -> Range:
    return int(sizes.min()), int(sizes.max())
