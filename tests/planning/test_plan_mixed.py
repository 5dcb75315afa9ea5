"""Fleets of several GPU types: held against every fleet tried, against rounding, and against their own prices."""

import math

import numpy as np
import pytest

from fluidgate import Gpu, RequestClass, Scenario
from fluidgate.batching import Batching
from fluidgate.model import EngineModel, IterationTime, Lengths, Pricing
from fluidgate.planning.batches.mixed import GpuType, MixedProgram
from fluidgate.planning.batches.need import need, wanted_of
from fluidgate.planning.batches.prices import Prices
from tests.planning.mixed_oracle import least_cost

SEEDS = range(16)
PREFILL = Batching.SINGLE_PREFILL


def drawn(seed, *, types=None, engines=2.5):
    """Types of GPUs under one load, about `engines` of them in all, what an engine costs, and who may go where."""
    random = np.random.default_rng(seed)
    classes = tuple(
        RequestClass(
            name=f"c{k}",
            prompt_tokens=float(round(60 * 10 ** random.uniform(0.0, 2.0))),
            output_tokens=float(round(10 ** random.uniform(1.0, 2.7))),
            arrival_rate=1.0,
            patience_rate=0.0,
        )
        for k in range(random.integers(1, 4))
    )
    made = [_on_a_gpu(random, classes) for _ in range(types or random.integers(2, 4))]
    needs = np.array([[need(_alone(each, k), PREFILL).gpus for k in range(len(classes))] for each in made])
    weights = random.dirichlet(np.ones(len(classes)))
    rates = engines * weights / needs.mean(axis=0)
    busy = tuple(c.model_copy(update={"arrival_rate": float(r)}) for c, r in zip(classes, rates, strict=True))
    made = [each.replace(classes=busy) for each in made]
    prices = np.round(random.uniform(0.7, 1.4, len(made)) / needs.mean(axis=1) * needs.mean(), 2)
    serves = random.random((len(made), len(classes))) < 0.8
    serves[random.integers(len(made))] = True
    return made, prices, serves


def _alone(scenario, cls):
    return scenario.replace(classes=(scenario.classes[cls],))


def _on_a_gpu(random, classes):
    alpha = random.uniform(0.004, 0.02)
    law = IterationTime(
        alpha=alpha,
        beta=10 ** random.uniform(-5, -4),
        delta=10 ** random.uniform(-5, -3.5),
        epsilon=10 ** random.uniform(-8, -6.5),
        solo_alpha=alpha * random.uniform(0.6, 1.0),
        solo_delta=10 ** random.uniform(-5, -3.5),
    )
    longest = max(c.prompt_tokens + c.output_tokens for c in classes)
    tokens = int(longest * 10 ** random.uniform(0.7, 1.7)) // 16 * 16 if random.random() < 0.6 else None
    return Scenario(
        name="a type",
        gpu=Gpu(batch_size=int(random.choice([8, 32, 128])), chunk_size=int(random.choice([256, 1024])), iteration=law),
        pricing=Pricing(scheme="bundled", prompt=0.1, output=0.2),
        classes=classes,
        lengths=Lengths(prompt="fixed", output="fixed"),
        engine=EngineModel(kv_tokens=tokens),
    )


def types_of(scenarios, prices, serves, most=None, ranks=1):
    return [
        GpuType(wanted_of(each, PREFILL), float(price), ranks, own, math.inf if most is None else most[k])
        for k, (each, price, own) in enumerate(zip(scenarios, prices, serves, strict=True))
    ]


def rounded_up_and_shrunk(program, prices):
    """What the fractions cost once they are rounded up and engines are taken away, the dearest first, while it goes."""
    engines = np.ceil(program.in_fractions().columns[program.engines] - 1e-6).astype(int)
    for kind in np.argsort(-np.asarray(prices)):
        while engines[kind] > 0:
            fewer = engines - (np.arange(len(engines)) == kind)
            found = program.at_most(fewer)
            if found is None or found.growth < 1.0 - 1e-6:
                break
            engines = fewer
    return float(engines @ prices)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_cheapest_fleet_is_that_of_all_fleets_tried(seed):
    scenarios, prices, serves = drawn(seed)
    program = MixedProgram(types_of(scenarios, prices, serves))
    found = program.in_whole_engines()
    most = [math.ceil(found.cost / price) for price in prices]
    assert found.cost == pytest.approx(least_cost(scenarios, prices, serves, most), rel=1e-6)
    assert program.at_most(found.engines).growth >= 1.0 - 1e-6
    assert found.shares.sum(axis=1) == pytest.approx(1.0)
    assert not found.flows.T[~serves].any(), "no class goes where it may not"


