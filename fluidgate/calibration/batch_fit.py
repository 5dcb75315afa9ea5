"""An iteration time that depends on its batch, fitted to measurements over many batch sizes.

Fitted by weighted least squares of absolute errors, with no coefficient below 0; iterations with a chunk and those
without one apart. What a run takes is wrong by the sum of the errors of its iterations. Where the rows lie on a grid
each point counts by the range of batch size, chunk, context and tokens read before that it stands for, so that more
points where no engine spends its time, at tiny batches say, bend nothing. Rows that lie anywhere are taken as those of
an engine that ran: each counts once, and the law takes as long over them as they did.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluidgate.calibration.estimate import Estimate, estimate
from fluidgate.calibration.measurements import Measurements, Tokens
from fluidgate.model import Array
from fluidgate.shown import Brief, rate
from fluidgate.toml_file import fail

SMALL_CHUNK = 256
"""Where the region of small chunks ends, tokens."""

ON_A_GRID = 0.25
"""Least share of the nodes of the axes that rows on a grid have."""

SEVERAL = 1.5
"""Least ratio of the contexts, greatest to least, that tell a slope."""

NONE_AT_ALL = Estimate(0.0, None, None)


@dataclass(frozen=True, repr=False)
class Points(Brief):
    """The distinct sizes, contexts and tokens read before, each with the mean of its repeats; shape (points,) each.

    Attributes:
        batch_size: decodes.
        chunk_size: prompt tokens, 0 where the iteration is solo.
        context: tokens of context of each decode.
        read_before: tokens of its prompt that were read before the chunk.
        seconds: mean iteration time, s.
        repeats: rows of each.
    """

    batch_size: Tokens
    chunk_size: Tokens
    context: Array
    read_before: Array
    seconds: Array
    repeats: Tokens

    @staticmethod
    def of(rows: Measurements) -> Points:
        all_axes = np.column_stack([rows.batch_size, rows.chunk_size, rows.context, rows.read_before])
        distinct, place, repeats = np.unique(all_axes, axis=0, return_inverse=True, return_counts=True)
        seconds = np.bincount(place.ravel(), weights=rows.seconds) / repeats
        batch, chunk = distinct[:, :2].astype(np.int64).T
        return Points(batch, chunk, distinct[:, 2], distinct[:, 3], seconds, repeats)

    def __len__(self) -> int:
        return len(self.seconds)

    def select(self, kept: NDArray[np.bool_]) -> Points:
        return Points(
            self.batch_size[kept],
            self.chunk_size[kept],
            self.context[kept],
            self.read_before[kept],
            self.seconds[kept],
            self.repeats[kept],
        )

    @property
    def axes(self) -> tuple[Tokens, Tokens, Array, Array]:
        return self.batch_size, self.chunk_size, self.context, self.read_before

    @property
    def solo(self) -> Points:
        return self.select(self.chunk_size == 0)

    @property
    def mixed(self) -> Points:
        return self.select(self.chunk_size > 0)

    @property
    def regressors(self) -> dict[str, Array]:
        """What each slope of the law is of, by its key."""
        return {
            "beta": self.chunk_size.astype(float),
            "delta": self.batch_size.astype(float),
            "epsilon": self.batch_size * self.context,
            "zeta": self.chunk_size * self.read_before,
        }

    @property
    def tokens(self) -> Array:
        """Tokens of KV memory at each point."""
        return np.asarray(self.batch_size * (self.context + 1.0) + self.chunk_size + self.read_before)

    @property
    def tells_context(self) -> bool:
        """Whether the time is known at contexts far enough from each other to tell what a token of it takes."""
        known = self.context[(self.batch_size > 0) & (self.context > 0)]
        return len(known) > 1 and float(known.max()) >= SEVERAL * float(known.min())

    @property
    def tells_read_before(self) -> bool:
        return len(np.unique(self.read_before)) > 1

    @property
    def weights(self) -> Array:
        """The range that each stands for, on a grid; otherwise how often it was met."""
        beside = self.select(self.batch_size > 0)  # where nothing decodes one context stands for all
        if len(beside) < ON_A_GRID * math.prod(len(np.unique(axis)) for axis in beside.axes):
            return self.repeats.astype(float)
        weights = np.ones(len(self))
        for axis in (self.batch_size, self.chunk_size, self.read_before):
            nodes = np.unique(axis)
            weights *= _widths(nodes)[np.searchsorted(nodes, axis)]
        contexts = np.unique(beside.context)
        widths = _widths(contexts) if len(contexts) else np.ones(1)
        place = np.searchsorted(contexts, self.context).clip(max=len(widths) - 1)
        weights *= np.where(self.batch_size > 0, widths[place], widths.sum())
        return np.asarray(weights / weights.mean())


def _widths(nodes: NDArray[Any]) -> Array:
    """Half of the way to the neighbours, on both sides; 1 where there are none."""
    if len(nodes) == 1:
        return np.ones(1)
    gaps = np.diff(nodes.astype(float)) / 2.0
    return np.append(gaps, 0.0) + np.insert(gaps, 0, 0.0)


@dataclass(frozen=True, repr=False)
class Region(Brief):
    """How far the law lies from the measurements in one part of the table.

    Attributes:
        name: of the part.
        points: how many.
        mean: relative error, law over measurement less 1, averaged.
        largest: the one of the greatest size.
        batch_size, chunk_size: where that is.
    """

    name: str
    points: int
    mean: float
    largest: float
    batch_size: int
    chunk_size: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "region": self.name,
            "points": self.points,
            "mean": self.mean,
            "largest": self.largest,
            "batch_size": self.batch_size,
            "chunk_size": self.chunk_size,
        }


@dataclass(frozen=True, repr=False)
class BatchFit(Brief):
    """`alpha + beta C + delta B + epsilon context + zeta read` on mixed iterations; without a chunk a law of their own.

    Attributes:
        alpha, beta, delta: s, s per prompt token, s per decode.
        epsilon: s per token of context.
        zeta: s per pair of a token of the chunk and one of its prompt read before.
        solo_alpha, solo_delta, solo_epsilon: without a chunk; None where no solo iterations were measured.
        fitted: of epsilon, zeta and solo_epsilon those that the measurements tell; the others were given.
        points: what was measured.
        min_chunk: the least chunk size that was fitted, tokens.
        beyond_memory: points left out, for their tokens do not fit in the memory.
    """

    alpha: Estimate
    beta: Estimate
    delta: Estimate
    epsilon: Estimate
    zeta: Estimate
    solo_alpha: Estimate | None
    solo_delta: Estimate | None
    solo_epsilon: Estimate | None
    fitted: frozenset[str]
    points: Points
    min_chunk: int
    beyond_memory: int = 0

    def headline(self) -> str:
        return ", ".join(f"{key} {rate(each.value)}" for key, each in self.coefficients.items())

    @property
    def coefficients(self) -> dict[str, Estimate]:
        """By their keys in a profile; without those that were not measured and are 0, or that of mixed iterations."""
        keys = ("alpha", "beta", "delta", "solo_alpha", "solo_delta", "epsilon", "solo_epsilon", "zeta")
        found = {key: value for key in keys if (value := getattr(self, key)) is not None}
        if "zeta" not in self.fitted and self.zeta.value == 0.0:
            del found["zeta"]
        if "solo_epsilon" not in self.fitted and found.get("solo_epsilon") == self.epsilon:
            del found["solo_epsilon"]
        return found

    @property
    def law(self) -> Array:
        """Seconds by the law at each point."""
        return self.at(*self.points.axes)

    def at(self, batch_size: Any, chunk_size: Any, context: Any, read_before: Any) -> Array:
        """Seconds by the law."""
        tokens = batch_size * context
        mixed = self.alpha.value + self.beta.value * chunk_size + self.delta.value * batch_size
        mixed = np.asarray(mixed + self.epsilon.value * tokens + self.zeta.value * chunk_size * read_before)
        if self.solo_alpha is None or self.solo_delta is None or self.solo_epsilon is None:
            return mixed
        solo = self.solo_alpha.value + self.solo_delta.value * batch_size + self.solo_epsilon.value * tokens
        return np.where(np.equal(chunk_size, 0), solo, mixed)

    @property
    def relative(self) -> Array:
        """The law over the measured time, less 1, at each point."""
        return np.asarray(self.law / self.points.seconds - 1.0)

    def regions(self) -> Iterator[Region]:
        """The parts of the table that hold any point."""
        chunk = self.points.chunk_size
        parts = {
            "solo (C = 0)": chunk == 0,
            f"small chunks (C < {SMALL_CHUNK})": (chunk > 0) & (chunk < SMALL_CHUNK),
            f"chunks (C >= {SMALL_CHUNK})": chunk >= SMALL_CHUNK,
        }
        for name, part in parts.items():
            if part.any():
                errors = self.relative[part]
                worst = int(np.abs(errors).argmax())
                here = self.points.select(part)
                yield Region(
                    name,
                    int(part.sum()),
                    float(errors.mean()),
                    float(errors[worst]),
                    int(here.batch_size[worst]),
                    int(here.chunk_size[worst]),
                )


def fit_batches(
    rows: Measurements,
    epsilon: float = 0.0,
    min_chunk: int = 1,
    *,
    pair_share: float = 0.0,
    kv_tokens: float = math.inf,
) -> BatchFit:
    """The fit to rows over several batch sizes and chunk sizes; repeats count as one point.

    Args:
        epsilon: s per token of context, for rows that do not tell it; its share in each row is taken out first.
        min_chunk: the least chunk size that is fitted, tokens.
        pair_share: zeta over beta, for rows that do not tell zeta.
        kv_tokens: that the memory holds: what needs more is not fitted, where enough is left without it.

    Raises:
        FluidgateError: the rows do not tell the coefficients, or epsilon is more than they hold.
    """
    points = Points.of(rows)
    used = _within(points.select((points.chunk_size == 0) | (points.chunk_size >= max(1, min_chunk))), kv_tokens)
    left_out = int((points.tokens > kv_tokens).sum()) if used.tokens.max() <= kv_tokens else 0
    mixed, solo = used.mixed, used.solo
    if len(mixed) == 0:
        mend = "measure iterations with a chunk_size above 0"
        fail(rows.source, [f"no rows with a chunk, or only small ones: what a prompt takes is unknown; {mend}"])
    for what, values in {"chunk size": mixed.chunk_size, "batch size": mixed.batch_size}.items():
        if len(np.unique(values)) < 2:
            fail(rows.source, [f"a slope in the {what} needs two of them in mixed rows; measure more of them"])
    solo_tells = solo.tells_context and len(np.unique(solo.batch_size)) > 1
    keys = [
        "beta",
        "delta",
        *(["epsilon"] if mixed.tells_context else []),
        *(["zeta"] if mixed.tells_read_before else []),
    ]
    alone = _fitted(solo, ["delta", "epsilon"], {}) if solo_tells else {}
    at_solo = alone["epsilon"].value if solo_tells else epsilon
    found = _fitted(mixed, keys, {"epsilon": at_solo})
    if found["beta"].value <= 0.0:
        reason = "the mixed time does not grow with the chunk size"
        fail(rows.source, [f"beta: {reason}; measure larger chunks, or check the columns"])
    if not solo_tells:
        alone = _alone(solo, epsilon or _at_most(solo, found["epsilon"].value), found["delta"])
    zeta = found.get("zeta", Estimate(pair_share * found["beta"].value, None, None))
    made = BatchFit(
        alpha=found["alpha"],
        beta=found["beta"],
        delta=found["delta"],
        epsilon=found["epsilon"],
        zeta=zeta,
        solo_alpha=alone.get("alpha"),
        solo_delta=alone.get("delta"),
        solo_epsilon=alone.get("epsilon"),
        fitted=frozenset(
            [*(key for key in ("epsilon", "zeta") if key in keys), *(["solo_epsilon"] if solo_tells else [])]
        ),
        points=points,
        min_chunk=min_chunk,
        beyond_memory=left_out,
    )
    smallest = (made.alpha.value + made.beta.value, (made.solo_alpha or made.alpha).value)
    if min(smallest) <= 0.0:
        reason = f"the law gives {1e3 * min(smallest):.3g} ms for the smallest iteration"
        fail(rows.source, [f"{reason}; check the columns and --context, or fit other chunks with --min-chunk"])
    return made


def _within(points: Points, kv_tokens: float) -> Points:
    """The points that fit in memory, where there are several contexts, and these points tell as much as all do."""
    if not points.mixed.tells_context:
        return points
    inside = points.select(points.tokens <= kv_tokens)
    for whole, part in ((points.mixed, inside.mixed), (points.solo, inside.solo)):
        axes = [(np.unique(a), np.unique(b)) for a, b in zip(whole.axes[:2], part.axes[:2], strict=True)]
        told = (part.tells_context, part.tells_read_before) >= (whole.tells_context, whole.tells_read_before)
        if any(len(a) > 1 and len(b) < 2 for a, b in axes) or not told or (len(whole) and not len(part)):
            return points
    return inside


def _alone(solo: Points, epsilon: float, delta: Estimate) -> dict[str, Estimate]:
    """Of iterations without a chunk that do not tell epsilon; with one batch size their slope is that of mixed ones."""
    if len(np.unique(solo.batch_size)) > 1:
        return _fitted(solo, ["delta"], {"epsilon": epsilon})
    if len(solo) == 0:
        return {}
    rest = solo.seconds - (epsilon * solo.context + delta.value) * solo.batch_size
    return {
        "alpha": Estimate(float(rest.mean()), None, None),
        "delta": delta,
        "epsilon": Estimate(epsilon, None, None),
    }


def _at_most(points: Points, epsilon: float) -> float:
    """An epsilon that was measured beside a chunk, but no more than half of any of these times."""
    tokens = points.regressors["epsilon"]
    if not (tokens > 0).any():
        return epsilon
    return min(epsilon, 0.5 * float((points.seconds[tokens > 0] / tokens[tokens > 0]).min()))


def _fitted(points: Points, keys: list[str], given: Mapping[str, float]) -> dict[str, Estimate]:
    """Intercept and slopes, 0 at least, by weighted least squares, what is given taken out first.

    Standard errors are as if each time were wrong by the same share of itself, independently: what is known of times.
    """
    from scipy.optimize import nnls

    regressors = points.regressors
    known = {key: value for key, value in given.items() if key not in keys}
    rest = points.seconds - sum((value * regressors[key] for key, value in known.items()), np.zeros(len(points)))
    design = np.column_stack([np.ones(len(rest)), *(regressors[key] for key in keys)])
    size = np.abs(design).max(axis=0)
    scale = np.where(size > 0, size, 1.0)
    root = np.sqrt(points.weights)[:, None]
    weighted = design / scale * root
    held = np.flatnonzero(nnls(weighted, rest * root[:, 0], maxiter=100 * len(scale))[0]).tolist()
    solver = np.linalg.pinv(weighted[:, held]) * root[:, 0] / scale[held, None]
    values = solver @ rest
    errors = _variances(design[:, held], solver, rest, points.seconds)
    degrees = len(rest) - len(held)
    found = {
        name: NONE_AT_ALL if k not in held else estimate(float(values[held.index(k)]), errors(held.index(k)), degrees)
        for k, name in enumerate(["alpha", *keys])
    }
    return {**found, **{key: Estimate(value, None, None) for key, value in known.items()}}


def _variances(design: Array, solver: Array, rest: Array, seconds: Array) -> Any:
    """The variance of each coefficient under errors relative to `seconds`; None without degrees of freedom.

    Args:
        solver: the coefficients are `solver @ rest`.
    """
    if len(rest) <= design.shape[1]:
        return lambda index: None
    residuals = (rest - design @ (solver @ rest)) / seconds
    hat = (design / seconds[:, None], solver * seconds)
    trace = float(np.einsum("ij,ji->", *hat))
    square = float(np.sum((hat[0].T @ hat[0]) * (hat[1] @ hat[1].T)))
    degrees = max(len(rest) - 2.0 * trace + square, 1.0)
    variance = float(residuals @ residuals) / degrees
    return lambda index: variance * float(hat[1][index] @ hat[1][index])
