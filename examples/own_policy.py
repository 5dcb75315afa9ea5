"""A policy of one's own: the output that pays best first, the rest while decode slots are left."""

import math

from fluidgate import Plan, Scenario, compare, find_policy
from fluidgate.policies import Tables, tables_of
from fluidgate.policies.view import HOLD


def tabulate(plan: Plan, gpus: int) -> Tables:
    """The tables of gate-and-route, with the price of a class per output token as its priority."""
    output = [c.output_tokens for c in plan.scenario.classes]
    return tables_of(plan, gpus)._replace(priority=plan.scenario.rates.bundled_value / output)


def gate(view, tables):
    """The class whose oldest waiting request starts its prefill now, or HOLD."""
    best, dearest = HOLD, 0
    for i in range(view.waiting.size):
        if tables.priority[i] > tables.priority[dearest]:
            dearest = i
        if view.waiting[i] > 0 and (best == HOLD or tables.priority[i] > tables.priority[best]):
            best = i
    slots = view.gpus * view.batch_size - tables.mixed_gpus
    decodes = view.mixed_decodes.sum() + view.solo_decodes.sum() + view.buffered.sum()
    if best != dearest and view.prefilling.sum() + decodes + 2.0 * math.sqrt(view.gpus) >= slots:
        return HOLD  # what is in flight will fill the decode slots: keep them for the dearest class
    return best


MINE = find_policy("gate-and-route").with_functions("mine", gate=gate, tabulate=tabulate)

if __name__ == "__main__":
    scenario = Scenario.load("examples/two-class.toml")
    result = compare(scenario, ["gate-and-route", MINE], gpus=20, horizon=1000, replications=3)
    for each in result.policies:
        print(f"{each.policy:15} {each.optimality_ratio.mean:.3f} of R*")
