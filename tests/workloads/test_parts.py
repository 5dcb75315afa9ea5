"""Files that are parts of one service: an hour each, one after the other."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from fluidgate.model import Scenario
from fluidgate.scenario_file import parse_scenario
from fluidgate.workloads import Workload, workload
from fluidgate.workloads.parts import split_name
from fluidgate.workloads.streams import read_class_traces

PROFILE = "a100-40gb/qwen-8b"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
HOUR = 3600.0
ROOT = Path(__file__).parents[2]


def azure(name: str, day: str, hour: int, minutes: tuple[float, ...] = (0, 20, 59), prompt: int = 100) -> str:
    """A file of the Azure format with a request at each of these minutes of an hour; its path."""
    rows = (f"2024-05-{day} {hour:02}:{int(m):02}:{60 * (m % 1):04.1f},{prompt},10\n" for m in minutes)
    Path(name).write_text(AZURE + "".join(rows))
    return name


def plain(name: str, *times: float) -> str:
    rows = (f"{time},100,10\n" for time in times)
    Path(name).write_text("arrival_time,prompt_tokens,output_tokens\n" + "".join(rows))
    return name


def made(*files: str, **options: object) -> Workload:
    return workload(list(files), gpus=1, profile=PROFILE, **options)  # type: ignore[arg-type]


def rates(of: Workload) -> dict[str, float]:
    return {c.name: c.arrival_rate for c in of.scenario.classes}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_two_hours_of_one_service_are_one_class_over_both() -> None:
    files = azure("part-00.csv", "10", 0), azure("part-01.csv", "10", 1)
    for given in (files, files[::-1]):
        found = made(*given)
        span = HOUR + 59 * 60
        assert rates(found) == {"part": pytest.approx(6 / span, rel=1e-5)}
        assert found.warnings == (
            "part-00.csv, part-01.csv: parts of 'part', read one after the other; "
            "to keep them apart, give each a name, CLASS=FILE",
        )
        assert found.to_dict()["warnings"] == list(found.warnings)
        assert [each["file"] for each in found.to_dict()["traces"]] == list(given)
        assert len(found.classes[0].gaps) == 5
        assert found.classes[0].gaps.sum() == pytest.approx(span)


def test_parts_of_two_services_are_told_by_their_names() -> None:
    names = [azure(f"code_{k}.csv", "10", k, prompt=1000) for k in (0, 1)]
    names += [azure(f"chat_{k}.csv", "10", k) for k in (0, 1)]
    found = made(*names)
    assert rates(found) == dict.fromkeys(("code", "chat"), pytest.approx(6 / (HOUR + 59 * 60), rel=1e-5))
    assert found.scenario.classes[0].prompt_tokens == 1000
    assert len(found.warnings) == 2


def test_a_month_of_days_and_packed_ones_by_name() -> None:
    files = [azure(f"2024-05-{day:02}.csv", f"{day:02}", 0, (0, 30, 59)) for day in range(1, 29)]
    found = made(*files)
    assert len(rates(found)) == 28, "a day with one hour in it is followed by a pause longer than it lasted"
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith("2024-05-01.csv, 2024-05-02.csv, 2024-05-03.csv, ... do not overlap in time")
    named = made(*(f"chat={file}" for file in files))
    assert rates(named) == {"chat": pytest.approx(84 / (28 * 59 * 60 + 27 * 59 * 30), rel=1e-5)}
    assert named.warnings == (
        "2024-05-01.csv, 2024-05-02.csv, 2024-05-03.csv, ...: parts of 'chat', read one after the other, "
        "without 27 pauses between them",
    )


def test_names_of_their_own_keep_parts_apart() -> None:
    found = made("night=" + azure("part-00.csv", "10", 0), "day=" + azure("part-01.csv", "10", 1))
    assert rates(found) == dict.fromkeys(("night", "day"), pytest.approx(3 / (59 * 60), rel=1e-5))
    assert found.warnings == ()
    assert found.command is not None
    assert "night=part-00.csv day=part-01.csv" in found.command
    assert parse_scenario(found.to_toml("o.toml")) == found.scenario


def test_a_seam_where_a_few_requests_overlap(tmp_path: Path) -> None:
    """A log that is cut by when requests end has a few of the next hour's in it."""
    found = made(plain("log-0.csv", 0, 50, 100.4, 100.5), plain("log-1.csv", 100, 150, 200))
    assert rates(found) == {"log": pytest.approx(7 / 200)}
    np.testing.assert_allclose(found.classes[0].gaps, [50, 50, 0.4, 0.1, 49.5, 50])
    assert list(rates(made("log-0.csv", plain("log-2.csv", 98, 150, 200)))) == ["0", "2"]


def test_one_name_for_files_of_the_same_time_is_both_at_once() -> None:
    found = made("chat=" + azure("east.csv", "10", 0), "chat=" + azure("west.csv", "10", 0))
    assert rates(found) == {"chat": pytest.approx(6 / (59 * 60), rel=1e-5)}


