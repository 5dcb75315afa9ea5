"""The times that are measured iteration by iteration: a number for compiled code, and a row of `TIMES`.

What observes one is `record.observe` in the kernel; results, tables and JSON take the rest from here, and the field of
its name in `fluidgate.simulation.iteration.results.RequestClassResult`.
"""

from __future__ import annotations

from typing import NamedTuple

TTFT = 0
TPOT = 1
GAP = 2
STALL = 3
LATENCY = 4
PREFILL_WAIT = 5
DECODE_WAIT = 6


class Time(NamedTuple):
    """A measured time.

    Attributes:
        number: its row in the kernel's histograms.
        label: in tables, with the unit.
        factor: from s to that unit.
    """

    number: int
    label: str
    factor: float = 1.0


TIMES = {
    "ttft": Time(TTFT, "TTFT, s"),
    "tpot": Time(TPOT, "TPOT, ms", 1000.0),
    "gap": Time(GAP, "gap between tokens, ms", 1000.0),
    "stall": Time(STALL, "gap beside a prefill, ms", 1000.0),
    "latency": Time(LATENCY, "latency, s"),
    "prefill_wait": Time(PREFILL_WAIT, "wait for prefill, s"),
    "decode_wait": Time(DECODE_WAIT, "wait for decode, s"),
}
"""By name: `stall` is a gap that a prefill lengthened; `prefill_wait` goes from arrival to the iteration that reads the
first chunk, `decode_wait` from the end of the prefill to the decode's first iteration."""
