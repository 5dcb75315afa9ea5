"""The checks of the model's assumptions: a line, a knee, times flat in the batch size."""

from __future__ import annotations

import numpy as np
import pytest

from fluidgate.calibration import calibrate
from fluidgate.calibration.checks import curvature
from fluidgate.calibration.knee import find_knee
from tests.calibration.synthetic import CHUNKS, line, measured

LINE = line(0.0174, 6.2e-5, 45.45)
TOKENS = np.arange(16.0, 2064.0, 64.0)


@pytest.mark.parametrize("b0", [150.0, 272.0, 700.0])
def test_knee_is_recovered(b0: float) -> None:
    exact = 0.02 + 6e-5 * np.maximum(0.0, TOKENS - b0)
    noise = 0.0005 * np.random.default_rng(4).standard_normal(len(TOKENS))
    knee = find_knee(TOKENS, exact)
    assert knee is not None
    assert (knee.c, knee.a, knee.b0) == pytest.approx((0.02, 6e-5, b0))
    assert knee.test.p == 0.0
    assert knee.seconds(2048) == pytest.approx(0.02 + 6e-5 * (2048 - b0))
    noisy = find_knee(TOKENS, exact + noise)
    assert noisy is not None
    assert noisy.b0 == pytest.approx(b0, abs=25)
    assert noisy.r_squared > 0.999


def test_knee_is_the_global_least_squares() -> None:
    times = 0.02 + 6e-5 * np.maximum(0.0, TOKENS - 400) + 0.002 * np.random.default_rng(2).standard_normal(len(TOKENS))
    knee = find_knee(TOKENS, times)
    assert knee is not None

    def rss(b0: float) -> float:
        design = np.column_stack([np.ones_like(TOKENS), np.maximum(0.0, TOKENS - b0)])
        return float(np.linalg.lstsq(design, times, rcond=None)[1][0])

    grid = np.linspace(TOKENS[1], TOKENS[-3], 5000)
    best = min(rss(b0) for b0 in grid)
    assert rss(knee.b0) <= best * (1 + 1e-9)


@pytest.mark.parametrize("slope", [6.2e-5, 1e-6, 1e-7])
def test_a_line_shows_a_knee_no_more_often_than_chance(slope: float) -> None:
    found = [
        find_knee(TOKENS, 0.02 + slope * TOKENS + 0.0005 * np.random.default_rng(seed).standard_normal(len(TOKENS)))
        for seed in range(60)
    ]
    assert sum(knee is not None for knee in found) <= 4


def test_too_few_points_show_no_knee() -> None:
    assert find_knee(np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 2.0])) is None
    assert find_knee(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 1.0, 1.0, 1.0])) is None


def test_knee_of_a_calibration_counts_the_decodes() -> None:
    def knee(batch: int, chunk: int) -> float:
        return 0.02 + 6e-5 * max(0, batch + chunk - 200)

    found = calibrate(measured(knee, chunks=(32, 64, 128, *CHUNKS), noise=1e-4)).fits[0]
    assert found.knee is not None
    assert found.knee.b0 == pytest.approx(200, abs=5)
    assert found.alpha.value == pytest.approx(0.02 - 6e-5 * (200 - 16), abs=3e-4)


def test_curvature_is_flagged_where_it_matters() -> None:
    straight = calibrate(measured(LINE, noise=1e-4))
    assert straight.curvature is not None
    assert straight.curvature.p is not None
    assert straight.curvature.p > 0.05
    assert straight.warnings == ()
    bent = calibrate(measured(lambda b, c: LINE(b, c) + 1.5e-8 * c**2, noise=1e-4))
    assert bent.curvature is not None
    assert bent.curvature.p is not None
    assert bent.curvature.p < 0.001
    assert bent.warnings[0].startswith("not a line in the chunk size: it lies ")


def test_curvature_test_has_its_level() -> None:
    tests = [curvature(measured(LINE, batches=(8, 16), noise=1e-4, seed=seed), 256) for seed in range(200)]
    low = [test for test in tests if test is not None and test.p is not None and test.p < 0.05]
    assert len(tests[0].degrees if tests[0] else ()) == 2
    assert 2 <= len(low) <= 20  # 10 expected


def test_curvature_without_degrees_of_freedom() -> None:
    assert calibrate(measured(LINE, chunks=(256, 512, 1024))).curvature is None


def by_batch(batch: int, chunk: int) -> float:
    return LINE(batch, chunk) + 2e-4 * batch


def test_flat_times_are_not_flagged() -> None:
    made = calibrate(measured(LINE, batches=(8, 16, 64), noise=1e-4), pooled=True)
    assert made.flatness.solo is not None
    assert made.flatness.mixed is not None
    assert made.flatness.solo.p is not None
    assert made.flatness.solo.p > 0.05
    assert abs(made.flatness.mixed.change) < 0.01
    assert made.warnings == ()
    assert made.profile.batch_sizes == (8, 64)


def test_times_that_grow_with_the_batch_are_flagged() -> None:
    made = calibrate(measured(by_batch, batches=(8, 16, 64), noise=1e-4), pooled=True)
    solo, mixed = made.flatness.solo, made.flatness.mixed
    assert solo is not None
    assert mixed is not None
    assert solo.slope.value == pytest.approx(2e-4, rel=0.05)
    assert mixed.slope.value == pytest.approx(2e-4, rel=0.05)
    assert solo.slope.t is not None
    assert solo.slope.t > 50
    assert solo.change == pytest.approx(2e-4 * 56 / (1 / 45.45 + 2e-4 * 88 / 3), rel=0.05)
    assert [w.split(" is not flat")[0] for w in made.warnings] == ["the solo time", "the mixed time"]


def test_flatness_without_noise_and_with_one_batch_size() -> None:
    assert calibrate(measured(LINE)).flatness.to_dict() == {"solo": None, "mixed": None}
    exact = calibrate(measured(by_batch, batches=(8, 64)), pooled=True).flatness.solo
    assert exact is not None
    assert (exact.p, exact.slope.t) == (0.0, None)


def test_a_mixed_iteration_faster_than_a_solo_one_is_flagged() -> None:
    made = calibrate(measured(line(0.001, 6.2e-5, 45.45)))
    assert made.warnings[-1].startswith(
        "at batch size 16 a mixed iteration of 256 prompt tokens takes less time (16.87 ms)"
    )
