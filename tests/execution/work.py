"""Functions for workers, and what they leave behind to be counted."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

from fluidgate.errors import FluidgateError
from fluidgate.policies import Policy
from fluidgate.simulation.invariants import InvariantError

Marked = tuple[str, int, float]
"""A folder for a mark of each call, a number, and how long a call takes, s."""


def square(job: Marked) -> int:
    """The square of the number; each call leaves an empty file, `NUMBER-PID-PARENT-ANY`."""
    folder, number, seconds = job
    (Path(folder) / f"{number}-{os.getpid()}-{os.getppid()}-{uuid.uuid4().hex}").touch()
    time.sleep(seconds)
    return number * number


def held_square(job: tuple[str, int]) -> int:
    """The same; all but 0 wait for a file `go` beside the folder of marks."""
    folder, number = job
    found = square((folder, number, 0.0))
    while number and not Path(folder).with_name("go").exists():
        time.sleep(0.02)
    return found


def answer(policy: Policy) -> int:
    """What the gate of a policy says to nothing."""
    assert policy.gate is not None
    return policy.gate(None, None)


def workers(folder: Path) -> dict[int, int]:
    """The processes that have called, by their parents."""
    found = [mark.name.split("-") for mark in folder.iterdir()]
    return {int(parent): int(process) for _, process, parent, _ in found}


def calls(folder: Path) -> list[int]:
    """The number of each call, in order."""
    return sorted(int(mark.name.split("-")[0]) for mark in folder.iterdir())


def killed_once(job: tuple[str, int]) -> int:
    """The number; the first call with number 1 ends its process."""
    folder, number = job
    if number == 1:
        try:
            (Path(folder) / "killed").touch(exist_ok=False)
        except FileExistsError:
            return number
        os.kill(os.getpid(), 9)
    return number


def killed(job: int) -> int:
    """Ends its process, always."""
    os.kill(os.getpid(), 9)
    return job


def refused(job: str) -> None:
    """Fails in the way that is asked for."""
    if job == "input":
        raise FluidgateError("file.toml: key: is wrong; mend it")
    raise InvariantError("a request was lost (event 7)")


def missing(option: str) -> None:
    """Refuse to work without an option."""
    raise FluidgateError(f"--{option}: missing")
