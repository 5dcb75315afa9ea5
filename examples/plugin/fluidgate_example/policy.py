"""A policy: of those who wait, the class whose output pays best starts first."""

from fluidgate import Plan, find_policy
from fluidgate.policies import Tables, tables_of
from fluidgate.policies.view import HOLD, View


def tabulate(plan: Plan, gpus: int) -> Tables:
    """Those of gate-and-route, and the price of an output token as priority."""
    price = plan.scenario.rates.bundled_value / [c.output_tokens for c in plan.scenario.classes]
    return tables_of(plan, gpus)._replace(priority=price)


def gate(view: View, tables: Tables) -> int:
    """The class whose oldest waiting request starts its prefill now, or HOLD."""
    best = HOLD
    for i in range(view.waiting.size):
        if view.waiting[i] > 0 and (best == HOLD or tables.priority[i] > tables.priority[best]):
            best = i
    return best


DEAREST_FIRST = find_policy("gate-and-route").with_functions(
    "dearest-first", gate=gate, tabulate=tabulate, summary="the output that pays best first"
)
