"""The value index: what a request earns over what its slots are worth, at the plan's shadow prices."""

from __future__ import annotations

import numpy as np

from fluidgate.model import Array
from fluidgate.planning import Plan
from fluidgate.planning.tpot import AverageTpot

FREE = 1e9
"""Index of a request whose slots are not scarce."""

SAME = 1e-6
"""Indices closer than this, relatively, are equal."""


def value_index(plan: Plan) -> Array:
    """`w_i / cost_i` of each class, shape (classes,), at most FREE.

    Above 1 for classes that the plan serves in full, 1 for the marginal ones that fill what is left, below 1 for those
    it turns away (complementary slackness of the fluid program).
    """
    value, cost = plan.scenario.rates.bundled_value, request_cost(plan)
    scarce = cost * FREE > value
    return np.where(scarce, value / np.where(scarce, cost, 1.0), FREE)


def request_cost(plan: Plan) -> Array:
    """Shadow cost of the slots that one request takes, prefill and decode, shape (classes,).

    A prefill holds one prefill slot, gives up `B` solo slots and brings `B - 1` mixed ones, for `1/mu_p`; its decode
    holds a mixed slot for `1/mu_m` or a solo slot for `1/mu_s`, whichever costs less.
    """
    rates, batch = plan.scenario.rates, plan.scenario.gpu.batch_size
    mixed, solo = plan.shadow_prices["mixed_capacity"], plan.shadow_prices["solo_capacity"]
    prefill = plan.shadow_prices["prefill_capacity"] - (batch - 1) * mixed + batch * solo + tpot_price(plan)
    decode = np.minimum(mixed / rates.mixed_decode, solo / rates.solo_decode)
    return np.maximum(prefill / rates.prefill + decode, 0.0)


def tpot_price(plan: Plan) -> float:
    """What a unit of `sum x` costs through the indicators on the average TPOT, (47) and (48), per second."""
    gpu = plan.scenario.gpu
    tpot = AverageTpot(gpu.batch_size, gpu.tau, gpu.iteration.gamma)
    price = plan.indicators.get("tpot_weight", {}).get("weight", 0.0) * tpot.slope(plan.mixed_fraction)
    limit = plan.indicators.get("max_tpot")
    if limit is not None:
        price += limit["shadow_price"] * tpot.slope(plan.mixed_fraction)
    return price
