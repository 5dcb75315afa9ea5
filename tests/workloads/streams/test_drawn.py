"""Drawn requests against the closed forms of their laws.

Confidence: fixed seeds; five standard errors for a mean, and p-values above 1e-3.
"""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fluidgate import FluidgateError, Scenario
from fluidgate.model import Arrivals, Lengths
from fluidgate.workloads.streams import BLOCK, REQUEST, drawn_requests
from fluidgate.workloads.streams.requests import requests_of, until
from tests.scenarios import two_class_scenario

SIGMAS = 5.0
GPUS = 10
RATE = 10.0  # two classes of 0.5/s on 10 GPUs
MMPP = Arrivals(process="mmpp", levels=(1.0, 8.0), sojourns=(50.0, 5.0))
THREE_PHASES = Arrivals(process="mmpp", levels=(0.0, 2.0, 5.0), sojourns=(3.0, 8.0, 2.0))
DAILY = Arrivals(process="daily", weights=(1.0, 4.0, 0.0, 2.0), period=400.0)
PROCESSES = [Arrivals(), Arrivals(process="gamma", cv=3.0), MMPP, THREE_PHASES, DAILY]


@pytest.fixture
def scenario() -> Scenario:
    return two_class_scenario()


def drawn(scenario: Scenario, most: int | None = 200_000, **options: Any) -> Any:
    return np.concatenate(list(drawn_requests(scenario, GPUS, most=most, **options)))


def with_lengths(scenario: Scenario, mean: float, **lengths: Any) -> Scenario:
    classes = tuple(c.model_copy(update={"output_tokens": mean}) for c in scenario.classes)
    return scenario.replace(classes=classes, lengths=Lengths(**lengths))


def within(sample: np.ndarray, mean: float) -> bool:
    return abs(sample.mean() - mean) <= SIGMAS * sample.std() / np.sqrt(len(sample))


def test_blocks_are_full_sorted_and_of_the_agreed_type(scenario: Scenario) -> None:
    blocks = list(drawn_requests(scenario, GPUS, most=BLOCK + 10))
    assert [len(block) for block in blocks] == [BLOCK, 10]
    assert blocks[0].dtype == REQUEST
    assert REQUEST.itemsize == 56
    everything = np.concatenate(blocks)
    assert everything["arrival"][0] > 0
    assert (np.diff(everything["arrival"]) >= 0).all()
    assert everything["prompt"].min() == everything["output"].min() == 1


def test_poisson_arrivals_of_classes_by_rate(scenario: Scenario) -> None:
    uneven = scenario.replace(
        classes=tuple(
            c.model_copy(update={"arrival_rate": r}) for c, r in zip(scenario.classes, (0.8, 0.2), strict=True)
        )
    )
    requests = drawn(uneven)
    gaps = np.diff(requests["arrival"], prepend=0.0)
    assert stats.kstest(gaps, stats.expon(scale=1 / RATE).cdf).pvalue > 1e-3
    assert within(requests["cls"], 0.2)
    assert abs(np.corrcoef(requests["cls"][1:], requests["cls"][:-1])[0, 1]) < SIGMAS / np.sqrt(len(gaps))


@pytest.mark.parametrize("cv", [0.2, 3.0])
def test_gamma_gaps(scenario: Scenario, cv: float) -> None:
    gaps = np.diff(drawn(scenario.replace(arrivals=Arrivals(process="gamma", cv=cv)))["arrival"], prepend=0.0)
    law = stats.gamma(1 / cv**2, scale=cv**2 / RATE)
    assert abs(gaps.mean() * RATE - 1) < SIGMAS * cv / np.sqrt(len(gaps))
    seen = 1e-6  # shorter gaps are lost in the rounding of epochs
    assert abs(np.mean(gaps > seen) - law.sf(seen)) < SIGMAS / np.sqrt(len(gaps))
    longer = gaps[gaps > seen]
    assert stats.kstest(longer, lambda x: (law.cdf(x) - law.cdf(seen)) / law.sf(seen)).pvalue > 1e-3


