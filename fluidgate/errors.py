"""Errors a user can cause and mend."""


class FluidgateError(Exception):
    """Bad input: one line that names the file, the key and the mend.

    The command prints it on standard error and exits with status 2.
    """


class InfeasiblePlanError(FluidgateError):
    """The fluid program has no solution; the message names the classes and the capacity that is short."""


def one_line(text: str) -> str:
    """`text` with every run of white space folded into one blank."""
    return " ".join(text.split())


def nearest(word: str, known: list[str]) -> str:
    """`"; did you mean 'x'?"` for the known word nearest to `word`, or an empty string."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
