"""The value index: what a request earns over what its slots are worth, at the plan's shadow prices."""

from __future__ import annotations

import numpy as np

from fluidgate.model import Array, Scenario
from fluidgate.planning import Plan, Planner
from fluidgate.policies.decisions.tables import SAME

FREE = 1e9
"""Index of a request whose slots are not scarce."""

MOST_LOAD = 2.0**20
"""Times a plan's own load at which, if nothing is scarce there, nothing ever is: nobody pays."""
MOST_NEAR = 2.0
"""Times a plan's own load up to which what binds there orders the classes now."""

_LEAST = 1e-3
"""Index of the last of those who may leave, of the first's: above 0, where deadlines decide."""


def value_index(plan: Plan) -> Array:
    """`w_i / cost_i` of each class, shape (classes,), at most FREE.

    Above 1 for classes that the plan serves in full, 1 for the marginal ones that fill what is left, below 1 for those
    it turns away (complementary slackness of the fluid program).
    """
    value, cost = plan.rates.bundled_value, request_cost(plan)
    scarce = cost * FREE > value
    return np.where(scarce, value / np.where(scarce, cost, 1.0), FREE)


def gate_index(plan: Plan) -> Array:
    """The order in which classes start, larger first, shape (classes,).

    Where the plan turns someone away: the value index. Where it serves everyone, only those are lost who leave while
    they wait, so the index (once slots, or time, are scarce) is taken times the patience rate, the c-mu rule. Paid at
    completion, it is also taken times `sqrt(w)`: in a lasting shortage a slot second is scarce, and `w/cost` right; in
    one that is over before a service ends each slot that comes free saves one request, however long, and `w` is right;
    this is the geometric mean of both. Where nobody pays, all who may leave are alike. Who never leaves loses nothing
    by waiting: index 0, in the order of deadlines; so do all where everyone is served and there are TTFT targets to
    keep, since hardly anybody leaves then.
    """
    if not plan.rates.bundled_value.any():
        return np.where(plan.rates.patience > 0.0, 1.0, 0.0)
    if not serves_everyone(plan):
        return value_index(plan)
    if any(target is not None for target in plan.scenario.ttft_targets):
        return np.zeros(len(plan.rates.arrival))
    worth = np.sqrt(plan.rates.bundled_value) if plan.scheme == "bundled" else 1.0
    if plan.request_seconds is not None:
        return _in_a_shortage(plan)
    scarce = plan if is_binding(plan) else binding(plan)
    return np.asarray(value_index(scarce) * plan.rates.patience * worth)


def _in_a_shortage(plan: Plan) -> Array:
    """The order where a plan knows what runs and serves everyone: `theta (index - v)`, lifted above 0.

    What waits leaves at rate theta, and its work with it. Losing it costs its value; but v for each unit of its work
    is saved, what one unit more in the queue costs in the end. At a light load v is 0, the c-mu rule; where the queue
    never ends, the price itself, and the order that of the index (Ata and Tongarlak, Queueing Systems 74, 2013, have
    v from a diffusion; here it is the square of the load). Where that is under half of what is needed for a price, the
    index is by the time of a GPU that a request takes, so that a batch size that nobody reaches has no part in it.
    """
    rates = plan.rates
    scarce = plan if is_binding(plan) else binding(plan, MOST_NEAR)
    if is_binding(scarce):
        load = float(rates.arrival.sum() / scarce.rates.arrival.sum())
        order = rates.patience * (np.minimum(value_index(scarce), FREE) - load**2)
    else:
        assert plan.request_seconds is not None
        order = rates.patience * rates.bundled_value / plan.request_seconds
    leave = rates.patience > 0.0
    if not leave.any():
        return np.zeros(len(order))
    lowest = float(order[leave].min())
    lift = _LEAST * float(np.abs(order[leave]).max()) - min(lowest, 0.0)
    return np.asarray(np.where(leave, order + lift, 0.0))


def serves_everyone(plan: Plan) -> bool:
    """Whether every class is served in full."""
    return bool((plan.served_fraction > 1.0 - SAME).all())


def is_binding(plan: Plan) -> bool:
    """Whether some slot, or some limit of an indicator, has a price."""
    limits = (each.get("shadow_price") or 0.0 for each in plan.indicators.values())
    return any(price > 0.0 for price in (*plan.shadow_prices.values(), *limits))


def binding(plan: Plan, most: float = MOST_LOAD) -> Plan:
    """The plan at the least load, to 1 %, that gives some slot or limit a price, of more than the plan's own load.

    At `most` times that load it is given up: the plan there. Classes that never leave are given the patience rate
    1/s, so that the program stays feasible.
    """
    planner = Planner()

    def at(load: float) -> Plan:
        return planner.solve(loaded(plan.scenario, load), scheme=plan.scheme, with_indicators=bool(plan.indicators))

    high = 2.0
    while not is_binding(solved := at(high)):
        if high >= most:
            return solved
        high *= 2.0
    low = high / 2.0
    while high > 1.01 * low:
        middle = (low + high) / 2.0
        attempt = at(middle)
        if is_binding(attempt):
            high, solved = middle, attempt
        else:
            low = middle
    return solved


def loaded(scenario: Scenario, load: float) -> Scenario:
    """The scenario with `load` times the arrivals, all of whom may leave."""
    classes = tuple(
        c.model_copy(update={"arrival_rate": c.arrival_rate * load, "patience_rate": c.patience_rate or 1.0})
        for c in scenario.classes
    )
    return scenario.replace(classes=classes)


def ranked(index: Array, then: Array) -> Array:
    """The order by `index`, and by `then` where that is the same: 0 for the least, shape (classes,)."""
    rank = np.zeros(len(index))
    order = np.argsort(index, kind="stable")
    tied = np.concatenate([[0], np.cumsum(np.diff(index[order]) > SAME * index[order][1:])])
    rank[order[np.lexsort((then[order], tied))]] = np.arange(len(index))
    return rank


def request_cost(plan: Plan) -> Array:
    """What one request takes of everything that is scarce, prefill and decode, at its price, shape (classes,)."""
    return np.maximum(plan.prefill_cost + plan.decode_cost, 0.0)
