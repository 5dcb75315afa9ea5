"""What arrives at a GPU: requests of each class, their lengths spread evenly over their laws."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from fluidgate.model import Array, Scenario
from fluidgate.planning.lengths import Sizes, lengths_of

REQUESTS = 2048
"""Of a class, by which its laws are read."""
_EACH = 4
"""One request of so many is enough for means."""


@dataclass(frozen=True, eq=False)
class Requests:
    """Requests of a class; shape (requests,) each.

    Attributes:
        prompt: tokens.
        output: tokens.
        reading: tokens of the prompt that are read.
    """

    prompt: Array
    output: Array
    reading: Array

    @cached_property
    def found(self) -> Array:
        """Tokens of the prompt that are in memory."""
        return self.prompt - self.reading

    @cached_property
    def few(self) -> Requests:
        """Fewer of them, for means."""
        if len(self.prompt) < REQUESTS:
            return self
        some = slice(_EACH // 2, None, _EACH)
        return Requests(self.prompt[some], self.output[some], self.reading[some])

    @cached_property
    def reading_square(self) -> float:
        """`E R^2`, tokens^2."""
        return float((self.reading**2).mean())


@lru_cache(maxsize=256)
def _requests(sizes: Sizes, hit: float) -> Requests:
    prompt, output = sizes.requests(REQUESTS)
    return Requests(prompt, output, np.maximum(prompt * (1.0 - hit), np.minimum(prompt, 1.0)))


@dataclass(frozen=True, eq=False)
class Load:
    """The load of a GPU.

    Attributes:
        rate: requests/s of each class, shape (classes,).
        requests: of each class.
    """

    rate: Array
    requests: tuple[Requests, ...]

    @staticmethod
    def of(scenario: Scenario) -> Load:
        """The load of a scenario, per GPU.

        Raises:
            FluidgateError: a trace of empirical lengths is wrong, or holds no request of a class.
        """
        found = []
        for sizes, hit in zip(lengths_of(scenario), scenario.hit_rates, strict=True):
            found.append(_requests(sizes, float(hit)))
        return Load(np.array([c.arrival_rate for c in scenario.classes]), tuple(found))

    def at(self, factor: float) -> Load:
        """The same requests at a multiple of their rates."""
        return Load(self.rate * factor, self.requests)

    @property
    def total(self) -> float:
        """Requests/s."""
        return float(self.rate.sum())

    @property
    def prompt_rate(self) -> float:
        """Prompt tokens/s that are to be read."""
        return float(self.rate @ [r.reading.mean() for r in self.requests])

    def decode_rate(self, skipped: int) -> float:
        """Decode tokens/s, of which the first `skipped` of a request are none."""
        return float(self.rate @ [np.maximum(r.output - skipped, 0.0).mean() for r in self.requests])

    def decoding(self, skipped: int) -> tuple[float, float]:
        """Mean tokens of context of a decode, and mean output of the request that it is of."""
        work = written = lasting = 0.0
        for rate, each in zip(self.rate, self.requests, strict=True):
            decodes = np.maximum(each.output - skipped, 0.0)
            work += rate * float(decodes.mean())
            written += rate * float((decodes * (each.prompt + 0.5 * (decodes - 1.0) + skipped)).mean())
            lasting += rate * float((decodes * decodes).mean())
        return (written / work, lasting / work) if work > 0.0 else (0.0, 1.0)

    @property
    def longest(self) -> float:
        """Prompt, tokens."""
        return max(float(r.prompt.max()) for r in self.requests)
