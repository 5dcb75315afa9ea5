"""A calibration of an iteration time that depends on its batch: a table in, a profile out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from fluidgate.arguments import checked
from fluidgate.calibration.batch_fit import BatchFit, Points, fit_batches
from fluidgate.calibration.estimate import Estimate
from fluidgate.calibration.measured_table import measured_table
from fluidgate.calibration.measurements import Measurements, read_measurements
from fluidgate.calibration.provenance import Facts, Provenance, provenance_of
from fluidgate.calibration.repeats import refuse_unlike_repeats
from fluidgate.errors import FluidgateError
from fluidgate.model import IterationTime, TimeTable
from fluidgate.profiles import Profile
from fluidgate.shown import Drawn, several
from fluidgate.toml_file import LARGEST_WHOLE, SCHEMA, fail
from fluidgate.wording import all_worded

if TYPE_CHECKING:
    import pandas as pd

DIGITS = 6
FAR = 0.1
MOST_OF_IT = 0.9
"""Share of a measured time that slopes of context and of tokens read before may have in it."""


@dataclass(frozen=True, repr=False)
class BatchCalibration(Drawn):
    """A law over chunk, decodes and context, fitted, checked, and made a profile.

    Attributes:
        measurements: the rows used.
        fit: the coefficients, and how far the law lies from the rows.
        profile: name, provenance, ranges and coefficients, which are rounded to 6 significant digits; with the measured
            times themselves where they are its law.
        assumed: what of the table and its provenance a user should know, a sentence each.
    """

    measurements: Measurements
    fit: BatchFit
    profile: Profile
    assumed: tuple[str, ...] = ()

    def headline(self) -> str:
        worst = float(np.abs(self.fit.relative).max())
        points = f"{self.law} law of {several(len(self.fit.points.seconds), 'point')}"
        return f"'{self.profile.name}': {points}, the fit {100 * worst:.2g} % off at most"

    @property
    def coefficients(self) -> dict[str, Estimate]:
        """By their keys in a profile; without those of solo iterations where none were measured."""
        return self.fit.coefficients

    @property
    def law(self) -> str:
        """That of the profile: `linear` or `table`."""
        return "linear" if self.profile.iteration.table is None else "table"

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What a user of the profile should know, a sentence each."""
        return all_worded((*_warnings(self.fit), *self.assumed))

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
            "fitted": sorted({"alpha", "beta", "delta", *self.fit.fitted}),
            "regions": [region.to_dict() for region in self.fit.regions()],
            "warnings": list(self.warnings),
            "profile": self.profile.to_dict(),
        }

    def to_dataframe(self) -> pd.DataFrame:
        """One row a point: sizes, context of a decode and read_before (tokens), mean seconds, law (s), relative."""
        import pandas as pd

        points = self.fit.points
        return pd.DataFrame(
            {
                "batch_size": points.batch_size,
                "chunk_size": points.chunk_size,
                "context": points.context,
                "read_before": points.read_before,
                "seconds": points.seconds,
                "law": self.fit.law,
                "relative": self.fit.relative,
            }
        )


@checked
def calibrate_batches(
    measurements: Measurements | str | Path,
    *,
    context: float | None = None,
    name: str | None = None,
    min_chunk: int = 1,
    table: bool = False,
    **facts: Unpack[Facts],
) -> BatchCalibration:
    """Fit `alpha + beta chunk + delta decodes + epsilon context + zeta read`, and the like to solo iterations.

    What the rows do not tell follows from facts. Rows with one context length can't tell epsilon from delta: it is then
    the time to read a token's KV once, `kv_bytes_per_token / memory_bandwidth`, and its share at the rows' own context
    is taken out of them first. Rows that all begin a prompt can't tell zeta: it is then beta times the work of
    attention over that of the weights, where the model is known.

    Args:
        measurements: rows, or the path of a CSV file with the standard columns, in seconds.
        context: tokens of context of each decode in the rows, where they have no column for it.
        name: of the profile; by default the file's name without its ending.
        min_chunk: the least chunk size that is fitted, tokens.
        table: whether the profile holds the measured times and what lies between them in the place of the fitted law.
        facts: texts and numbers of the profile, before those that the file and its model and card say; of them
            `kv_bytes_per_token`: 2 (keys and values) * layers * KV heads * head dimension * bytes a number; and
            `memory_bandwidth`: bytes/s over all GPUs of a tensor-parallel group.

    Raises:
        FluidgateError: the file or an argument is wrong, or the rows do not tell the coefficients, or make no table.
    """
    if not 1 <= min_chunk <= LARGEST_WHOLE:
        raise FluidgateError(f"--min-chunk: must be from 1 to {LARGEST_WHOLE}, but is {min_chunk}; give tokens")
    if name is not None and not name:
        raise FluidgateError("--name: must not be empty; give the profile a name")
    rows = measurements if isinstance(measurements, Measurements) else read_measurements(measurements)
    told = provenance_of(rows, facts)
    if context is not None:
        if not 0.0 < context < float("inf"):
            raise FluidgateError(f"--context: must be a finite number above 0, but is {context:g}")
        rows = rows.with_context(context)
    if told.asked and not rows.has_context:
        mend = "give --context, or --map context=COLUMN"
        fail(
            rows.source, [f"the context of a decode in these rows is unknown, and epsilon has a share in them; {mend}"]
        )
    refuse_unlike_repeats(rows, by_context=True)
    epsilon = told.epsilon if rows.has_context else 0.0
    fitted = fit_batches(rows, epsilon, min_chunk, pair_share=told.pair_share, kv_tokens=told.kv_tokens)
    law, assumed = _law(fitted), told.warnings
    if table:
        measured, about = measured_table(fitted, rows.source)
        law, assumed = {**_within(law, measured), "table": measured}, (*about, *assumed)
    return BatchCalibration(rows, fitted, _profile(name or _stem(rows), law, fitted, told), assumed)


