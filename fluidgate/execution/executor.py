"""Where independent jobs run: the one seam for parallel work.

A job is a value that is sent to wherever it runs, and so is what it gives; another engine takes its place by offering
the same `Executor`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any, Protocol, runtime_checkable

Ended = Generator[tuple[int, Any], None, None]
"""The number of a job and what it gave, each job once, in the order in which they end."""


@runtime_checkable
class Executor(Protocol):
    """Runs `function` on each job and yields the results in the order of the jobs.

    One whose jobs end in another order is best an `AsTheyEnd`: their results are then kept as they come.
    """

    def map(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]: ...


class InProcess:
    """One job after the other in this process."""

    def map(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
        for job in jobs:
            yield function(job)


class AsTheyEnd(ABC):
    """An executor whose jobs end in any order."""

    @abstractmethod
    def completed(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Ended:
        """Run `function` on each job; its number and its result as soon as it has ended."""

    def map(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
        early: dict[int, Any] = {}
        following = 0
        with closing(self.completed(function, jobs)) as ended:
            for k, result in ended:
                early[k] = result
                while following in early:
                    yield early.pop(following)
                    following += 1


def completed(executor: Executor, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Ended:
    """The jobs of any executor, as they end where it can tell."""
    if isinstance(executor, AsTheyEnd):
        yield from executor.completed(function, jobs)
    else:
        yield from enumerate(executor.map(function, jobs))
