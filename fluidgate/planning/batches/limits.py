"""Indicators at the iteration times of an operating point, and the kinds of iterations that they need."""

from __future__ import annotations

from dataclasses import fields, replace

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
    kinds = instance.iterations(grid, where.chunk)
    mixed, solo = kinds.mixed, kinds.solo
    in_mixed = kinds.mixed_decode + kinds.mixed_context * where.mixed_context
    in_solo = kinds.solo_decode + kinds.solo_context * where.solo_context
    more = instance.reading - where.chunk * instance.least_chunks
    pairs = where.chunk * instance.mean_reach[1]
    more_pairs = instance.read_pairs - pairs * instance.least_chunks
    return Limits(
        tpot=tpot,
        chunk=where.chunk,
        mixed_seconds=mixed.seconds + kinds.prompt_token * where.chunk + kinds.pair * pairs + in_mixed * mixed.decodes,
        solo_seconds=solo.seconds + in_solo * solo.decodes,
        fed_slope=where.mixed_decodes * (kinds.prompt_token * more + kinds.pair * more_pairs),
        mixed_slope=kinds.mixed_context * where.mixed_decodes * (instance.context - where.mixed_context),
        solo_slope=kinds.solo_context * where.solo_decodes * (instance.context - where.solo_context),
        prefill_seconds=where.prefill_seconds,
        decode_seconds=where.solo_seconds,
    )


def between(one: Limits, two: Limits) -> Limits:
    """Half way between limits with the same kinds of iterations, TPOT and chunk those of the second."""
    half = {
        each.name: 0.5 * (getattr(one, each.name) + getattr(two, each.name))
        for each in fields(Limits)
        if each.name not in ("tpot", "chunk")
    }
    return replace(two, **half)


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
