"""Limits on indicators, held by virtual queues: by how much each is exceeded so far, and who must wait for that.

The excess over a limit grows with time by what the indicator lies above it and shrinks by what it lies below, not under
0. A class starts nothing while an excess of its own is larger than the grace of that limit. Whoever keeps the counts of
a board lets time pass here before changing them: between two changes every rate is constant, so the sum is exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fluidgate.compiled import called, inlined
from fluidgate.policies.decisions.tables import EXCESSES, LIMITS, PREFILL_GAP, SHARE, SLOTS, SOLO_GAP, TPOT, Tables
from fluidgate.policies.decisions.view import (
    BUSY,
    DECODES,
    LATE_TOKENS,
    MIXED,
    MIXED_BUSY,
    SLOT_SECONDS,
    SOLO,
    TOKENS,
    View,
)

ROUNDING = 1e-12  # of a rest: as near as that an excess is there
REST = 0.5  # of the grace: what a gap must reach before its limit counts
MOST_SHARE = 100.0  # s by which a class may be behind another
HARD = 4.0  # times the grace: what a solo gap must reach before it blocks a class that may decode beside prefills
OVER = 1.0 + 1e-6  # times the grace: from there on an excess blocks, so that rounding never does


@inlined
def pass_time(view: View, tables: Tables, now: float) -> None:
    """It is `now`, s, and since the view's last epoch nothing has changed."""
    if tables.limited:
        add_excess(view, tables, now - view.now[0])
    view.now[0] = now


@inlined
def blocked(view: View, tables: Tables, cls: int) -> bool:
    """Whether class `cls` may start nothing now, for a limit that is exceeded."""
    return tables.limited and exceeds(view, tables, cls)


@inlined
def next_release(view: View, tables: Tables) -> float:
    """The epoch, s, at which a class that waits may start again if nothing happens before; inf if none."""
    return view.now[0] + seconds_to_release(view, tables) if tables.limited else np.inf


@called
def add_excess(view: View, tables: Tables, seconds: float) -> None:
    if seconds <= 0.0:
        return
    if tables.limit[PREFILL_GAP] < np.inf:
        pass_gap(
            view.excess[PREFILL_GAP], view.prefilling, tables.limit[PREFILL_GAP], tables.grace[PREFILL_GAP], seconds
        )
    if tables.limit[SOLO_GAP] < np.inf:
        pass_gap(view.excess[SOLO_GAP], view.solo_decodes, tables.limit[SOLO_GAP], tables.grace[SOLO_GAP], seconds)
    for limit in range(SLOTS, LIMITS):
        if tables.limit[limit] < np.inf:
            more = rate_of_all(view, tables, limit) * seconds
            if limit == TPOT and not np.isnan(view.pace[SLOT_SECONDS]):
                more -= tables.limit[TPOT] * view.pace[LATE_TOKENS]
                view.pace[LATE_TOKENS] = 0.0
            after = max(view.excess[limit, 0] + more, 0.0)
            for i in range(view.waiting.size):
                view.excess[limit, i] = after
    pass_shares(view.excess[SHARE], view.prefilling, tables.target_prefill, seconds)


@inlined
def pass_shares(share: Any, prefilling: Any, target: Any, seconds: float) -> None:
    """Each class has had its prefills, in the time that the plan takes for them; the least served has no excess."""
    least = np.inf
    for i in range(share.size):
        share[i] += prefilling[i] / target[i] * seconds if target[i] > 0.0 else MOST_SHARE
        least = min(least, share[i])
    for i in range(share.size):
        share[i] = min(share[i] - least, MOST_SHARE)


@called
def has_had_less(view: View, i: int, j: int) -> bool:
    """Whether class `i` is further behind its part of the plan's prefills than class `j`."""
    if view.excess[SHARE, i] != view.excess[SHARE, j]:
        return view.excess[SHARE, i] < view.excess[SHARE, j]
    return view.waiting_since[i] < view.waiting_since[j]


@inlined
def pass_gap(excess: Any, members: Any, limit: float, grace: Any, seconds: float) -> None:
    """Each class gains what it has more than the least served one; above its rest it loses the limit.

    So the least served class has no excess, no two classes wait for each other, and over a long time the means of no
    two differ by more than the limit. Below the rest nothing is lost: who is least served is a matter of means.
    """
    while seconds > 0.0:
        least = least_served(excess, members)
        step = seconds  # until an excess reaches 0 or its rest
        for i in range(excess.size):
            rate = gap_rate(excess[i], members[i] - least, limit, REST * grace[i])
            if rate < 0.0:
                step = min(step, (excess[i] - (REST * grace[i] if excess[i] > REST * grace[i] else 0.0)) / -rate)
            elif rate > 0.0 and excess[i] < REST * grace[i]:
                step = min(step, (REST * grace[i] - excess[i]) / rate)
        for i in range(excess.size):
            rest = REST * grace[i]
            after = excess[i] + gap_rate(excess[i], members[i] - least, limit, rest) * step
            if abs(after - rest) <= ROUNDING * rest:
                after = rest
            excess[i] = after if after > ROUNDING * rest else 0.0
        seconds -= step


@inlined
def gap_rate(excess: float, more: float, limit: float, rest: float) -> float:
    """How fast an excess changes of a class with `more` members than the least served."""
    if excess > rest or (excess == rest and more > limit):
        return more - limit
    return 0.0 if excess == rest and more > 0.0 else more


