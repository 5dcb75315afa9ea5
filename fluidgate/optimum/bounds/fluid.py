"""The fluid program of the Markov network, and its prices: the bound for any number of GPUs, and where others begin.

Means under any policy satisfy it, whether its queues settle or not: those who wait, and may do so for ever, are an
inequality. Where nobody starves it is [LDHZ] (40) and (42) without indicators.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fluidgate.model import Array, Rates, Scheme


@dataclass(frozen=True)
class FluidPrices:
    """The optimum of the fluid program, per GPU.

    Attributes:
        revenue_rate: money/s, proven by the prices.
        unread, read: what one more request is worth before its prefill has ended, and after; money, shape (classes,).
        waiting, prefills, buffered, decodes: requests of each class per GPU, shape (classes,).
    """

    revenue_rate: float
    unread: Array
    read: Array
    waiting: Array
    prefills: Array
    buffered: Array
    decodes: Array


def earned_at(rates: Rates, scheme: Scheme) -> tuple[Array, Array]:
    """Money at the end of a prefill and at the end of a decode, (21)-(23), each of shape (classes,)."""
    if scheme == "bundled":
        return np.zeros_like(rates.prompt_value), rates.bundled_value
    return rates.prompt_value, rates.output_value


def fluid_prices(rates: Rates, scheme: Scheme, batch: int) -> FluidPrices:
    """Solve the program for `batch` slots a GPU."""
    from scipy.optimize import linprog

    classes = len(rates.arrival)
    one, none, diagonal = np.ones(classes), np.zeros(classes), np.diag
    zero = np.zeros((classes, classes))
    at_prefill, at_decode = earned_at(rates, scheme)
    # columns: prefills, mixed decodes, solo decodes, waiting, buffered
    money = np.concatenate([rates.prefill * at_prefill, rates.mixed_decode * at_decode, rates.solo_decode * at_decode])
    left = np.vstack(
        [
            np.concatenate([one, none, none, none, none]),
            np.concatenate([-(batch - 1) * one, one, none, none, none]),
            np.concatenate([batch * one, none, one, none, none]),
            np.hstack([diagonal(rates.prefill), zero, zero, diagonal(rates.patience), zero]),
            np.hstack(
                [
                    -diagonal(rates.prefill), diagonal(rates.mixed_decode), diagonal(rates.solo_decode), zero,
                    diagonal(rates.patience),
                ]
            ),
        ]
    )  # fmt: skip
    right = np.concatenate([[1.0, 0.0, batch], rates.arrival, none])
    scale = max(float(np.abs(money).max()), 1e-300)
    found = linprog(np.concatenate([-money / scale, none, none]), A_ub=left, b_ub=right, method="highs")
    if found.x is None:
        raise ArithmeticError(f"the fluid program was not solved: {found.message}")
    prices = -scale * found.ineqlin.marginals
    prices = np.maximum(prices, 0.0)
    blocks = found.x.reshape(5, classes)
    most = np.concatenate([one, (batch - 1) * one, batch * one])
    missed = np.maximum(money - prices @ left[:, : 3 * classes], 0.0)  # by rounding
    bound = float(prices @ right + missed @ most)
    waits = np.where(rates.patience > 0.0, rates.arrival - rates.prefill * blocks[0], 0.0)
    waiting = np.maximum(waits, 0.0) / np.where(rates.patience > 0.0, rates.patience, 1.0)
    unread, read = prices[3 : 3 + classes], prices[3 + classes :]
    return FluidPrices(bound, unread, read, waiting, blocks[0], blocks[4], blocks[1] + blocks[2])