def test_files_that_overlap_or_lie_far_apart_stay_apart() -> None:
    both = made(azure("a.csv", "10", 0), azure("b.csv", "10", 0, (10, 30, 50)))
    assert list(rates(both)) == ["a", "b"]
    assert both.warnings == ()
    apart = made(azure("a.csv", "10", 0), azure("b.csv", "17", 0))
    assert list(rates(apart)) == ["a", "b"]
    assert apart.warnings == (
        "a.csv, b.csv do not overlap in time, and are taken as services at one time; "
        "if they are one service, give them the same name, CLASS=FILE",
    )


def test_other_formats_and_columns_are_no_parts() -> None:
    azure("a.csv", "10", 0)
    Path("b.csv").write_text("arrival_time,prompt_tokens,output_tokens\n2024-05-10 01:00,1,1\n2024-05-10 01:30,1,1\n")
    Path("c.csv").write_text(
        "arrival_time,prompt_tokens,output_tokens,class\n2024-05-10 02:00,1,1,x\n2024-05-10 03:00,1,1,x"
    )
    assert list(rates(made("a.csv", "b.csv"))) == ["a", "b"]
    assert list(rates(made("c.csv", "x=b.csv"))) == ["x"]


def test_a_clock_of_their_own_that_goes_on_from_file_to_file() -> None:
    assert rates(made(plain("t-0.csv", 0, 50, 99), plain("t-1.csv", 100, 150, 200))) == {"t": pytest.approx(6 / 200)}
    each = made(plain("t-0.csv", 0, 50, 100), plain("t-1.csv", 0, 50, 100))
    assert rates(each) == dict.fromkeys(("0", "1"), pytest.approx(3 / 100)), "each starts anew: two at one time"
    at_once = made(plain("t-0.csv", 0, 50, 100), "u=" + plain("t-1.csv", 200, 300))
    assert list(rates(at_once)) == ["t-0", "u"], "a name keeps a file to itself"


def test_labels_and_measured_tokens_go_on_too() -> None:
    header = "arrival_time,prompt_tokens,output_tokens,class\n"
    Path("t-0.csv").write_text(header + "0,1,1,x\n10,1,1,y\n")
    Path("t-1.csv").write_text(header + "20,1,1,y\n30,1,1,y\n")
    assert rates(made("t-1.csv", "t-0.csv")) == {"x": pytest.approx(1 / 30), "y": pytest.approx(3 / 30)}


def test_replay_reads_parts_one_after_the_other_too() -> None:
    files = [azure("part-00.csv", "10", 0), azure("part-01.csv", "10", 1)]
    azure("other.csv", "10", 0)
    scenario = Scenario.load(ROOT / "examples" / "two-class.toml")
    one, two = scenario.class_names
    (joined,) = read_class_traces(scenario, [f"{one}={file}" for file in files])
    assert joined.trace.files == ("part-00.csv", "part-01.csv")
    assert joined.trace.span == HOUR + 59 * 60
    assert set(joined.cls.tolist()) == {0}
    apart = read_class_traces(scenario, [f"{two}={files[0]}", f"{one}={files[1]}"])
    assert [(len(each), each.cls[0]) for each in apart] == [(3, 1), (3, 0)]
    guessed = read_class_traces(scenario, [*files, f"{two}=other.csv"])
    assert [(len(each), each.cls[0]) for each in guessed] == [(6, 0), (3, 1)]
    (note,) = joined.trace.remarks
    assert note == "part-00.csv, part-01.csv: parts of 'decode-heavy', read one after the other"
    for each in (joined, *guessed):
        assert all(a <= b for a, b in pairwise(each.trace.arrival_time))


def test_first_and_last_tokens_move_with_their_requests() -> None:
    log = '{"queued_ts": %s, "input_toks": 5, "output_toks": 5, "first_token_ts": %s, "last_token_ts": %s}\n'
    Path("run-0.jsonl").write_text(log % (100, 101, 103) + log % (110, 111, 113))
    Path("run-1.jsonl").write_text(log % (115, 116, 118) + log % (120, 121, 123))
    scenario = Scenario.load(ROOT / "examples" / "two-class.toml")
    (joined,) = read_class_traces(scenario, [f"{scenario.class_names[0]}=run-{k}.jsonl" for k in (0, 1)])
    assert joined.trace.first_token is not None
    np.testing.assert_allclose(joined.trace.first_token, [1, 11, 16, 21])
    np.testing.assert_allclose(joined.trace.last_token, [3, 13, 18, 23])


def test_a_file_that_is_there_stays_whole() -> None:
    plain("rate=5.csv", 0, 1)
    assert split_name("rate=5.csv") == (None, "rate=5.csv")
    assert split_name("chat=t.csv") == ("chat", "t.csv")
    assert split_name("data/run=1/t.csv") == (None, "data/run=1/t.csv")
    assert split_name("=t.csv") == (None, "=t.csv")
    assert list(rates(made("chat=rate=5.csv"))) == ["chat"]
