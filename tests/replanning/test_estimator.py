"""Estimates against what is known of them in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluidgate.errors import FluidgateError
from fluidgate.model import Scenario
from fluidgate.replanning import Estimator
from tests.scenarios import two_class_scenario

GPUS = 10


def one_class(rate: float = 0.5, patience: float = 0.1) -> Scenario:
    scenario = two_class_scenario()
    first = scenario.classes[0].model_copy(update={"arrival_rate": rate, "patience_rate": patience})
    return scenario.replace(classes=(first,))


def estimator(window: float = 50.0, prior: float = 0.0, scenario: Scenario | None = None) -> Estimator:
    return Estimator(scenario or one_class(), GPUS, window=window, prior=prior)


@pytest.mark.parametrize("seconds", [5.0, 50.0, 400.0])
def test_the_rate_of_poisson_arrivals_has_the_mean_and_variance_it_says(seconds: float) -> None:
    rate, window, runs = 0.8, 50.0, 4000
    rng = np.random.default_rng(7)
    found = np.empty(runs)
    for k in range(runs):
        seen = estimator(window, scenario=one_class(rate))
        for epoch in np.sort(rng.uniform(0.0, seconds, rng.poisson(rate * GPUS * seconds / 10))):
            seen.arrived(0, float(epoch))
        found[k] = seen.at(seconds).arrival[0] * GPUS
    true = rate * GPUS / 10
    kept = math.exp(-seconds / window)
    variance = true * (window / 2) * (1 - kept**2) / (window * (1 - kept)) ** 2
    assert found.mean() == pytest.approx(true, abs=4 * math.sqrt(variance / runs))
    # standard error of a variance: sqrt(2/runs) of it, and more for the skewed law of few arrivals
    assert found.var() == pytest.approx(variance, rel=6 * math.sqrt(2 / runs) + 0.02)


def test_the_deviation_it_reports_is_that_of_the_rate() -> None:
    rate, window, seconds = 0.8, 50.0, 300.0
    seen = estimator(window, scenario=one_class(rate))
    rng = np.random.default_rng(3)
    for epoch in np.sort(rng.uniform(0.0, seconds, rng.poisson(rate * GPUS * seconds))):
        seen.arrived(0, float(epoch))
    estimate = seen.at(seconds)
    assert estimate.arrival_cv[0] == pytest.approx(1.0, abs=0.1)
    assert estimate.arrival_deviation[0] * GPUS == pytest.approx(math.sqrt(rate * GPUS / (2 * window)), rel=0.2)


def test_bursts_widen_the_deviation() -> None:
    rng = np.random.default_rng(5)
    cv = 4.0
    seen = estimator(500.0)
    for epoch in np.cumsum(rng.gamma(1 / cv**2, cv**2 / 5.0, 20_000)):
        seen.arrived(0, float(epoch))
    assert seen.at(4000.0).arrival_cv[0] == pytest.approx(cv, rel=0.25)


def test_the_prior_stands_before_anything_is_seen_and_is_forgotten() -> None:
    scenario = two_class_scenario()
    seen = Estimator(scenario, GPUS, window=50.0, prior=50.0)
    assert seen.scenario_at(0.0).rates.arrival == pytest.approx(scenario.rates.arrival)
    for name in ("prefill", "mixed_decode", "patience"):
        assert getattr(seen.scenario_at(0.0).rates, name) == pytest.approx(getattr(scenario.rates, name))
    # nobody comes: prior 50 s at weight exp(-s/T), over T (1 - exp(-s/T)) + 50 exp(-s/T)
    assert seen.at(100.0).arrival == pytest.approx(scenario.rates.arrival * math.exp(-2.0))
    assert seen.at(1e6).arrival == pytest.approx(0.0)
    assert seen.at(1e6).prompt == pytest.approx([300.0, 3000.0]), "lengths stay, as nothing newer is known"
    assert (seen.scenario_at(1e6).rates.arrival > 0).all()


def test_without_a_prior_the_scenario_speaks_until_something_is_seen() -> None:
    seen = estimator()
    assert seen.at(0.0).output[0] == 1000.0
    seen.completed(0, 3.0, 20.0)
    seen.prompt_read(0, 4.0, 7.0)
    assert seen.at(5.0).output[0] == 20.0
    assert seen.at(5.0).prompt[0] == 7.0


def test_mean_lengths_are_weighted_by_age() -> None:
    seen = estimator(10.0)
    seen.completed(0, 0.0, 100.0)
    seen.completed(0, 10.0, 40.0)
    weight = math.exp(-1.0)
    assert seen.at(25.0).output[0] == pytest.approx((100.0 * weight + 40.0) / (weight + 1.0))


def test_patience_is_the_maximum_likelihood_estimate_under_censoring() -> None:
    """An endless window: those who left over the seconds waited, the one still waiting included."""
    seen = estimator(1e9)
    seen.waits(0, 1.0)
    seen.waits(0, 2.0)
    seen.left(0, 4.0)  # 3 s or 2 s, whichever it was: 5 s from both
    seen.waits(0, 6.0)
    seen.waits_no_more(0, 7.0)
    # one waits over [1, 10], another over [2, 4], another over [6, 7]
    assert seen.at(10.0).patience[0] == pytest.approx(1 / 12.0, rel=1e-6)


def test_patience_of_a_queue() -> None:
    """Requests with exponential patience that are served after a random while: the rate, within 4 standard errors."""
    theta, count = 0.25, 20_000
    rng = np.random.default_rng(11)
    begins = np.sort(rng.uniform(0.0, 5000.0, count))
    patience, served = rng.exponential(1 / theta, count), rng.exponential(3.0, count)
    ends = begins + np.minimum(patience, served)
    events = sorted(
        [(t, 0, 0) for t in begins] + [(t, 1, int(p < s)) for t, p, s in zip(ends, patience, served, strict=True)]
    )
    seen = estimator(1e9)
    for epoch, kind, gone in events:
        (seen.waits if kind == 0 else seen.left if gone else seen.waits_no_more)(0, float(epoch))
    left = int((patience < served).sum())
    assert seen.at(6000.0).patience[0] == pytest.approx(theta, abs=4 * theta / math.sqrt(left))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.0, 5.0), st.integers(0, 4), st.floats(1.0, 1e4)), max_size=60), st.floats(0.0, 1e3)
)
def test_any_order_of_events_gives_the_weighted_sums(steps: list[tuple[float, int, float]], later: float) -> None:
    """Against sums over the whole history."""
    window = 7.0
    seen = estimator(window)
    now, waiting = 0.0, 0
    arrived: list[float] = []
    outputs: list[tuple[float, float]] = []
    left: list[float] = []
    spans: list[tuple[float, float, int]] = []
    for gap, kind, tokens in steps:
        spans.append((now, now + gap, waiting))
        now += gap
        if kind == 0:
            seen.arrived(0, now)
            arrived.append(now)
        elif kind == 1:
            seen.waits(0, now)
            waiting += 1
        elif kind == 2 and waiting:
            seen.left(0, now)
            left.append(now)
            waiting -= 1
        elif kind == 3 and waiting:
            seen.waits_no_more(0, now)
            waiting -= 1
        else:
            seen.completed(0, now, tokens)
            outputs.append((now, tokens))
    end = now + later
    spans.append((now, end, waiting))
    weight = lambda t: math.exp((t - end) / window)  # noqa: E731
    found = seen.at(end)
    if end > 1e-9:
        assert found.arrival[0] * GPUS * window * -math.expm1(-end / window) == pytest.approx(
            math.fsum(map(weight, arrived)), rel=1e-9, abs=1e-12
        )
    if outputs and later < 100:
        total = math.fsum(weight(t) for t, _ in outputs)
        assert found.output[0] == pytest.approx(math.fsum(weight(t) * d for t, d in outputs) / total, rel=1e-9)
    exposure = math.fsum(n * window * (weight(b) - weight(a)) for a, b, n in spans)
    if exposure > 1e-9:
        assert found.patience[0] == pytest.approx(math.fsum(map(weight, left)) / exposure, rel=1e-6)


@pytest.mark.parametrize(("window", "prior"), [(0.0, 1.0), (math.inf, 1.0), (10.0, -1.0), (math.nan, 0.0)])
def test_times_that_cannot_be(window: float, prior: float) -> None:
    with pytest.raises(FluidgateError, match="window must be above 0"):
        estimator(window, prior)
