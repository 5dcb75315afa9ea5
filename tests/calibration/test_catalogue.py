"""The shipped profiles are those that the public measurements make."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from fluidgate.calibration.catalogue import AICONFIGURATOR, SPLITWISE, catalogue, main, write_catalogue
from fluidgate.calibration.estimate import mean_of
from fluidgate.errors import FluidgateError
from fluidgate.profiles import Profile, dump_profile, find_profile, shipped

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
PROFILES = ROOT / "fluidgate" / "profiles"

with_data = pytest.mark.skipif(
    not all((DATA / name).exists() for name in (SPLITWISE, AICONFIGURATOR)),
    reason="the public measurements are not at ../shared/data",
)


@with_data
def test_shipped_profiles_are_those_of_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for made in catalogue(DATA):
        path = PROFILES / f"{made.name}.toml"
        assert path.read_text("utf-8") == dump_profile(made), (
            f"run python -m fluidgate.calibration.catalogue for {path}"
        )
    assert main([str(DATA)]) == 0
    assert capsys.readouterr().out.startswith("nothing to write")


@with_data
def test_files_are_written_where_they_differ_only(tmp_path: Path) -> None:
    first = write_catalogue(DATA, tmp_path)
    assert len(first) == 19
    assert write_catalogue(DATA, tmp_path) == []
    first[3].write_text("schema = 1\n")
    assert write_catalogue(DATA, tmp_path) == [first[3]]


@with_data
def test_splitwise_columns_by_hand() -> None:
    import csv

    with (DATA / SPLITWISE).open() as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if (row["model"], row["hardware"], row["tensor_parallel"]) == ("llama2-70b", "h100-80gb", "2")
        ]
    lengths = [row for row in rows if (row["prompt_size"], row["token_size"]) == ("512", "128")]
    solo = mean_of([float(row["token_time"]) / 1000 for row in lengths if row["batch_size"] == "16"]).value
    prompts = {
        size: mean_of(
            [float(r["prompt_time"]) / 1000 for r in rows if r["batch_size"] == "1" and r["prompt_size"] == size]
        )
        for size in ("256", "512", "1024", "2048")
    }
    at = find_profile("h100/llama2-70b-tp2").iteration_at(16)
    assert at.gamma == pytest.approx(1 / solo, rel=1e-5)
    for size, time in prompts.items():
        assert at.mixed(int(size)) == pytest.approx(time.value, rel=0.06)


def made_by_catalogue() -> list[Profile]:
    return [profile for profile in shipped() if "fluidgate.calibration.catalogue" in profile.notes]


def test_shipped_laws_are_sound() -> None:
    made = made_by_catalogue()
    assert len(made) == 19
    for profile in made:
        assert profile.law is not None
        assert profile.chunk_sizes == (256, 2048)
        assert profile.source
        assert profile.gpu
        times = [1 / row.gamma for row in profile.law]
        # batches of 4 and fewer differ by less than their noise
        assert all(later > 0.97 * before for before, later in pairwise(times)), profile.name
        assert times[-1] > times[0], profile.name
        assert all(row.r_squared is not None and row.r_squared > 0.98 for row in profile.law), profile.name
        assert all(row.iteration.mixed(256) > 0 for row in profile.law)


def test_shipped_files_are_small() -> None:
    assert max(path.stat().st_size for path in PROFILES.glob("*/*.toml")) < 2000


def test_wrong_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FluidgateError, match="no such file"):
        next(catalogue(tmp_path))
    assert main([str(tmp_path)]) == 2
    assert "no such file" in capsys.readouterr().err
    assert main([]) == 2
