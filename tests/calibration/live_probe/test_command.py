"""`fluidgate probe --url` as a command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from fluidgate.calibration import read_measurements
from fluidgate.cli.app import app

ROOT = Path(__file__).parents[3]
PROFILE = """name = "made"
alpha = 0.012
beta = 1e-4
delta = 1e-4
solo_alpha = 0.01
batch_sizes = [1, 8]
chunk_sizes = [1, 512]
"""
FEW = ["--batch-sizes", "1", "--chunk-sizes", "32", "--contexts", "64", "--repeats", "1", "--chunk-size", "96"]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an emulated engine in a process of its own."""
    profile = tmp_path_factory.mktemp("engine") / "made.toml"
    profile.write_text(PROFILE)
    command = [
        sys.executable,
        "-m",
        "fluidgate",
        "engine",
        "--profile",
        str(profile),
        "--port",
        "0",
        "--batch-size",
        "4",
    ]
    command += ["--batching", "token-budget", "--max-num-batched-tokens", "96", "--max-model-len", "512"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert running.stdout is not None
        yield running.stdout.readline().split()[2].rstrip(":")
    finally:
        running.kill()
        running.wait()


def test_a_file_and_a_table(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "live.csv"
    command = ["probe", "--url", engine, *FEW, "-o", str(path), "--gpu", "a GPU", "--dtype", "bfloat16"]
    done = CliRunner().invoke(app, [*command, "--tensor-parallel", "2"])
    assert done.exit_code == 0, done.output
    assert "Will send at most" in done.stderr
    assert f"next: fluidgate calibrate {path} --law linear" in done.stdout
    assert "# gpu: a GPU\n# tensor_parallel: 2\n# dtype: bfloat16\n" in path.read_text()
    assert set(read_measurements(path).batch_size) == {1}


def test_json_and_a_dry_run(engine: str) -> None:
    done = CliRunner().invoke(app, ["probe", "--url", engine, *FEW, "--read-before", "0", "--json"])
    made = json.loads(done.stdout)
    assert (made["schema"], made["model"], made["batching"]["budget"]) == (1, "emulated", 96)
    assert {each["chunk_size"] for each in made["measurements"]} == {0, 32}
    dry = CliRunner().invoke(app, ["probe", "--url", engine, *FEW, "--dry-run"])
    assert "2 requests at once" in dry.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu", "x"], "--gpu needs --url; give it, or leave the option out"),
        (["--url", "http://localhost:1", "--layers", "2"], "--layers does not go with --url; leave it out"),
        (["--url", "http://localhost:1", "--preset", "tiny"], "--preset does not go with --url; leave it out"),
        (["--url", "http://localhost:1", "--contexts", "a"], "'a' is no whole number"),
    ],
)
def test_options_of_the_other_probe(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["probe", *arguments])
    assert done.exit_code == 2
    assert message in done.output
