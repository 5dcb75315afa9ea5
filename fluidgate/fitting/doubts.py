"""What speaks against a calibration from a log, and what is likely behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fluidgate.fitting.fit import Fit
from fluidgate.simulation.iteration.logged import Agreement

MIDDLE, TAIL = 0.05, 0.10
"""How far a mean or median, and a p90 or p99, may lie from the log."""
TAILS = ("p90", "p95", "p99")
OUTLYING = 0.1
"""Share of rows that nothing explains, from which on it is said."""
CAUSES = {
    "TTFT": "kv_tokens, batch_size and max_batched_tokens of the scenario, prefixes that the engine found in memory "
    "(prefix caching), a front end before it, async_scheduling, or a cold start",
    "TPOT": "the table or the profile, ranks that step together (data_parallel), kv_tokens (preemptions), "
    "or other work on the same GPU",
}


def far_off(rows: Sequence[Agreement], everything: Sequence[Agreement], part: str) -> Iterator[str]:
    """A sentence for TTFT, for TPOT and for latency, where the replay lies far from the log."""
    for quantity in ("TTFT", "TPOT", "latency"):
        named = [row for row in rows if row.quantity == quantity]
        wrong = [row for row in named if is_far(row)]
        if not wrong:
            continue
        shown = ", ".join(f"{row.statistic} {100 * row.relative:+.1f} %" for row in wrong)
        whole = [row for row in everything if row.quantity == quantity and is_far(row)]
        mild = "" if whole else " (of all requests together it is within bounds)"
        cause = CAUSES.get(quantity)
        yield f"{quantity} of what was {part}: {shown}{mild}" + ("" if cause is None else f"; look at {cause}")


def is_far(row: Agreement) -> bool:
    """Whether a statistic lies further from the log than 5 %, or 10 % in the tail."""
    return abs(row.relative) > (TAIL if row.statistic in TAILS else MIDDLE)


def unexplained(fit: Fit, what: str) -> Iterator[str]:
    if fit.outlying > OUTLYING:
        yield (
            f"{100 * fit.outlying:.0f} % of the times lie far from what the others say and count for less than half: "
            "a cold start, stalls, or settings other than the scenario's"
        )
    if what == "overhead" and fit.values[0] == 0.0:
        yield (
            "the overhead is 0: the known times are as long as the log's or longer; they may hold an overhead already, "
            "or be of another machine"
        )
