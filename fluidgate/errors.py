"""Errors a user can cause and mend."""

from __future__ import annotations

import os
from pathlib import Path

from fluidgate.wording import worded

PACKAGE = f"{Path(__file__).parent}{os.sep}"


class FluidgateError(Exception):
    """Bad input: one line that names the file, the key and the mend.

    The command prints it on standard error and exits with status 2. It speaks to who caused it: of `--gpus` to who
    typed a command, of `gpus` to who called a function (`fluidgate.wording`).
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(worded(message))

    def _render_traceback_(self) -> list[str]:
        """What IPython shows under a cell: where the caller's own code called the library, and the message.

        `%debug` still goes into all of it.
        """
        import traceback
        from itertools import dropwhile, takewhile

        frames = takewhile(lambda each: not each.filename.startswith(PACKAGE), traceback.extract_tb(self.__traceback__))
        own = dropwhile(lambda each: f"{os.sep}IPython{os.sep}" in each.filename, frames)
        return [*(text.rstrip() for text in traceback.format_list(list(own))), f"{type(self).__name__}: {self}"]


class InfeasiblePlanError(FluidgateError):
    """The fluid program has no solution; the message names the classes and the capacity that is short."""


class ArgumentError(FluidgateError, TypeError, ValueError):
    """A function or a noun was given an argument that it does not know, or a value that it can't take.

    Attributes:
        reason: the message without the names of who was given it and of what.
    """

    def __init__(self, message: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


class UnitWarning(UserWarning):
    """A number looks as if it was meant in another unit; it speaks as a `FluidgateError` does."""

    def __init__(self, message: str = "") -> None:
        super().__init__(worded(message))


LEAST_BEGINNING = 3
"""Letters of a beginning that is taken for a name."""


def one_line(text: str) -> str:
    """`text` with every run of white space folded into one blank."""
    return " ".join(text.split())


def shown_file(file: str) -> str:
    """A file's path as a user would type it from here."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file


def nearest(word: str, known: list[str], cutoff: float = 0.5) -> str:
    """`"; did you mean 'x'?"` for the known word nearest to `word`, or an empty string."""
    import difflib

    lower = {name.lower(): name for name in reversed(known)}
    close = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=cutoff)
    if not close and len(word) >= LEAST_BEGINNING:
        close = [name for name in lower if name.startswith(word.lower())][-1:]
    return f"; did you mean '{lower[close[0]]}'?" if close else ""
