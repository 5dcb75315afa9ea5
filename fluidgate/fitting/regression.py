"""Least squares that hold coefficients at 0 or above, and bear requests that nothing explains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluidgate.model import Array

HUBER = 1.5
"""Residuals count in full up to so many times their median size over 0.6745, the standard deviation of normal ones."""
ROUNDS = 20
BLOCK = 10
"""Consecutive requests that are drawn together: their residuals go together."""


@dataclass(frozen=True)
class Prior:
    """What is taken for likely before the log is seen: sums of coefficients, each normal; shapes (sums, ...).

    Attributes:
        sums: shape (sums, coefficients).
        mean, sd: shape (sums,).
    """

    sums: Array
    mean: Array
    sd: Array

    def and_one_more(self, known: bool) -> Prior:
        """With a further coefficient of which nothing is known, or which is 0."""
        sums = np.pad(self.sums, ((0, 0), (0, 1)))
        if not known:
            return Prior(sums, self.mean, self.sd)
        last = np.zeros((1, sums.shape[1]))
        last[0, -1] = 1.0
        return Prior(np.vstack([sums, last]), np.append(self.mean, 0.0), np.append(self.sd, 1e-12))


@dataclass(frozen=True)
class Equations:
    """Rows of a linear regression; shape (rows,) each.

    Attributes:
        design: shape (rows, coefficients).
        size: what the variance of a row grows with.
        overlap: how many rows are about the same iterations, on average.
        request: whose a row is.
    """

    design: Array
    response: Array
    size: Array
    overlap: float
    request: NDArray[np.int64]


def robust(rows: Equations, prior: Prior) -> tuple[Array, Array, float]:
    """Coefficients at least 0, the weight of each row, and the standard deviation of a row of size 1."""
    root = np.sqrt(rows.size)
    weight, scale = np.ones(len(root)), float(np.std(rows.response / root)) or 1.0
    found = weighted(rows, weight, scale, prior)
    for _ in range(ROUNDS):
        residual = np.abs(rows.response - rows.design @ found) / root
        before, scale = scale, max(float(np.median(residual)) / 0.6745, 1e-9)
        weight = np.minimum(1.0, HUBER * scale / np.maximum(residual, 1e-300))
        found = weighted(rows, weight, scale, prior)
        if abs(scale - before) <= 1e-6 * scale:
            break
    return found, weight, scale


def weighted(rows: Equations, weight: Array, scale: float, prior: Prior) -> Array:
    """Non-negative least squares with a prior; `scale` is the standard deviation of a row of size 1."""
    from scipy.optimize import nnls

    root = np.sqrt(weight / (rows.size * rows.overlap)) / scale
    design = np.vstack([rows.design * root[:, None], prior.sums / prior.sd[:, None]])
    aims = np.concatenate([rows.response * root, prior.mean / prior.sd])
    size = np.sqrt((design**2).sum(axis=0))
    unit = 1.0 / np.where(size > 0.0, size, 1.0)
    return np.asarray(nnls(design * unit, aims)[0] * unit)


def resolved(rows: Equations, weight: Array, scale: float, prior: Prior) -> tuple[Array, Array]:
    """The covariance of the coefficients, and of each how much the rows say of it: 1 all, 0 the prior alone."""
    root = np.sqrt(weight / (rows.size * rows.overlap)) / scale
    design, believed = rows.design * root[:, None], prior.sums / prior.sd[:, None]
    unit = 1.0 / np.maximum(np.sqrt((design**2).sum(axis=0) + (believed**2).sum(axis=0)), 1e-300)
    told, taken = ((each * unit).T @ (each * unit) for each in (design, believed))
    covariance = np.linalg.pinv(told + taken, hermitian=True)
    return covariance * np.outer(unit, unit), np.diag(covariance @ told)


def redrawn(rows: Equations, weight: Array, scale: float, prior: Prior, draws: int, seed: int) -> Array:
    """The coefficients of so many draws of requests, blocks of them with replacement; shape (draws, coefficients)."""
    random, block = np.random.default_rng(seed), rows.request // BLOCK
    distinct, most = np.unique(block), int(block.max()) + 1
    often = (np.bincount(random.choice(distinct, len(distinct)), minlength=most)[block] for _ in range(draws))
    return np.array([weighted(rows, weight * each, scale, prior) for each in often])
