"""What one iteration works on: the new token of each decode, then the tokens of one prefill chunk."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fluidgate.calibration.probe.cache import Cache


@dataclass(frozen=True)
class Decodes:
    """Requests that each gain one token, in successive rows of the cache.

    Attributes:
        rows: their rows.
        length: tokens of the longest, the new one included.
        mask: [rows, 1, 1, length], minus infinity past each one's end; None if all are equally long.
    """

    rows: slice
    length: int
    mask: torch.Tensor | None

    @property
    def count(self) -> int:
        return int(self.rows.stop - self.rows.start)


@dataclass(frozen=True)
class Chunk:
    """Prompt tokens of one request that are read together.

    Attributes:
        row: its row of the cache.
        size: tokens of the chunk.
        length: tokens read so far, the chunk included.
    """

    row: int
    size: int
    length: int


@dataclass(frozen=True)
class Batch:
    """One iteration: the tokens of the decodes, then those of the chunk.

    Attributes:
        tokens: [tokens], the ids.
        positions: [tokens], the place of each in its request, from 0.
        slots: [tokens], where the cache keeps each.
        outputs: [requests], the tokens that are followed by a new one: each decode's, and the chunk's last.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    outputs: torch.Tensor
    decodes: Decodes | None
    chunk: Chunk | None


def make_batch(
    cache: Cache,
    dtype: torch.dtype,
    *,
    decodes: Sequence[tuple[int, int]] = (),
    first_row: int = 0,
    chunk: Sequence[int] = (),
    chunk_row: int = 0,
    chunk_start: int = 0,
) -> Batch:
    """The batch of decodes `(token, position)` in rows from `first_row` on, and of the tokens `chunk` of `chunk_row`.

    Masks have the type `dtype` of the model; `chunk_start` is the number of tokens of the prompt read before.
    """
    device = cache.device

    def whole(numbers: Sequence[int]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=device)

    rows = whole([*range(first_row, first_row + len(decodes)), *[chunk_row] * len(chunk)])
    positions = whole([*(at for _, at in decodes), *range(chunk_start, chunk_start + len(chunk))])
    return Batch(
        tokens=whole([*(token for token, _ in decodes), *chunk]),
        positions=positions,
        slots=cache.slots_of(rows, positions),
        outputs=whole([*range(len(decodes)), *([len(rows) - 1] if chunk else [])]),
        decodes=_decodes(positions[: len(decodes)], first_row, dtype) if decodes else None,
        chunk=Chunk(chunk_row, len(chunk), chunk_start + len(chunk)) if chunk else None,
    )


def _decodes(positions: torch.Tensor, first_row: int, dtype: torch.dtype) -> Decodes:
    length = int(positions.max()) + 1
    equal = bool((positions == positions[0]).all())
    mask = None if equal else visible(positions, length, dtype)[:, None, None, :]
    return Decodes(slice(first_row, first_row + len(positions)), length, mask)


def visible(positions: torch.Tensor, length: int, dtype: torch.dtype) -> torch.Tensor:
    """[positions, length]: 0 where a token at `positions` sees the token of that place, else minus infinity."""
    later = torch.arange(length, device=positions.device) > positions[:, None]
    return torch.zeros(later.shape, dtype=dtype, device=positions.device).masked_fill(later, -torch.inf)
