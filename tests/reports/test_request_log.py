"""The log of requests: its columns, its two formats, and that it is there whole or not at all."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fluidgate.errors import FluidgateError
from fluidgate.reports.request_log import RequestLog
from fluidgate.simulation.iteration.kernel.cluster import (
    COMPLETED,
    LEFT_DECODE_BUFFER,
    LEFT_PREFILL_QUEUE,
    LOG,
    REJECTED,
)

CLASSES = ("chat", "code")


def rows(*outcomes: int) -> Any:
    made = np.zeros(len(outcomes), LOG)
    made["number"] = np.arange(len(outcomes))
    made["arrival"], made["first_token"], made["last_token"] = 0.5, np.nan, 2.5
    made["cls"], made["prompt"], made["output"] = 1, 100, 7
    made["prefill_gpu"], made["decode_gpu"] = 3, 4
    made["outcome"] = outcomes
    return made


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_blocks_are_appended_with_names_in_the_place_of_numbers(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"log{suffix}"
    with RequestLog(path, CLASSES) as log:
        log.add("fi-wsp", 0, rows(COMPLETED, LEFT_PREFILL_QUEUE))
        log.add("gi-wsp", 1, rows(LEFT_DECODE_BUFFER))
        log.add("gi-wsp", 1, rows(REJECTED))
    found = read(path)
    assert list(found) == [
        "policy", "replication", "number", "class", "arrival", "scheduled", "first_token", "last_token",
        "prompt", "output", "prefill_gpu", "decode_gpu", "preemptions", "outcome", "user",
    ]  # fmt: skip
    assert found["policy"].tolist() == ["fi-wsp", "fi-wsp", "gi-wsp", "gi-wsp"]
    assert found["replication"].tolist() == [0, 0, 1, 1]
    assert found["class"].tolist() == ["code"] * 4
    assert found["outcome"].tolist() == ["completed", "left before prefill", "left before decode", "rejected"]
    assert found["first_token"].isna().all()
    assert found.loc[0, ["arrival", "last_token", "prompt", "decode_gpu"]].tolist() == [0.5, 2.5, 100, 4]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_without_requests_there_are_the_columns(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"log{suffix}"
    with RequestLog(path, CLASSES):
        pass
    found = read(path)
    assert len(found) == 0
    assert {"policy", "outcome"} <= set(found)


def test_a_run_that_breaks_leaves_no_log_and_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("of another run\n")

    def interrupted() -> None:
        with RequestLog(path, CLASSES) as log:
            log.add("fi-wsp", 0, rows(COMPLETED))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "of another run\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(FluidgateError, match=r"log: .*log\.csv: can't be written .*No space left.*name another file"):  # noqa: SIM117
        with RequestLog(tmp_path / "log.csv", CLASSES):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("log.txt", r"must end in \.csv or \.parquet"),
        ("none/log.csv", "the folder of .* does not exist; make it first"),
    ],
)
def test_paths_that_cannot_be_written_are_refused_before_the_work(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(FluidgateError, match=message):
        RequestLog(tmp_path / name, CLASSES)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(FluidgateError, match=r"needs pyarrow.*install fluidgate\[parquet\]"):
        RequestLog(tmp_path / "log.parquet", CLASSES)
