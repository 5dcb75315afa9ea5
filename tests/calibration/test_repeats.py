"""Rows of the same sizes: repeats with noise, or several GPUs, models or contexts in one file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fluidgate.calibration import Measurements, calibrate, calibrate_batches, read_measurements
from fluidgate.calibration.repeats import refuse_unlike_repeats
from fluidgate.errors import FluidgateError
from tests.calibration.synthetic import line, measured

SLOW, FAST = line(0.0104, 5.73e-5, 74.0), line(0.0028, 9.8e-6, 286.0)


def of_two(slow: Callable[[int, int], float], fast: Callable[[int, int], float], **options: object) -> Measurements:
    """Measurements of two GPUs in one file, in which `gpu` and `sku` say which; `run` numbers the repeats."""
    both = [measured(law, seed=k, **options) for k, law in enumerate((slow, fast))]  # type: ignore[arg-type]
    count = len(both[0])
    return Measurements(
        np.concatenate([each.batch_size for each in both]),
        np.concatenate([each.chunk_size for each in both]),
        np.concatenate([each.seconds for each in both]),
        "two.csv",
        others={
            "run": np.array([str(k % 3) for k in range(2 * count)], dtype=object),
            "day": np.full(2 * count, "monday", dtype=object),
            "gpu": np.repeat(np.array(["slow", "fast"], dtype=object), count),
            "id": np.array([str(k) for k in range(2 * count)], dtype=object),
        },
    )


def refused(rows: Measurements, **options: bool) -> str:
    with pytest.raises(FluidgateError) as caught:
        refuse_unlike_repeats(rows, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("factor", "repeats", "noise"), [(1.15, 3, 2e-4), (2.0, 3, 2e-3), (5.0, 1, 0.0), (5.0, 1, 1e-4), (1.3, 10, 2e-3)]
)
def test_two_gpus_are_told_apart_by_their_column(factor: float, repeats: int, noise: float) -> None:
    faster = line(0.0174 / factor, 6.2e-5 / factor, 45.45 * factor)
    rows = of_two(line(0.0174, 6.2e-5, 45.45), faster, repeats=repeats, noise=noise)
    told = refused(rows)
    assert told.startswith("two.csv: gpu: rows of the same sizes differ by up to a factor of ")
    assert told.endswith("tells them apart (its values are slow, fast); choose one with where={'gpu': 'slow'}")


def test_two_gpus_that_share_one_pair_of_sizes_only() -> None:
    rows = of_two(SLOW, FAST, repeats=1)
    keep = (rows.others["gpu"] == "slow") | (rows.chunk_size == 512)
    assert refused(rows.select(keep)).startswith("two.csv: ")
    without = replace(rows.select(keep), others={})
    assert refused(without) == (
        "two.csv: rows of the same sizes differ by up to a factor of 5.1, at C = 512 (B = 16), which is no noise, and "
        "no column tells them apart; measure them again, or say in a column what is different and choose by it with "
        "where={'COLUMN': 'VALUE'}"
    )


@pytest.mark.parametrize("noise", [0.01, 0.03, 0.1])
def test_noise_is_no_difference(noise: float) -> None:
    """At a level of one in a thousand for each of two columns, 200 sets hold none that is refused."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        rows = measured(SLOW, batches=(8, 16), repeats=5, seed=seed)
        times = rows.seconds * np.exp(noise * rng.standard_normal(len(rows)))
        others = {name: rng.choice(np.array(["a", "b", "c"], dtype=object), len(rows)) for name in ("run", "host")}
        refuse_unlike_repeats(replace(rows, seconds=times, others=others))


def test_a_hiccup_is_no_difference() -> None:
    rows = of_two(SLOW, SLOW, repeats=5, noise=1e-4)
    times = rows.seconds.copy()
    times[7] *= 10.0
    refuse_unlike_repeats(replace(rows, seconds=times))


def test_a_drift_over_the_repeats_is_no_difference() -> None:
    """A machine that is slower for a while is no other machine, though the number of the repeat tells its rows."""
    sizes = [(b, c, k) for b in (1, 8) for c in (0, 256, 512) for k in range(4)]
    batch, chunk, repeat = (np.array(column) for column in zip(*sizes, strict=True))
    seconds = (0.01 + 1e-4 * chunk + 1e-4 * batch) * (1.0 + 0.06 * repeat)
    numbers = np.array([str(k) for k in repeat], dtype=object)
    rows = Measurements(batch, chunk, seconds, "drift.csv", others={"repeat": numbers})
    refuse_unlike_repeats(rows)
    with pytest.raises(FluidgateError, match="run: rows of the same sizes differ"):
        refuse_unlike_repeats(replace(rows, others={"run": numbers}))


def test_a_context_counts_as_a_size_where_the_law_reads_it() -> None:
    rows = measured(SLOW, batches=(8, 16, 32), repeats=2)
    context = np.tile([512.0, 8192.0], len(rows) // 2)
    others = {"kv": np.array([str(int(each)) for each in context], dtype=object)}
    longer = rows.seconds * np.where(context > 1000, 1.4, 1.0)
    several = replace(rows, seconds=longer, known_context=context, others=others)
    assert refused(several).startswith("synthetic.csv: kv: rows of the same sizes differ by up to a factor of 1.4, at ")
    refuse_unlike_repeats(several, by_context=True)
    with pytest.raises(FluidgateError, match=r"^synthetic\.csv: kv: rows of the same sizes differ"):
        calibrate(several)
    assert calibrate_batches(several).measurements is several


def test_from_a_file_and_its_way_out(tmp_path: Path) -> None:
    rows = of_two(SLOW, FAST, repeats=1)
    lines = ["gpu,batch_size,chunk_size,seconds,note"]
    for gpu, b, c, t in zip(rows.others["gpu"], rows.batch_size, rows.chunk_size, rows.seconds, strict=True):
        lines.append(f"{gpu},{b},{c},{t},")
    path = tmp_path / "m.csv"
    path.write_text("\n".join(lines))
    with pytest.raises(FluidgateError, match=r"^m\.csv: gpu: .*; choose one with where=\{'gpu': 'slow'\}$"):
        calibrate(path)
    for gpu, alpha in (("slow", 0.0104), ("fast", 0.0028)):
        made = calibrate(read_measurements(path, where={"gpu": gpu}))
        assert made.fits[0].alpha.value == pytest.approx(alpha)
    with pytest.raises(FluidgateError, match=r"^m\.csv: gpu: "):
        calibrate_batches(path)
