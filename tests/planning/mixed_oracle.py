"""The cheapest fleet of several GPU types found by trying every one, the rows of the program written a second time.

For linear laws, fixed lengths, single prefills, with and without an end of the memory.
"""

import math
from itertools import product

import numpy as np
from scipy.optimize import linprog


def type_rows(scenario, engines):
    """Rows and right sides of one type: p, d_m, d_s of each class, then mixed and solo iterations/s."""
    gpu, law, classes, memory = scenario.gpu, scenario.gpu.iteration, scenario.classes, scenario.engine.kv_tokens
    count = len(classes)
    rows, right, equal = np.zeros((6, 3 * count + 2)), np.zeros(6), np.zeros((count + 1, 3 * count + 2))
    time, beside, alone, mixed_kv, solo_kv = rows[:5]
    right[0] = engines
    for i, each in enumerate(classes):
        p, dm, ds = i, count + i, 2 * count + i
        prompt, context = each.prompt_tokens, each.prompt_tokens + (each.output_tokens - 1.0) / 2.0
        pieces = math.ceil(prompt / gpu.chunk_size)
        time[p], time[dm] = law.beta * prompt, law.delta + law.epsilon * context
        time[ds] = law.solo_delta + law.epsilon * context
        beside[dm] = alone[ds] = 1.0
        if memory:
            mixed_kv[dm] = solo_kv[ds] = context
            mixed_kv[p] = prompt * pieces
        equal[i, [p, dm, ds]] = each.output_tokens, -1.0, -1.0
        equal[count, p] = pieces
    time[-2:] = law.alpha, law.solo_alpha
    beside[-2], alone[-1] = -(gpu.batch_size - 1.0), -float(gpu.batch_size)
    mixed_kv[-2] = solo_kv[-1] = -float(memory or 0)
    equal[count, -2] = -1.0
    return rows, right, equal


def carries(scenarios, engines, serves):
    """Whether so many engines of each type serve all that arrives; rates are those of the whole cluster."""
    count = len(scenarios[0].classes)
    width = 3 * count + 2
    rows, right, equal, bounds = [], [], [], []
    total = np.zeros((count, width * len(scenarios)))
    for kind, (scenario, there) in enumerate(zip(scenarios, engines, strict=True)):
        own, sides, same = type_rows(scenario, there)
        before, after = np.zeros((6, width * kind)), np.zeros((6, width * (len(scenarios) - kind - 1)))
        rows.append(np.hstack([before, own, after]))
        equal.append(np.hstack([before[: count + 1, :], same, after[: count + 1, :]]))
        right.append(sides)
        total[np.arange(count), width * kind + np.arange(count)] = 1.0
        bounds += [(0.0, None if serves[kind][i] else 0.0) for i in range(count)] + [(0.0, None)] * (width - count)
    arrival = np.array([c.arrival_rate for c in scenarios[0].classes])
    equal.append(total)
    sides = np.zeros(sum(map(len, equal)))
    sides[-count:] = arrival
    scale = 1.0 / np.maximum(np.abs(np.vstack(rows)).max(axis=1), 1e-300)
    found = linprog(
        np.zeros(width * len(scenarios)),
        A_ub=np.vstack(rows) * scale[:, None],
        b_ub=np.concatenate(right) * scale,
        A_eq=np.vstack(equal),
        b_eq=sides,
        bounds=bounds,
        method="highs",
    )
    return found.status == 0


def least_cost(scenarios, prices, serves, most, spare=0):
    """Of all fleets of at most `most` engines a type, one of which of any type may be gone; inf where none will do."""
    fleets = sorted(product(*(range(n + 1) for n in most)), key=lambda each: float(np.dot(each, prices)))
    for each in fleets:
        lefts = (
            [each]
            if not spare
            else [tuple(np.subtract(each, np.arange(len(each)) == kind)) for kind in np.flatnonzero(each)]
        )
        if lefts and all(carries(scenarios, left, serves) for left in lefts):
            return float(np.dot(each, prices))
    return math.inf
