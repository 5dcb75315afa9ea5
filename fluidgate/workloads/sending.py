"""When the requests of sessions are sent, if every answer takes as long as its tokens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluidgate.model import Array
from fluidgate.workloads.streams.requests import NOTHING, Requests
from fluidgate.workloads.streams.script import Script

Numbers = NDArray[np.int64]


def in_order_of_sending(first: Requests, script: Script, token_seconds: float) -> tuple[Requests, Numbers]:
    """All requests of a run, those of further turns too, in the order in which they are sent; `arrival` says when.

    With it goes the number of each one's session, sub-agents' being part of what sets them off; shape (requests,).

    Args:
        first: those that come by themselves, with their arrivals.
        script: what they refer to.
        token_seconds: from one token of an answer to the next; waiting and prompts take no time.
    """
    found, of = [first[:0]], [np.empty(0, np.int64)]
    now, sent, session = first, first["arrival"].copy(), np.arange(len(first))
    while len(now) > 0:
        stamped = now.copy()
        stamped["arrival"] = sent
        found.append(stamped)
        of.append(session)
        rows, sent, by = _brought(now, sent, script.rows, token_seconds)
        now, session = script.rows[rows], session[by]
    whole = np.concatenate(found)
    order = np.argsort(whole["arrival"], kind="stable")
    return whole[order], np.concatenate(of)[order]


def _brought(now: Requests, sent: Array, rows: Requests, token_seconds: float) -> tuple[Numbers, Array, Numbers]:
    """The rows that requests bring, when, and which of the requests: the next turn, and sub-agents that it sets off."""
    by = np.flatnonzero(now["then"] != NOTHING)
    ended = sent + now["output"] * token_seconds + now["think"]
    which, times, whose = [now["then"][by].astype(np.int64)], [ended[by]], [by]
    row, by = now["spawns"].astype(np.int64), np.arange(len(now))
    while (there := row != NOTHING).any():
        row, by = row[there], by[there]
        which.append(row)
        times.append(sent[by] + rows["arrival"][row])
        whose.append(by)
        row = rows["beside"][row].astype(np.int64)
    return np.concatenate(which), np.concatenate(times), np.concatenate(whose)
