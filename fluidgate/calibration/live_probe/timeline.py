"""The iterations of an engine, as the decodes that run in all of them show them.

A decode gains one token an iteration. So the tokens of several decodes can be laid side by side by their number alone,
once it is known which token of one came with which of another; no arrival has to be told from its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluidgate.model import Array

IN_STEP = 0.8
"""Share of a decode's tokens that must lie where its first ones say."""

NEIGHBOURS = 5
"""Ends of iterations that say when one of them was."""


@dataclass(frozen=True)
class Track:
    """The tokens of one decode.

    Attributes:
        prompt: tokens of its prompt.
        times: of each event, s, ascending.
        counts: tokens there were after each event.
    """

    prompt: int
    times: Sequence[float]
    counts: Sequence[int]

    @property
    def arrivals(self) -> Array:
        """Of each token, s; nan where it came together with a later one."""
        arrivals = np.full(self.counts[-1] if len(self.counts) else 0, np.nan)
        arrivals[np.asarray(self.counts, dtype=np.int64) - 1] = self.times
        return arrivals


@dataclass(frozen=True)
class Timeline:
    """Iterations, numbered by the tokens of the first track; arrays of shape (iterations,).

    Attributes:
        ends: when each was seen to end, s; nan where nothing came.
        seconds: how long each took, s; nan where its begin or end was not seen.
        decodes: that gained a token in it, of the tracks.
        context: tokens that each of these had before it, in the mean; nan without any.
        in_step: share of the tokens that came in the iteration that their number says.
    """

    ends: Array
    seconds: Array
    decodes: NDArray[np.int64]
    context: Array
    in_step: float

    def ended(self, time: float) -> int:
        """The last iteration that had ended by a time; the first one if none had."""
        before = np.flatnonzero(self.ends <= time)
        return int(before[-1]) if len(before) else 0

    def between(self, first: int, last: int, solo: float, alone: NDArray[np.bool_]) -> float:
        """Seconds from the begin of one iteration to the end of another, nan where they were not seen.

        An end is seen early or late by what the client and the network make of it. So each of the two is the median of
        what itself and its neighbours say, as far as these are `alone`, `solo` s each.
        """

        def edge(at: int, step: int) -> float:
            said = [self.ends[at]]
            while len(said) < NEIGHBOURS and 0 < (n := at + step * len(said)) < len(self.ends):
                if not alone[n if step > 0 else n + 1]:
                    break
                said.append(self.ends[n] - step * len(said) * solo)
            return float(np.nanmedian(said)) if np.isfinite(said).any() else np.nan

        return edge(last, 1) - edge(first - 1, -1)


def timeline(tracks: Sequence[Track]) -> Timeline:
    """Lay tracks side by side; those without two tokens count for nothing, and the first must have them."""
    arrivals = [track.arrivals for track in tracks]
    size = len(arrivals[0])
    seen = np.full((len(tracks), size), np.nan)
    decodes, context = np.zeros(size, np.int64), np.zeros(size)
    in_step: list[float] = []
    for number, (track, times) in enumerate(zip(tracks, arrivals, strict=True)):
        if len(times) < 2:
            continue
        offset, share = (0, 1.0) if number == 0 else _offset(times, arrivals[0])
        in_step.append(share)
        token = np.arange(size) - offset
        there = (token >= 0) & (token < len(times))
        seen[number, there] = times[token[there]]
        runs = (token >= 1) & (token < len(times))
        decodes += runs
        context += np.where(runs, track.prompt + token, 0)
    ends = _median(seen)
    gaps = _median(np.diff(seen, axis=1, prepend=np.nan))
    between = np.diff(ends, prepend=np.nan)
    return Timeline(
        ends,
        np.where(np.isnan(gaps), between, gaps),
        decodes,
        np.where(decodes > 0, context / np.maximum(decodes, 1), np.nan),
        float(min(in_step, default=1.0)),
    )


def _offset(times: Array, reference: Array) -> tuple[int, float]:
    """What to add to the number of a token to get that of the reference's token that came with it, and how many did."""
    known = np.flatnonzero(~np.isnan(times))
    marks = np.flatnonzero(~np.isnan(reference))
    ends = reference[marks]
    after = np.clip(np.searchsorted(ends, times[known]), 1, len(ends) - 1)
    nearer = np.where(times[known] - ends[after - 1] < ends[after] - times[known], after - 1, after)
    inside = (times[known] >= ends[0] - (ends[1] - ends[0]) / 2) & (times[known] <= ends[-1])
    if not inside.any():
        return int(marks[nearer[0]] - known[0]), 1.0
    offsets = (marks[nearer] - known)[inside]
    values, counts = np.unique(offsets, return_counts=True)
    best = int(counts.argmax())
    return int(values[best]), float(counts[best] / counts.sum())


def _median(rows: Array) -> Array:
    """Of each column, over what is there; nan where nothing is."""
    filled = np.sort(rows, axis=0)
    there = (~np.isnan(rows)).sum(axis=0)
    columns = np.arange(rows.shape[1])
    low, high = np.maximum(there - 1, 0) // 2, there // 2
    middle = (filled[low, columns] + filled[np.minimum(high, len(rows) - 1), columns]) / 2.0
    return np.where(there > 0, middle, np.nan)


def trimmed_mean(values: Array, share: float = 0.2) -> float:
    """The mean without the least and the greatest `share` of the values on each side."""
    ordered = np.sort(values)
    cut = int(share * len(ordered))
    return float(ordered[cut : len(ordered) - cut].mean())
