"""A calibration of an iteration time that depends on its batch: a table in, a profile out."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fluidgate.calibration.batch_fit import BatchFit, Points, fit_batches
from fluidgate.calibration.estimate import Estimate
from fluidgate.calibration.measurements import Measurements, read_measurements
from fluidgate.calibration.repeats import refuse_unlike_repeats
from fluidgate.errors import FluidgateError
from fluidgate.model import IterationTime, TimeTable
from fluidgate.profiles import Profile
from fluidgate.toml_file import LARGEST_WHOLE, SCHEMA, fail

if TYPE_CHECKING:
    import pandas as pd

DIGITS = 6
FAR = 0.1


@dataclass(frozen=True)
class BatchCalibration:
    """A law over chunk, decodes and context, fitted, checked, and made a profile.

    Attributes:
        measurements: the rows used.
        fit: the coefficients, and how far the law lies from the rows.
        profile: name, provenance, ranges and coefficients, which are rounded to 6 significant digits; with the measured
            times themselves where they are its law.
    """

    measurements: Measurements
    fit: BatchFit
    profile: Profile

    @property
    def coefficients(self) -> dict[str, Estimate]:
        """By their keys in a profile; without those of solo iterations where none were measured."""
        named = {key: getattr(self.fit, key) for key in ("alpha", "beta", "delta", "solo_alpha", "solo_delta")}
        named["epsilon"] = Estimate(self.fit.epsilon, None, None)
        return {key: value for key, value in named.items() if value is not None}

    @property
    def law(self) -> str:
        """That of the profile: `linear` or `table`."""
        return "linear" if self.profile.iteration.table is None else "table"

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What a user of the profile should know, a sentence each."""
        return tuple(_warnings(self.fit))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the rows, fit for JSON."""
        return {
            "schema": SCHEMA,
            "name": self.profile.name,
            "law": self.law,
            "measurements": {
                "file": self.measurements.source,
                "rows": len(self.measurements),
                "points": len(self.fit.points.seconds),
            },
            "min_chunk": self.fit.min_chunk,
            "coefficients": {key: value.to_dict() for key, value in self.coefficients.items()},
            "regions": [region.to_dict() for region in self.fit.regions()],
            "warnings": list(self.warnings),
            "profile": self.profile.to_dict(),
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    def to_dataframe(self) -> pd.DataFrame:
        """One row a point: batch_size, chunk_size, context (tokens a decode), seconds (mean), law (s), relative."""
        import pandas as pd

        points = self.fit.points
        return pd.DataFrame(
            {
                "batch_size": points.batch_size,
                "chunk_size": points.chunk_size,
                "context": points.context,
                "seconds": points.seconds,
                "law": self.fit.law,
                "relative": self.fit.relative,
            }
        )


def calibrate_batches(
    measurements: Measurements | str | Path,
    *,
    kv_bytes_per_token: float | None = None,
    memory_bandwidth: float | None = None,
    context: float | None = None,
    name: str | None = None,
    model: str = "",
    gpu: str = "",
    engine: str = "",
    source: str = "",
    notes: str = "",
    min_chunk: int = 1,
    table: bool = False,
) -> BatchCalibration:
    """Fit `alpha + beta chunk + delta decodes + epsilon context`, and a solo intercept and slope.

    The rows tell alpha, beta and delta, and those without a chunk their own alpha and delta. Where they have one
    context length only they can't tell epsilon from delta: epsilon is then the time to read a token's KV once,
    `kv_bytes_per_token / memory_bandwidth`, and its share at the rows' own context is taken out of them first.

    Args:
        measurements: rows, or the path of a CSV file with the standard columns, in seconds.
        kv_bytes_per_token: of the model: 2 (keys and values) * layers * KV heads * head dimension * bytes a number.
        memory_bandwidth: of the GPU, bytes/s; over all GPUs of a tensor-parallel group.
        context: tokens of context of each decode in the rows, where they have no column for it.
        name: of the profile; by default the file's name without its ending.
        model, gpu, engine, source, notes: texts of the profile.
        min_chunk: the least chunk size that is fitted, tokens.
        table: whether the profile holds the measured times and what lies between them in the place of the fitted law.

    Raises:
        FluidgateError: the file or an argument is wrong, or the rows do not tell the coefficients, or make no table.
    """
    if not 1 <= min_chunk <= LARGEST_WHOLE:
        raise FluidgateError(f"min_chunk: must be from 1 to {LARGEST_WHOLE}, but is {min_chunk}; give tokens")
    if name is not None and not name:
        raise FluidgateError("name: must not be empty; give the profile a name")
    epsilon = _epsilon(kv_bytes_per_token, memory_bandwidth)
    rows = measurements if isinstance(measurements, Measurements) else read_measurements(measurements)
    if context is not None:
        rows = rows.with_context(_positive("context", context))
    if epsilon > 0.0 and not rows.has_context:
        mend = "give --context, or --map context=COLUMN"
        fail(
            rows.source, [f"the context of a decode in these rows is unknown, and epsilon has a share in them; {mend}"]
        )
    refuse_unlike_repeats(rows, by_context=True)
    fitted = fit_batches(rows, epsilon, min_chunk)
    texts = {"model": model, "gpu": gpu, "engine": engine, "source": source, "notes": notes}
    made = _profile(name or Path(rows.source).stem or "measured", fitted, kv_bytes_per_token, texts)
    if table:
        iteration = IterationTime(**{**_law(fitted), "table": measured_table(fitted.points, rows.source)})
        made = made.model_copy(update={"iteration": iteration})
    return BatchCalibration(rows, fitted, made)


def measured_table(points: Points, source: str) -> TimeTable:
    """The mean times by chunk and batch, 6 significant digits.

    Raises:
        FluidgateError: a pair of sizes is missing, or there are several contexts.
    """
    if len(contexts := np.unique(points.context)) > 1:
        reason = f"a table has one context a decode, but the rows have {len(contexts)}"
        fail(source, [f"{reason}; choose one with --where, or give --law linear"])
    chunks, batches = np.unique(points.chunk_size), np.unique(points.batch_size)
    times = np.full((len(chunks), len(batches)), np.nan)
    times[np.searchsorted(chunks, points.chunk_size), np.searchsorted(batches, points.batch_size)] = points.seconds
    for i, j in np.argwhere(np.isnan(times)):
        missing = f"no row with chunk size {chunks[i]} and batch size {batches[j]}"
        fail(source, [f"{missing}, of which a table needs all; measure it, or leave that size out"])
    return TimeTable(
        chunk_sizes=tuple(chunks.tolist()),
        batch_sizes=tuple(batches.tolist()),
        seconds=tuple(tuple(_rounded(time) for time in row) for row in times),
        contexts=(float(contexts[0]),),
    )


def _epsilon(kv_bytes_per_token: float | None, memory_bandwidth: float | None) -> float:
    if kv_bytes_per_token is None and memory_bandwidth is None:
        return 0.0
    if kv_bytes_per_token is None or memory_bandwidth is None:
        raise FluidgateError(
            "epsilon is --kv-bytes-per-token over --memory-bandwidth (bytes/s): give both of them, or neither"
        )
    return _positive("kv-bytes-per-token", kv_bytes_per_token) / _positive("memory-bandwidth", memory_bandwidth)


def _positive(name: str, value: float) -> float:
    if not 0.0 < value < math.inf:
        raise FluidgateError(f"--{name}: must be a finite number above 0, but is {value:g}")
    return float(value)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _law(fitted: BatchFit) -> dict[str, float]:
    """The coefficients by their keys."""
    keys = {"alpha": fitted.alpha, "beta": fitted.beta, "delta": fitted.delta}
    if fitted.solo_alpha is not None and fitted.solo_delta is not None:
        keys |= {"solo_alpha": fitted.solo_alpha, "solo_delta": fitted.solo_delta}
    return {**{key: _rounded(value.value) for key, value in keys.items()}, "epsilon": _rounded(fitted.epsilon)}


def _profile(name: str, fitted: BatchFit, kv_bytes_per_token: float | None, texts: dict[str, str]) -> Profile:
    points = fitted.points
    chunks = points.chunk_size[points.chunk_size >= max(1, fitted.min_chunk)]
    return Profile(
        name=name,
        iteration=IterationTime(**_law(fitted)),
        batch_sizes=(max(1, int(points.batch_size.min())), max(1, int(points.batch_size.max()))),
        chunk_sizes=(int(chunks.min()), int(chunks.max())),
        contexts=_contexts(points),
        kv_bytes_per_token=kv_bytes_per_token,
        **texts,
    )


def _contexts(points: Points) -> tuple[int, int] | None:
    """Those of the decodes; None where the rows do not say them."""
    known = points.context[points.context >= 1.0]
    return (int(known.min()), int(known.max())) if len(known) else None


def _warnings(fitted: BatchFit) -> Iterator[str]:
    if fitted.solo_alpha is None:
        yield "no solo rows: an iteration without a prefill is taken as one with a chunk of 0 tokens"
    if fitted.epsilon == 0.0:
        yield (
            "epsilon is 0, so that delta holds what attention takes at these rows' context: "
            "give --kv-bytes-per-token and --memory-bandwidth"
        )
    for key, slope in (("delta", fitted.delta), ("solo_delta", fitted.solo_delta)):
        if slope is not None and slope.value == 0.0:
            yield f"{key} is 0: epsilon explains all that the rows gain with the batch size; check --context"
    for region in fitted.regions():
        if abs(region.largest) > FAR:
            yield (
                f"{region.name}: the law lies {100 * abs(region.largest):.2g} % "
                f"{'low' if region.largest < 0 else 'high'} at C = {region.chunk_size} (B = {region.batch_size})"
            )
