"""The gate: which class may start a prefill now?"""

import numpy as np

from fluidgate.compiled import inlined
from fluidgate.policies.decisions.apart import must_wait
from fluidgate.policies.decisions.limits import has_had_less
from fluidgate.policies.decisions.tables import SAME, GateRule, Tables
from fluidgate.policies.decisions.view import HOLD, View

OCCUPANCY = int(GateRule.OCCUPANCY)
FCFS = int(GateRule.FCFS)
VALUE = int(GateRule.VALUE)

TIE = 1e-12  # levels closer than this, relatively, are equal


@inlined
def gate(view: View, tables: Tables) -> int:
    """The class whose oldest waiting request starts its prefill now, or HOLD.

    Asked while some GPU could start a prefill and some class waits.
    """
    if view.prefilling.sum() >= tables.max_prefills:
        return HOLD
    best = HOLD
    free = free_slots(view)
    for i in range(view.waiting.size):
        if view.waiting[i] == 0 or view.prefilling[i] >= tables.cap[i] or free <= tables.hold[i]:
            continue
        if tables.limited and must_wait(view, tables, i):
            continue
        if best == HOLD or precedes(view, tables, i, best):
            best = i
    return best


@inlined
def free_slots(view: View) -> int:
    """Slots of the whole cluster that no request holds."""
    return view.gpus * view.batch_size - view.prefilling.sum() - view.mixed_decodes.sum() - view.solo_decodes.sum()


@inlined
def precedes(view: View, tables: Tables, i: int, j: int) -> bool:
    """Whether class `i` starts before class `j` under the policy's gate rule."""
    if tables.gate_rule == OCCUPANCY:
        return less_occupied(view, tables, i, j)
    if tables.gate_rule == FCFS:
        return view.waiting_since[i] < view.waiting_since[j]
    if tables.gate_rule == VALUE and tables.priority[i] <= 0.0 and tables.priority[j] <= 0.0:
        return due_earlier(view, tables, i, j)
    if tables.gate_rule == VALUE and abs(tables.priority[i] - tables.priority[j]) <= SAME * tables.priority[j]:
        if tables.limited:
            return has_had_less(view, i, j)
        return less_occupied(view, tables, i, j)
    return tables.priority[i] > tables.priority[j]


@inlined
def due_earlier(view: View, tables: Tables, i: int, j: int) -> bool:
    """Whether the oldest of class `i` is due before that of class `j`, or has waited longer where neither is due."""
    due_i, due_j = view.waiting_since[i] + tables.deadline[i], view.waiting_since[j] + tables.deadline[j]
    return due_i < due_j if due_i != due_j else view.waiting_since[i] < view.waiting_since[j]


@inlined
def less_occupied(view: View, tables: Tables, i: int, j: int) -> bool:
    """Whether class `i` deviates less from its target than class `j`: the gate of [LDHZ] section 4.

    Compares `X/x*` (the order of the deviation `(X - n x*)/x*`), then `Q_p - n q_p*`, larger first. A class without
    a target comes after all that have one.
    """
    level_i, level_j = occupancy_level(view, tables, i), occupancy_level(view, tables, j)
    if level_i < level_j * (1.0 - TIE):
        return True
    if level_i > level_j * (1.0 + TIE):
        return False
    return view.waiting[i] - tables.target_queue[i] > view.waiting[j] - tables.target_queue[j]


@inlined
def occupancy_level(view: View, tables: Tables, i: int) -> float:
    if tables.target_prefill[i] <= 0.0:
        return np.inf
    return view.prefilling[i] / tables.target_prefill[i]
