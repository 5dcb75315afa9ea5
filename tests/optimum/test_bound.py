"""The bound against the exact optimum, the fluid one, simulated policies, and what must hold of any bound."""

from __future__ import annotations

import json
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fluidgate import FluidgateError
from fluidgate.cli.app import app
from fluidgate.model import Arrivals, Pricing
from fluidgate.optimum import Bound, bound, measured_bound, optimum
from fluidgate.optimum.bounds import kernel
from fluidgate.optimum.bounds.bound import _lattices
from fluidgate.optimum.bounds.fluid import fluid_prices
from fluidgate.optimum.bounds.kernel import COORDINATES, Window
from fluidgate.optimum.bounds.lattice import scratch
from tests.optimum.random_systems import random_system
from tests.oracles.closed_forms import erlang_a
from tests.oracles.tiny import scenario
from tests.scenarios import two_class_scenario

SCHEMES, LOADS, PATIENCE = ("bundled", "separate"), (0.7, 1.0, 1.5), (0.3, 3.0)
FEW = 20_000
"""States of a lattice of three or four numbers, for the sake of time."""
# classes, GPUs, slots, seeds
SHAPES = [(1, 1, 3, (0,)), (1, 2, 2, (1,)), (1, 3, 2, (2,)), (2, 1, 2, (3,))]
SYSTEMS = [
    (seed, classes, gpus, batch, load, patience, scheme)
    for classes, gpus, batch, seeds in SHAPES
    for seed, load, patience, scheme in product(seeds, LOADS, PATIENCE, SCHEMES)
]


@cache
def compared(system: tuple) -> tuple[Bound, float]:
    """The bound, and the optimum within limits on the queues: its certified lower end."""
    seed, classes, gpus, batch, load, patience, scheme = system
    where = random_system(seed, classes, batch, load, patience, scheme)
    return bound(where, gpus=gpus, max_stages=FEW), optimum(where, gpus=gpus, accuracy=1e-3).lower


@pytest.mark.parametrize("system", SYSTEMS, ids=str)
def test_never_below_the_optimum(system):
    found, best = compared(system)
    assert best <= found.revenue_rate
    assert found.revenue_rate <= found.fluid_rate * (1 + 1e-9)


def test_it_is_not_useless():
    """The median share of the distance from R* to the optimum that the bound explains, by classes and scheme."""
    explained = {}
    for system in SYSTEMS:
        found, best = compared(system)
        key = (system[1], system[-1])
        explained.setdefault(key, []).append((found.fluid_rate - found.revenue_rate) / (found.fluid_rate - best))
    medians = {key: float(np.median(shares)) for key, shares in explained.items()}
    assert medians[1, "bundled"] > 0.8
    assert medians[1, "separate"] > 0.8
    assert medians[2, "bundled"] > 0.8
    assert medians[2, "separate"] > 0.7


@pytest.mark.parametrize("scheme", SCHEMES)
def test_classes_are_merged(scheme):
    where = random_system(5, 3, 2, 1.0, 3.0, scheme)
    found = bound(where, gpus=1, max_stages=FEW)
    best = optimum(where, gpus=1, accuracy=1e-3, queue_limit=4, buffer_limit=2)
    assert best.lower <= found.revenue_rate <= found.fluid_rate * (1 + 1e-9)
    assert sorted(name for group in found.groups for name in group) == where.class_names


@pytest.mark.parametrize(("classes", "scheme"), list(product((1, 2), SCHEMES)))
def test_classes_that_never_leave(classes, scheme):
    where = random_system(7, classes, 2, 0.6, 1.0, scheme, first_stays=True)
    found = bound(where, gpus=1, max_stages=3_000)
    best = optimum(where, gpus=1, accuracy=1e-3, queue_limit=8, buffer_limit=2)
    assert best.lower <= found.revenue_rate
    assert found.revenue_rate <= found.fluid_rate * (1 + 1e-9) or found.starving


@pytest.mark.parametrize("gpus", [1, 3])
def test_prefills_alone_are_erlang_a(gpus):
    # Answers cost nothing and are dropped, so that the lattice is the whole state.
    where = scenario("station", 1, [(1.0, 0.7, 1.4, 0.5)], scheme="separate")
    where = where.replace(pricing=Pricing(scheme="separate", prompt=0.01, output=0.0))
    exact = erlang_a(gpus * 1.4, 1.0, gpus, 0.5).throughput * where.rates.prompt_value[0] / gpus
    found = bound(where, gpus=gpus).revenue_rate
    assert exact * (1 - 1e-9) <= found <= exact * (1 + 1e-4)


def test_more_gpus_lose_less():
    unavoidable = [bound(two_class_scenario(), gpus=n, max_stages=0).unavoidable for n in (3, 6)]
    assert unavoidable[0] > unavoidable[1] > 0


