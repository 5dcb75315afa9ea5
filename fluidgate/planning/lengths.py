"""What a plan must know of the lengths of requests: how many chunks a prompt is, how much context a decode finds.

All are means over the requests of a class, by the laws of `[lengths]` as the streams draw them: exponential ones are
geometric on 1, 2, ..., fixed ones the rounded mean, log-normal ones of the class's mean and CV, empirical ones those of
the traces, prompt and output of one request together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fluidgate.errors import FluidgateError
from fluidgate.model import Array, LengthLaw, RequestClass
from fluidgate.scenario_reader import read_trace_lengths

if TYPE_CHECKING:
    from fluidgate.model import Scenario

_QUANTILES = 160
"""Midpoints of equal probability at which a law is read where it has no closed form."""

_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
"""Its multiples, less their whole parts, are spread evenly over 0..1, whatever goes up beside them."""

_FAR = 20.0
"""Times its mean that a context hardly ever exceeds."""

Sample = tuple[Array, Array]
"""Prompt and output lengths of requests, tokens, shape (requests,) each."""


class Sizes(Protocol):
    """The lengths of the requests of a class.

    `skipped` decode iterations of a request are none: 1 where the first token comes with the last chunk, else 0.
    """

    def __hash__(self) -> int: ...

    @property
    def prompt(self) -> float:
        """Mean prompt, tokens."""

    @property
    def output(self) -> float:
        """Mean output, tokens."""

    @property
    def square(self) -> float:
        """`E P^2` of the prompts, tokens^2."""

    def rest(self, hit_rate: float) -> Sizes:
        """The same with prompts of which that share of the tokens is left out, in 0..1 but not 1."""

    def chunks(self, size: float) -> float:
        """Mean number of chunks of `size` tokens that a prompt is, `E ceil(P/size)`."""

    def held_reading(self, size: float) -> float:
        """Tokens times iterations that a prompt holds while it is read, `E[P ceil(P/size)]`."""

    def read_pairs(self, size: float) -> float:
        """Pairs of a token of a prompt and one that was read in a chunk of `size` tokens before its own."""

    def capped(self, most: float) -> float:
        """`E min(P, most)`, tokens."""

    def context(self, skipped: int) -> float:
        """Tokens that a decode iteration finds, read and written before it, over all decode iterations."""

    def context_within(self, skipped: int, memory: float) -> float:
        """The same, of a request at most `memory`: what a GPU holds of one that alone exceeds it."""

    def requests(self, number: int) -> Sample:
        """Prompts and outputs of about so many requests, tokens, spread evenly over their law; the same each time."""


@dataclass(frozen=True)
class Independent:
    """Prompts and outputs drawn independently, each by a law."""

    prompts: Law
    outputs: Law

    @property
    def prompt(self) -> float:
        return self.prompts.mean

    @property
    def output(self) -> float:
        return self.outputs.mean

    @property
    def square(self) -> float:
        return self.prompts.square

    def rest(self, hit_rate: float) -> Sizes:
        mean = self.prompts.mean
        shorter = replace(self.prompts, mean=max(mean * (1.0 - hit_rate), min(mean, 1.0)))
        return replace(self, prompts=shorter)

    def chunks(self, size: float) -> float:
        return self.prompts.chunks(size)

    def held_reading(self, size: float) -> float:
        return self.prompts.held_reading(size)

    def read_pairs(self, size: float) -> float:
        return self.prompts.read_pairs(size)

    def capped(self, most: float) -> float:
        return float(np.minimum(self.prompts.quantiles(), most).mean()) if most < _FAR * self.prompt else self.prompt

    def context(self, skipped: int) -> float:
        decodes = max(self.outputs.mean - skipped, 0.0)
        return self.prompts.mean + (self.outputs.pairs(skipped) / decodes if decodes > 0.0 else 0.0)

    def context_within(self, skipped: int, memory: float) -> float:
        mean = self.context(skipped)
        if memory > _FAR * mean:
            return mean
        found = self.prompts.quantiles()[:, None] + self.outputs.written()[None, :]
        return max(mean - float(np.maximum(found - memory, 0.0).mean()), 0.0)

    def requests(self, number: int) -> Sample:
        chance = _midpoints(number)
        return self.prompts.lengths(chance), self.outputs.lengths(chance * number * _GOLDEN % 1.0)


@dataclass(frozen=True, eq=False)
class Empirical:
    """The requests of a trace; shape (requests,) each."""

    prompts: Array
    outputs: Array

    @property
    def prompt(self) -> float:
        return float(self.prompts.mean())

    @property
    def output(self) -> float:
        return float(self.outputs.mean())

    @property
    def square(self) -> float:
        return float((self.prompts**2).mean())

    def rest(self, hit_rate: float) -> Sizes:
        shorter = np.maximum(self.prompts * (1.0 - hit_rate), np.minimum(self.prompts, 1.0))
        return replace(self, prompts=shorter)

    def chunks(self, size: float) -> float:
        return float(np.ceil(self.prompts / size).mean())

    def held_reading(self, size: float) -> float:
        return float((self.prompts * np.ceil(self.prompts / size)).mean())

    def read_pairs(self, size: float) -> float:
        before = np.ceil(self.prompts / size) - 1.0
        return float((size * before * (self.prompts - size * (before + 1.0) / 2.0)).mean())

    def capped(self, most: float) -> float:
        return float(np.minimum(self.prompts, most).mean())

    def context(self, skipped: int) -> float:
        return self.context_within(skipped, math.inf)

    def context_within(self, skipped: int, memory: float) -> float:
        decodes = np.maximum(self.outputs - skipped, 0.0)
        if not decodes.any():
            return self.prompt
        last = self.prompts + decodes - 1.0
        total = decodes * (self.prompts + last) / 2.0
        if math.isfinite(memory):
            first_over = np.maximum(self.prompts, memory + 1.0)
            total -= np.maximum(last - first_over + 1.0, 0.0) * (first_over + last - 2.0 * memory) / 2.0
        return float(total.sum() / decodes.sum())

    def requests(self, number: int) -> Sample:
        """All of them, or so many by the order of their prompts."""
        if len(self.prompts) <= number:
            return self.prompts, self.outputs
        picked = np.argsort(self.prompts, kind="stable")[(_midpoints(number) * len(self.prompts)).astype(int)]
        return self.prompts[picked], self.outputs[picked]


@dataclass(frozen=True)
class Law:
    """A law of lengths with its mean, tokens; `cv` that of log-normal ones."""

    name: LengthLaw
    mean: float
    cv: float = 0.0

    @property
    def square(self) -> float:
        """`E X^2`."""
        if self.name == "exponential":
            return 2.0 * self.mean**2 - self.mean
        return self.mean**2 * (1.0 + self.cv**2)

    def pairs(self, skipped: int) -> float:
        """`E[n (n-1)] / 2` of `n = X - skipped`."""
        return max(0.5 * (self.square - self.mean) - skipped * self.mean + skipped * (skipped + 1) / 2, 0.0)

    def chunks(self, size: float) -> float:
        """`E ceil(X/size)`."""
        return float(self._longer(size, self._tail).sum())

    def held_reading(self, size: float) -> float:
        """`E[X ceil(X/size)]`."""
        return float(self._longer(size, self._tail_mean).sum())

    def read_pairs(self, size: float) -> float:
        """`size` times the sum of `E[X - j size; X > j size]` over j = 1, 2, ..."""
        return max(size * (float(self._longer(size, self._excess).sum()) - self.mean), 0.0)

    def _longer(self, size: float, of: Callable[[Any], Array]) -> Array:
        """`of` at 0, size, 2 size, ..., as far as anything is that long."""
        if self.name == "fixed":
            return of(size * np.arange(math.ceil(self.mean / size), dtype=float))
        if self.name == "exponential":
            return _geometric_sums(self, size, of)
        longest = self.mean * math.exp(8.0 * math.sqrt(math.log1p(self.cv**2)))
        return of(size * np.arange(max(1, min(math.ceil(longest / size), 1_000_000)), dtype=float))

    def _tail(self, length: Array) -> Array:
        """`P(X > length)`."""
        if self.name == "fixed":
            return (length < self.mean).astype(float)
        if self.name == "exponential":
            return self._stays() ** length
        from scipy.special import ndtr

        return np.asarray(ndtr(-self._standard(length)))

    def _tail_mean(self, length: Array) -> Array:
        """`E[X; X > length]`."""
        if self.name == "fixed":
            return self.mean * self._tail(length)
        if self.name == "exponential":
            return (length + self.mean) * self._tail(length)
        from scipy.special import ndtr

        return np.asarray(self.mean * ndtr(self._sigma() - self._standard(length)))

    def _excess(self, length: Array) -> Array:
        """`E[X - length; X > length]`."""
        return np.asarray(self._tail_mean(length) - length * self._tail(length))

    def quantiles(self) -> Array:
        """Lengths at the midpoints of equal probability, shape (_QUANTILES,)."""
        if self.name == "fixed":
            return np.full(1, self.mean)
        chance = _midpoints(_QUANTILES)
        if self.name == "exponential":
            return np.asarray(-self.mean * np.log1p(-chance))
        return self._lognormal(chance)

    def lengths(self, chance: Array) -> Array:
        """The lengths that requests stay below with some probabilities, as they are drawn: a token at least."""
        if self.name == "fixed" or self.mean <= 1.0:
            return np.full(len(chance), max(self.mean, 1.0))
        if self.name == "exponential":
            return np.asarray(np.ceil(np.log1p(-chance) / np.log1p(-1.0 / self.mean)))
        return np.asarray(np.maximum(self._lognormal(chance), 1.0))

    def _lognormal(self, chance: Array) -> Array:
        from scipy.special import ndtri

        return np.asarray(self.mean * np.exp(self._sigma() * ndtri(chance) - self._sigma() ** 2 / 2.0))

    def written(self) -> Array:
        """What a decode in progress has written, at the midpoints of equal probability, shape (_QUANTILES,).

        Its density at `w` is `P(X > w) / E X`.
        """
        chance = _midpoints(_QUANTILES)
        if self.name == "fixed":
            return self.mean * chance
        if self.name == "exponential":
            return np.asarray(-self.mean * np.log1p(-chance))
        lengths = self.mean * np.exp(np.linspace(-8.0, 8.0, 2001) * self._sigma())
        tail = self._tail(lengths)
        below = (lengths * tail + self.mean - self._tail_mean(lengths)) / self.mean
        return np.asarray(np.interp(chance, below, lengths))

    def _stays(self) -> float:
        return 1.0 - 1.0 / max(self.mean, 1.0)

    def _sigma(self) -> float:
        return math.sqrt(math.log1p(self.cv**2))

    def _standard(self, length: Array) -> Array:
        with np.errstate(divide="ignore"):
            return np.asarray((np.log(length / self.mean) + self._sigma() ** 2 / 2.0) / self._sigma())


def _midpoints(number: int) -> Array:
    """Of so many parts of 0..1."""
    return (np.arange(number) + 0.5) / number


def _geometric_sums(law: Law, size: float, of: Callable[[Any], Array]) -> Array:
    """The sum over all chunks in closed form: tails and tail means of geometric lengths are geometric series."""
    ratio = law._stays() ** size
    if of == law._tail:
        return np.array([1.0 / (1.0 - ratio)])
    if of == law._excess:
        return np.array([law.mean / (1.0 - ratio)])
    return np.array([max(law.mean, 1.0) / (1.0 - ratio) + size * ratio / (1.0 - ratio) ** 2])


def lengths_of(scenario: Scenario) -> tuple[Sizes, ...]:
    """The lengths of each class of a scenario.

    Raises:
        FluidgateError: a trace of empirical lengths is wrong, or holds no request of a class.
    """
    laws = scenario.lengths
    if laws.empirical and laws.traces:
        sample = read_trace_lengths(scenario)
        return tuple(map(_sampled, scenario.classes, sample, [laws.prompt] * len(sample), [laws.output] * len(sample)))
    return tuple(
        _drawn(c.prompt_tokens, c.output_tokens, laws.prompt, laws.output, laws.prompt_cv, laws.output_cv)
        for c in scenario.classes
    )


def _sampled(cls: RequestClass, sample: Sample, prompt: LengthLaw, output: LengthLaw) -> Sizes:
    """Both lengths of the requests of a trace, or one of them beside a law of the other."""
    prompts, outputs = sample
    if len(prompts) == 0:
        raise FluidgateError(f"lengths.traces: no request of class '{cls.name}'; add a trace with some")
    if prompt != "empirical":
        prompts = np.resize(Law(prompt, cls.prompt_tokens).quantiles(), len(outputs))
    if output != "empirical":
        outputs = np.resize(Law(output, cls.output_tokens).quantiles(), len(prompts))
    return Empirical(prompts.astype(float), outputs.astype(float))


@lru_cache(maxsize=1024)
def _drawn(
    prompt_tokens: float,
    output_tokens: float,
    prompt: LengthLaw,
    output: LengthLaw,
    prompt_cv: float | None,
    output_cv: float | None,
) -> Sizes:
    return Independent(_law(prompt, prompt_tokens, prompt_cv), _law(output, output_tokens, output_cv))


def _law(name: LengthLaw, mean: float, cv: float | None) -> Law:
    if name == "fixed":
        return Law("fixed", float(max(round(mean), 1)))
    if name == "lognormal":
        return Law("lognormal", mean, cv or 0.0)
    return Law("exponential", mean)
