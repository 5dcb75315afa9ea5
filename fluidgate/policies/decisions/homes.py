"""Where a prompt is read that may begin like others: what it costs everybody to read and decode it on a GPU.

A request has one place or a few where its beginning is, and the best of the others. On each what is still to be read
differs, and so do who waits, whose tokens are put off while it is read and while it decodes, and how long it waits
itself. The sum of these delays, in seconds, is its cost there. It goes where that is least; if it has to wait for that
place, it waits, and others go first. Who comes later is delayed by what is read now, too: a second of reading counts as
if it put off `Tables.toll` more requests; so prompts are not read again for a small gain.

Whoever keeps `Places` (a simulator, the gateway) tells of each change, and asks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fluidgate.compiled import called, inlined
from fluidgate.compiled.tournament import replay, tournament, winner
from fluidgate.policies.decisions.board import NOWHERE
from fluidgate.policies.decisions.placement import Reuse
from fluidgate.policies.decisions.tables import Tables

# Entries of `Tables.seconds`.
ALPHA = 0  # of an iteration with a chunk
BETA = 1  # a token of it
ZETA = 2  # a pair of a token of it and one of its prompt read before
SOLO = 3  # of an iteration without
DELTA = 4  # a decode
EPSILON = 5  # a token of context of a decode

# Rows of `Tables.worth`.
FIRST = 0  # of a second to the first token
NEXT = 1  # of a second of an answer after it

LEAST_VALUE = 1e-9
"""Added to the index of a class: of those without one who takes least time goes first."""

LOOKED_AT = 16
"""Of those of a class who wait longest, so many are looked at for their homes."""


class Places(NamedTuple):
    """What lies on the GPUs, as far as it delays a request.

    Attributes:
        decodes: requests there, read or not, int64, shape (n,).
        context: tokens of them, prompts and what they have answered, int64, shape (n,).
        backlog: prompt tokens there that are to be read, int64, shape (n,).
        free: tokens of KV memory that nobody holds, int64, shape (n,).
        wait: until each can begin with its backlog, s, shape (n,); whoever asks sets it before.
        keys: cost of a usual request on each, of which nothing is there, shape (n,); inf where none is taken.
        tree: the tournament over them.
    """

    decodes: Any
    context: Any
    backlog: Any
    free: Any
    wait: Any
    keys: Any
    tree: Any


def new_places(gpus: int) -> Places:
    """Idle GPUs."""
    return Places(
        decodes=np.zeros(gpus, np.int64),
        context=np.zeros(gpus, np.int64),
        backlog=np.zeros(gpus, np.int64),
        free=np.full(gpus, 1 << 40, np.int64),
        wait=np.zeros(gpus),
        keys=np.zeros(gpus),
        tree=tournament(gpus),
    )


@inlined
def read_seconds(tables: Tables, tokens: int, found: int, context: int) -> float:
    """Seconds that a GPU reads `tokens` tokens of a prompt behind `found`, beside decodes of `context` tokens."""
    s = tables.seconds
    pairs = tokens * found + 0.5 * tokens * max(tokens - tables.chunk, 0)
    return s[BETA] * tokens + s[ZETA] * pairs + (s[ALPHA] + s[EPSILON] * context) * tokens / tables.chunk


@inlined
def token_seconds(tables: Tables, decodes: int, context: int) -> float:
    """Seconds of an iteration of so many decodes."""
    s = tables.seconds
    return s[SOLO] + s[DELTA] * decodes + s[EPSILON] * context


@inlined
def most_context(tables: Tables, decodes: int) -> float:
    """Context that may be on a GPU of so many decodes, tokens, lest their tokens become too slow; inf for any."""
    s = tables.seconds
    return (tables.most_seconds - s[SOLO] - s[DELTA] * decodes) / max(s[EPSILON], 1e-15)


@called
def cost(places: Places, tables: Tables, g: int, cls: int, prompt: int, found: int, wait: float) -> float:
    """What a request of `prompt` tokens, of which `g` has `found`, delays all of those there and itself, s, weighted.

    Args:
        wait: until `g` can begin with its backlog, s.
    """
    s = tables.seconds
    decodes, context, backlog = places.decodes[g], places.context[g], places.backlog[g]
    output = tables.expected_output[cls]
    reading = read_seconds(tables, prompt - found, found, context)
    waiting = wait + read_seconds(tables, backlog, 0, context)
    short = max(prompt - found + output - places.free[g], context + prompt - most_context(tables, decodes))
    if short > 0.0 and context > 0:  # of N requests one ends every D/N iterations, and leaves its context
        waiting += short / context * output * token_seconds(tables, decodes, context)
    first = waiting + reading
    itself = output * token_seconds(tables, decodes + 1, context + prompt)
    others = (decodes + tables.toll) * reading + decodes * output * (s[DELTA] + s[EPSILON] * prompt)
    return tables.worth[FIRST, cls] * first + tables.worth[NEXT, cls] * (itself + others)


@inlined
def gpu_seconds(tables: Tables, cls: int, prompt: int, found: int) -> float:
    """Seconds of a GPU that a request takes: it is read, and its decode shares iterations of a whole batch."""
    s = tables.seconds
    output = tables.expected_output[cls]
    return read_seconds(tables, prompt - found, found, 0) + output * (s[DELTA] + s[EPSILON] * prompt)


@inlined
def value(tables: Tables, cls: int, prompt: int, found: int) -> float:
    """What a second of a GPU brings that a request takes: of those who have room, the most valuable goes first."""
    return (tables.priority[cls] + LEAST_VALUE) / gpu_seconds(tables, cls, prompt, found)


@called
def show(places: Places, tables: Tables, g: int, takes: bool) -> None:
    """What lies on `g` has changed."""
    prompt = int(tables.usual_prompt)
    places.keys[g] = cost(places, tables, g, 0, prompt, 0, 0.0) if takes else np.inf
    replay(places.tree, places.keys, g)


@inlined
def best_of_the_rest(places: Places) -> int:
    """The GPU where a usual request costs least that finds nothing."""
    return winner(places.tree)


@inlined
def is_slow(places: Places, tables: Tables, g: int, prompt: int) -> bool:
    """Whether one more decode of so much context would make the tokens of `g` too slow; an empty GPU is not."""
    here = places.decodes[g]
    return here > 0 and token_seconds(tables, here + 1, places.context[g] + prompt) > tables.most_seconds


@called
def cheapest(places: Places, tables: Tables, reuse: Reuse, ready: int, cls: int, prompt: int) -> int:
    """Where a request costs least: on a GPU that has its beginning, the best of the rest, or one that is ready.

    Args:
        reuse: GPUs that have its beginning.
        ready: a GPU that could read it now, NOWHERE if there is none.

    Returns:
        The GPU; NOWHERE if none of them takes requests.
    """
    count = reuse.count[0]
    home = NOWHERE
    least = np.inf
    for k in range(count + 2):
        found = 0
        if k < count:
            g, found = reuse.gpu[k], reuse.tokens[k]
        elif k == count:
            g = best_of_the_rest(places)
        else:
            g = ready
        if g == NOWHERE or places.keys[g] == np.inf:
            continue
        seconds = cost(places, tables, g, cls, prompt, found, places.wait[g])
        if home == NOWHERE or seconds < least:
            home, least = g, seconds
    return home
