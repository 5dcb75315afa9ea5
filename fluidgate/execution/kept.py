"""Results kept in a folder by what they are results of: what is there is not run again."""

from __future__ import annotations

import hashlib
import os
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from fluidgate.errors import FluidgateError
from fluidgate.execution.content import Contents
from fluidgate.execution.executor import AsTheyEnd, Ended, Executor, completed
from fluidgate.execution.local import ThisMachine
from fluidgate.execution.version import code_version

CHECKSUM = 32  # bytes


class Kept(AsTheyEnd):
    """Another executor, whose results are kept as they come.

    A result is found again by its function, its job and the version of the code, whatever process, machine or executor
    made it; so an interrupted run goes on where it stopped, and two runs share what they have in common.
    """

    def __init__(self, folder: str | Path, executor: Executor | None = None) -> None:
        """
        Args:
            folder: made if it is not there. Its files are pickles: keep to folders that only you write to.
            executor: where jobs run whose results are not there; this machine if None.

        Raises:
            FluidgateError: the folder can't be made.
        """
        self.folder, self.executor = Path(folder), executor or ThisMachine()
        with _refused(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def completed(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Ended:
        """
        Raises:
            FluidgateError: a result can't be written; or as the jobs do.
        """
        wanted: dict[str, list[int]] = {}
        for k, key in enumerate(keys(function, jobs)):
            wanted.setdefault(key, []).append(k)
        missing = []
        for key, numbers in wanted.items():
            found = self.read(key)
            if found is None:
                missing.append(key)
            else:
                yield from ((k, found[0]) for k in numbers)
        first = [jobs[wanted[key][0]] for key in missing]
        with closing(completed(self.executor, function, first)) as ended:
            for m, result in ended:
                self.write(missing[m], result)
                yield from ((k, result) for k in wanted[missing[m]])

    def read(self, key: str) -> tuple[Any] | None:
        """The result of this key; None where there is none, or its file is damaged."""
        try:
            found = self.place(key).read_bytes()
            if hashlib.sha256(found[CHECKSUM:]).digest() != found[:CHECKSUM]:
                return None
            return (pickle.loads(found[CHECKSUM:]),)
        except Exception:
            return None

    def write(self, key: str, result: Any) -> None:
        """Keep a result; its file is there whole, or not at all.

        Raises:
            FluidgateError: it can't be written.
        """
        found = pickle.dumps(result, protocol=5)
        with _refused(self.folder):
            number, part = tempfile.mkstemp(".part", f".{key}-", self.folder)
            try:
                with os.fdopen(number, "wb") as file:
                    file.write(hashlib.sha256(found).digest() + found)
                Path(part).replace(self.place(key))
            finally:
                with suppress(FileNotFoundError):
                    Path(part).unlink()

    def place(self, key: str) -> Path:
        """The file of a key."""
        return self.folder / f"{key}.result"


def keys(function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[str]:
    """What names the result of each job: its content, the function's and the code's version."""
    contents = Contents()
    for job in jobs:
        parts = contents.digest((code_version(), function, job))
        yield parts.hex()[:40]


@contextmanager
def _refused(folder: Path) -> Iterator[None]:
    """An error of the file system, as one line of the option that gave the folder."""
    try:
        yield
    except OSError as error:
        raise FluidgateError(
            f"--keep: '{folder}' can't be written to ({error.strerror}); name another folder"
        ) from error
