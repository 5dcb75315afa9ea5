"""Where independent jobs run: this process, or worker processes on this machine.

The one seam for parallel work: another engine takes its place by offering the same `Executor`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol


class Executor(Protocol):
    """Runs `function` on each job and yields the results in the order of the jobs."""

    def map(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]: ...


class InProcess:
    """One job after the other in this process."""

    def map(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
        for job in jobs:
            yield function(job)


class LocalProcesses:
    """Worker processes on this machine; they end with this process, and at once on an interrupt."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def map(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
        from loky import get_reusable_executor

        with interrupts_held():
            executor: Any = get_reusable_executor(max_workers=self.workers, timeout=60)  # type: ignore[no-untyped-call]
            futures = [executor.submit(function, job) for job in jobs]
        try:
            for future in futures:
                yield future.result()
        except BaseException:
            executor.shutdown(wait=False, kill_workers=True)
            raise


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
