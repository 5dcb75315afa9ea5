"""Measured iteration times as a table over chunk, decodes, context and tokens read before, its holes filled."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluidgate.calibration.batch_fit import BatchFit, Points
from fluidgate.calibration.measurements import Measurements
from fluidgate.model import Array, SoloTable, TimeTable
from fluidgate.toml_file import fail

DIGITS = 6
LEAST = 0.5
"""Share of its nodes that a table must have been measured at."""
NEAREST = (100, 10_000, 1, 1_000)
"""Steps along decodes, chunk, context and tokens read before, by how far they lead from a time that is like another:
a missing time follows from one at another context, else at another batch, then at other tokens read before."""
MOST = 1_000_000
"""Nodes of a table."""
KEYS = ("batch_size", "chunk_size", "context", "read_before")
NAMES = ("B", "C", "context", "read before")


@dataclass(frozen=True)
class Grid:
    """Times at the nodes of axes; those not measured are NaN.

    Attributes:
        axes: nodes of decodes, chunk, context and tokens read before, increasing.
        seconds: shape as the axes' lengths.
        left_out: names of the axes at one of whose nodes the times are taken, though the rows have several.
    """

    axes: tuple[Array, Array, Array, Array]
    seconds: Array
    left_out: tuple[str, ...]

    @staticmethod
    def of(points: Points, left_out: tuple[str, ...] = ()) -> Grid:
        """The points' times; those without decodes hold at every context."""
        for name in left_out:
            points = _at_most_met(points, name)
        decoding = points.context[points.batch_size > 0]
        nodes = [np.unique(axis).astype(float) for axis in points.axes]
        nodes[2] = np.unique(decoding) if len(decoding) else np.zeros(1)
        seconds = np.full([len(each) for each in nodes], np.nan)
        places = [np.searchsorted(each, axis) for each, axis in zip(nodes, points.axes, strict=True)]
        for b, c, k, r, decodes, time in zip(*places, points.batch_size, points.seconds, strict=True):
            seconds[b, c, k if decodes else slice(None), r] = time
        return Grid((nodes[0], nodes[1], nodes[2], nodes[3]), seconds, left_out)

    @property
    def missing(self) -> NDArray[np.bool_]:
        return np.isnan(self.seconds)

    @property
    def covered(self) -> float:
        """Share of the nodes that were measured."""
        return 1.0 - float(self.missing.mean())

    def filled(self, fitted: BatchFit) -> Array:
        """The times, missing ones the nearest measured time and what the law says lies between.

        Where the law says that it is less it is as many times less.
        """
        law = fitted.at(*np.meshgrid(*self.axes, indexing="ij"))
        times, known = self.seconds.copy(), np.argwhere(~self.missing)
        for place in np.argwhere(self.missing):
            near = tuple(known[(np.abs(known - place) @ np.array(NEAREST)).argmin()])
            here, there, measured = law[tuple(place)], law[near], self.seconds[near]
            times[tuple(place)] = measured + here - there if here >= there else measured * here / there
        return times

    def where(self) -> str:
        """The first of the missing nodes, by the axes that have several."""
        several = [k for k in range(4) if len(self.axes[k]) > 1]
        first = [[self.axes[k][place[k]] for k in several] for place in np.argwhere(self.missing)[:3]]
        said = [", ".join(f"{NAMES[k]} = {node:g}" for k, node in zip(several, nodes, strict=True)) for nodes in first]
        return "; ".join(said) + ("; ..." if self.missing.sum() > len(first) else "")


