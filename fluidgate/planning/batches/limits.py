"""Indicators at the iteration times of an operating point, and the kinds of iterations that they need."""

from __future__ import annotations

import numpy as np

from fluidgate.model import Array
from fluidgate.planning.batches.instance import BatchInstance
from fluidgate.planning.batches.program import BatchProgram, Limits
from fluidgate.planning.batches.running import Running
from fluidgate.planning.linear_program import Vertex

_KINDS = 33
"""Numbers of decodes that a program with a limit on TPOT starts with."""

_APART = 1e-7
"""Relative difference below which two numbers of decodes are one."""


def limits_at(instance: BatchInstance, where: Running, tpot: float, grid: Array | None) -> Limits:
    """The limits of an instance, TPOT at most `tpot` s, as linear rows at the iteration times of `where`."""
    kinds = instance.iterations(grid)
    chunk = kinds.mixed.chunk if kinds.by_node else np.full(len(kinds.mixed.seconds), where.chunk)
    mixed = [
        kinds.mixed_seconds(c, b, b * where.mixed_context) for c, b in zip(chunk, kinds.mixed.decodes, strict=True)
    ]
    solo = [kinds.solo_seconds(b, b * where.solo_context) for b in kinds.solo.decodes]
    read = instance.prompt - where.chunk * instance.least_chunks
    return Limits(
        tpot=tpot,
        mixed_seconds=np.array(mixed),
        solo_seconds=np.array(solo),
        fed_slope=kinds.prompt_token * where.mixed_decodes * read,
        mixed_slope=kinds.context * where.mixed_decodes * (instance.context - where.mixed_context),
        solo_slope=kinds.context * where.solo_decodes * (instance.context - where.solo_context),
        prefill_seconds=where.prefill_seconds,
        decode_seconds=where.solo_seconds,
    )


def first_grid(instance: BatchInstance) -> Array:
    """Numbers of decodes from 1 to B."""
    return np.unique(np.geomspace(1.0, max(instance.batch_size, 2), _KINDS))


def refined(grid: Array, program: BatchProgram, vertex: Vertex) -> Array:
    """The grid with more numbers beside those of the iterations that run."""
    kinds = program.iterations
    ran = np.concatenate(
        [
            kinds.mixed.decodes[vertex.columns[program.mixed_kinds] > 0.0],
            kinds.solo.decodes[vertex.columns[program.solo_kinds] > 0.0],
        ]
    )
    place = np.searchsorted(grid, ran).clip(1, len(grid) - 1)
    middle = np.concatenate([0.5 * (grid[k - 1] + grid[k]) for k in (place, np.minimum(place + 1, len(grid) - 1))])
    apart = np.abs(middle[:, None] - grid[None, :]).min(axis=1) > _APART * middle
    return np.union1d(grid, middle[apart])
