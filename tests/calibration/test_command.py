"""`fluidgate calibrate`, by click's own machinery."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest

from fluidgate.cli.app import app
from fluidgate.errors import FluidgateError
from fluidgate.model import Scenario
from fluidgate.planning import plan
from fluidgate.profiles import load_profile
from tests.calibration.synthetic import line, measured, write_csv

EXAMPLE = Path(__file__).parents[2] / "examples" / "measurements.csv"
SCENARIO = Path(__file__).parents[2] / "examples" / "two-class.toml"


def run(*arguments: object) -> Any:
    return app.main(["calibrate", *map(str, arguments)], "fluidgate", standalone_mode=False)


def test_tables_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    run(EXAMPLE, "--law", "paper", "--name", "lab/synthetic")
    shown = capsys.readouterr()
    assert "Calibration 'lab/synthetic': 84 rows, 28 pairs of sizes" in shown.out
    assert "solo time flat over batch sizes" in shown.out
    assert "fluidgate: warning: the line lies 23 % low at C = 64 (B = 8): keep chunk_size from 256 up\n" in shown.err


def test_json_is_all_of_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    run(EXAMPLE, "--batch-size", 16, "--min-chunk", 64, "--json")
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == 1
    assert told["min_chunk"] == 64
    assert told["profile"]["batch_sizes"] == [16, 16]
    assert told["profile"]["chunk_sizes"] == [64, 2048]
    assert told["fits"][0]["knee"]["b0"] == pytest.approx(16 + 120, abs=5)


def test_a_profile_that_a_scenario_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(EXAMPLE, "--law", "paper", "-o", tmp_path / "lab.toml", "--gpu", "none", "--model", "none", "--engine", "none",
        "--source", "synthetic", "--notes", "for the test")  # fmt: skip
    assert "Profile written to " in capsys.readouterr().out
    profile = load_profile(tmp_path / "lab.toml")
    assert (profile.name, profile.gpu, profile.source) == ("measurements", "none", "synthetic")
    text = SCENARIO.read_text("utf-8")
    rest = [text_line for text_line in text.splitlines() if not text_line.startswith(("alpha", "beta", "gamma"))]
    written = "\n".join(rest).replace("[gpu]", '[gpu]\nprofile = "lab.toml"')
    (tmp_path / "s.toml").write_text(written, "utf-8")
    scenario = Scenario.load(tmp_path / "s.toml")
    assert scenario.gpu.iteration == profile.iteration
    (tmp_path / "s.toml").write_text(written.replace("batch_size = 16", "batch_size = 65"), "utf-8")
    warnings = plan(Scenario.load(tmp_path / "s.toml")).warnings
    assert "batch_size 65 lies outside the profile's range, 8 to 64: its iteration times were not measured there" in (
        warnings
    )


def test_columns_units_and_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = measured(lambda b, c: 1000 * line(0.0174, 6.2e-5, 45.45)(b, c))
    path = write_csv(tmp_path / "m.csv", rows, "B,C,ms")
    run(path, "--map", "batch_size=B", "--map", "chunk_size = C", "--map", "seconds=ms", "--unit", "ms",
        "--where", "B=16", "--pooled", "--json")  # fmt: skip
    profile = json.loads(capsys.readouterr().out)["profile"]
    assert (profile["alpha"], profile["beta"], profile["gamma"]) == (0.0174, 6.2e-5, 45.45)


def test_a_picture(tmp_path: Path) -> None:
    run(EXAMPLE, "--law", "paper", "--plot", tmp_path / "fit.pdf")
    assert (tmp_path / "fit.pdf").stat().st_size > 5000
    assert [path.name for path in tmp_path.iterdir()] == ["fit.pdf"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--map", "seconds"], "'seconds' must be STANDARD=COLUMN"),
        (["--map", "=x"], "'=x' must be STANDARD=COLUMN"),
        (["--where", "gpu="], "'gpu=' must be COLUMN=VALUE"),
        (["--where", "a=1", "--where", "a=2"], "'a' is given twice"),
        (["--unit", "h"], "'h' is not one of 's', 'ms', 'us', 'ns'"),
        (["--plot", "fit.gif"], "must end in one of"),
    ],
)
def test_options_that_click_refuses(arguments: list[str], reason: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        run(EXAMPLE, *arguments)
    assert reason in caught.value.format_message()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--map", "chunk=C"], "map: no standard column 'chunk'; did you mean 'chunk_size'?"),
        (["--batch-size", "7"], "--batch-size 7: no such row; the batch sizes are 8, 16, 32, 64"),
        (["--law", "paper", "--min-chunk", "2048"], "only one chunk size, 2048, from --min-chunk 2048 up"),
        (["--law", "paper", "--min-chunk", "0"], "--min-chunk: must be from 1"),
        (["--min-chunk", "0"], "--min-chunk: must be from 1"),
        (["--name", ""], "name: must not be empty"),
    ],
)
def test_options_that_the_library_refuses(arguments: list[str], reason: str) -> None:
    with pytest.raises(FluidgateError) as caught:
        run(EXAMPLE, *arguments)
    assert reason in str(caught.value)


def test_by_default_the_profile_holds_what_the_rows_allow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The times themselves on a grid, a linear law where the rows lie anywhere, the paper's with one batch size."""

    def law(*words: object) -> str:
        run(*words, "--json")
        told = json.loads(capsys.readouterr().out)
        return str(told.get("law", "paper"))

    assert law(EXAMPLE) == "table"
    assert law(EXAMPLE, "--batch-size", 16) == "paper"
    rows = ["batch_size,chunk_size,seconds"]
    rows += [
        f"{b},{c},{0.01 + 1e-4 * c + 2e-4 * b}" for b, c in ((3, 70), (9, 0), (14, 33), (22, 5), (31, 0), (40, 90))
    ]
    (tmp_path / "log.csv").write_text("\n".join(rows))
    assert law(tmp_path / "log.csv") == "linear"
