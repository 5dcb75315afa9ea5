"""A prompt as a chain of hashes: two chains agree for as long as what was hashed does, block by block.

A text is cut into blocks of `TEXT_BLOCK` bytes, token ids into blocks of `IDS_BLOCK`, the block that vLLM has by
default. The hash of a block stands for all that comes before it too. It is FNV-1a of 64 bits, mixed at the end of each
block as MurmurHash3 does, from a seed of this process's own. Nothing of the prompt is kept, but for the hash of its
unfinished last block, so that a chain can go on.
"""

from __future__ import annotations

import secrets
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluidgate.compiled import kept

TEXT_BLOCK = 64
"""Bytes: about 16 tokens."""

IDS_BLOCK = 16
"""Tokens."""

WORD = 8
"""Bytes of a token id, as it is hashed."""

SEED = secrets.randbits(64)
"""Nobody outside can find two prompts that are told apart by no hash."""

PRIME = np.uint64(0x100000001B3)
MIXER = np.uint64(0xFF51AFD7ED558CCD)
SHIFT = np.uint64(33)
LOWEST = np.uint64(1)


class Chain:
    """The hashes of a prompt, or of a prompt and its answer.

    Attributes:
        hashes: of its full blocks, int64; the lowest bit is 1 for token ids.
        size: bytes of the text, or tokens.
        text: whether it is a text.
    """

    __slots__ = ("_state", "hashes", "size", "text")

    def __init__(self, salt: bytes, *, text: bool) -> None:
        """An empty prompt; `salt` tells apart prompts that no engine takes for the same, however they begin."""
        self.text = text
        self.hashes: NDArray[np.int64] = np.empty(0, np.int64)
        self.size = 0
        self._state = np.full(1, SEED, np.uint64)
        hash_blocks(np.frombuffer(salt, np.uint8), self._state, 0, len(salt) + 1, text, self.hashes.view(np.uint64))

    @property
    def block(self) -> int:
        """Bytes or tokens of a block."""
        return TEXT_BLOCK if self.text else IDS_BLOCK

    def followed_by(self, more: bytes | Sequence[int]) -> Chain:
        """A chain that goes on, with a text where it is one, else with token ids."""
        longer = Chain.__new__(Chain)
        longer.text, longer._state = self.text, self._state.copy()
        data = np.frombuffer(more if isinstance(more, bytes) else array("q", more).tobytes(), np.uint8)
        unit = 1 if self.text else WORD
        longer.size = self.size + len(data) // unit
        new = np.empty(longer.size // self.block - self.size // self.block, np.int64)
        hash_blocks(data, longer._state, self.size * unit, self.block * unit, self.text, new.view(np.uint64))
        longer.hashes = np.concatenate((self.hashes, new)) if len(self.hashes) else new
        return longer


def chain_of_text(text: bytes, salt: bytes = b"") -> Chain:
    return Chain(salt, text=True).followed_by(text)


def chain_of_ids(ids: Sequence[int], salt: bytes = b"") -> Chain:
    """
    Raises:
        OverflowError: an id has more than 63 bits.
    """
    return Chain(salt, text=False).followed_by(ids)


def hash_blocks_kernel(data: Any, state: Any, start: int, block: int, text: bool, hashes: Any) -> None:
    """Go on with a hash over `data`, of which the first byte is the `start`-th; one number goes into `hashes` at the
    end of each block of so many bytes."""
    hashed = state[0]
    found = 0
    for k in range(data.size):
        hashed = (hashed ^ np.uint64(data[k])) * PRIME
        if (start + k + 1) % block == 0:
            mixed = hashed ^ (hashed >> SHIFT)
            mixed = mixed * MIXER
            mixed = mixed ^ (mixed >> SHIFT)
            hashes[found] = mixed & ~LOWEST if text else mixed | LOWEST
            found += 1
    state[0] = hashed


hash_blocks = kept(hash_blocks_kernel, "the hashes of prompts", seconds=1)
