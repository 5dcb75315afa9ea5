"""Reading iteration times, and every mistake in their file."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fluidgate.calibration import read_measurements
from fluidgate.errors import FluidgateError

GOOD = "batch_size,chunk_size,seconds\n16,0,0.022\n16,256,0.033\n16,256,0.035\n16,512,0.049\n"


def refusal(tmp_path: Path, text: str, columns: dict[str, str] | None = None, **options: object) -> str:
    path = tmp_path / "m.csv"
    path.write_text(text, "utf-8")
    with pytest.raises(FluidgateError) as caught:
        read_measurements(path, columns, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


def test_rows_and_pairs(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(GOOD)
    rows = read_measurements(tmp_path / "m.csv")
    assert rows.source == "m.csv"
    assert rows.solo.tolist() == [True, False, False, False]
    pairs = rows.pairs
    assert pairs.chunk_size.tolist() == [0, 256, 512]
    assert pairs.repeats.tolist() == [1, 2, 1]
    assert pairs.seconds.tolist() == pytest.approx([0.022, 0.034, 0.049])


def test_other_columns_units_comments_and_line_ends(tmp_path: Path) -> None:
    text = '\ufeff# a comment\r\n\r\ngpu, B ,C,tau_ms\r\n"h100, 80GB",8,0,20\r\n\r\na100,8.0,0,1e1\r\n'
    (tmp_path / "m.csv").write_text(text, "utf-8", newline="")
    columns = {"batch_size": "B", "chunk_size": "C", "seconds": "tau_ms"}
    rows = read_measurements(tmp_path / "m.csv", columns, unit="ms")
    assert rows.seconds.tolist() == [0.02, 0.01]
    assert rows.batch_size.tolist() == [8, 8]
    assert read_measurements(tmp_path / "m.csv", columns, unit="us").seconds.tolist() == [2e-5, 1e-5]
    picked = read_measurements(tmp_path / "m.csv", columns, unit="ms", where={"gpu": "a100", "B": "8"})
    assert picked.seconds.tolist() == [0.01]
    assert {name: texts.tolist() for name, texts in picked.others.items()} == {"gpu": ["a100"]}
    (tmp_path / "m.csv.gz").write_bytes(gzip.compress(text.encode()))
    assert read_measurements(tmp_path / "m.csv.gz", columns, unit="ms").seconds.tolist() == [0.02, 0.01]


@pytest.mark.parametrize(
    ("old", "new", "start"),
    [
        (GOOD, "", "empty; give a CSV file with the columns batch_size, chunk_size, seconds"),
        (GOOD, "batch_size,chunk_size,seconds\n", "a header without rows; give measured rows"),
        (
            "chunk_size",
            "chunk",
            "line 1: no column 'chunk_size'; the columns are batch_size, chunk, seconds; columns={'chunk_size':",
        ),
        ("seconds", "x", "line 1: no column 'seconds'; the columns are batch_size, chunk_size, x; columns={'seconds':"),
        ("0.035", "fast", "line 4: seconds: must be a time greater than 0, but is 'fast'; correct it"),
        ("0.035", "", "line 4: seconds: missing; give a time greater than 0"),
        ("0.035", "-0.035", "line 4: seconds: must be a time greater than 0, but is -0.035; correct it"),
        ("0.035", "0", "line 4: seconds: must be a time greater than 0, but is 0; correct it"),
        ("0.035", "inf", "line 4: seconds: must be a time greater than 0, but is inf; correct it"),
        ("0.035", "nan", "line 4: seconds: must be a time greater than 0, but is nan; correct it"),
        (
            "16,512",
            "1.5,512",
            "line 5: batch_size: must be a whole number from 0 to 2147483647, but is 1.5; correct it",
        ),
        ("16,512", "16,-1", "line 5: chunk_size: must be a whole number from 0 to 2147483647, but is -1; correct it"),
        ("16,512", "16,nan", "line 5: chunk_size: must be a whole number from 0 to 2147483647, but is nan; correct"),
        ("16,0,", "0,0,", "line 2: an iteration without decodes and without a chunk; remove this line"),
        ("16,512,", "16,512,1,", "line 5: 4 fields where the header has 3; correct it"),
        ("16,512,0.049", "16", "line 5: 1 fields where the header has 3; correct it"),
        ("16,512", '"16,512', "line 5: not CSV (unexpected end of data); mend this line"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, old: str, new: str, start: str) -> None:
    assert old in GOOD
    assert refusal(tmp_path, GOOD.replace(old, new)).startswith(start)


def test_mistakes_in_the_options(tmp_path: Path) -> None:
    assert refusal(tmp_path, GOOD, {"chunk": "C"}) == "columns: no standard column 'chunk'; did you mean 'chunk_size'?"
    known = "; the columns are batch_size, chunk_size, seconds, context, read_before"
    assert refusal(tmp_path, GOOD, {"zzz": "C"}).endswith(known)
    assert refusal(tmp_path, GOOD, {"seconds": "tau"}).startswith("line 1: no column 'tau'; the columns are ")
    assert refusal(tmp_path, GOOD, unit="h") == "unit: must be 's', 'ms', 'us' or 'ns', but is 'h'"
    assert refusal(tmp_path, GOOD, where={"gpu": "h100"}).startswith("line 1: no column 'gpu'; the columns are ")
    text = "gpu," + GOOD.replace("\n16", "\nh100,16")
    wrong = refusal(tmp_path, text, where={"gpu": "h10"})
    assert wrong == "where={'gpu': 'h10'}: no such row; did you mean 'h100'?"
    mixed = text.replace("h100,16,512", "a100,32,512")
    both = refusal(tmp_path, mixed, where={"gpu": "a100", "batch_size": "16"})
    assert both == "no row meets every where; leave one out"
    assert refusal(tmp_path, GOOD, where={"batch_size": "999"}).endswith("no such row; its values are 16")


def test_a_missing_file() -> None:
    with pytest.raises(FluidgateError, match=r"no\.csv: no such file; give the path of a CSV file of iteration times"):
        read_measurements("no.csv")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(
    st.sampled_from(["", GOOD]),
    st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('\r\n,"#0'), max_size=20),
)
def test_any_text_is_read_or_refused_in_one_line(tmp_path: Path, before: str, text: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(before + text, "utf-8", newline="")
    try:
        rows = read_measurements(path)
    except FluidgateError as error:
        refused = str(error)
    else:
        refused = ""
        assert len(rows) >= 4
        assert (rows.seconds > 0).all()
    assert refused.isprintable()
