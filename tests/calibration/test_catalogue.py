"""The shipped profiles are those that the public measurements make."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import pytest

from fluidgate.calibration.catalogue import (
    AICONFIGURATOR,
    GPU_COLUMN,
    LLM_SERVING_SIM,
    MODEL_COLUMN,
    VIDUR,
    VLLM,
    Served,
    catalogue,
    main,
    write_catalogue,
)
from fluidgate.errors import FluidgateError
from fluidgate.model import TimeTable
from fluidgate.profiles import dump_profile, find_profile

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
PROFILES = ROOT / "fluidgate" / "profiles"

with_data = pytest.mark.skipif(
    not all((DATA / name).exists() for name in (AICONFIGURATOR, VIDUR, LLM_SERVING_SIM)),
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
    assert len(first) == 15
    assert write_catalogue(DATA, tmp_path) == []
    first[3].write_text("schema = 1\n")
    assert write_catalogue(DATA, tmp_path) == [first[3]]


def rows_of(name: str, **where: str) -> list[dict[str, str]]:
    with (DATA / name).open() as file:
        return [row for row in csv.DictReader(file) if all(row[key] == value for key, value in where.items())]


@with_data
@pytest.mark.parametrize("served", VLLM, ids=lambda served: served.name)
def test_every_time_of_the_operator_tables_is_in_a_profile(served: Served) -> None:
    gpu, model = GPU_COLUMN[served.card], MODEL_COLUMN[served.model]
    rows = rows_of(AICONFIGURATOR, gpu=gpu, backend="vllm", model=model, tp=str(served.gpus))
    table = table_of(served.name)
    assert len(rows) == len(table.chunk_sizes) * len(table.batch_sizes)
    for row in rows:
        assert (row["isl"], row["osl"]) == ("2048", "256")
        assert time_of(table, row) == pytest.approx(float(row["tau_ms"]) / 1e3, rel=1e-5)


def time_of(table: TimeTable, row: Mapping[str, str]) -> float:
    """Seconds of the row's iteration at the table's own context."""
    chunk, decodes = int(row["C"]), int(row["B"])
    if chunk == 0:
        return table.alone(decodes, table.contexts[0])
    return table.beside(chunk, decodes, table.contexts[0], 0.0)


@with_data
def test_every_time_of_vidur_is_in_its_profile() -> None:
    table = table_of("a100-80gb/llama2-70b-tp2")
    for row in rows_of(VIDUR):
        assert time_of(table, row) == pytest.approx(float(row["tau_ms"]) / 1e3, rel=1e-5)
    assert table.alone(0, table.contexts[0]) == table.alone(16, table.contexts[0])


@with_data
def test_the_rtx_4090_is_read_at_its_own_contexts() -> None:
    """At 1,024 tokens the table's; at others epsilon's, without a chunk and as far as it was fitted."""
    iteration = find_profile("rtx4090/llama-3.1-8b").iteration
    errors = []
    for row in rows_of(LLM_SERVING_SIM, kv_read_before="0"):
        chunk, decodes, context = int(row["C"]), int(row["B"]), int(row["kv_decode"])
        seconds = float(row["tau_ms"]) / 1e3
        if context == 1024 and decodes in (1, 4, 16, 64, 128):
            assert iteration.mixed(chunk, decodes, decodes * context) == pytest.approx(seconds, rel=1e-5)
        elif chunk == 0 and decodes in (1, 4, 16, 64, 128):
            errors.append(iteration.solo(decodes, decodes * context) / seconds - 1)
    assert len(errors) > 15
    assert max(map(abs, errors)) < 0.02


def table_of(name: str) -> TimeTable:
    table = find_profile(name).iteration.table
    assert table is not None
    return table


def test_shipped_files_are_small() -> None:
    assert max(path.stat().st_size for path in PROFILES.glob("*/*.toml")) < 2000


def test_wrong_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FluidgateError, match="no such file"):
        next(catalogue(tmp_path))
    assert main([str(tmp_path)]) == 2
    assert "no such file" in capsys.readouterr().err
    assert main([]) == 2
