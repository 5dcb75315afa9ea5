"""Bursty arrivals in the Markov kernel: the law of the gaps, GI/M/c, common random numbers, and Poisson as it was.

Confidence: fixed seeds, five standard errors.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fluidgate import FluidgateError, Scenario, find_policy, plan, simulate
from fluidgate.model import Arrivals
from fluidgate.optimum import optimum
from fluidgate.policies import POLICIES
from fluidgate.simulation.events import ARRIVAL
from fluidgate.simulation.markov.arrivals import arrivals_of
from fluidgate.simulation.markov.network import ARRIVAL_DRAW
from fluidgate.simulation.markov.replication import Job, Measurement, replicate, seeds
from tests.oracles.closed_forms import gamma_transform, gimc_wait, mmc
from tests.scenarios import station

SIGMAS = 5.0
GAPS = 200_000


def bursty(scenario: Scenario, cv: float) -> Scenario:
    return scenario.replace(arrivals=Arrivals(process="gamma", cv=cv))


def measured(scenario: Scenario, policy: str, gpus: int = 8) -> Measurement:
    found = find_policy(policy)
    return replicate(Job(scenario, found.for_worker(), found.tabulate(plan(scenario), gpus), gpus, 300.0, 30.0, 0, 1))


def gaps_of(scenario: Scenario, gpus: int) -> np.ndarray:
    rate = gpus * float(scenario.rates.arrival.sum())
    drawn = np.zeros(GAPS, ARRIVAL_DRAW)
    arrivals_of(rate, scenario.arrivals.gap_shape, seeds(7, 0)[0]).fill(drawn)
    return drawn["gap"]


@pytest.mark.parametrize("cv", [0.25, 1.0, 3.0])
def test_gaps_have_the_mean_of_the_rate_and_the_cv_asked_for(two_class: Scenario, cv: float) -> None:
    drawn = gaps_of(bursty(two_class, cv), gpus=6)
    mean, shape = 1 / (6 * 1.0), 1 / cv**2
    assert abs(drawn.mean() - mean) < SIGMAS * cv * mean / np.sqrt(GAPS)
    spread = np.sqrt((2 + 6 / shape) / GAPS)  # of a sample variance, relative, by the Gamma's excess kurtosis 6/shape
    assert abs(drawn.var() / (cv * mean) ** 2 - 1) < SIGMAS * spread
    assert stats.kstest(drawn, stats.gamma(shape, scale=mean / shape).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < SIGMAS / np.sqrt(GAPS)


def test_gamma_gaps_of_cv_1_are_the_poisson_gaps(two_class: Scenario) -> None:
    poisson, gamma = measured(two_class, "gate-and-route"), measured(bursty(two_class, 1.0), "gate-and-route")
    np.testing.assert_array_equal(poisson.events, gamma.events)
    np.testing.assert_array_equal(poisson.occupancy, gamma.occupancy)


@pytest.mark.parametrize(
    ("policy", "events", "occupancy"),
    [
        (
            "gate-and-route",
            [[1108, 1118], [1094, 1045], [1094, 1045], [1022, 984], [1013, 981], [14, 70], [72, 61]],
            132.10449710967475,
        ),
        (
            "sli-aware",
            [[1108, 1118], [1090, 1049], [1089, 1050], [1009, 969], [1010, 972], [18, 66], [80, 81]],
            128.22762318307548,
        ),
    ],
)
def test_poisson_numbers_are_those_of_the_first_release(
    two_class: Scenario, policy: str, events: list[list[int]], occupancy: float
) -> None:
    found = measured(two_class, policy)
    assert found.events.tolist() == events
    assert found.occupancy.sum() == pytest.approx(occupancy, rel=1e-9)


def test_the_oracle_is_erlang_c_for_poisson_gaps() -> None:
    for servers in (1, 3, 8):
        waits, wait = gimc_wait(gamma_transform(0.7 * servers, 1.0), 1.0, servers)
        exact = mmc(0.7 * servers, 1.0, servers)
        assert (waits, wait) == pytest.approx((exact.wait_probability, exact.wait))


@pytest.mark.parametrize(("gpus", "cv"), [(1, 0.5), (1, 2.0), (4, 3.0)])
def test_prefill_stage_is_gi_m_c(gpus: int, cv: float) -> None:
    scenario = bursty(station(arrival=0.7, service=1.0, patience=0.0), cv)
    result = simulate(scenario, "fi-wsp", gpus=gpus, horizon=200_000, replications=20, seed=3)
    ttft = result.classes[0].ttft
    _, wait = gimc_wait(gamma_transform(0.7 * gpus, cv), 1.0, gpus)
    assert ttft.mean is not None
    assert ttft.std is not None
    assert ttft.std < 0.07 * ttft.mean
    assert abs(ttft.mean - (wait + 1.0)) < SIGMAS * ttft.std / np.sqrt(20)


def test_all_policies_meet_the_same_bursts(two_class: Scenario) -> None:
    seen = {tuple(measured(bursty(two_class, 3.0), name).events[ARRIVAL].tolist()) for name in POLICIES}
    assert len(seen) == 1


def test_bursts_cost_revenue(two_class: Scenario) -> None:
    options = {"gpus": 20, "horizon": 4000.0, "replications": 4}
    smooth = simulate(two_class, "gate-and-route", **options).revenue_rate  # type: ignore[arg-type]
    rough = simulate(bursty(two_class, 3.0), "gate-and-route", **options).revenue_rate  # type: ignore[arg-type]
    assert rough.ci95 is not None
    assert smooth.ci95 is not None
    assert rough.ci95[1] < smooth.ci95[0]


def test_the_markov_network_refuses_processes_it_does_not_draw(two_class: Scenario) -> None:
    phases = two_class.replace(arrivals=Arrivals(process="mmpp", levels=(1.0, 8.0), sojourns=(50.0, 5.0)))
    with pytest.raises(FluidgateError, match=r"arrivals\.process: 'mmpp' is unknown to the Markov network"):
        simulate(phases, "fi-wsp", gpus=4, fidelity="markov")


def test_the_exact_optimum_is_for_poisson_arrivals_only(two_class: Scenario) -> None:
    with pytest.raises(FluidgateError, match=r"arrivals\.process: 'gamma'"):
        optimum(bursty(two_class, 3.0), gpus=1)
