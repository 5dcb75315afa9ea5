"""Waits against closed forms, chains and densities against direct computation and sampling."""

from __future__ import annotations

import math

import numpy as np
import pytest
from clusters import queue, served

from fluidgate.model import Arrivals, Lengths
from fluidgate.tails import predict
from fluidgate.tails.density import Grid, Time
from fluidgate.tails.erlang import by_priority, erlang_b, erlang_c, mean_wait
from fluidgate.tails.load import Load
from fluidgate.tails.modulated import phases_of
from fluidgate.tails.operating import operating
from fluidgate.tails.predict import engine_of
from fluidgate.tails.tokens import LEVELS, TokenQueue, all_read

FIXED = Lengths(prompt="fixed", output="fixed")


@pytest.mark.parametrize(("servers", "offered"), [(1, 0.3), (4, 3.2), (20, 19.0), (60, 30.0), (700, 690.0)])
def test_erlang_is_the_sum_over_the_states(servers: int, offered: float) -> None:
    logs = np.arange(servers + 1) * math.log(offered) - np.array([math.lgamma(k + 1) for k in range(servers + 1)])
    states = np.exp(logs - logs.max())
    full = states[-1] / states.sum()
    assert erlang_b(servers, offered) == pytest.approx(full, rel=1e-9)
    waits = states[-1] / (1 - offered / servers)
    assert erlang_c(servers, offered) == pytest.approx(waits / (states[:-1].sum() + waits), rel=1e-9)


def test_erlang_between_whole_servers_and_beyond() -> None:
    between = erlang_c(2.5, 2.0)
    assert erlang_c(3.0, 2.0) < between < erlang_c(2.25, 2.0) <= 1.0
    assert erlang_c(4.0, 4.0) == erlang_c(4.0, 9.0) == 1.0
    assert erlang_c(8.0, 6.0, peakedness=4.0) == pytest.approx(erlang_c(2.0, 1.5))


def test_priorities_share_the_wait_by_load() -> None:
    """Kleinrock's conservation law: the mean over classes, weighted by load, is that of first come, first served."""
    load = np.array([0.3, 0.2, 0.35])
    factors = by_priority(load, np.array([1.0, 5.0, 2.0]))
    assert factors[1] < factors[2] < factors[0]
    assert float(load @ factors) == pytest.approx(float(load.sum()))
    assert by_priority(load, np.ones(3)) == pytest.approx(np.ones(3))


@pytest.mark.parametrize(("servers", "load"), [(1, 0.5), (1, 0.9), (4, 0.8), (16, 0.95)])
def test_exponential_prompts_are_the_queue_of_many_servers(servers: int, load: float) -> None:
    """M/M/n in closed form: a wait that is exponential with Erlang's probability, and an exponential service."""
    ttft = predict(queue(load), servers).time("ttft", 0)
    chance, rate = erlang_c(servers, servers * load), servers * (1 - load)

    def beyond(t: float) -> float:
        both = (rate * math.exp(-t) - math.exp(-rate * t)) / (rate - 1) if rate != 1 else (1 + t) * math.exp(-t)
        return chance * both + (1 - chance) * math.exp(-t)

    assert ttft.mean == pytest.approx(1 + chance / rate, rel=0.01)
    for share in (0.5, 0.9, 0.99):
        assert beyond(ttft.quantile(share)) == pytest.approx(1 - share, rel=0.04)


@pytest.mark.parametrize("load", [0.4, 0.8])
def test_fixed_prompts_wait_half_as_long(load: float) -> None:
    """M/D/1, Pollaczek-Khinchine."""
    found = predict(queue(load, lengths=FIXED), 1).time("ttft", 0).mean
    assert found == pytest.approx(1 + load / (2 * (1 - load)), rel=0.01)


def test_bursts_wait_longer_and_regular_arrivals_shorter() -> None:
    means = [
        predict(queue(0.8, arrivals=Arrivals(process="gamma", cv=cv)), 4).time("ttft", 0).mean for cv in (0.3, 1, 3)
    ]
    assert means[0] < means[1] < means[2]
    assert mean_wait(4, 1.0, 0.8, 9.0 + 1.0) == pytest.approx(5 * mean_wait(4, 1.0, 0.8, 2.0))


def test_sums_of_times_are_those_of_samples() -> None:
    draws = np.random.default_rng(1)
    grid = Grid.up_to(30.0)
    services = draws.lognormal(0.0, 0.6, 400)
    masses = grid.sum_of(
        grid.at(services), 0.3 * grid.exponential(1.5) + 0.7 * grid.uniform(0.1, 0.4), grid.uniform(1.0, 3.0)
    )
    size = 400_000
    waits = np.where(draws.random(size) < 0.3, draws.exponential(1.5, size), draws.uniform(0.1, 0.4, size))
    sample = draws.choice(services, size) + waits + draws.uniform(1.0, 3.0, size)
    time = Time(grid, masses)
    assert masses.sum() == pytest.approx(1.0)
    assert time.mean == pytest.approx(sample.mean(), rel=0.005)
    for share in (0.05, 0.5, 0.9, 0.99):
        assert time.quantile(share) == pytest.approx(np.quantile(sample, share), rel=0.01)
        assert time.share_within(time.quantile(share)) == pytest.approx(share, abs=1e-3)


