"""Results kept by content: what is there is not run again, whatever has happened meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fluidgate import compare
from fluidgate.errors import FluidgateError
from fluidgate.execution import InProcess, Kept
from tests.execution.work import Marked, calls, refused, square
from tests.scenarios import two_class_scenario

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0  # s


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


def jobs(marks: Path, numbers: Sequence[int], seconds: float = 0.0) -> list[Marked]:
    return [(str(marks), number, seconds) for number in numbers]


def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "kept", InProcess())


def test_what_is_there_is_not_run_again(tmp_path: Path, marks: Path) -> None:
    assert list(kept(tmp_path).map(square, jobs(marks, [3, 1, 2]))) == [9, 1, 4]
    assert list(kept(tmp_path).map(square, jobs(marks, [4, 2, 3, 1]))) == [16, 4, 9, 1]
    assert calls(marks) == [1, 2, 3, 4]


def test_a_job_that_is_there_twice_runs_once(tmp_path: Path, marks: Path) -> None:
    assert list(kept(tmp_path).map(square, jobs(marks, [2, 3, 2]))) == [4, 9, 4]
    assert calls(marks) == [2, 3]


def test_another_function_has_results_of_its_own(tmp_path: Path) -> None:
    assert list(kept(tmp_path).map(str, [1])) == ["1"]
    assert list(kept(tmp_path).map(float, [1])) == [1.0]


def test_none_is_a_result(tmp_path: Path, marks: Path) -> None:
    assert list(kept(tmp_path).map(square_of_nothing, jobs(marks, [5]))) == [None]
    assert list(kept(tmp_path).map(square_of_nothing, jobs(marks, [5]))) == [None]
    assert calls(marks) == [5]


def square_of_nothing(job: Marked) -> None:
    square(job)


@pytest.mark.parametrize("damage", [b"", b"not a result at all, but long enough to have a checksum", None])
def test_a_damaged_file_is_made_again(tmp_path: Path, marks: Path, damage: bytes | None) -> None:
    first = kept(tmp_path)
    list(first.map(square, jobs(marks, [6])))
    (file,) = first.folder.iterdir()
    file.write_bytes(file.read_bytes()[:-1] if damage is None else damage)
    assert list(first.map(square, jobs(marks, [6]))) == [36]
    assert list(first.map(square, jobs(marks, [6]))) == [36]
    assert calls(marks) == [6, 6]


def test_what_has_ended_is_kept_though_an_earlier_job_goes_on(tmp_path: Path, marks: Path) -> None:
    class Backwards(Kept):
        """Ends its jobs from the last to the first, and then fails."""

        def completed(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
            for k in reversed(range(1, len(jobs))):
                yield k, function(jobs[k])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(Kept(tmp_path / "kept", Backwards(tmp_path / "other")).map(square, jobs(marks, [1, 2, 3])))
    assert calls(marks) == [2, 3]
    assert list(kept(tmp_path).map(square, jobs(marks, [1, 2, 3]))) == [1, 4, 9]
    assert calls(marks) == [1, 2, 3]


def test_a_failure_is_not_kept(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(FluidgateError, match="is wrong"):
            list(kept(tmp_path).map(refused, ["input"]))
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FluidgateError, match=r"keep: '.*kept' can't be written to \(Not a directory\); name another"):
        Kept(tmp_path / "file" / "kept")


RUN = """
import sys
from pathlib import Path
from fluidgate.execution import Kept, LocalProcesses
from tests.execution.test_kept import jobs
from tests.execution.work import square

folder = Path(sys.argv[1])
print(list(Kept(folder / "kept", LocalProcesses(2)).map(square, jobs(folder / "marks", range(6), 0.3))))
"""


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_a_run_that_is_killed_goes_on_where_it_stopped(tmp_path: Path, marks: Path) -> None:
    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", RUN, str(tmp_path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def results() -> list[Path]:
        return list((tmp_path / "kept").glob("*.result"))

    first = start()
    limit = time.monotonic() + PATIENCE
    while len(results()) < 2:
        assert first.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < limit
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    had = len(results())
    assert 2 <= had < 6
    before = len(calls(marks))
    second = start()
    output, _ = second.communicate(timeout=PATIENCE)
    assert output.strip() == "[0, 1, 4, 9, 16, 25]"
    assert len(calls(marks)) - before == 6 - had
    assert len(results()) == 6


def test_a_comparison_goes_on_with_more_replications(tmp_path: Path) -> None:
    class Counting(InProcess):
        jobs = 0

        def map(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
            self.jobs += len(jobs)
            return super().map(function, jobs)

    def run(replications: int, executor: Any) -> Any:
        found = compare(
            two_class_scenario(),
            ["fi-wsp", "gate-and-route"],
            gpus=4,
            horizon=100.0,
            replications=replications,
            fidelity="markov",
            executor=executor,
        ).to_dict()
        for each in found["policies"]:
            del each["wall_seconds"]
        return found

    counting = Counting()
    executor = Kept(tmp_path / "kept", counting)
    run(2, executor)
    assert counting.jobs == 4
    more = run(3, executor)
    assert counting.jobs == 6
    assert more == run(3, None)
