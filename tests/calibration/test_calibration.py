"""The law over the batch size, the profile, and the result as JSON and as a table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fluidgate.calibration import Measurements, calibrate
from fluidgate.errors import FluidgateError
from fluidgate.model import IterationTime
from fluidgate.profiles import load_profile, write_profile
from tests.calibration.synthetic import line, measured, write_csv

LINE = line(0.0174, 6.2e-5, 50.0)


def by_batch(batch: int, chunk: int) -> float:
    return LINE(batch, chunk) + 2.5e-4 * batch


def test_a_law_over_the_batch_size() -> None:
    made = calibrate(measured(by_batch, batches=(8, 64, 16)), name="lab/x", gpu="one", model="two", engine="three")
    assert [each.batch_sizes for each in made.fits] == [(8, 8), (16, 16), (64, 64)]
    at_16 = IterationTime(alpha=0.0214, beta=6.2e-5, gamma=1 / 0.024)
    iteration = made.profile.iteration
    assert iteration.table is not None
    assert iteration.table.batch_sizes == (8, 16, 64)
    for chunk in (256, 700, 2048):
        assert iteration.mixed(chunk, 16) == pytest.approx(at_16.mixed(chunk), rel=1e-5)
    assert iteration.solo(16, 0) == pytest.approx(0.024, rel=1e-5)
    assert made.profile.batch_sizes == (8, 64)
    assert (made.profile.name, made.profile.gpu, made.profile.model, made.profile.engine) == (
        "lab/x",
        "one",
        "two",
        "three",
    )
    assert made.warnings == ()
    assert iteration.solo(40, 0) == pytest.approx(0.030, rel=1e-5)
    assert iteration.mixed(512, 40) == pytest.approx(0.0274 + 6.2e-5 * 512, rel=1e-5)


def test_one_batch_size_of_several() -> None:
    rows = measured(by_batch, batches=(8, 16))
    made = calibrate(rows, batch_size=16)
    assert made.profile.iteration == IterationTime(alpha=0.0214, beta=6.2e-5, gamma=41.6667)
    assert made.profile.batch_sizes == (16, 16)
    assert len(made.measurements) == len(rows) / 2


def test_batch_sizes_with_too_few_rows_are_left_out_of_the_law() -> None:
    rows = measured(by_batch, batches=(8, 16, 32))
    made = calibrate(rows.select((rows.batch_size < 32) | ~rows.solo))
    assert made.left_out == (32,)
    assert made.warnings[0] == "left out batch size 32: no solo rows, or fewer than two chunk sizes"
    assert made.profile.batch_sizes == (8, 16)


def test_rows_too_scattered_for_a_law_make_one_fit() -> None:
    rows = measured(LINE, batches=(1, 2, 3))
    kept = (rows.batch_size == 1) & rows.solo | (rows.batch_size > 1) & ~rows.solo
    made = calibrate(rows.select(kept))
    assert made.profile.iteration == IterationTime(alpha=0.0174, beta=6.2e-5, gamma=50.0)
    assert made.profile.batch_sizes == (1, 3)


def test_mixed_rows_without_decodes_count_for_a_batch_size_of_one() -> None:
    rows = measured(LINE)
    alone = Measurements(np.where(rows.solo, 4, 0), rows.chunk_size, rows.seconds, rows.source)
    assert calibrate(alone).profile.batch_sizes == (1, 4)


@pytest.mark.parametrize("batches", [(16,), (8, 16)])
def test_the_profile_is_read_back_as_it_was_written(tmp_path: Path, batches: tuple[int, ...]) -> None:
    made = calibrate(measured(by_batch, batches=batches, noise=1e-4), name="lab/x", source="nobody", notes='a "b"')
    write_profile(made.profile, tmp_path / "x.toml")
    assert load_profile(tmp_path / "x.toml") == made.profile
    assert (tmp_path / "x.toml").read_text().startswith("schema = 1\n")


def test_json_and_table() -> None:
    made = calibrate(measured(by_batch, batches=(8, 16), chunks=(64, 256, 512, 1024), noise=1e-4))
    told = json.loads(made.to_json())
    assert told["schema"] == 1
    assert told["measurements"] == {"file": "synthetic.csv", "rows": 30, "pairs": 10}
    assert [each["batch_sizes"] for each in told["fits"]] == [[8, 8], [16, 16]]
    assert set(told["fits"][0]["alpha"]) == {"value", "std_error", "ci95"}
    assert set(told["flatness"]["solo"]) == {"value", "std_error", "ci95", "t", "p", "change"}
    assert told["linearity"]["quadratic"]["degrees"] == [1, 1]
    seconds = told["fits"][0]["alpha"]["value"] + told["fits"][0]["beta"]["value"] * 256
    assert told["profile"]["table"]["seconds"][1][0] == pytest.approx(seconds, rel=1e-5)
    assert told["profile"]["chunk_sizes"] == [256, 1024]
    frame = made.to_dataframe()
    assert list(frame.columns) == ["batch_size", "chunk_size", "repeats", "seconds", "line", "fitted"]
    assert len(frame) == 10
    assert (frame["repeats"] == 3).all()
    assert frame.loc[~frame["fitted"], "chunk_size"].tolist() == [64, 64]
    assert np.allclose(frame.loc[frame["fitted"], "line"], frame.loc[frame["fitted"], "seconds"], rtol=0.02)


def test_json_of_exact_data_has_no_infinities() -> None:
    made = calibrate(measured(by_batch, batches=(8, 16)))
    json.loads(made.to_json(), parse_constant=lambda name: pytest.fail(name))


def test_a_path_instead_of_rows(tmp_path: Path) -> None:
    made = calibrate(write_csv(tmp_path / "lab.csv", measured(LINE)))
    assert made.profile.name == "lab"
    assert made.profile.iteration == IterationTime(alpha=0.0174, beta=6.2e-5, gamma=50.0)
    with pytest.raises(FluidgateError, match="name: must not be empty"):
        calibrate(tmp_path / "lab.csv", name="")
