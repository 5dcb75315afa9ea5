"""Whether a probe fits in memory, before any is taken."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fluidgate.calibration.probe.cache import blocks_for, contiguous_slots
from fluidgate.calibration.probe.settings import Settings
from fluidgate.calibration.probe.weights import parameter_count
from fluidgate.errors import FluidgateError

GB = 1e9
RESERVE = {"cpu": 0.1e9, "cuda": 0.6e9}
"""Bytes for the libraries' own buffers."""


@dataclass(frozen=True)
class Need:
    """Bytes that a probe holds at its peak: weights, keys and values, and the results of one iteration's steps."""

    weights: float
    cache: float
    steps: float

    @property
    def total(self) -> float:
        return self.weights + self.cache + self.steps


def need(settings: Settings) -> Need:
    """The memory of the largest iteration of a probe."""
    shape = settings.shape
    number = getattr(torch, settings.dtype).itemsize
    requests, chunk = max(settings.batch_sizes), max(settings.chunk_sizes, default=0)
    heads = shape.heads + 2 * shape.kv_heads
    paged, block = settings.cache == "paged", settings.block_size
    capacities = settings.capacities
    slots = sum(blocks_for(each, block) * block for each in capacities) if paged else contiguous_slots(capacities)
    token_of_layer = 2 * shape.kv_heads * shape.head_dim

    read = slots * token_of_layer if paged else 0
    widest = max(4 * shape.feed_forward, 3 * heads * shape.head_dim) + 3 * shape.hidden
    steps = read + (requests + chunk) * widest + 2 * requests * shape.vocabulary
    return Need(
        weights=number * parameter_count(shape, share_layers=settings.share_layers),
        cache=number * slots * token_of_layer * shape.layers,
        steps=number * steps,
    )


def check_memory(settings: Settings, device: torch.device) -> None:
    """Refuse a probe that does not fit, and say what would.

    Raises:
        FluidgateError: it needs more than is free.
    """
    free = free_bytes(device)
    if free is None:
        return
    room = free - RESERVE[device.type]
    wanted = need(settings)
    if wanted.total > room:
        fits = " or ".join(_smaller(settings, room)) or "take a smaller shape or less context"
        raise FluidgateError(
            f"probe: {settings.shape.name} in {settings.dtype} needs {_gb(wanted.total)} ({_gb(wanted.weights)} of"
            f" weights, {_gb(wanted.cache)} of keys and values, {_gb(wanted.steps)} to compute), but {_gb(room)} can be"
            f" had on {device.type}; what would fit: {fits}"
        )


def free_bytes(device: torch.device) -> float | None:
    """Free memory of the device, or None where it cannot be told."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    known = [bytes_ for bytes_ in (_available(), _limit()) if bytes_ is not None]
    return min(known, default=None)


def _smaller(settings: Settings, room: float) -> Iterator[str]:
    """Changes of one option each, by which the probe fits into `room` bytes."""

    def fits(**changes: object) -> bool:
        return need(replace(settings, **changes)).total <= room  # type: ignore[arg-type]

    for size in reversed(settings.batch_sizes[:-1]):
        if fits(batch_sizes=tuple(each for each in settings.batch_sizes if each <= size)):
            yield f"--batch-sizes up to {size}"
            break
    if not settings.share_layers and fits(share_layers=True):
        yield "--share-layers"
    layers = settings.shape.layers - 1
    while layers and not fits(shape=replace(settings.shape, layers=layers)):
        layers -= 1
    if layers:
        yield f"--layers {layers}"


def _gb(bytes_: float) -> str:
    return f"{max(bytes_, 0.0) / GB:.3g} GB"


def _available() -> float | None:
    """Memory that the machine can give, by Linux; else its whole memory."""
    with suppress(OSError, StopIteration, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        return 1024.0 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    with suppress(AttributeError, OSError, ValueError):
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return None


def _limit() -> float | None:
    """Memory that the container may take, if there is a limit."""
    with suppress(OSError, ValueError):
        return float(int(Path("/sys/fs/cgroup/memory.max").read_text("ascii")))
    return None
