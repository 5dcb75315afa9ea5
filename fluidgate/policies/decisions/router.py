"""The router: where does a decode go, and who takes a slot that is free?"""

from fluidgate.compiled import inlined
from fluidgate.policies.decisions.apart import refill_apart, route_apart
from fluidgate.policies.decisions.tables import RefillRule, RouteRule, Tables
from fluidgate.policies.decisions.view import HOLD, MIXED, SOLO, STAY, WAIT, View

SOLO_FIRST = int(RouteRule.SOLO_FIRST)
SPLIT = int(RouteRule.SPLIT)
POOL = int(RouteRule.POOL)
APART = int(RouteRule.APART)
STAY_RULE = int(RouteRule.STAY)
REFILL_FCFS = int(RefillRule.FCFS)


@inlined
def route(view: View, tables: Tables, cls: int, draw: float) -> int:
    """Where the decode of class `cls` goes whose prefill just ended: MIXED, SOLO, STAY or WAIT + buffer.

    `draw` is uniform on [0, 1), for policies that randomise.
    """
    if tables.route_rule == STAY_RULE:
        return STAY
    if tables.route_rule == SOLO_FIRST:
        if view.free[SOLO] > 0:
            return SOLO
        return MIXED if view.free[MIXED] > 0 else WAIT
    if tables.route_rule == APART:
        return route_apart(view, tables, cls)
    if tables.route_rule == POOL:
        return MIXED
    if tables.route_rule == SPLIT:
        side = SOLO if draw < tables.solo_probability[cls] else MIXED
        return side if view.free[side] > 0 else WAIT + side
    return WAIT


@inlined
def refill(view: View, tables: Tables, group: int, draw: float) -> int:
    """The class whose oldest buffered request takes a free decode slot of `group`, or HOLD.

    Asked while the group has a free slot and its buffer is not empty. `draw` is uniform on [0, 1).
    """
    if group == MIXED and tables.ready > 0 and takes_the_last(view, tables):
        return HOLD
    if tables.route_rule == APART:
        return refill_apart(view, tables, group)
    buffer = group if tables.split_buffers else 0
    if tables.refill_rule == REFILL_FCFS:
        return oldest(view, buffer)
    return drawn_by_weight(view, tables, buffer, group, draw)


@inlined
def takes_the_last(view: View, tables: Tables) -> bool:
    """Whether a decode would leave fewer than `ready` GPUs that could start a prefill: it goes beside one where there
    is room, and a GPU with two free slots can still start one."""
    return view.beside[0] == 0 and view.startable[0] <= tables.ready and view.room[0] < 2


@inlined
def oldest(view: View, buffer: int) -> int:
    """The class whose head of line has waited longest in `buffer`, or HOLD."""
    best = HOLD
    for i in range(view.buffered.shape[1]):
        if view.buffered[buffer, i] > 0 and (
            best == HOLD or view.buffered_since[buffer, i] < view.buffered_since[buffer, best]
        ):
            best = i
    return best


@inlined
def drawn_by_weight(view: View, tables: Tables, buffer: int, group: int, draw: float) -> int:
    """A class drawn by weight among those that wait, [LDHZ] Proposition 13.5; FCFS if all weigh nothing."""
    total = 0.0
    for i in range(view.buffered.shape[1]):
        if view.buffered[buffer, i] > 0:
            total += tables.weights[group, i]
    if total <= 0.0:
        return oldest(view, buffer)
    rest = draw * total
    chosen = HOLD
    for i in range(view.buffered.shape[1]):
        if view.buffered[buffer, i] > 0 and tables.weights[group, i] > 0.0:
            chosen = i
            rest -= tables.weights[group, i]
            if rest < 0.0:
                break
    return chosen
