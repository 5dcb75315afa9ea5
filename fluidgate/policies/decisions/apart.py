"""Decodes kept apart by class: in the mixed group those of classes that have too many on solo GPUs, elsewhere the rest.

A plan holds a limit on the gap of solo decodes by letting some classes decode beside prefills. So do APART tables: the
cluster is partitioned, and the virtual queue of that limit says which group a decode goes to.
"""

from __future__ import annotations

from fluidgate.compiled import called, inlined
from fluidgate.policies.decisions.limits import REST, exceeds
from fluidgate.policies.decisions.tables import SOLO_GAP, Tables
from fluidgate.policies.decisions.view import HOLD, MIXED, SOLO, WAIT, View


@inlined
def route_apart(view: View, tables: Tables, cls: int) -> int:
    """Solo first; a class that goes beside prefills, mixed first above its rest, and mixed only above its grace."""
    beside = tables.beside[cls] and view.excess[SOLO_GAP, cls] > REST * tables.grace[SOLO_GAP, cls]
    if view.free[SOLO] > 0 and not beside:
        return SOLO
    if view.free[MIXED] > 0:
        return MIXED
    return SOLO if view.free[SOLO] > 0 and not stays_beside(view, tables, cls) else WAIT


@inlined
def refill_apart(view: View, tables: Tables, group: int) -> int:
    """The class whose oldest waiting decode has waited longest, of those that may go to `group`, or HOLD."""
    best = HOLD
    for i in range(view.buffered.shape[1]):
        if view.buffered[0, i] == 0 or (group == SOLO and stays_beside(view, tables, i)):
            continue
        if best == HOLD or view.buffered_since[0, i] < view.buffered_since[0, best]:
            best = i
    return best


@inlined
def stays_beside(view: View, tables: Tables, cls: int) -> bool:
    """Whether decodes of the class may only go to the mixed group."""
    return tables.beside[cls] and view.excess[SOLO_GAP, cls] > tables.grace[SOLO_GAP, cls]


@called
def must_wait(view: View, tables: Tables, cls: int) -> bool:
    """Whether class `cls` may start nothing now, for a limit or for want of decode slots."""
    return lacks_room(view, tables) or waits_beside(view, tables, cls) or exceeds(view, tables, cls)


@inlined
def waits_beside(view: View, tables: Tables, cls: int) -> bool:
    """Whether so many decodes of the class wait for a slot beside a prefill that one more is not wanted."""
    return tables.beside[cls] and view.buffered[0, cls] > tables.most_buffered


@inlined
def lacks_room(view: View, tables: Tables) -> bool:
    """Whether too few decode slots are free for the prefills under way, so that one more would wait after it."""
    if tables.room < 0.0:
        return False
    taken = view.mixed_decodes.sum() + view.solo_decodes.sum() + view.buffered.sum() + tables.mixed_gpus
    return view.gpus * view.batch_size - taken <= tables.room * view.prefilling.sum()