def _stem(rows: Measurements) -> str:
    return Path(rows.source).name.split(".")[0] or "measured"


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _law(fitted: BatchFit) -> dict[str, Any]:
    """The coefficients by their keys."""
    law = {key: _rounded(value.value) for key, value in fitted.coefficients.items()}
    if law.get("solo_epsilon") == law["epsilon"]:
        del law["solo_epsilon"]
    return law


def _within(law: dict[str, Any], table: TimeTable) -> dict[str, Any]:
    """The slopes beside a table, no greater than what leaves some time without context and tokens read before."""
    chunks, batches, contexts, reads = (np.array(nodes, dtype=np.float64) for nodes in table.mixed_axes)
    epsilon = law["epsilon"] if len(contexts) == 1 else 0.0
    zeta = law.get("zeta", 0.0) if len(reads) == 1 else 0.0
    share = epsilon * contexts[0] * batches[None, :] + zeta * reads[0] * chunks[:, None]
    mixed = (share / table.mixed_times.min(axis=(2, 3))).max()
    alone, tokens = table.solo_axes
    slope = law.get("solo_epsilon", law["epsilon"]) if len(tokens) == 1 else 0.0
    solo = (slope * tokens[0] * np.array(alone) / table.solo_times.min(axis=1)).max()
    worst = max(float(mixed), float(solo), MOST_OF_IT) / MOST_OF_IT
    slopes = [key for key in ("epsilon", "solo_epsilon", "zeta") if key in law]
    return {**law, **{key: _rounded(law[key] / worst) for key in slopes}}


def _profile(name: str, law: dict[str, Any], fitted: BatchFit, told: Provenance) -> Profile:
    points = fitted.points
    chunks = points.chunk_size[points.chunk_size >= max(1, fitted.min_chunk)]
    return Profile(
        name=name,
        iteration=IterationTime(**law),
        batch_sizes=(max(1, int(points.batch_size.min())), max(1, int(points.batch_size.max()))),
        chunk_sizes=(int(chunks.min()), int(chunks.max())),
        contexts=_contexts(points),
        read_before=_read_before(points),
        **told.known,
    )


def _contexts(points: Points) -> tuple[int, int] | None:
    """Those of the decodes; None where the rows do not say them."""
    known = points.context[points.context >= 1.0]
    return (int(known.min()), int(known.max())) if len(known) else None


def _read_before(points: Points) -> tuple[int, int] | None:
    """Those of the chunks; None where all of them begin a prompt."""
    if not points.tells_read_before:
        return None
    return int(points.read_before.min()), int(points.read_before.max())


def _warnings(fitted: BatchFit) -> Iterator[str]:
    if fitted.solo_alpha is None:
        yield "no solo rows: an iteration without a prefill is taken as one with a chunk of 0 tokens"
    if fitted.epsilon.value == 0.0 and "epsilon" not in fitted.fitted:
        yield (
            "epsilon is 0, so that delta holds what attention takes at these rows' context: "
            "give --kv-bytes-per-token and --memory-bandwidth"
        )
    if fitted.zeta.value == 0.0 and "zeta" not in fitted.fitted:
        yield (
            "zeta is 0: what a chunk reads of its prompt before takes no time; for long prompts measure rows with a "
            "column read_before, or name a known --model"
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
