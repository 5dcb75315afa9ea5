"""Lengths of requests by the scenario's laws, whole numbers of at least one token."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fluidgate.errors import FluidgateError
from fluidgate.model import NO_EMPIRICAL_PROMPTS, Array, LengthLaw, Scenario
from fluidgate.workloads.selection import LONGEST
from fluidgate.workloads.streams.random import RandomStreams

Classes = NDArray[np.int32]
Lengths = NDArray[np.int32]
Drawer = Callable[[Classes], Lengths]
"""Lengths of requests from their classes."""
PairDrawer = Callable[[Classes], tuple[Lengths, Lengths]]
"""Prompt and output lengths of requests from their classes."""
TurnDrawer = Callable[[Classes, NDArray[np.bool_]], tuple[Lengths, Lengths]]
"""New prompt tokens and output lengths of turns from their classes and whether they are further ones."""


@dataclass(frozen=True)
class Pool:
    """Requests that lend their lengths: `prompt` and `output` of class i at `start[i] : start[i] + count[i]`."""

    prompt: Lengths
    output: Lengths
    start: NDArray[np.int64]
    count: NDArray[np.int64]

    @staticmethod
    def of(prompt: Sequence[NDArray[np.int64]], output: Sequence[NDArray[np.int64]]) -> Pool:
        """The pool of the lengths of each class."""
        count = np.array([len(p) for p in prompt], np.int64)
        return Pool(
            np.concatenate(prompt).astype(np.int32),
            np.concatenate(output).astype(np.int32),
            np.cumsum(count) - count,
            count,
        )


def turn_drawer(scenario: Scenario, random: RandomStreams, pool: Pool | None) -> TurnDrawer:
    """Draws the new prompt tokens of a turn, prefix left out, and its output length, from class and place.

    Raises:
        FluidgateError: as `pair_drawer`; or prompts are empirical.
    """
    laws = scenario.lengths
    if laws.prompt == "empirical":
        raise FluidgateError(f"lengths.{NO_EMPIRICAL_PROMPTS}")
    first = [c.first_tokens - c.prefix_tokens for c in scenario.classes]
    means = np.maximum(np.array([first, [c.further_tokens for c in scenario.classes]]).T.ravel(), 1.0)
    new = _by_law(means, laws.prompt, laws.prompt_cv, random.prompt, random.prompt_rounding)
    output = pair_drawer(scenario.replace(lengths=laws.changed(prompt="fixed", prompt_cv=None)), random, pool)
    return lambda cls, further: (new(2 * cls + further), output(cls)[1])


def pair_drawer(scenario: Scenario, random: RandomStreams, pool: Pool | None) -> PairDrawer:
    """Draws prompt and output lengths; those of one request of the pool where both laws are empirical.

    Raises:
        FluidgateError: a class has a mean below one token, or no request in the pool.
    """
    laws = scenario.lengths
    if laws.empirical:
        if pool is None:
            raise FluidgateError("lengths.traces: missing; name the trace files that empirical lengths are drawn from")
        for name, count in zip(scenario.class_names, pool.count, strict=True):
            if count == 0:
                raise FluidgateError(f"lengths.traces: no request of class '{name}'; add a trace with some")
    prompts = {c.name: c.prompt_tokens for c in scenario.classes}
    outputs = {c.name: c.output_tokens for c in scenario.classes}
    prompt = _drawer("prompt_tokens", prompts, laws.prompt, laws.prompt_cv, random.prompt, random.prompt_rounding)
    output = _drawer("output_tokens", outputs, laws.output, laws.output_cv, random.output, random.output_rounding)
    if pool is None or not laws.empirical:
        return lambda cls: (prompt(cls), output(cls))

    def draw(cls: Classes) -> tuple[Lengths, Lengths]:
        picked = pool.start[cls] + (random.picks.random(len(cls)) * pool.count[cls]).astype(np.int64)
        return (
            pool.prompt[picked] if laws.prompt == "empirical" else prompt(cls),
            pool.output[picked] if laws.output == "empirical" else output(cls),
        )

    return draw


def _drawer(
    key: str, means: dict[str, float], law: LengthLaw, cv: float | None, random: Generator, rounding: Generator
) -> Drawer:
    """The drawer of a law; lengths from a pool have none."""
    if law == "empirical":
        return fixed(np.zeros(0))
    for k, (name, mean) in enumerate(means.items()):
        if mean < 1:
            raise FluidgateError(
                f"classes[{k}] ('{name}'): {key}: a mean of {mean:g} is below the one token that a request has at "
                "least; give 1 or more to simulate iterations"
            )
    return _by_law(np.array(list(means.values())), law, cv, random, rounding)


def _by_law(means: Array, law: LengthLaw, cv: float | None, random: Generator, rounding: Generator) -> Drawer:
    if law == "fixed":
        return fixed(means)
    return geometric(means, random) if cv is None else lognormal(means, cv, random, rounding)


def geometric(means: Array, random: Generator) -> Drawer:
    """The law of `ceil(E)`, `E` exponential: geometric on 1, 2, ... with the means, one a class."""
    with np.errstate(divide="ignore"):
        scale = np.where(means > 1, -1.0 / np.log1p(-1.0 / means), 0.0)

    def draw(cls: Classes) -> Lengths:
        return _whole(np.ceil(random.standard_exponential(len(cls)) * scale[cls]))

    return draw


def fixed(means: Array) -> Drawer:
    """Always the mean, rounded."""
    rounded = _whole(np.rint(means))
    return lambda cls: rounded[cls]


def lognormal(means: Array, cv: float, random: Generator, rounding: Generator) -> Drawer:
    """Log-normal with `sigma^2 = log(1 + cv^2)`, lifted to one token where below, then rounded at random.

    Each length goes to one of its two neighbours so that the mean stays, and the location is such that the mean after
    lifting is that of the class.
    """
    sigma = math.sqrt(math.log1p(cv**2))
    location = np.array([_location(mean, sigma) for mean in means])

    def draw(cls: Classes) -> Lengths:
        exact = np.exp(location[cls] + sigma * random.standard_normal(len(cls)))
        return _whole(np.floor(np.maximum(exact, 1.0) + rounding.random(len(cls))))

    return draw


def _location(mean: float, sigma: float) -> float:
    """`mu` such that `E max(1, exp(N(mu, sigma^2))) = mean`; -inf for mean 1."""
    from scipy.optimize import brentq
    from scipy.special import ndtr

    if mean <= 1.0:
        return -math.inf

    def excess(mu: float) -> float:
        lifted = ndtr(-mu / sigma) + math.exp(mu + sigma**2 / 2) * ndtr(mu / sigma + sigma)
        return float(lifted) - mean

    high = math.log(mean)  # the mean is larger there
    low = high - sigma**2 / 2 - 1.0
    while excess(low) > 0:
        low -= sigma**2 + 1.0
    return float(brentq(excess, low, high, xtol=1e-12))


def _whole(lengths: Array) -> Lengths:
    return np.clip(lengths, 1, LONGEST).astype(np.int32)
