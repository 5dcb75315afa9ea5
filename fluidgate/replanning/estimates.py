"""What a cluster has seen of each class lately: exponentially weighted sums, a row a class, each event in O(1).

An observation of age `a` weighs `exp(-a/window)`. A sum is brought up to date when it is added to, so nothing is done
between events. The functions are for compiled code; `fluidgate.replanning.estimator` has them for Python.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fluidgate.compiled import inlined

ESTIMATE = np.dtype(
    [
        ("window", "f8"),  # time constant, s
        ("start", "f8"),  # epoch of the first look at the class
        ("prior", "f8"),  # s for which the class has been seen, as it were, before the start
        ("arrived", "f8"),  # weight of the arrivals
        ("arrived_at", "f8"),  # epoch to which it is brought
        ("last_arrival", "f8"),  # nan before the first
        ("gaps", "f8"),  # weight of the gaps between arrivals, and of their seconds and squares
        ("gap_seconds", "f8"),
        ("gap_squares", "f8"),
        ("prompts", "f8"),  # weight of the prompts read, and of their tokens
        ("prompt_tokens", "f8"),
        ("prompts_at", "f8"),
        ("outputs", "f8"),  # weight of the answers written to their end, and of their tokens
        ("output_tokens", "f8"),
        ("outputs_at", "f8"),
        ("left", "f8"),  # weight of those who left while they waited
        ("waited", "f8"),  # weight of the seconds that all have waited
        ("waiting", "f8"),  # how many wait now
        ("waited_at", "f8"),
    ],
    align=True,
)

# Events, for `note`.
ARRIVED = 0
WAITS = 1  # for its prefill or its decode, and could leave
WAITS_NO_MORE = 2  # it is served
LEFT = 3  # it waits no more, for it has left
PROMPT_READ = 4
COMPLETED = 5


@inlined
def note(estimates: Any, event: int, cls: int, now: float, tokens: float) -> None:
    """One event of a request of class `cls` at epoch `now`, s; `tokens` of its prompt, or of its whole answer."""
    if event == ARRIVED:
        arrived(estimates, cls, now)
    elif event == WAITS:
        waits(estimates, cls, now)
    elif event == WAITS_NO_MORE:
        waits_no_more(estimates, cls, now)
    elif event == LEFT:
        waits_no_more(estimates, cls, now)
        left(estimates, cls)
    elif event == PROMPT_READ:
        prompt_read(estimates, cls, now, tokens)
    elif event == COMPLETED:
        completed(estimates, cls, now, tokens)


@inlined
def arrived(estimates: Any, cls: int, now: float) -> None:
    row = estimates[cls]
    kept = math.exp((row.arrived_at - now) / row.window)
    row.arrived = row.arrived * kept + 1.0
    row.gaps *= kept
    row.gap_seconds *= kept
    row.gap_squares *= kept
    gap = now - row.last_arrival
    if gap >= 0.0:
        row.gaps += 1.0
        row.gap_seconds += gap
        row.gap_squares += gap * gap
    row.arrived_at = now
    row.last_arrival = now


@inlined
def prompt_read(estimates: Any, cls: int, now: float, tokens: float) -> None:
    row = estimates[cls]
    kept = math.exp((row.prompts_at - now) / row.window)
    row.prompts = row.prompts * kept + 1.0
    row.prompt_tokens = row.prompt_tokens * kept + tokens
    row.prompts_at = now


@inlined
def completed(estimates: Any, cls: int, now: float, tokens: float) -> None:
    row = estimates[cls]
    kept = math.exp((row.outputs_at - now) / row.window)
    row.outputs = row.outputs * kept + 1.0
    row.output_tokens = row.output_tokens * kept + tokens
    row.outputs_at = now


@inlined
def waits(estimates: Any, cls: int, now: float) -> None:
    wait_until(estimates, cls, now)
    estimates[cls].waiting += 1.0


@inlined
def waits_no_more(estimates: Any, cls: int, now: float) -> None:
    wait_until(estimates, cls, now)
    estimates[cls].waiting -= 1.0


@inlined
def left(estimates: Any, cls: int) -> None:
    """One that waits no more has left."""
    estimates[cls].left += 1.0


@inlined
def wait_until(estimates: Any, cls: int, now: float) -> None:
    """Let those who wait do so until `now`: the integral of their number, weighted, grows in closed form."""
    row = estimates[cls]
    age = (row.waited_at - now) / row.window
    kept = math.exp(age)
    row.left *= kept
    row.waited = row.waited * kept - row.waiting * row.window * math.expm1(age)
    row.waited_at = now
