"""An upper bound of the best long-run revenue on any number of GPUs: approximate linear programming on a lattice.

For a function `h` of the state, with the generator `A` of the Markov network,

    long-run revenue of any policy <= max over all states and actions of r + A h,

since the mean of `A h` over time vanishes: `h` grows no faster than the number in the system, which has a bounded mean
where all may leave; and where a class never leaves, `h` is bounded from below. So every `h` gives a bound, and the
least one is the optimum (the dual of the linear program over frequencies of states). Here

    h = phi(lattice) + sum_i c_i (requests of class i before the end of their prefill) + d_i (after it),

where the lattice holds two to four numbers of requests: of two groups of classes all that are in the system ("totals"),
or those before and after the end of their prefill ("stages"; before it the groups may count together). Whatever a state
of the lattice leaves open is decided as it suits revenue: which requests are in prefill, how many decodes are beside a
prefill, of which classes of its group the requests are; only (12)-(14) are kept, with a whole number of prefills. That
can only raise the maximum, so merging classes into groups is a valid bound too.

`phi` is the relative value of the decision problem on the lattice, the multipliers `c` and `d` the best that a search
finds. Neither need be exact: the maximum of `r + A h` is taken over all states, those beyond the solved box among them,
and that is the bound. It is never above the fluid one, whose `h` is linear.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np

from fluidgate.arguments import checked
from fluidgate.errors import FluidgateError
from fluidgate.model import AnyScenario, Array, Rates, Scenario, Scheme
from fluidgate.optimum.bounds.certificate import counted
from fluidgate.optimum.bounds.fluid import FluidPrices, earned_at, fluid_prices
from fluidgate.optimum.bounds.kernel import Integers, Network
from fluidgate.optimum.bounds.result import Bound, MeasuredBound
from fluidgate.optimum.bounds.search import proven_bound
from fluidgate.optimum.cluster import checked_gpus
from fluidgate.planning import Planner, service_rates
from fluidgate.planning.planner import check_scheme
from fluidgate.progress import Progress
from fluidgate.replanning import AnyPolicies
from fluidgate.simulation import compare

log = logging.getLogger("fluidgate")

MAX_STATES = 150_000
"""Of a lattice of two numbers."""
MAX_STAGES = 60_000
"""Of a lattice of three or four, whose values settle slowly."""
NOTICE = 10
"""GPUs from which on a notice says what is solved."""
STARVED = 1e-6

UNREAD, SHARED, TOTAL = ((0, 1), (2, 3)), ((0, 0), (2, 3)), ((0, 1), (0, 1))
"""Coordinates that count the requests of each group before, and after, the end of their prefill."""


@checked
def bound(
    scenario: AnyScenario, *, gpus: int | None = None, scheme: Scheme | None = None, max_stages: int = MAX_STAGES
) -> Bound:
    """More than any policy earns in the long run, per GPU: whatever it decides, in the Markov network.

    Args:
        scenario: cluster and load; indicators are left out.
        gpus: number of GPUs n; the scenario's own number if it has one.
        scheme: pricing scheme, if not the scenario's own.
        max_stages: largest lattice of three or four numbers of requests, states.

    Raises:
        FluidgateError: an option is wrong, or arrivals are not Poisson.
        InfeasiblePlanError: classes that never leave exceed the capacity, so that there is no long run.
    """
    scenario = Scenario.of(scenario)
    check_scheme(scheme)
    scenario.need_prices("the bound")
    if max_stages < 0:
        raise FluidgateError(f"--max-stages: must be at least 0, but is {max_stages}")
    gpus = checked_gpus(scenario, gpus, "the bound")
    scenario = scenario.for_gpus(gpus)
    if scheme is not None:
        scenario = scenario.replace(pricing=scenario.pricing.model_copy(update={"scheme": scheme}))
    fluid_rate = Planner().solve(scenario, with_indicators=False).revenue_rate
    rates, batch = service_rates(scenario), scenario.gpu.batch_size
    fluid = fluid_prices(rates, scenario.pricing.scheme, batch)
    names = scenario.class_names
    starving: tuple[str, ...] = ()
    if fluid.revenue_rate > fluid_rate * (1.0 + STARVED) and (rates.patience == 0).any():
        starving = tuple(name for name, theta in zip(names, rates.patience, strict=True) if theta == 0)
    best = Bound(scenario, gpus, fluid.revenue_rate, fluid_rate, "fluid", (tuple(names),), 0, starving)
    for group in _groupings(rates, fluid, scenario.pricing.scheme):
        groups = tuple(tuple(n for n, g in zip(names, group, strict=True) if g == k) for k in (0, 1) if k in group)
        prices: Network | None = None
        for lattice, network, centre in _lattices(rates, fluid, scenario.pricing.scheme, gpus, batch, group):
            if gpus >= NOTICE:
                log.info("bounding by %s of %s ...", lattice, " and of ".join(", ".join(each) for each in groups))
            max_states = MAX_STATES if lattice == "totals" or len(groups) == 1 else max_stages
            start = network if prices is None else network._replace(unread=prices.unread, read=prices.read)
            found = proven_bound(start, centre, max_states, gpus * best.revenue_rate)
            if found is not None:
                prices = found.network
                rate = found.bound / gpus
                best = Bound(scenario, gpus, rate, fluid_rate, lattice, groups, found.states, starving)
    return best


@checked
def measured_bound(
    found: Bound,
    policies: AnyPolicies,
    *,
    horizon: float = 20_000.0,
    replications: int = 5,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | bool | None = None,
) -> MeasuredBound:
    """What policies earn on the cluster of a bound, simulated in the Markov network.

    Arguments and errors as in `compare`.
    """
    results = compare(
        found.scenario,
        policies,
        gpus=found.gpus,
        horizon=horizon,
        replications=replications,
        seed=seed,
        workers=workers,
        fidelity="markov",
        progress=progress,
    )
    return MeasuredBound(found, results.policies)


def _groupings(rates: Rates, fluid: FluidPrices, scheme: Scheme) -> Iterator[tuple[int, ...]]:
    """The group, 0 or 1, of each class: one class; two; or more, split in every order-preserving way by index.

    The index is what a request pays over what it costs, that is, what it pays less what one more is worth.
    """
    classes = len(rates.arrival)
    if classes <= 2:
        yield tuple(range(classes))
        return
    at_prefill, at_decode = earned_at(rates, scheme)
    paid = at_prefill + at_decode
    cost = np.maximum(paid - fluid.unread, 1e-9 * paid.max() + 1e-300)
    order = np.lexsort((rates.solo_decode, paid / cost))
    for cut in range(1, classes):
        group = np.zeros(classes, dtype=np.int64)
        group[order[cut:]] = 1
        yield tuple(group.tolist())


def _lattices(
    rates: Rates, fluid: FluidPrices, scheme: Scheme, gpus: int, batch: int, group: tuple[int, ...]
) -> Iterator[tuple[str, Network, Array]]:
    """The lattices of a grouping: name, network, where its numbers are in the fluid program."""
    at_prefill, at_decode = earned_at(rates, scheme)
    unread, read = gpus * (fluid.waiting + fluid.prefills), gpus * (fluid.buffered + fluid.decodes)
    two = max(group) == 1
    lattices = (("totals", TOTAL), ("stages", SHARED), ("stages by group", UNREAD)) if two else (("stages", UNREAD),)
    for name, (before, after) in lattices:
        network = Network(
            gpus, batch, _whole(before), _whole(after), _whole(group), gpus * rates.arrival, rates.patience,
            rates.prefill, rates.mixed_decode, rates.solo_decode, at_prefill, at_decode, fluid.unread, fluid.read,
        )  # fmt: skip
        yield name, network, np.array([each.sum() for each in counted(network, unread, read)])


def _whole(numbers: Sequence[int]) -> Integers:
    return np.array(numbers, dtype=np.int64)