def dispersion(arrivals: Arrivals, rate: float, window: float) -> float:
    """Variance over mean of the arrivals in a window of a Markov-modulated Poisson process.

    Fischer and Meier-Hellstern, Performance Evaluation 18 (1993), from the generator `q` of the phase.
    """
    from scipy.linalg import expm

    sojourns, levels = np.array(arrivals.sojourns), np.array(arrivals.levels)
    m = len(sojourns)
    q = (1 - np.eye(m)) / sojourns[:, None] / (m - 1)
    q -= np.diag(q.sum(axis=1))
    pi = sojourns / sojourns.sum()
    rates = levels * rate / (pi @ levels)
    ones = np.ones(m)
    inverse = np.linalg.inv(np.outer(ones, pi) - q)
    deviation = inverse - np.outer(ones, pi)
    covariance = (pi * rates) @ (deviation * window - deviation @ deviation @ (np.eye(m) - expm(q * window))) @ rates
    return float(1 + 2 * covariance / (rate * window))


@pytest.mark.parametrize("arrivals", [MMPP, THREE_PHASES])
@pytest.mark.parametrize("window", [2.0, 100.0])
def test_index_of_dispersion_of_phases(scenario: Scenario, arrivals: Arrivals, window: float) -> None:
    windows = 5_000 if window > 10 else 60_000
    requests = drawn(scenario.replace(arrivals=arrivals), most=None, horizon=windows * window)
    counts = np.histogram(requests["arrival"], np.arange(windows + 1) * window)[0].astype(float)
    per_group = counts.reshape(50, -1).var(axis=1, ddof=1) / (RATE * window)
    exact = dispersion(arrivals, RATE, window)
    assert exact > 2  # bursts, or the comparison says little
    assert within(per_group, exact)
    assert within(counts.reshape(50, -1).mean(axis=1), RATE * window)


def test_a_day_has_its_shape(scenario: Scenario) -> None:
    requests = drawn(scenario.replace(arrivals=DAILY), most=None, horizon=100 * DAILY.period)
    within_day = requests["arrival"] % DAILY.period
    counts = np.histogram(within_day, 4, (0.0, DAILY.period))[0]
    expected = np.array(DAILY.weights) / sum(DAILY.weights) * 100 * DAILY.period * RATE
    assert counts[2] == 0
    kept = expected > 0
    assert stats.chisquare(counts[kept], expected[kept] * counts.sum() / expected.sum()).pvalue > 1e-3
    assert abs(counts.sum() - expected.sum()) < SIGMAS * np.sqrt(expected.sum())
    busy = within_day[(within_day >= 100) & (within_day < 200)]
    assert stats.kstest(busy, stats.uniform(100, 100).cdf).pvalue > 1e-3
    by_day = np.histogram(requests["arrival"], 100)[0]
    assert by_day.var(ddof=1) / by_day.mean() < 1 + SIGMAS * np.sqrt(2 / 99)  # Poisson: days do not differ


def test_a_day_that_ends_without_arrivals(scenario: Scenario) -> None:
    night = Arrivals(process="daily", weights=(0.0, 1.0, 0.0), period=0.3)
    times = drawn(scenario.replace(arrivals=night))["arrival"]
    part = times % 0.3
    assert ((part > 0.1 - 1e-9) & (part < 0.2 + 1e-9)).all()
    assert len(times) / times[-1] == pytest.approx(RATE, rel=0.02)


@pytest.mark.parametrize("arrivals", PROCESSES, ids=lambda a: f"{a.process}-{len(a.levels)}")
def test_block_size_does_not_matter_and_replications_differ(scenario: Scenario, arrivals: Arrivals) -> None:
    bursty = scenario.replace(
        arrivals=arrivals, lengths=Lengths(prompt="lognormal", prompt_cv=2.0, output="exponential")
    )
    one = drawn(bursty, most=20_000, seed=5, size=20_000)
    np.testing.assert_array_equal(one, drawn(bursty, most=20_000, seed=5, size=777))
    other = drawn(bursty, most=20_000, seed=5, replication=1)
    assert not np.isin(one["arrival"], other["arrival"]).any()


def test_arrivals_do_not_depend_on_lengths_or_patience(scenario: Scenario) -> None:
    one = drawn(scenario, most=10_000)
    patient = tuple(c.model_copy(update={"patience_rate": 0.0}) for c in scenario.classes)
    two = drawn(scenario.replace(classes=patient, lengths=Lengths(prompt="fixed", output="fixed")), most=10_000)
    np.testing.assert_array_equal(one["arrival"], two["arrival"])
    np.testing.assert_array_equal(one["cls"], two["cls"])
    assert np.isinf(two["patience"]).all()
    assert set(two["prompt"]) == {300, 3000}


