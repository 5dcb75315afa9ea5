"""A law over the batch size, as older profile files hold it, made a table of iteration times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fluidgate.model import IterationTime, TimeTable

DIGITS = 6


class LawRow(NamedTuple):
    """The iteration time at one batch size: `alpha + beta * chunk` beside a chunk, `1 / gamma` without one."""

    batch_size: int
    alpha: float
    beta: float
    gamma: float


def table_of(rows: Sequence[LawRow], chunk_sizes: tuple[int, int] | None) -> IterationTime:
    """The times of a law at the ends of its chunk sizes, by batch size; the batch that runs then sets the time.

    Below the least chunk the time is on the line to that of a solo iteration; where the chunk sizes are unknown the
    law's own line holds from one token. The terms beside the table are those at the greatest batch size.

    Args:
        rows: ascending by batch size.
        chunk_sizes: the least and the greatest that the law holds for, tokens.

    Raises:
        ValueError: an iteration would take no time.
    """
    least, greatest = chunk_sizes or (1, 2)
    chunks = (least, greatest) if least < greatest else (least, least + 1)
    for row in rows:
        if row.alpha + row.beta * least <= 0.0:
            raise ValueError(
                f"at batch_size {row.batch_size} a chunk of {least} tokens takes no time; "
                "raise alpha, or give chunk_sizes, the least and the greatest that it holds for"
            )
    table = TimeTable(
        chunk_sizes=(0, *chunks),
        batch_sizes=tuple(row.batch_size for row in rows),
        seconds=(
            tuple(rounded(1.0 / row.gamma) for row in rows),
            *(tuple(rounded(row.alpha + row.beta * chunk) for row in rows) for chunk in chunks),
        ),
    )
    return IterationTime(alpha=rows[-1].alpha, beta=rows[-1].beta, table=table)


def rounded(seconds: float) -> float:
    """To 6 significant digits, as profiles hold times."""
    return float(f"{seconds:.{DIGITS}g}")
