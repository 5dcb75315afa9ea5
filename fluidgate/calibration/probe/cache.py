"""Keys and values of the tokens read so far, in blocks behind a table or in one stretch a request."""
# mypy: disable-error-code="import-not-found,no-untyped-call,no-any-return"

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from fluidgate.calibration.probe.shape import Shape


class Cache(ABC):
    """Room for the keys and values of several requests, one row each.

    A *slot* is the place of one token; `keys[layer]` and `values[layer]` have shape [slots, kv_heads, head_dim].
    A fresh cache holds random numbers, as if all its tokens had been read.
    """

    def __init__(self, shape: Shape, slots: int, dtype: torch.dtype, generator: torch.Generator) -> None:
        def room() -> list[torch.Tensor]:
            size = (slots, shape.kv_heads, shape.head_dim)
            rooms = (torch.empty(size, dtype=dtype, device=generator.device) for _ in range(shape.layers))
            return [one.normal_(generator=generator) for one in rooms]

        self.keys = room()
        self.values = room()
        self.device = generator.device

    @abstractmethod
    def slots_of(self, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Slots [tokens] of the tokens at `positions` [tokens] of the requests `rows` [tokens]."""

    @abstractmethod
    def read(self, layer: int, rows: slice, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the first `length` tokens of some rows, each [rows, length, kv_heads, head_dim]."""

    def write(self, layer: int, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Keep keys and values [tokens, kv_heads, head_dim] in `slots` [tokens]."""
        self.keys[layer].index_copy_(0, slots, keys)
        self.values[layer].index_copy_(0, slots, values)


class ContiguousCache(Cache):
    """One stretch a row, all as long as the longest of `capacities` (tokens of each row) but for the last, which may
    be longer. Reading copies nothing.
    """

    def __init__(self, shape: Shape, capacities: Sequence[int], dtype: torch.dtype, generator: torch.Generator) -> None:
        self.capacity = stretch(capacities)
        super().__init__(shape, contiguous_slots(capacities), dtype, generator)

    def slots_of(self, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return rows * self.capacity + positions

    def read(self, layer: int, rows: slice, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._stretch(self.keys[layer], rows, length), self._stretch(self.values[layer], rows, length)

    def _stretch(self, kept: torch.Tensor, rows: slice, length: int) -> torch.Tensor:
        token, *inner = kept.stride()
        return kept.as_strided(
            (rows.stop - rows.start, length, *kept.shape[1:]),
            (self.capacity * token, token, *inner),
            rows.start * self.capacity * token,
        )


class PagedCache(Cache):
    """Blocks of `block_size` tokens in random order, found through a table [rows, blocks of the longest row].

    Reading gathers a row's blocks into a copy.
    """

    def __init__(
        self,
        shape: Shape,
        capacities: Sequence[int],
        dtype: torch.dtype,
        generator: torch.Generator,
        block_size: int,
    ) -> None:
        counts = [blocks_for(tokens, block_size) for tokens in capacities]
        super().__init__(shape, sum(counts) * block_size, dtype, generator)
        self.block_size = block_size
        order = torch.randperm(sum(counts), generator=generator, device=self.device)
        self.table = torch.nn.utils.rnn.pad_sequence(order.split(counts), batch_first=True)

    def slots_of(self, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return self.table[rows, positions // self.block_size] * self.block_size + positions % self.block_size

    def read(self, layer: int, rows: slice, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        table = self.table[rows, : blocks_for(length, self.block_size)]
        return self._gather(self.keys[layer], table, length), self._gather(self.values[layer], table, length)

    def _gather(self, kept: torch.Tensor, table: torch.Tensor, length: int) -> torch.Tensor:
        blocks = kept.unflatten(0, (-1, self.block_size)).index_select(0, table.reshape(-1))
        return blocks.view(len(table), -1, *kept.shape[1:])[:, :length]


def stretch(capacities: Sequence[int]) -> int:
    """Tokens from one row of a contiguous cache to the next."""
    return max(capacities[:-1], default=capacities[-1])


def contiguous_slots(capacities: Sequence[int]) -> int:
    """Tokens that a contiguous cache holds: the last row alone may be longer than the others."""
    return (len(capacities) - 1) * stretch(capacities) + max(stretch(capacities), capacities[-1])


def blocks_for(tokens: int, block_size: int) -> int:
    """Blocks that hold `tokens` tokens."""
    return -(-tokens // block_size)
