"""The blocks that prompts are made of, where a trace has their hashes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluidgate.shown import Brief
from fluidgate.toml_file import shown
from fluidgate.workloads.cells import Cells
from fluidgate.workloads.formats import Format

Lengths = NDArray[np.int64]


@dataclass(frozen=True, repr=False)
class Blocks(Brief):
    """The blocks of the prompts of a trace: where two have one number, they hold the same tokens after the same ones.

    Attributes:
        size: tokens of a block; the last one of a prompt may have fewer.
        ids: of all prompts, one after the other, shape (blocks,).
        first: where those of each prompt begin, and at last their number, shape (requests + 1,).
    """

    size: int
    ids: NDArray[np.uint64]
    first: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.first) - 1

    def of(self, request: int) -> NDArray[np.uint64]:
        return self.ids[self.first[request] : self.first[request + 1]]

    @staticmethod
    def joined(size: int, prompts: Sequence[NDArray[np.uint64]]) -> Blocks:
        """Of the blocks of each prompt."""
        first = np.concatenate([[0], np.cumsum([len(ids) for ids in prompts], dtype=np.int64)])
        return Blocks(size, np.concatenate([np.empty(0, np.uint64), *prompts]), first)

    @staticmethod
    def of_parts(parts: Sequence[Blocks]) -> Blocks:
        """Of the parts of one trace, one after the other, whose blocks of one number are the same."""
        return Blocks.joined(parts[0].size, [part.of(k) for part in parts for k in range(len(part))])

    def select(self, requests: NDArray[np.intp]) -> Blocks:
        if np.array_equal(requests, np.arange(len(self))):
            return self
        return Blocks.joined(self.size, [self.of(int(k)) for k in requests])


def read_blocks(cells: Cells, form: Format, prompt: Lengths) -> tuple[Blocks | None, list[str]]:
    """The blocks of the requests of a file, None where it has none; and what to know of them.

    A prompt has a block for each `form.block` of its tokens begun; the last may be left out where it is not whole.

    Raises:
        FluidgateError: they are no lists of whole numbers, or too few for a prompt.
    """
    if form.hashes is None:
        return None, []
    size, column = form.block, form.hashes
    found = cells.rows[column].tolist()
    wrong = np.array([not isinstance(ids, np.ndarray) for ids in found])
    if wrong.any():
        value = found[int(wrong.argmax())]
        reason = "missing; give" if value is None or value == "" else f"must be, but is {_seen(value)}; give"
        cells.fail(wrong, column, f"{reason} a list of whole numbers from 0, or leave the key out of every request")
    count = np.array([len(ids) for ids in found])
    few = count < prompt // size
    if few.any():
        k = int(few.argmax())
        reason = f"{count[k]} blocks of {size} tokens are too few for a prompt of {prompt[k]}"
        cells.fail(few, column, f"{reason}; give {-(-prompt[k] // size)}, or leave the key out of every request")
    most = -(-prompt // size)
    over = int((count > most + 1).sum())  # one more may be begun by the answer
    notes = [f"{column}: {over:,} requests have more blocks of {size} tokens than their prompts fill"] if over else []
    return Blocks.joined(size, [ids[:limit] for ids, limit in zip(found, most, strict=True)]), notes


def _seen(value: object) -> str:
    if not isinstance(value, list):
        return shown(value)
    other = next((each for each in value if not isinstance(each, int) or isinstance(each, bool) or each < 0), None)
    return "an array" if other is None else f"an array with {shown(other)}"
