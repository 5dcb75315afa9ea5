"""Errors a user can cause and mend."""

from fluidgate.wording import worded


class FluidgateError(Exception):
    """Bad input: one line that names the file, the key and the mend.

    The command prints it on standard error and exits with status 2. It speaks to who caused it: of `--gpus` to who
    typed a command, of `gpus` to who called a function (`fluidgate.wording`).
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(worded(message))


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
    """A number looks as if it was meant in another unit."""


def one_line(text: str) -> str:
    """`text` with every run of white space folded into one blank."""
    return " ".join(text.split())


def nearest(word: str, known: list[str], cutoff: float = 0.5) -> str:
    """`"; did you mean 'x'?"` for the known word nearest to `word`, or an empty string."""
    import difflib

    lower = {name.lower(): name for name in reversed(known)}
    close = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=cutoff)
    return f"; did you mean '{lower[close[0]]}'?" if close else ""
