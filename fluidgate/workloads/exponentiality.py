"""How far a sample of lengths or gaps is from the exponential distribution that the model assumes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fluidgate.model import Array
from fluidgate.shown import Brief

MOST_BINS = 20


@dataclass(frozen=True, repr=False)
class Exponentiality(Brief):
    """A sample against the exponential distribution of the same mean (its maximum likelihood fit).

    Attributes:
        count: sample size.
        mean: sample mean, in the sample's unit.
        cv: coefficient of variation (standard deviation, ddof 0, over mean); 1 for an exponential.
        kl: Kullback-Leibler divergence from the fit, nats, see `divergence`; near 0 for an exponential.

    `mean`, `cv` and `kl` are None for an empty sample, the last two also where the mean is 0.
    """

    count: int
    mean: float | None
    cv: float | None
    kl: float | None


def exponentiality(sample: Array) -> Exponentiality:
    """Mean, coefficient of variation and divergence of a sample of shape (count,), values >= 0."""
    if len(sample) == 0:
        return Exponentiality(0, None, None, None)
    mean = float(sample.mean())
    if mean <= 0:
        return Exponentiality(len(sample), mean, None, None)
    return Exponentiality(len(sample), mean, float(sample.std()) / mean, divergence(sample))


def bins(count: int) -> int:
    """How many bins `divergence` uses for a sample: `2 count^(2/5)`, rounded up, from 2 to 20.

    The power is Mann and Wald's for equal-probability bins; 20 keeps a bin wider than a token for means of 20
    tokens and more, so that whole-numbered lengths do not count as a departure.
    """
    return min(MOST_BINS, max(2, math.ceil(2 * math.pow(count, 0.4))))


def divergence(sample: Array) -> float:
    """`sum p log(p/q)`, nats: the sample's shares `p` against the fitted exponential's `q` over bins.

    The bins hold the same probability `q = 1/bins(count)` each under the exponential with the sample's mean.
    The estimate is at most `log(bins)`, sees no structure within a bin, and for a sample that is exponential
    is about `(bins - 1)/(2 count)` on average.
    """
    number = bins(len(sample))
    edges = exponential_quantile(np.arange(1, number) / number, float(sample.mean()))
    share = np.bincount(np.searchsorted(edges, sample, side="left"), minlength=number) / len(sample)
    seen = share[share > 0]
    return float(np.sum(seen * np.log(seen * number)))


def quantiles(sample: Array, points: int = 200) -> tuple[Array, Array]:
    """Data for a QQ plot: quantiles of the fitted exponential, and of the sample at the same probabilities.

    Probabilities are `(k - 1/2)/m` for `k = 1..m`, `m` the lesser of `points` and the sample size; two arrays
    of shape (m,), in the sample's unit, ascending.
    """
    number = min(points, len(sample))
    probability = (np.arange(number) + 0.5) / max(number, 1)
    if number == 0:
        return np.empty(0), np.empty(0)
    return exponential_quantile(probability, float(sample.mean())), np.quantile(sample, probability)


def exponential_quantile(probability: Array, mean: float) -> Array:
    """The quantiles of the exponential distribution with that mean, shape of `probability`."""
    return -mean * np.log1p(-probability)