@pytest.mark.parametrize("seed", range(6))
def test_with_any_engine_gone_it_is_that_of_all_fleets_tried(seed):
    scenarios, prices, serves = drawn(seed, engines=1.5)
    types = types_of(scenarios, prices, serves)
    found = MixedProgram(types, spare=1).in_whole_engines()
    assert found.cost >= MixedProgram(types).in_whole_engines().cost
    most = [math.ceil(found.cost / price) for price in prices]
    assert found.cost == pytest.approx(least_cost(scenarios, prices, serves, most, spare=1), rel=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_it_is_never_dearer_than_rounding_up_and_never_cheaper_than_fractions(seed):
    scenarios, prices, serves = drawn(seed)
    program = MixedProgram(types_of(scenarios, prices, serves))
    whole = program.in_whole_engines().cost
    assert -program.in_fractions().objective <= whole * (1.0 + 1e-6)
    assert whole <= rounded_up_and_shrunk(program, prices) * (1.0 + 1e-6)


def test_rounding_up_and_shrinking_is_dearer():
    ratios = []
    for seed in SEEDS:
        scenarios, prices, serves = drawn(seed, engines=1.2)
        program = MixedProgram(types_of(scenarios, prices, serves))
        ratios.append(rounded_up_and_shrunk(program, prices) / program.in_whole_engines().cost)
    assert min(ratios) > 1.0 - 1e-6
    assert max(ratios) > 1.1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ranks", [1, 2])
def test_one_type_alone_is_the_bound_of_a_fleet_of_one_type(seed, ranks):
    scenarios, prices, _ = drawn(seed, types=1, engines=30.0)
    program = MixedProgram(types_of(scenarios, prices, np.array([[True] * len(scenarios[0].classes)]), ranks=ranks))
    least = need(scenarios[0], PREFILL)
    assert program.in_fractions().columns[program.engines] == pytest.approx(least.gpus / ranks, rel=1e-6)
    assert program.in_whole_engines().engines == [math.ceil(least.gpus / ranks * (1.0 - 1e-6))]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_class_goes_where_it_costs_least(seed):
    """Complementary slackness: no type is dearer for what it serves than the price of the class."""
    scenarios, prices, serves = drawn(seed, types=3)
    program = MixedProgram(types_of(scenarios, prices, serves))
    vertex = program.in_fractions()
    price = -vertex.row_prices[program.arriving]
    served = price * vertex.columns[program.growth] @ program.arrival
    assert served == pytest.approx(-vertex.objective, rel=1e-6), "prices of the classes make up the bill"
    costs = costs_of(program, vertex)
    flows = np.stack([vertex.columns[program.fed(kind)] for kind in range(3)])
    least = np.where(serves, costs, np.inf)
    assert (least >= price * (1.0 - 1e-6) - 1e-12).all()
    used = flows > 1e-6 * program.arrival
    assert least[used] == pytest.approx(np.broadcast_to(price, used.shape)[used], rel=1e-5)


def costs_of(program, vertex):
    """What a request costs on each type at the prices of what is scarce there, shape (types, classes)."""
    costs = []
    for kind, own in enumerate(program.programs):
        prices = Prices.of(own, program.own_vertex(kind, vertex))
        costs.append(prices.prefill + prices.decode)
    return np.array(costs)


class Profitable(MixedProgram):
    """What is served is what pays: a request/s of each class is worth something, and none has to be served."""

    def row_bounds(self):
        lower, upper = super().row_bounds()
        lower[self.arriving] = -np.inf
        return lower, upper


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_worth_more_than_it_costs_is_served_and_nothing_else(seed):
    scenarios, prices, serves = drawn(seed, types=3)
    program = Profitable(types_of(scenarios, prices, serves))
    cost = np.zeros(program.column_count)
    cost[program.engines] = -prices
    dear = -MixedProgram(program.types).in_fractions().row_prices[program.arriving]
    worth = dear * np.random.default_rng(seed).uniform(0.3, 2.0, len(dear))
    for kind in range(3):
        cost[program.fed(kind)] = worth
    vertex = program.maximise(cost)
    flows = np.stack([vertex.columns[program.fed(kind)] for kind in range(3)]).sum(axis=0)
    index = worth / np.where(serves, costs_of(program, vertex), np.inf).min(axis=0)
    served = flows / program.arrival
    assert served[index > 1.0 + 1e-6] == pytest.approx(1.0)
    assert served[index < 1.0 - 1e-6] == pytest.approx(0.0, abs=1e-9)


def test_limits_bind_and_too_little_is_said():
    scenarios, prices, serves = drawn(3, types=2)
    serves[:] = True
    free = MixedProgram(types_of(scenarios, prices, serves)).in_whole_engines()
    kind = int(np.argmax(free.engines))
    most = [math.inf, math.inf]
    most[kind] = free.engines[kind] - 1.0
    held = MixedProgram(types_of(scenarios, prices, serves, most)).in_whole_engines()
    assert held.engines[kind] < free.engines[kind]
    assert held.cost >= free.cost
    assert MixedProgram(types_of(scenarios, prices, serves), 1.0).in_whole_engines() is None