@inlined
def least_served(excess: Any, members: Any) -> float:
    """The least members of a class without excess; there always is one."""
    least = np.inf
    for i in range(excess.size):
        if excess[i] == 0.0:
            least = min(least, members[i])
    return least


@inlined
def rate_of_all(view: View, tables: Tables, limit: int) -> float:
    """How fast an excess changes that is that of all classes: in slots, or in decodes."""
    if limit == SLOTS:
        return slots_above(view, tables)
    return decodes_above(view, tables)


@called
def sound(view: View, now: float) -> bool:
    """Whether the virtual queues are what they can be at epoch `now`, s: for audits."""
    if view.now[0] != now:
        return False
    for row in range(EXCESSES):
        least = np.inf
        for i in range(view.waiting.size):
            if not (0.0 <= view.excess[row, i] < np.inf):
                return False
            least = min(least, view.excess[row, i])
            if row >= SLOTS and row < LIMITS and view.excess[row, i] != view.excess[row, 0]:
                return False
        if (row < SLOTS or row == SHARE) and least > 0.0:
            return False
    return True


@inlined
def slots_above(view: View, tables: Tables) -> float:
    """The time per token of every slot, idle GPUs as solo ones, over the limit, less the slots: (47) over the whole."""
    size, solo = view.batch_size, tables.token_seconds[SOLO, 0]
    if np.isnan(view.pace[SLOT_SECONDS]):
        mixed = float(view.prefilling.sum())
        seconds = tables.token_seconds[MIXED, 0] * (size - 1) * mixed + solo * size * (view.gpus - mixed)
    else:
        mixed = view.pace[MIXED_BUSY]
        seconds = view.pace[SLOT_SECONDS] + solo * size * (view.gpus - view.pace[BUSY])
    return seconds / tables.limit[SLOTS] - (size * view.gpus - mixed)


@inlined
def decodes_above(view: View, tables: Tables) -> float:
    """Decodes less those that would gain the same tokens at the limit."""
    if np.isnan(view.pace[SLOT_SECONDS]):
        decodes = view.mixed_decodes.sum() + view.solo_decodes.sum()
        return decodes - tables.limit[TPOT] * token_rate(view, tables)
    return view.pace[DECODES] - tables.limit[TPOT] * view.pace[TOKENS]


@inlined
def token_rate(view: View, tables: Tables) -> float:
    """Output tokens/s of the whole cluster, were all GPUs of a mode alike."""
    mixed_gpus, mixed, solo = view.prefilling.sum(), view.mixed_decodes.sum(), view.solo_decodes.sum()
    rate = 0.0
    if mixed > 0:
        beside = mixed / max(mixed_gpus, 1)
        rate += mixed / (tables.token_seconds[MIXED, 0] + tables.token_seconds[MIXED, 1] * beside)
    if solo > 0:
        batch = solo / max(view.gpus - mixed_gpus, 1)
        rate += solo / (tables.token_seconds[SOLO, 0] + tables.token_seconds[SOLO, 1] * batch)
    return rate


@called
def exceeds(view: View, tables: Tables, cls: int) -> bool:
    for limit in range(LIMITS):
        if view.excess[limit, cls] > OVER * threshold(view, tables, limit, cls) and waiting_helps(view, tables, limit):
            return True
    return False


@inlined
def threshold(view: View, tables: Tables, limit: int, cls: int) -> float:
    """The excess above which a class may not start."""
    grace = tables.grace[limit, cls]
    return HARD * grace if limit == SOLO_GAP and tables.beside[cls] and view.beside[0] > 0 else grace


@inlined
def waiting_helps(view: View, tables: Tables, limit: int) -> bool:
    """Whether an excess falls if nobody starts: at the latest once all are gone, or not even then."""
    decodes = view.mixed_decodes.sum() + view.solo_decodes.sum()
    if limit == TPOT:  # without decodes there is no time per token
        return decodes > 0
    idle = tables.token_seconds[SOLO, 0] if limit == SLOTS else 0.0
    return tables.limit[limit] > idle or view.prefilling.sum() + decodes > 0


@called
def seconds_to_release(view: View, tables: Tables) -> float:
    soonest = np.inf
    if view.startable[0] == 0:
        return soonest
    for i in range(view.waiting.size):
        if view.waiting[i] > 0:
            latest = 0.0
            for limit in range(LIMITS):
                most = threshold(view, tables, limit, i)
                if view.excess[limit, i] > OVER * most and waiting_helps(view, tables, limit):
                    rate = rate_of(view, tables, limit, i)
                    latest = max(latest, (view.excess[limit, i] - most) / -rate if rate < 0.0 else np.inf)
            if latest > 0.0:
                soonest = min(soonest, latest)
    return soonest


@inlined
def rate_of(view: View, tables: Tables, limit: int, cls: int) -> float:
    """How fast an excess of a class changes that is above its grace."""
    if limit == PREFILL_GAP:
        return view.prefilling[cls] - least_served(view.excess[limit], view.prefilling) - tables.limit[limit]
    if limit == SOLO_GAP:
        return view.solo_decodes[cls] - least_served(view.excess[limit], view.solo_decodes) - tables.limit[limit]
    return rate_of_all(view, tables, limit)
