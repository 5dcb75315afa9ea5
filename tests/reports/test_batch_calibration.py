"""Tables and pictures of calibrations over the batch, from rows with known coefficients."""

from __future__ import annotations

import numpy as np
import pytest

from fluidgate.calibration import BatchCalibration, Measurements, calibrate_batches
from fluidgate.reports.batch_calibration import UNITS, batch_calibration_tables, draw_batch_calibration
from tests.calibration.synthetic import measured
from tests.reports.seen import by_first, cells, lines, series


def law(batch: int, chunk: int) -> float:
    return 0.009 + 9e-5 * chunk + 2e-4 * batch if chunk else 0.017 + 6e-5 * batch


def spoilt(batch: int, chunk: int) -> float:
    return law(batch, chunk) * (1.5 if (batch, chunk) == (16, 128) else 1.0)


def calibrated(times=law) -> BatchCalibration:  # type: ignore[no-untyped-def]
    rows = measured(times, batches=(8, 16, 32), chunks=(128, 512, 2048), repeats=1)
    return calibrate_batches(rows, name="lab/x")


def test_coefficients_have_their_units() -> None:
    found, _ = batch_calibration_tables(calibrated())
    assert str(found.title).startswith("Calibration 'lab/x': 12 rows, 12 points")
    said = by_first(found)
    values = {key: float(value.split(" ±")[0]) for key, (value, _) in said.items()}
    assert values == pytest.approx(
        {"alpha": 0.009, "beta": 9e-5, "delta": 2e-4, "solo_alpha": 0.017, "solo_delta": 6e-5, "epsilon": 0.0}
    )
    given = {"epsilon": UNITS["epsilon"] + " (given)"}
    assert {key: unit for key, (_, unit) in said.items()} == {key: UNITS[key] for key in said} | given


def test_a_given_epsilon_is_told_as_such() -> None:
    rows = measured(law, batches=(8, 16, 32), repeats=1).with_context(100.0)
    made = calibrate_batches(rows, kv_bytes_per_token=1000.0, memory_bandwidth=1e12)
    assert by_first(next(iter(batch_calibration_tables(made))))["epsilon"] == ["1e-09", UNITS["epsilon"] + " (given)"]


def test_regions_say_where_the_law_fails() -> None:
    made = calibrated(spoilt)
    _, errors = batch_calibration_tables(made)
    assert [row[:2] for row in cells(errors)] == [(region.name, str(region.points)) for region in made.fit.regions()]
    small = by_first(errors)["small chunks (C < 256)"]
    assert small[3:] == ["16", "128"]
    assert small[2].endswith("% low")


def test_measurements_the_law_and_its_errors_are_drawn(drawn) -> None:
    made = calibrated(spoilt)
    times, errors = drawn(draw_batch_calibration, made).axes
    chunks, height = lines(times)["16"]
    assert chunks == [128, 512, 2048]
    fitted = {(b, c): 1000 * s for b, c, s in zip(
        made.fit.points.batch_size, made.fit.points.chunk_size, made.fit.law, strict=True)}  # fmt: skip
    assert height == pytest.approx([fitted[16, chunk] for chunk in chunks])
    measurements = series(times)[3]  # dots, line and dashes for each batch size, 8 the first
    assert dict(zip(*measurements, strict=True)) == pytest.approx(
        {chunk: 1000 * spoilt(16, chunk) for chunk in (0, 128, 512, 2048)}
    )
    assert [sorted(chunks) for chunks, _ in series(errors)[:3]] == [[0, 128, 512, 2048]] * 3
    assert min(min(error) for _, error in series(errors)[:3]) == pytest.approx(100 * made.fit.relative.min())
    assert [text.get_text() for text in times.get_legend().get_texts()] == ["8", "16", "32"]


def test_times_at_several_contexts_are_drawn_at_one(drawn) -> None:
    rows = measured(law, batches=(8, 16, 32), chunks=(128, 512, 2048), repeats=1)
    both = Measurements(
        np.tile(rows.batch_size, 2),
        np.tile(rows.chunk_size, 2),
        np.concatenate([rows.seconds, 2.0 * rows.seconds]),
        "several.csv",
        np.repeat([100.0, 4000.0], len(rows)),
    )
    times, errors = drawn(draw_batch_calibration, calibrate_batches(both)).axes
    assert "at a context of 100 tokens" in times.get_title(loc="left")
    assert [len(chunks) for chunks, _ in series(times)[::3]] == [4, 4, 4]
    assert [len(chunks) for chunks, _ in series(errors)[:3]] == [8, 8, 8]
