"""Runs of transformers' continuous batching on an H100, predicted from iterations of another run."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.second_engine import HERE, KV_BYTES_PER_TOKEN, MEMORY_BANDWIDTH, PREDICTIONS, Prediction, lines
from fluidgate.calibration import calibrate_batches, read_measurements
from fluidgate.model import Scenario

PAGE = Path(__file__).parents[3] / "docs" / "background" / "true-to-engines.md"


def test_a_law_from_one_run_predicts_another() -> None:
    """TTFT and TPOT in mean and median within 5 %, at p90 and p99 within 11 %."""
    for (quantity, statistic), error in Prediction("ahead-20", "ahead-14", True).errors(HERE).items():
        assert abs(error) <= (0.11 if statistic.startswith("p9") else 0.05), (quantity, statistic, error)


def test_with_a_law_of_its_own_iterations_the_run_is_the_engines() -> None:
    for key, error in Prediction("ahead-14", "ahead-14", True).errors(HERE).items():
        assert abs(error) <= 0.06, (key, error)


def test_batches_composed_ahead_make_a_quarter_of_the_ttft() -> None:
    errors = Prediction("ahead-20", "ahead-14", False).errors(HERE)
    assert errors["TTFT", "mean"] == pytest.approx(-0.25, abs=0.03)
    assert abs(errors["TPOT", "mean"]) < 0.03


def test_the_scenario_holds_what_calibrate_finds() -> None:
    made = calibrate_batches(
        read_measurements(HERE / "ahead-20-iterations.csv.gz"),
        kv_bytes_per_token=KV_BYTES_PER_TOKEN,
        memory_bandwidth=MEMORY_BANDWIDTH,
    )
    assert Scenario.load(HERE / "transformers.toml").gpu.iteration == made.profile.iteration


def test_the_page_shows_what_the_program_prints() -> None:
    page = PAGE.read_text("utf-8")
    assert len(PREDICTIONS) == 9
    for line in lines(HERE):
        assert f"\n{line}\n" in page
