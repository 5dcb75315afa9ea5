"""Where a prompt is read that may begin like others: what it costs everybody to read and decode it on a GPU.

A request has one place or a few where its beginning is, and the best of the others. On each what is still to be read
differs, and so do who waits, whose tokens are put off while it is read and while it decodes, and how long it waits
itself. The sum of these delays, in seconds, is its cost there. A second counts the more, the more of a target has been
used up: one of a decode by the square of the share of the TPOT target that an iteration takes, one before the first
token `LATE` times more once it is `NEARLY` the TTFT target, but for those that it waits lest the tokens of others
become too slow: where that holds it holds everywhere. Who comes later is delayed by what is read now, too: a second of
reading counts as if it put off `Tables.toll` more requests; so prompts are not read again for a small gain.

Requests are asked for their place in turn. Each goes where its cost is least. If that place has no room, it waits and
has a claim there: who comes after it counts it as if it lay there, and starts on another GPU or not at all.

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

LATE = 10.0
NEARLY = 0.75

NEVER_DUE = 1e6
"""Seconds after which is due what is due at no time: those in order of arrival, after all others."""

LOOKED_AT = 16
"""Of a class so many are looked at for their homes."""


class Places(NamedTuple):
    """What lies on the GPUs, as far as it delays a request.

    Attributes:
        decodes: requests there, read or not, int64, shape (n,).
        context: tokens of them, prompts and what they have answered, int64, shape (n,).
        backlog: prompt tokens there that are to be read, int64, shape (n,).
        free: tokens of KV memory that nobody holds, int64, shape (n,).
        wait: until each can begin with its backlog, s, shape (n,); whoever asks sets it before.
        short: tokens of KV memory that each lacks for the request asked about, at most 0 where it has them, int64,
            shape (n,); whoever asks sets it before.
        keys: cost of a usual request on each, of which nothing is there, shape (n,); inf where none is taken.
        tree: the tournament over them.
        claims: of those who wait for each, and have been counted in there: requests, prompt tokens that are to be read,
            tokens of context; int64, shape (3, n).
        claimed: GPUs with claims, int64, shape (n,); `claimants`, how many they are, int64, shape (1,).
    """

    decodes: Any
    context: Any
    backlog: Any
    free: Any
    wait: Any
    short: Any
    keys: Any
    tree: Any
    claims: Any
    claimed: Any
    claimants: Any


def new_places(gpus: int) -> Places:
    """Idle GPUs."""
    return Places(
        decodes=np.zeros(gpus, np.int64),
        context=np.zeros(gpus, np.int64),
        backlog=np.zeros(gpus, np.int64),
        free=np.full(gpus, 1 << 40, np.int64),
        wait=np.zeros(gpus),
        short=np.zeros(gpus, np.int64),
        keys=np.zeros(gpus),
        tree=tournament(gpus),
        claims=np.zeros((3, gpus), np.int64),
        claimed=np.zeros(gpus, np.int64),
        claimants=np.zeros(1, np.int64),
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
def cost(places: Places, tables: Tables, g: int, cls: int, prompt: int, found: int, short: int, wait: float) -> float:
    """What a request of `prompt` tokens, of which `g` has `found`, delays all of those there and itself, s, weighted.

    Args:
        short: tokens of memory that it has to wait for, at most 0 if they are free.
        wait: until `g` can begin with its backlog, s.
    """
    s = tables.seconds
    decodes, context, backlog = places.decodes[g], places.context[g], places.backlog[g]
    output = tables.expected_output[cls]
    reading = read_seconds(tables, prompt - found, found, context)
    waiting = wait + read_seconds(tables, backlog, 0, context)
    memory = until_free(tables, decodes, context, output, short)
    late = max(waiting + memory + reading - NEARLY * tables.deadline[cls], 0.0)
    slow = until_free(tables, decodes, context, output, context + prompt - most_context(tables, decodes + 1))
    first = waiting + max(memory, slow) + reading + LATE * late
    token = token_seconds(tables, decodes + 1, context + prompt)
    itself = output * token
    put_off = decodes * used_up(tables, token) + tables.toll
    others = put_off * reading + decodes * output * (s[DELTA] + s[EPSILON] * prompt)
    return tables.worth[FIRST, cls] * first + tables.worth[NEXT, cls] * (itself + others)


@inlined
def until_free(tables: Tables, decodes: int, context: int, output: float, tokens: float) -> float:
    """Seconds until decodes have left that have so many tokens of context; 0 where none have to.

    Of N requests one ends every D/N iterations, D the mean output, and leaves all of its context, no part of it.
    """
    if tokens <= 0.0 or decodes == 0 or context == 0:
        return 0.0
    leave = min(np.ceil(tokens * decodes / context), decodes)
    return leave / decodes * output * token_seconds(tables, decodes, context)


@inlined
def used_up(tables: Tables, token: float) -> float:
    """What a second counts that is added to answers whose tokens take `token` s each, at most 1."""
    return min(1.0, token / tables.most_seconds) ** 2 if tables.most_seconds < np.inf else 1.0


@inlined
def gpu_seconds(tables: Tables, cls: int, prompt: int, found: int) -> float:
    """Seconds of a GPU that a request takes: it is read, and its decode shares iterations of a whole batch."""
    s = tables.seconds
    output = tables.expected_output[cls]
    return read_seconds(tables, prompt - found, found, 0) + output * (s[DELTA] + s[EPSILON] * prompt)


@inlined
def turn(tables: Tables, cls: int, prompt: int, found: int, arrival: float) -> float:
    """Who has more is asked first: what a second of a GPU brings that it takes; of those without an index who is due.

    Args:
        found: tokens of the prompt where most of it is.
        arrival: s.
    """
    if tables.priority[cls] > 0.0:
        return tables.priority[cls] / gpu_seconds(tables, cls, prompt, found)
    return -(arrival + min(tables.deadline[cls], NEVER_DUE))


@called
def claim(places: Places, tables: Tables, g: int, prompt: int, found: int) -> None:
    """A request waits for `g`, of whose prompt `found` tokens are there."""
    if places.claims[0, g] == 0:
        places.claimed[places.claimants[0]] = g
        places.claimants[0] += 1
    count_in(places, g, 1, prompt - found, prompt)
    show(places, tables, g, True)


@called
def drop_claims(places: Places, tables: Tables) -> None:
    """All have been asked: what lies on the GPUs is again what is there."""
    for k in range(places.claimants[0]):
        g = places.claimed[k]
        count_in(places, g, -places.claims[0, g], -places.claims[1, g], -places.claims[2, g])
        show(places, tables, g, True)
    places.claimants[0] = 0


@inlined
def count_in(places: Places, g: int, requests: int, unread: int, context: int) -> None:
    places.claims[0, g] += requests
    places.claims[1, g] += unread
    places.claims[2, g] += context
    places.decodes[g] += requests
    places.backlog[g] += unread
    places.context[g] += context


@called
def show(places: Places, tables: Tables, g: int, takes: bool) -> None:
    """What lies on `g` has changed."""
    prompt = int(tables.usual_prompt)
    short = prompt + int(tables.expected_output[0]) - places.free[g]
    places.keys[g] = cost(places, tables, g, 0, prompt, 0, short, 0.0) if takes else np.inf
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
        seconds = cost(places, tables, g, cls, prompt, found, places.short[g], places.wait[g])
        if home == NOWHERE or seconds < least:
            home, least = g, seconds
    return home