def test_means_stay_on_the_grid() -> None:
    grid = Grid.up_to(10.0)
    for masses, mean in (
        (grid.exponential(0.01), 0.01),
        (grid.exponential(0.4), 0.4),
        (grid.uniform(0.2, 0.2003), 0.20015),
        (grid.uniform(0.0, 3.0), 1.5),
        (grid.at(np.array([0.123, 4.56])), 2.3415),
    ):
        assert Time(grid, masses).mean == pytest.approx(mean, rel=1e-6)


def test_one_prompt_at_a_time_that_fills_a_budget_is_erlang() -> None:
    for servers, offered in ((3, 1.2), (20, 17.0)):
        assert all_read(servers, offered, 1.0) == pytest.approx(erlang_c(servers, offered), rel=1e-6)


def test_several_prompts_that_fill_a_budget_against_the_chain() -> None:
    servers, offered, together, most = 4, 5.5, 3, 400
    rates = np.zeros((most, most))
    for state in range(most):
        if state + 1 < most:
            rates[state, state + 1] += offered
        if state:  # one of those in service ends; it takes as many who wait as fit
            waiting = max(state - servers, 0)
            rates[state, state - max(1, min(waiting, together))] += min(state, servers)
    rates -= np.diag(rates.sum(axis=1))
    system = rates.T.copy()
    system[-1] = 1.0
    chance = np.linalg.solve(system, np.eye(most)[-1])
    assert all_read(servers, offered, together) == pytest.approx(chance[servers:].sum(), rel=0.05)


def test_tokens_that_wait_against_iterations_drawn() -> None:
    scenario = served(18.0, batching="token-budget")
    load, engine = Load.of(scenario), engine_of(scenario, "token-budget")
    point = operating(load, engine, 1)
    chain = TokenQueue.of(load, engine, point, 1.0, 1)
    assert chain.chance.sum() == pytest.approx(1.0)
    draws = np.random.default_rng(2)
    waiting, seen = 0.0, []
    for _ in range(30_000):
        seen.append(waiting)
        read = min(waiting, chain.tokens)
        seconds = float(np.interp(read, chain.unit * np.arange(LEVELS), chain.seconds)) if read else chain.seconds[0]
        waiting -= read
        for cls in draws.choice(2, draws.poisson(load.total * seconds), p=load.rate / load.total):
            waiting += draws.choice(load.requests[cls].reading)
    tokens = chain.unit * np.arange(LEVELS)
    assert chain.chance @ tokens == pytest.approx(np.mean(seen), rel=0.08)
    assert chain.chance[tokens > chain.tokens].sum() == pytest.approx(np.mean(np.array(seen) > chain.tokens), rel=0.2)


def test_fluid_of_two_phases_against_a_path() -> None:
    """A fluid that grows in one phase and falls in the other; the path is followed, not solved."""
    arrivals = Arrivals(process="mmpp", levels=(1, 4), sojourns=(30, 10))
    capacity = 1.4
    quiet, busy = phases_of(arrivals, capacity)
    assert quiet.level == pytest.approx(1 / 1.75)
    assert busy.level == pytest.approx(4 / 1.75)
    assert quiet.weight + busy.weight == pytest.approx(1.0)
    assert busy.empty == pytest.approx(0.0, abs=1e-9)
    draws, fluid, waits, empty = np.random.default_rng(3), 0.0, [], 0.0
    rounds = 40_000
    for _ in range(rounds):
        up = draws.exponential(10.0) * (busy.level / capacity - 1)
        down = draws.exponential(30.0)
        waits.append(fluid + up * draws.random())
        fluid += up
        falls = 1 - quiet.level / capacity
        empty += max(down - fluid / falls, 0.0) / 30.0
        fluid = max(fluid - down * falls, 0.0)
    assert quiet.empty == pytest.approx(empty / rounds, rel=0.03)
    # a point of a phase is more often in a long one, whose mean fluid is that of its start and half of twice the mean
    assert busy.wait @ busy.chance / busy.chance.sum() > np.mean(waits)


def test_fluid_of_a_day_follows_its_path() -> None:
    """Twice what is served in the second half of each 100 s, nothing in the first: 50 s of work drain by its end."""
    arrivals = Arrivals(process="daily", weights=(0, 1), period=100)
    none, much = phases_of(arrivals, 1.25)
    assert (none.weight, much.weight) == (0.0, pytest.approx(1.0))
    assert much.longest == pytest.approx(50 * (2 / 1.25 - 1), rel=0.02)
    assert much.wait @ much.chance / much.chance.sum() == pytest.approx(15.0, rel=0.02)