def test_the_horizon_ends_the_stream(scenario: Scenario) -> None:
    short, long = drawn(scenario, most=None, horizon=100.0), drawn(scenario, most=5_000)
    np.testing.assert_array_equal(short, long[long["arrival"] <= 100.0])
    assert list(drawn_requests(scenario, GPUS, most=0)) == []
    block = requests_of([1.0, 2.0, 2.0, 3.0], 0, 1, 1, 1.0)
    assert [len(b) for b in until([block, block], 2.0, None)] == [3]


def test_the_load_of_a_cluster_is_shared(scenario: Scenario) -> None:
    cluster = scenario.replace(cluster_gpus=GPUS)
    np.testing.assert_array_equal(
        next(drawn_requests(cluster, GPUS))["cls"], next(drawn_requests(cluster, 5 * GPUS))["cls"]
    )
    more = next(drawn_requests(cluster, 5 * GPUS))["arrival"]
    np.testing.assert_allclose(next(drawn_requests(cluster, GPUS))["arrival"], more)


@pytest.mark.parametrize("mean", [1.5, 28.0, 400.0])
def test_geometric_lengths(scenario: Scenario, mean: float) -> None:
    output = drawn(with_lengths(scenario, mean))["output"]
    assert output.min() == 1
    assert within(output, mean)
    law = stats.geom(1 / mean)
    edges = np.unique(law.ppf(np.linspace(0.0, 1.0, 21)[1:-1])) + 0.5
    counts = np.bincount(np.searchsorted(edges, output), minlength=len(edges) + 1)
    chance = np.diff(law.cdf(edges), prepend=0.0, append=1.0)
    assert stats.chisquare(counts, chance * len(output)).pvalue > 1e-3


@pytest.mark.parametrize(("mean", "cv"), [(1.0, 1.0), (1.3, 2.0), (28.0, 2.15), (400.0, 0.5)])
def test_lognormal_lengths_keep_the_mean(scenario: Scenario, mean: float, cv: float) -> None:
    output = drawn(with_lengths(scenario, mean, output="lognormal", output_cv=cv))["output"]
    assert output.min() >= 1
    if mean == 1.0:
        assert output.max() == 1
        return
    assert within(output, mean)
    if mean > 100:
        assert output.std() / output.mean() == pytest.approx(cv, rel=0.02)
        sigma = np.sqrt(np.log1p(cv**2))
        law = stats.lognorm(sigma, scale=mean * np.exp(-(sigma**2) / 2))
        assert np.quantile(output, [0.1, 0.5, 0.99]) == pytest.approx(law.ppf([0.1, 0.5, 0.99]), rel=0.02)


def test_patience_is_exponential_by_class(scenario: Scenario) -> None:
    rates = (0.1, 0.0)
    classes = tuple(c.model_copy(update={"patience_rate": r}) for c, r in zip(scenario.classes, rates, strict=True))
    requests = drawn(scenario.replace(classes=classes))
    first = requests["patience"][requests["cls"] == 0]
    assert stats.kstest(first, stats.expon(scale=10.0).cdf).pvalue > 1e-3
    assert np.isinf(requests["patience"][requests["cls"] == 1]).all()


def test_lengths_prompt_and_patience_are_independent(scenario: Scenario) -> None:
    requests = drawn(scenario)
    only = requests[requests["cls"] == 0]
    columns = [np.diff(only["arrival"], prepend=0.0), *(only[name] for name in ("prompt", "output", "patience"))]
    for a, b in itertools.combinations(columns, 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < SIGMAS / np.sqrt(len(only))


def test_what_can_not_be_drawn_is_named(scenario: Scenario) -> None:
    with pytest.raises(FluidgateError, match=r"classes\[0\] \('decode-heavy'\): output_tokens: a mean of 0\.5"):
        drawn_requests(with_lengths(scenario, 0.5), GPUS)
    with pytest.raises(FluidgateError, match=r"lengths\.traces: missing; name the trace files"):
        drawn_requests(scenario.replace(lengths=Lengths(output="empirical")), GPUS)


def test_memory_is_that_of_a_block(scenario: Scenario) -> None:
    phases = scenario.replace(arrivals=THREE_PHASES)
    list(drawn_requests(phases, GPUS, most=10))

    def peak(most: int) -> int:
        tracemalloc.start()
        count = sum(len(block) for block in drawn_requests(phases, GPUS, most=most))
        assert count == most
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(3_000_000) < 1.2 * peak(300_000) < 30e6
