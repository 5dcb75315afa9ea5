"""The law over chunk, decodes and context: known coefficients found again, and what it does when they can't be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.random import default_rng

from fluidgate.calibration import Measurements, calibrate_batches, read_measurements
from fluidgate.calibration.batch_fit import fit_batches
from fluidgate.cli.app import main
from fluidgate.errors import FluidgateError
from fluidgate.profiles import load_profile
from fluidgate.scenario_file import load_scenario

TRUE = {"alpha": 0.009, "beta": 9e-5, "delta": 2e-4, "solo_alpha": 0.017, "solo_delta": 6e-5}
EPSILON = 131_072 / 1.008e12
CONTEXT = 1024.0
OPTIONS = {"kv_bytes_per_token": 131_072.0, "memory_bandwidth": 1.008e12}


def table(
    noise: float = 0.0,
    seed: int = 0,
    batches: tuple[int, ...] = (8, 16, 32, 64),
    chunks: tuple[int, ...] = (0, 128, 512, 2048),
    context: float | None = CONTEXT,
) -> Measurements:
    """Rows by the law above; `noise` is relative."""
    batch, chunk = (axis.ravel() for axis in np.meshgrid(batches, chunks, indexing="ij"))
    mixed = TRUE["alpha"] + TRUE["beta"] * chunk + TRUE["delta"] * batch
    solo = TRUE["solo_alpha"] + TRUE["solo_delta"] * batch
    seconds = np.where(chunk == 0, solo, mixed) + EPSILON * CONTEXT * batch
    seconds *= 1.0 + noise * default_rng(seed).standard_normal(len(seconds))
    rows = Measurements(batch.astype(np.int64), chunk.astype(np.int64), seconds, "table.csv")
    return rows if context is None else rows.with_context(context)


def test_the_coefficients_come_back() -> None:
    made = calibrate_batches(table(), **OPTIONS)
    found = {key: value.value for key, value in made.coefficients.items()}
    assert found == pytest.approx({**TRUE, "epsilon": EPSILON}, rel=1e-9)
    assert made.profile.iteration is not None
    assert made.profile.iteration.model_dump() == pytest.approx({**TRUE, "epsilon": EPSILON}, rel=1e-5)
    assert (made.profile.batch_sizes, made.profile.chunk_sizes) == ((8, 64), (128, 2048))
    assert [warning.split()[0] for warning in made.warnings] == ["zeta"]
    assert all(abs(region.largest) < 1e-9 for region in made.fit.regions())


def test_intervals_cover_under_relative_noise() -> None:
    """400 tables with 3 % of noise: 95 % intervals cover as often, or more often where slopes cannot be below 0."""
    covered = dict.fromkeys(TRUE, 0)
    for seed in range(400):
        made = calibrate_batches(table(0.03, seed, batches=(4, 8, 16, 32, 64, 128)), **OPTIONS)
        for key in TRUE:
            low, high = made.coefficients[key].ci95 or (0.0, 0.0)
            covered[key] += low <= TRUE[key] <= high
    assert all(count >= 0.9 * 400 for count in covered.values()), covered


def test_errors_by_the_range_that_a_point_stands_for_are_what_is_made_small() -> None:
    rows = table(0.1, 7)
    fitted = fit_batches(rows, EPSILON)
    points = fitted.points.mixed
    errors = fitted.at(*points.axes) - points.seconds
    best = float(np.sum(points.weights * errors**2))
    assert best > 0.0
    rng = default_rng(3)
    for _ in range(200):
        factors = 1.0 + 0.02 * rng.standard_normal(3)
        law = np.array([fitted.alpha.value, fitted.beta.value, fitted.delta.value]) * factors
        seconds = (
            law[0] + law[1] * points.chunk_size + law[2] * points.batch_size + EPSILON * CONTEXT * points.batch_size
        )
        assert np.sum(points.weights * (seconds - points.seconds) ** 2) >= best


def test_more_points_where_no_engine_runs_bend_nothing() -> None:
    """Times that bend at small batches: with and without nodes there, the law is the same where engines run."""

    def bent(batches: tuple[int, ...]) -> Measurements:
        rows = table(batches=batches)
        less = np.where(rows.chunk_size > 0, 2e-3 * np.exp(-rows.batch_size / 4.0), 0.0)
        return Measurements(rows.batch_size, rows.chunk_size, rows.seconds - less, rows.source, rows.known_context)

    few, many = (fit_batches(bent(b), EPSILON) for b in ((16, 64, 128), (1, 2, 4, 8, 16, 64, 128)))
    for chunk in (128, 512, 2048):
        one, two = (float(fit.at(32, chunk, CONTEXT, 0.0)) for fit in (few, many))
        assert two == pytest.approx(one, rel=0.02)


def test_context_and_tokens_read_before_are_fitted_where_they_were_measured() -> None:
    grid = np.meshgrid([1, 8, 64], [0, 128, 1024], [256.0, 2048.0], [0.0, 4096.0], indexing="ij")
    b, c, k, r = (axis.ravel() for axis in grid)
    kept = (c > 0) | (r == 0)
    b, c, k, r = b[kept].astype(int), c[kept].astype(int), k[kept], r[kept]
    mixed = 0.009 + 8e-5 * c + 1e-4 * b + 4e-7 * b * k + 4e-9 * c * r
    seconds = np.where(c > 0, mixed, 0.017 + 5e-5 * b + 1.5e-7 * b * k)
    rows = Measurements(b, c, seconds, "wide.csv", k, known_read_before=r)
    made = calibrate_batches(rows)
    expected = {"alpha": 0.009, "beta": 8e-5, "delta": 1e-4, "epsilon": 4e-7, "zeta": 4e-9}
    expected |= {"solo_alpha": 0.017, "solo_delta": 5e-5, "solo_epsilon": 1.5e-7}
    assert {key: value.value for key, value in made.coefficients.items()} == pytest.approx(expected, rel=1e-6)
    assert made.warnings == ()
    table_of_it = calibrate_batches(rows, table=True).profile.iteration
    for decodes, chunk, context, before, time in zip(b, c, k, r, seconds, strict=True):
        if chunk > 0:
            found = table_of_it.mixed(chunk, decodes, decodes * context, chunk * before)
        else:
            found = table_of_it.solo(decodes, decodes * context)
        assert found == pytest.approx(time, rel=1e-5)


def test_holes_of_a_table_follow_from_their_neighbours() -> None:
    whole = table(batches=(8, 16, 32, 64))
    hole = (whole.batch_size == 64) & (whole.chunk_size == 2048)
    made = calibrate_batches(whole.select(~hole), table=True, **OPTIONS)
    told = " ".join(made.warnings)
    assert "1 of 12 nodes were not measured" in told
    assert "B = 64, C = 2048" in told
    found = made.profile.iteration.mixed(2048, 64, CONTEXT * 64)
    assert found == pytest.approx(float(whole.seconds[hole][0]), rel=1e-5)


def test_what_epsilon_takes_is_not_in_delta() -> None:
    plain = calibrate_batches(table(context=None))
    assert plain.coefficients["delta"].value == pytest.approx(TRUE["delta"] + EPSILON * CONTEXT)
    assert "give kv_bytes_per_token" in plain.warnings[0]
    double = calibrate_batches(table(context=None), context=CONTEXT, **OPTIONS)
    assert double.coefficients["delta"].value == pytest.approx(TRUE["delta"])
    # a table that says twice the context has more taken out, down to none
    none = calibrate_batches(table(), context=4 * CONTEXT, **OPTIONS)
    assert none.coefficients["delta"].value == 0.0
    assert "delta is 0" in " ".join(none.warnings)


def test_rows_at_several_contexts_are_points_of_their_own() -> None:
    near, far = table(), table()
    longer = far.seconds + EPSILON * 3000 * far.batch_size
    both = Measurements(
        np.tile(near.batch_size, 2),
        np.tile(near.chunk_size, 2),
        np.concatenate([near.seconds, longer]),
        "table.csv",
        np.repeat([CONTEXT, CONTEXT + 3000], len(near)),
    )
    made = calibrate_batches(both, **OPTIONS)
    assert len(made.fit.points.seconds) == 2 * len(near)
    assert made.coefficients["delta"].value == pytest.approx(TRUE["delta"])


def test_solo_rows_are_fitted_alone_or_not_at_all() -> None:
    without = calibrate_batches(table(chunks=(128, 512, 2048)), **OPTIONS)
    assert "solo_alpha" not in without.coefficients
    assert without.warnings[0].startswith("no solo rows")
    rows = table()
    one = calibrate_batches(rows.select(~rows.solo | (rows.batch_size == 16)), **OPTIONS)
    assert one.coefficients["solo_delta"].value == pytest.approx(TRUE["delta"])
    assert one.coefficients["solo_alpha"].value + 16 * TRUE["delta"] == pytest.approx(0.017 + 16 * 6e-5)


def test_regions_say_where_the_law_fails() -> None:
    rows = table()
    spoilt = rows.seconds * np.where((rows.chunk_size == 128) & (rows.batch_size == 16), 1.5, 1.0)
    made = calibrate_batches(
        Measurements(rows.batch_size, rows.chunk_size, spoilt, rows.source, rows.known_context),
        min_chunk=512,
        **OPTIONS,
    )
    regions = {region.name: region for region in made.fit.regions()}
    small = regions["small chunks (C < 256)"]
    assert (small.points, small.batch_size, small.chunk_size) == (4, 16, 128)
    assert small.largest == pytest.approx(1 / 1.5 - 1)
    assert small.mean == pytest.approx((1 / 1.5 - 1) / 4)
    assert abs(regions["chunks (C >= 256)"].largest) < 1e-9
    assert made.warnings[-1] == "small chunks (C < 256): the law lies 33 % low at C = 128 (B = 16)"


def write(path: Path, rows: Measurements) -> Path:
    lines = [
        f"{b},{c},{1e3 * s!r},1024"
        for b, c, s in zip(rows.batch_size, rows.chunk_size, rows.seconds.tolist(), strict=True)
    ]
    path.write_text("\n".join(["B,C,ms,kv", *lines]))
    return path


FILE_OPTIONS = (
    *("--map", "batch_size=B", "--map", "chunk_size=C", "--map", "seconds=ms", "--map", "context=kv", "--unit", "ms"),
    *("--law", "linear", "--kv-bytes-per-token", "131072", "--memory-bandwidth", "1.008e12"),
)


def test_the_command_writes_a_profile_that_scenarios_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "t.csv", table())
    made = tmp_path / "lab.toml"
    main(
        ["calibrate", str(source), *FILE_OPTIONS, "-o", str(made), "--name", "lab/x", "--plot", str(tmp_path / "p.svg")]
    )
    assert "small chunks" in capsys.readouterr().out
    assert (tmp_path / "p.svg").stat().st_size > 1000
    iteration = load_profile(made).iteration
    assert iteration is not None
    assert iteration.model_dump() == pytest.approx({**TRUE, "epsilon": EPSILON}, rel=1e-5)
    text = (Path(__file__).parents[2] / "examples" / "two-class.toml").read_text()
    kept = [line for line in text.splitlines() if not line.startswith(("alpha", "beta", "gamma"))]
    (tmp_path / "s.toml").write_text("\n".join(kept).replace("[gpu]", '[gpu]\nprofile = "lab.toml"'))
    assert load_scenario(tmp_path / "s.toml").gpu.iteration == iteration
    main(["calibrate", str(source), *FILE_OPTIONS, "--json"])
    record = json.loads(capsys.readouterr().out)
    assert (record["schema"], record["law"], record["measurements"]["points"]) == (1, "linear", 16)
    assert record["coefficients"]["delta"]["value"] == pytest.approx(TRUE["delta"])
    assert record["profile"]["epsilon"] == pytest.approx(EPSILON, rel=1e-5)
    assert record["regions"][0]["region"] == "solo (C = 0)"


def test_the_context_column_is_read(tmp_path: Path) -> None:
    names = {"batch_size": "B", "chunk_size": "C", "seconds": "ms", "context": "kv"}
    rows = read_measurements(write(tmp_path / "t.csv", table()), names, unit="ms")
    assert rows.context.tolist() == [1024.0] * len(rows)
    assert not read_measurements(write(tmp_path / "t.csv", table()), {k: names[k] for k in list(names)[:3]}).has_context


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_bandwidth": 1e12}, "give both of them, or neither"),
        ({**OPTIONS, "kv_bytes_per_token": -1.0}, "kv_bytes_per_token: must be a finite number above 0, but is -1"),
        (OPTIONS, "table.csv: the context of a decode in these rows is unknown"),
        ({"context": 0.0}, "context: must be a finite number above 0"),
        ({"context": 2e4, **OPTIONS}, "gives .* ms for the smallest iteration; check the columns and context"),
        ({"min_chunk": 0}, "min_chunk: must be from 1"),
        ({"min_chunk": 2000}, "a slope in the chunk size needs two of them"),
        ({"name": ""}, "name: must not be empty"),
    ],
)
def test_what_cannot_be_fitted(options: dict[str, object], message: str) -> None:
    with pytest.raises(FluidgateError, match=message):
        calibrate_batches(table(context=None), **options)  # type: ignore[arg-type]


def test_one_batch_size_tells_no_slope() -> None:
    with pytest.raises(FluidgateError, match="a slope in the batch size needs two of them"):
        calibrate_batches(table(batches=(16,)), **OPTIONS)


def test_a_table_of_the_times_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Written as a profile, read by a scenario: measured times at the nodes, bilinear between, further context."""
    rows = table(0.03, seed=1)
    source = write(tmp_path / "t.csv", rows)
    words = [word if word != "linear" else "table" for word in FILE_OPTIONS]
    main(["calibrate", str(source), *words, "-o", str(tmp_path / "lab.toml"), "--json"])
    record = json.loads(capsys.readouterr().out)
    assert record["law"] == "table"
    assert record["profile"]["table"]["chunk_sizes"] == [0, 128, 512, 2048]
    iteration = load_profile(tmp_path / "lab.toml").iteration
    assert iteration is not None
    for batch, chunk, seconds in zip(rows.batch_size, rows.chunk_size, rows.seconds, strict=True):
        assert iteration.mixed(chunk, batch, CONTEXT * batch) == pytest.approx(seconds, rel=1e-5)
    corners = [iteration.mixed(c, b, CONTEXT * b) for c in (128, 512) for b in (16, 32)]
    assert iteration.mixed(320, 24, CONTEXT * 24) == pytest.approx(np.mean(corners))
    assert iteration.solo(24, CONTEXT * 24 + 1e5) == pytest.approx(
        (iteration.solo(16, CONTEXT * 16) + iteration.solo(32, CONTEXT * 32)) / 2 + 1e5 * EPSILON
    )
    text = (Path(__file__).parents[2] / "examples" / "two-class.toml").read_text()
    kept = [line for line in text.splitlines() if not line.startswith(("alpha", "beta", "gamma"))]
    (tmp_path / "s.toml").write_text("\n".join(kept).replace("[gpu]", '[gpu]\nprofile = "lab.toml"'))
    gpu = load_scenario(tmp_path / "s.toml").gpu
    assert gpu.iteration == iteration
    assert gpu.tau == pytest.approx(iteration.mixed(256, 15, 15 * gpu.context_tokens))
    assert gpu.gamma == pytest.approx(1 / iteration.solo(16, 16 * gpu.context_tokens))


def test_what_makes_no_table() -> None:
    whole = table()
    alone = [(8, 128), (16, 512), (32, 2048), (64, 128)]
    mixed = [(b, c) in alone or c == 0 for b, c in zip(whole.batch_size, whole.chunk_size, strict=True)]
    with pytest.raises(FluidgateError, match=r"8 of the 12 nodes of a table are missing, .* or give law='linear'"):
        calibrate_batches(whole.select(np.array(mixed)), table=True, **OPTIONS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--law", "linear", "--pooled"], "--pooled: only with --law paper"),
        (["--law", "table", "--batch-size", "16"], "--batch-size: only with --law paper"),
        (["--law", "paper", "--kv-bytes-per-token", "3"], "--kv-bytes-per-token: only with --law linear"),
        (["--law", "linear", "--map", "context=zzz"], "no column 'zzz'"),
    ],
)
def test_options_of_the_other_law(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "t.csv", table())
    with pytest.raises(SystemExit) as left:
        main(["calibrate", str(source), *FILE_OPTIONS[:6], *words])
    assert left.value.code == 2
    assert message in capsys.readouterr().err
