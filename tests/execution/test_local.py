"""Worker processes on this machine, and those that are lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fluidgate.errors import FluidgateError
from fluidgate.execution import LocalProcesses, executor_named
from fluidgate.execution.local import LOSSES, ThisMachine
from fluidgate.simulation.invariants import InvariantError
from fluidgate.wording import to_command_line
from tests.execution.work import killed, killed_once, missing, refused

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes")


def test_the_jobs_of_a_worker_that_is_killed_run_again(tmp_path: Path) -> None:
    jobs = [(str(tmp_path), number) for number in range(5)]
    assert list(LocalProcesses(2).map(killed_once, jobs)) == [0, 1, 2, 3, 4]
    assert (tmp_path / "killed").exists()


def test_a_job_that_kills_its_worker_ends_in_one_line() -> None:
    with pytest.raises(FluidgateError, match=f"killed {LOSSES} times at the same job.*fewer workers"):
        list(LocalProcesses(2).map(killed, [1]))


def test_failures_arrive_as_themselves() -> None:
    with pytest.raises(FluidgateError, match=r"^file\.toml: key: is wrong; mend it$"):
        list(LocalProcesses(2).map(refused, ["input"]))
    with pytest.raises(InvariantError, match=r"^a request was lost \(event 7\)$"):
        list(LocalProcesses(2).map(refused, ["invariant"]))


def test_workers_speak_to_whom_this_process_speaks() -> None:
    with to_command_line(), pytest.raises(FluidgateError, match=r"^--max-gpus: missing$"):
        list(LocalProcesses(2).map(missing, ["max-gpus"]))
    with pytest.raises(FluidgateError, match=r"^max_gpus: missing$"):
        list(LocalProcesses(2).map(missing, ["max-gpus"]))


def test_results_come_in_the_order_of_the_jobs_or_as_they_end() -> None:
    assert list(LocalProcesses(2).map(abs, [-3, 2, -1])) == [3, 2, 1]
    assert sorted(LocalProcesses(2).completed(abs, [-3, 2, -1])) == [(0, 3), (1, 2), (2, 1)]
    assert list(ThisMachine(1).map(abs, [-3, 2])) == [3, 2]
    assert list(LocalProcesses(2).map(abs, [])) == []


def test_an_executor_by_name(tmp_path: Path) -> None:
    assert executor_named() is None
    assert executor_named(workers=3) is None
    kept = executor_named(keep=tmp_path / "kept", workers=3)
    assert kept is not None
    assert list(kept.map(abs, [-3, 2])) == [3, 2]
    assert len(list((tmp_path / "kept").iterdir())) == 2
    for wrong in ("rya", "ray://", "ray://host", "ray://host:port", ""):
        with pytest.raises(FluidgateError, match="executor: must be local, ray or ray://HOST:PORT, but is"):
            executor_named(wrong)
    with pytest.raises(FluidgateError, match="workers: is of this machine; leave it out with executor='ray'"):
        executor_named("ray", workers=2)


SLOW_FEEDER = """
import importlib, threading, time
import loky.process_executor
from loky.backend import queues

synchronize = importlib.import_module("loky.backend.synchronize")

feed, unlink, exiting = queues.Queue._feed, synchronize.sem_unlink, loky.process_executor._python_exit

def feed_slowly(*arguments):
    feed(*arguments)
    time.sleep(0.1)

def unlink_slowly(name):
    unlink(name)
    if threading.current_thread().daemon:
        time.sleep(0.5)

def exit_slowly():
    exiting()
    time.sleep(0.3)

queues.Queue._feed = staticmethod(feed_slowly)
synchronize.sem_unlink = unlink_slowly
loky.process_executor._python_exit = exit_slowly

from fluidgate.execution import LocalProcesses
ended = LocalProcesses(2).completed(time.sleep, [0.0, 60.0])
print(next(ended))
ended.close()
"""


def test_nothing_leaks_where_the_thread_that_feeds_is_the_last_to_hold_its_semaphores() -> None:
    ended = subprocess.run([sys.executable, "-c", SLOW_FEEDER], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "(0, None)\n", "")
