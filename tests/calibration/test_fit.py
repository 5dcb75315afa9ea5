"""Coefficients and their uncertainty, against known truths and scipy's own regression."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from fluidgate.calibration import Measurements, calibrate
from fluidgate.calibration.estimate import Estimate
from fluidgate.calibration.fit import fit
from fluidgate.errors import FluidgateError
from fluidgate.model import IterationTime
from tests.calibration.synthetic import CHUNKS, line, measured

QWEN_8B = line(0.0174, 6.2e-5, 45.45)


@pytest.mark.parametrize(("alpha", "beta", "gamma"), [(0.0174, 6.2e-5, 45.45), (0.0152, 3.6e-5, 52.63)])
def test_the_published_rows_come_back(alpha: float, beta: float, gamma: float) -> None:
    made = calibrate(measured(line(alpha, beta, gamma)))
    assert made.profile.iteration == IterationTime(alpha=alpha, beta=beta, gamma=gamma)
    assert made.profile.r_squared == 1.0
    assert made.profile.batch_sizes == (16, 16)
    assert made.profile.chunk_sizes == (256, 2048)
    assert made.warnings == ()


def test_line_is_that_of_scipy_and_polyfit() -> None:
    rows = measured(QWEN_8B, noise=0.002, seed=3)
    found = fit(rows, 256)
    mixed = rows.select(~rows.solo)
    means = [mixed.seconds[mixed.chunk_size == chunk].mean() for chunk in CHUNKS]
    truth = scipy.stats.linregress(CHUNKS, means)
    slope, intercept = np.polyfit(CHUNKS, means, 1)
    assert found.beta.value == pytest.approx(truth.slope, rel=1e-9) == pytest.approx(slope, rel=1e-9)
    assert found.alpha.value == pytest.approx(truth.intercept, rel=1e-9) == pytest.approx(intercept, rel=1e-9)
    assert found.r_squared == pytest.approx(truth.rvalue**2, rel=1e-9)
    assert found.beta.std_error == pytest.approx(truth.stderr, rel=1e-9)
    assert found.alpha.std_error == pytest.approx(truth.intercept_stderr, rel=1e-9)
    half = scipy.stats.t.ppf(0.975, len(CHUNKS) - 2) * truth.stderr
    assert found.beta.ci95 == pytest.approx((truth.slope - half, truth.slope + half), rel=1e-9)


def test_gamma_is_one_over_the_mean_solo_time() -> None:
    rows = measured(QWEN_8B, noise=0.001, repeats=10, seed=1)
    solo = rows.seconds[rows.solo]
    gamma = fit(rows, 256).gamma
    assert gamma.value == pytest.approx(1 / solo.mean(), rel=1e-9)
    assert gamma.std_error == pytest.approx(scipy.stats.sem(solo) / solo.mean() ** 2, rel=1e-9)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    truth = {"alpha": 0.0174, "beta": 6.2e-5, "gamma": 45.45}
    hits = dict.fromkeys(truth, 0)
    seeds = 400
    for seed in range(seeds):
        found = fit(measured(QWEN_8B, noise=0.0005, seed=seed), 256)
        for key, value in truth.items():
            ends = getattr(found, key).ci95
            hits[key] += ends[0] <= value <= ends[1]
    # 95 % of 400: standard deviation 1.1 %
    assert all(0.915 <= hit / seeds <= 0.985 for hit in hits.values()), hits


def test_each_pair_counts_once_whatever_its_repeats() -> None:
    rows = measured(lambda batch, chunk: 0.01 + 1e-5 * chunk + (0.002 if chunk == 512 else 0), repeats=1)
    again = np.flatnonzero(rows.chunk_size == 512).repeat(5)
    more = rows.select(np.ones(len(rows), dtype=bool))
    index = np.concatenate([np.arange(len(rows)), again])
    more = Measurements(rows.batch_size[index], rows.chunk_size[index], rows.seconds[index], rows.source)
    assert fit(more, 256).beta.value == pytest.approx(fit(rows, 256).beta.value, rel=1e-9)


def test_two_chunk_sizes_and_one_solo_row_leave_no_uncertainty_to_tell() -> None:
    found = fit(measured(QWEN_8B, chunks=(256, 512), repeats=1), 256)
    assert found.alpha == Estimate(pytest.approx(0.0174), None, None)
    assert found.gamma.ci95 is None


def test_small_chunks_are_compared_but_not_fitted() -> None:
    def floor(batch: int, chunk: int) -> float:
        return max(0.022, QWEN_8B(batch, chunk)) if chunk else 0.022

    made = calibrate(measured(floor, chunks=(32, 64, *CHUNKS)))
    assert made.profile.chunk_sizes == (256, 2048)
    assert made.fits[0].alpha.value == pytest.approx(0.0174)
    assert [d.chunk_size for d in made.below_min_chunk] == [32, 64]
    assert made.below_min_chunk[0].relative == pytest.approx((0.0174 + 32 * 6.2e-5) / 0.022 - 1)
    assert made.warnings == ("the line lies 12 % low at C = 32 (B = 16): keep chunk_size from 256 up",)
    assert calibrate(made.measurements, min_chunk=32).profile.chunk_sizes == (32, 2048)


def refusal(rows: Measurements, **options: int) -> str:
    with pytest.raises(FluidgateError) as caught:
        calibrate(rows, **options)  # type: ignore[arg-type]
    return str(caught.value).removeprefix("synthetic.csv: ")


def test_rows_that_do_not_tell_the_coefficients() -> None:
    rows = measured(QWEN_8B)
    assert refusal(rows.select(~rows.solo)).startswith("no solo rows: gamma, ")
    assert refusal(rows.select(rows.solo)).startswith("no chunk size from min_chunk=256 up, and a line needs two; ")
    assert refusal(rows.select(rows.chunk_size < 300)).startswith("only one chunk size, 256, from min_chunk=256 up")
    assert refusal(rows, batch_size=17) == "batch_size=17: no such row; the batch sizes are 16"
    assert refusal(rows, min_chunk=0).startswith("min_chunk: must be from 1 to ")
    falling = measured(lambda batch, chunk: 0.05 - 1e-6 * chunk)
    assert refusal(falling).startswith("beta: the mixed time does not grow with the chunk size (-1e-06 s/token); ")


def test_times_that_look_like_milliseconds() -> None:
    made = calibrate(measured(lambda batch, chunk: 1000 * QWEN_8B(batch, chunk)))
    assert made.warnings[0].endswith("are these milliseconds? give unit='ms'")
