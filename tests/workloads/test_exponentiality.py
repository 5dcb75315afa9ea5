from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluidgate.workloads.exponentiality import bins, divergence, exponentiality, quantiles


@pytest.mark.parametrize("mean", [0.01, 28.0, 2048.0])
def test_an_exponential_sample_has_cv_1_and_no_divergence(mean: float) -> None:
    found = exponentiality(np.random.default_rng(1).exponential(mean, 20_000))
    assert found.count == 20_000
    assert found.mean == pytest.approx(mean, rel=0.03)
    assert found.cv == pytest.approx(1.0, abs=0.03)
    assert found.kl == pytest.approx(0.0, abs=0.002)


def test_rounding_up_to_whole_tokens_is_no_departure() -> None:
    found = exponentiality(np.ceil(np.random.default_rng(2).exponential(100.0, 20_000)))
    assert found.kl is not None
    assert found.kl < 0.005


def test_the_estimate_is_biased_as_its_docstring_says() -> None:
    rng = np.random.default_rng(3)
    count = 200
    mean = np.mean([divergence(rng.exponential(1.0, count)) for _ in range(2000)])
    assert mean == pytest.approx((bins(count) - 1) / (2 * count), rel=0.15)


def test_constant_lengths_fall_in_one_bin() -> None:
    found = exponentiality(np.full(1000, 7.0))
    assert (found.mean, found.cv) == (7.0, 0.0)
    assert found.kl == pytest.approx(math.log(20))


def test_divergence_by_hand() -> None:
    sample = np.array([1.0, 1.0, 1.0, 5.0])
    assert bins(4) == 4
    edges = -2.0 * np.log([0.75, 0.5, 0.25])
    assert (edges[0] < 1 < edges[1], edges[2] < 5) == (True, True)
    assert divergence(sample) == pytest.approx(0.75 * math.log(3) + 0.25 * math.log(1))


def test_no_sample_and_no_mean() -> None:
    assert exponentiality(np.empty(0)).mean is None
    found = exponentiality(np.zeros(3))
    assert (found.count, found.mean, found.cv, found.kl) == (3, 0.0, None, None)


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=50), st.floats(1e-3, 1e3))
def test_divergence_lies_in_its_bounds_whatever_the_unit(values: list[float], unit: float) -> None:
    sample = np.array(values)
    assert -1e-12 <= divergence(sample) <= math.log(bins(len(sample))) + 1e-12
    assert exponentiality(sample * unit).cv == pytest.approx(exponentiality(sample).cv)


def test_quantiles_of_an_exponential_sample_lie_on_the_diagonal() -> None:
    theory, sample = quantiles(np.random.default_rng(4).exponential(3.0, 50_000), points=20)
    assert theory.shape == sample.shape == (20,)
    np.testing.assert_allclose(sample, theory, rtol=0.05)


def test_quantiles_of_few_points() -> None:
    theory, sample = quantiles(np.array([4.0, 1.0]))
    np.testing.assert_allclose(theory, [-2.5 * math.log(0.75), -2.5 * math.log(0.25)])
    np.testing.assert_allclose(sample, [1.75, 3.25])
    assert quantiles(np.empty(0))[0].shape == (0,)
