"""Jobs on this machine."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager
from functools import cache
from typing import Any

from fluidgate.errors import FluidgateError
from fluidgate.execution.executor import AsTheyEnd, Ended, Executor, InProcess, completed
from fluidgate.wording import InSameWords

LOSSES = 3
"""Times in a row that workers are lost, and no job ends, before no others are started."""

FEEDER_PATIENCE = 2.0
"""Seconds that a thread which fed workers gets to end."""


class LocalProcesses(AsTheyEnd):
    """Worker processes on this machine; they end with this process, and at once on an interrupt.

    The jobs of processes that are killed run once more, in new ones.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def completed(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Ended:
        """
        Raises:
            FluidgateError: workers were lost at the same jobs again and again.
        """
        left = dict(enumerate(jobs))
        losses = 0
        while left:
            before = len(left)
            for k, result in self._ended(function, left):
                del left[k]
                yield k, result
            losses = 0 if len(left) < before else losses + 1
            if losses == LOSSES:
                raise FluidgateError(
                    f"worker processes were killed {LOSSES} times at the same job, perhaps for want of memory; "
                    "give fewer --workers, or a smaller run"
                )

    def _ended(self, function: Callable[[Any], Any], jobs: Mapping[int, Any]) -> Ended:
        """Those of the jobs whose workers lived to their end."""
        from concurrent.futures.process import BrokenProcessPool

        from loky import get_reusable_executor

        _feeders_end_before_python()
        with interrupts_held():
            executor: Any = get_reusable_executor(max_workers=self.workers, timeout=60)  # type: ignore[no-untyped-call]
            running = {executor.submit(InSameWords(function), job): k for k, job in jobs.items()}
        try:
            for future in as_completed(list(running)):
                k = running.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    continue
                yield k, result
        except BaseException:
            executor.shutdown(wait=False, kill_workers=True)
            raise


class ThisMachine(AsTheyEnd):
    """As many worker processes as the jobs of a call need; this process if one is enough."""

    def __init__(self, workers: int | None = None) -> None:
        """
        Args:
            workers: the most processes; one a core if None.
        """
        self.workers = workers

    def completed(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Ended:
        return completed(default_executor(self.workers, len(jobs)), function, jobs)


@cache
def _feeders_end_before_python() -> None:
    """Wait, as Python ends, for the threads that fed workers.

    They may be the last to hold the semaphores of their queue, and are killed wherever they are as Python ends: between
    a semaphore's removal and the note of it, the resource tracker would report a leak on standard error.
    """
    atexit.register(_end_feeders)


def _end_feeders() -> None:
    for thread in threading.enumerate():
        if thread.name == "QueueFeederThread":
            thread.join(timeout=FEEDER_PATIENCE)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back; processes started meanwhile never see it: they end when this process tells them to."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def default_executor(workers: int | None, jobs: int) -> Executor:
    """Worker processes for `jobs` jobs, one a core unless `workers` says otherwise; this process if one is enough."""
    available = workers if workers is not None else available_cores()
    used = min(available, jobs)
    return LocalProcesses(used) if used > 1 else InProcess()


def available_cores() -> int:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
