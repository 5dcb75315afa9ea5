"""What is read of prompts whose beginning is found in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fluidgate.planning.lengths import Sizes


class Reading(Protocol):
    """What is read of the prompts of a class, as `Sizes` says it of whole ones."""

    @property
    def prompt(self) -> float:
        """Mean tokens that are read."""

    def chunks(self, size: float) -> float:
        """Mean number of chunks of `size` tokens."""

    def held_reading(self, size: float) -> float:
        """Tokens times iterations that a prompt, with what was found, holds while it is read."""

    def read_pairs(self, size: float) -> float:
        """Pairs of a token that is read and one of its prompt that was found, or read in a chunk before its own."""

    def capped(self, most: float) -> float:
        """The mean of what is read, at most `most`, tokens."""


@dataclass(frozen=True, eq=False)
class Reused:
    """Prompts of which the same share is found, the beginning, whatever their length.

    Attributes:
        whole: mean prompt, tokens.
        rest: the lengths of what is read, `P (1 - h)`.
        hit_rate: h, above 0.
        square: `E P^2` of the whole prompts.
    """

    whole: float
    rest: Sizes
    hit_rate: float
    square: float

    @property
    def prompt(self) -> float:
        return self.rest.prompt

    def chunks(self, size: float) -> float:
        return self.rest.chunks(size)

    def held_reading(self, size: float) -> float:
        return self.rest.held_reading(size) * self.whole / self.rest.prompt

    def read_pairs(self, size: float) -> float:
        return self.rest.read_pairs(size) + self.found_pairs

    @property
    def found_pairs(self) -> float:
        """Pairs of a token that is read and one that was found: `h (1 - h) E P^2`."""
        return self.hit_rate * (1.0 - self.hit_rate) * self.square

    def capped(self, most: float) -> float:
        return self.rest.capped(most)


def read_of(sizes: Sizes, hit_rate: float) -> Reading:
    """What is read of prompts where that share of their tokens is found; at 0 the sizes themselves."""
    if hit_rate == 0.0:
        return sizes
    return Reused(sizes.prompt, sizes.rest(hit_rate), hit_rate, sizes.square)
