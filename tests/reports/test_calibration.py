"""Tables and pictures of calibrations by the paper's law, from rows with known coefficients."""

from __future__ import annotations

import pytest

from fluidgate.calibration import calibrate
from fluidgate.reports.calibration import calibration_tables, draw_calibration
from fluidgate.reports.tables import number
from tests.calibration.synthetic import line, measured
from tests.reports.seen import by_first, cells, lines, series

EXACT = line(0.0174, 6.2e-5, 50.0)


def bent(batch: int, chunk: int) -> float:
    """A fifth slower at chunks of 64; with a second batch size, slower by 0.25 ms a decode."""
    return EXACT(batch, chunk) * (1.2 if chunk == 64 else 1.0) + 2.5e-4 * (batch - 16)


def test_coefficients_are_shown_with_the_sizes_that_they_hold_for() -> None:
    fits, checks = calibration_tables(calibrate(measured(EXACT), name="lab/x"))
    assert str(fits.title).startswith("Calibration 'lab/x': 21 rows, 7 pairs of sizes")
    ((batch, chunks, alpha, beta, r_squared, gamma, knee),) = cells(fits)
    assert (batch, chunks, r_squared, knee) == ("16", "256 to 2048", "1", "-")
    shown = [float(each.split(" ±")[0]) for each in (alpha, beta, gamma)]
    assert shown == pytest.approx([0.0174, 6.2e-5, 50.0])
    said = by_first(checks)
    assert said["solo time flat over batch sizes"] == ["one batch size only", "-"]


def test_each_batch_size_of_a_law_has_a_row() -> None:
    made = calibrate(measured(bent, batches=(16, 32), noise=1e-5))
    fits, checks = calibration_tables(made)
    assert [row[0] for row in cells(fits)] == ["16", "32"]
    for row, each in zip(cells(fits), made.fits, strict=True):
        low, high = each.alpha.ci95  # type: ignore[misc]
        assert row[2] == f"{number(each.alpha.value)} ±{number((high - low) / 2, 2)}"
    found, p = by_first(checks)["mixed time flat over batch sizes"]
    assert found.startswith("+0.25 ms a decode")
    assert p == "< 0.0001"


def test_chunks_below_the_fitted_ones_are_told() -> None:
    _, checks = calibration_tables(calibrate(measured(bent, chunks=(64, 256, 512, 1024))))
    found, p = by_first(checks)["below the fitted chunks"]
    assert found == "the line lies 17 % low at C = 64 (B = 16)"
    assert p == "-"


def test_measurements_and_lines_are_drawn(drawn) -> None:
    made = calibrate(measured(bent, chunks=(64, 256, 512, 1024)))
    times, errors = drawn(draw_calibration, made).axes
    fitted, small, solo, *_ = series(times)
    assert fitted[0] == [256, 512, 1024]
    assert fitted[1] == pytest.approx([1000 * EXACT(16, chunk) for chunk in fitted[0]])
    assert (small[0], solo[0]) == ([64], [0])
    assert solo[1] == pytest.approx([20.0])
    ends, height = lines(times)["16"]
    assert ends == [256, 1024]
    assert height == pytest.approx([1000 * EXACT(16, chunk) for chunk in ends])
    shown = {chunk: error for chunks, found in series(errors)[:2] for chunk, error in zip(chunks, found, strict=True)}
    assert shown == pytest.approx({64: 100 * (1 / 1.2 - 1), 256: 0.0, 512: 0.0, 1024: 0.0}, abs=1e-6)


def test_more_than_ten_batch_sizes_have_no_legend(drawn) -> None:
    made = calibrate(measured(bent, batches=tuple(range(1, 12)), chunks=(256, 512)))
    times, _ = drawn(draw_calibration, made).axes
    assert times.get_legend() is None