def measured_table(fitted: BatchFit, source: str) -> tuple[TimeTable, tuple[str, ...]]:
    """The mean times, 6 significant digits, and what a user should know of them.

    An axis of context, or of tokens read before, that was measured at a few of the sizes only is none of the table: it
    then has the node that was met most often, and the fitted slope holds beside it.

    Raises:
        FluidgateError: more than half of the nodes are missing.
    """
    grid, warnings = _grid(fitted.points.mixed, source, ("read_before",), ("context",), ("context", "read_before"))
    times = grid.filled(fitted)
    table: dict[str, Any] = {
        "chunk_sizes": tuple(int(node) for node in grid.axes[1]),
        "batch_sizes": tuple(int(node) for node in grid.axes[0]),
        "contexts": tuple(map(float, grid.axes[2])),
        "read_before": tuple(map(float, grid.axes[3])),
    }
    told = [*warnings, *_holes(grid, "")]
    solo = fitted.points.solo
    if len(solo):
        alone, warnings = _grid(solo, source, ("context",))
        told += [*warnings, *_holes(alone, "without a chunk ")]
        whole = alone.filled(fitted)
        if all(np.array_equal(alone.axes[k], grid.axes[k]) for k in (0, 2)) and len(grid.axes[3]) == 1:
            times, table["chunk_sizes"] = np.concatenate([whole, times], axis=1), (0, *table["chunk_sizes"])
        else:
            table["solo"] = SoloTable(
                batch_sizes=tuple(int(node) for node in alone.axes[0]),
                contexts=tuple(map(float, alone.axes[2])),
                seconds=_rows(whole[:, 0, :, 0]),
            )
    rows = _rows(times.swapaxes(0, 1))
    return TimeTable(seconds=rows, **table), tuple(told)


def law_for(rows: Measurements) -> str:
    """`table` for rows on a grid of chunk and batch sizes, `linear` for others of several sizes; else `paper`."""
    mixed = rows.select(rows.chunk_size > 0).pairs
    sizes = len(np.unique(mixed.batch_size)), len(np.unique(mixed.chunk_size))
    if min(sizes) < 2:
        return "paper"
    return "table" if len(mixed.seconds) >= LEAST * math.prod(sizes) else "linear"


def _grid(points: Points, source: str, *coarser: tuple[str, ...]) -> tuple[Grid, list[str]]:
    """The finest that has enough of its nodes, and what it leaves out."""
    for names in ((), *coarser):
        if _nodes(points, names) <= MOST and (grid := Grid.of(points, names)).covered >= LEAST:
            return grid, list(_left_out(points, grid))
    if _nodes(points, coarser[-1]) > MOST:
        fail(source, ["the rows lie on no grid, as those of an engine's own log; give --law linear"])
    whole = Grid.of(points, coarser[-1])
    missing, nodes = int(whole.missing.sum()), whole.missing.size
    reason = f"{missing} of the {nodes} nodes of a table are missing, the first at {whole.where()}"
    fail(source, [f"{reason}; measure more of them, choose rows with --where, or give --law linear"])


def _nodes(points: Points, left_out: tuple[str, ...]) -> int:
    """Of the axes that are not left out."""
    kept = [axis for name, axis in zip(KEYS, points.axes, strict=True) if name not in left_out]
    return math.prod(len(np.unique(axis)) for axis in kept)


def _at_most_met(points: Points, name: str) -> Points:
    """The points at the value of an axis that most of them have, the least of several; and those that have none."""
    axis, size = (points.context, points.batch_size) if name == "context" else (points.read_before, points.chunk_size)
    values, counts = np.unique(axis[size > 0], return_counts=True)
    return points.select((axis == values[counts.argmax()]) | (size == 0)) if len(values) else points


def _left_out(points: Points, grid: Grid) -> Iterator[str]:
    for name, axis in (("context", 2), ("read_before", 3)):
        values = np.unique((points.context, points.read_before)[axis - 2][points.batch_size > 0 if axis == 2 else ...])
        if name in grid.left_out and len(values) > 1:
            slope = "epsilon" if axis == 2 else "zeta"
            yield (
                f"the rows have {len(values)} values of {name}, but few sizes at all of them: the table is at "
                f"{grid.axes[axis][0]:g}, and {slope} is fitted to the others"
            )


def _holes(grid: Grid, kind: str) -> Iterator[str]:
    if missing := int(grid.missing.sum()):
        yield (
            f"{missing} of {grid.missing.size} nodes {kind}were not measured, and follow from their neighbours by the "
            f"fitted law: {grid.where()}"
        )


def _rows(times: Array) -> tuple[object, ...]:
    """Nested, 6 significant digits; without the axes of context and tokens read before that have one node."""
    sizes = 1 if times.ndim == 2 else 2
    single = tuple(k for k in range(sizes, times.ndim) if times.shape[k] == 1)
    kept = np.squeeze(times, axis=single)
    return _nested(kept)


def _nested(times: Array) -> tuple[object, ...]:
    if times.ndim == 1:
        return tuple(float(f"{time:.{DIGITS}g}") for time in times.tolist())
    return tuple(_nested(part) for part in times)