def test_policies_earn_less():
    found = bound(random_system(11, 1, 3, 1.0, 0.3, "bundled"), gpus=5)
    measured = measured_bound(found, ["index-and-pool", "gate-and-route"], horizon=4_000, replications=3, workers=1)
    for result in measured.results:
        assert result.revenue_rate.ci95[0] <= found.revenue_rate
        assert 0.5 < measured.at_least(result) <= 1.0
        assert 0.0 < measured.explained(result) <= 1.0
    assert json.loads(measured.to_json())["policies"][0]["policy"] == "index-and-pool"


@pytest.mark.parametrize("seed", range(6))
def test_the_best_use_of_a_state_is_a_linear_program(seed):
    """For a random function, the kernel's value of a state is the best of the programs for each number of prefills."""
    draw = np.random.default_rng(seed)
    where = random_system(seed, 2, 3, 1.0, 1.0, SCHEMES[seed % 2])
    fluid = fluid_prices(where.rates, where.pricing.scheme, 3)
    for _, network, _ in _lattices(where.rates, fluid, where.pricing.scheme, 2, 3, (0, 1)):
        used = {*network.unread_at.tolist(), *network.read_at.tolist()}
        size = np.array([9 if c in used else 1 for c in range(COORDINATES)])
        value = draw.normal(size=int(size.prod())) * 30.0
        window = Window(np.zeros(4, dtype=np.int64), size, value, np.full(4, 300.0), np.zeros(4))
        found, stack = np.zeros(5), np.zeros((64, 8), dtype=np.int64)
        last = np.where(size > 1, size - 1, 0)
        kernel.greatest(network, window, scratch(), last, -1e300, stack, found)
        assert found[0] == pytest.approx(best_by_programs(network, window, found[1:].astype(int)), rel=1e-9)


def best_by_programs(network, window, state):
    from scipy.optimize import linprog

    def phi(x):
        inside = np.clip(x, 0, window.size - 1)
        return window.value[np.ravel_multi_index(tuple(inside), tuple(window.size))] + 300.0 * (x - inside).sum()

    one = np.eye(COORDINATES, dtype=int)
    here, best, arrivals = phi(state), -np.inf, 0.0
    money, rows = [], {c: [] for c in range(COORDINATES)}
    for i, g in enumerate(network.group):
        before, after = one[network.unread_at[g]], one[network.read_at[g]]
        c, d = network.unread[i], network.read[i]

        def change(step, counted):
            return phi(state + step) - here if counted @ state > 0 else 0.0

        arrivals += network.arrival[i] * (c + phi(state + before) - here)
        done, lost, gone = change(after - before, before), change(-before, before), change(-after, after)
        money += [
            network.prefill[i] * (network.at_prefill[i] - c + d + done),
            network.mixed[i] * (network.at_decode[i] - d + gone),
            network.solo[i] * (network.at_decode[i] - d + gone),
            network.patience[i] * (gone - d),
            network.patience[i] * (lost - c),
        ]
        for coordinate in range(COORDINATES):
            b, a = int(before[coordinate]), int(after[coordinate])
            rows[coordinate] += [b, a, a, a, b]
    classes = len(network.group)
    places = np.tile(np.eye(5), (1, classes))
    for prefills in range(min(network.gpus, int(state.sum())) + 1):
        room = [(network.slots - 1) * prefills, network.slots * (network.gpus - prefills)]
        equal = np.vstack([places[0], *(rows[c] for c in range(COORDINATES) if any(rows[c]))])
        right = [prefills, *(state[c] for c in range(COORDINATES) if any(rows[c]))]
        found = linprog(-np.array(money), A_ub=places[1:3], b_ub=room, A_eq=equal, b_eq=right, method="highs")
        if found.status == 0:
            best = max(best, -found.fun)
    return arrivals + best


def test_bad_input_is_refused():
    with pytest.raises(FluidgateError, match="gpus"):
        bound(two_class_scenario())
    with pytest.raises(FluidgateError, match="max_stages"):
        bound(two_class_scenario(), gpus=1, max_stages=-1)
    with pytest.raises(FluidgateError, match="scheme"):
        bound(two_class_scenario(), gpus=1, scheme="other")
    bursty = two_class_scenario().replace(arrivals=Arrivals(process="gamma", cv=2.0))
    with pytest.raises(FluidgateError, match="is no Markov decision process"):
        bound(bursty, gpus=1)


def invoke(*arguments: str):
    return CliRunner().invoke(app, ["bound", str(Path("examples/tiny.toml")), *arguments])


def test_command_prints_tables():
    outcome = invoke(
        "--gpus", "2", "--max-stages", "0", "--policy", "gi-wsp", "--horizon", "1000", "--replications", "2"
    )
    assert outcome.exit_code == 0, outcome.output
    for words in ("no policy earns more than", "fluid optimum R*", "gi-wsp", "of it unavoidable"):
        assert words in outcome.output


def test_command_prints_json():
    value = json.loads(invoke("--gpus", "2", "--scheme", "separate", "--max-stages", "0", "--json").stdout)
    assert value["schema"] == 1
    assert value["scheme"] == "separate"
    assert 0 < value["revenue_rate_bound"] <= value["fluid_rate"] * (1 + 1e-9)
