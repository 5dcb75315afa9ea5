"""The program of the batch that runs, written a second time from its rows, for scipy: R* alone, in single prefills or
under a token budget, for linear laws and for tables.
"""

import math

import numpy as np
from scipy.optimize import linprog


def law_nodes(iteration, batch_size, largest_chunk):
    """(chunk, decodes, seconds at no context) of the iterations that any batch is a mean of."""
    if iteration.table is None:
        corners = [(c, b) for c in (0.0, float(largest_chunk)) for b in (0.0, batch_size - 1.0)]
        mixed = [(c, b, iteration.alpha + iteration.beta * c + iteration.delta * b) for c, b in corners]
        alpha = iteration.alpha if iteration.solo_alpha is None else iteration.solo_alpha
        delta = iteration.delta if iteration.solo_delta is None else iteration.solo_delta
        return mixed, [(0.0, b, alpha + delta * b) for b in (1.0, float(batch_size))]
    table = iteration.table
    least = table.batch_sizes[0]

    def at(c, b):
        return table.at(c, b) - iteration.epsilon * table.context * max(b, least)

    chunks = sorted({1, largest_chunk, *(c for c in table.chunk_sizes if 1 <= c <= largest_chunk)})
    beside = sorted({0, batch_size - 1, *(b for b in table.batch_sizes if b < batch_size)})
    alone = sorted({1, batch_size, *(b for b in table.batch_sizes if b < batch_size)})
    return [(c, b, at(c, b)) for c in chunks for b in beside], [(0.0, b, at(0, b)) for b in alone]


def geometric_chunks(mean, size):
    """`E ceil(X/size)` by adding up the tail."""
    stay, total, k = 1.0 - 1.0 / mean, 0.0, 0
    while stay ** (k * size) > 1e-16:
        total += stay ** (k * size)
        k += 1
    return total


def best_revenue(scenario, *, budget=None):
    """R* of a scenario of fixed or exponential lengths without indicators; under a token budget if one is given."""
    gpu, pricing, exponential = scenario.gpu, scenario.pricing, scenario.lengths.output == "exponential"
    size = budget or gpu.chunk_size
    mixed, solo = law_nodes(gpu.iteration, gpu.batch_size, size)
    classes, memory = scenario.classes, scenario.engine.kv_tokens
    count, kinds = len(classes), len(mixed) + len(solo)
    # p, l, d_m, d_s of each class, then the iterations.
    columns = 4 * count + kinds
    revenue, rows, equal = np.zeros(columns), [], []

    def row():
        rows.append(np.zeros(columns))
        return rows[-1]

    time, beside, alone, chunks, tokens = (row() for _ in range(5))
    kv_mixed, kv_solo, kv_wait = (row() for _ in range(3)) if memory else (np.zeros(columns),) * 3
    fit = row() if budget else np.zeros(columns)
    for i, c in enumerate(classes):
        p, lost, dm, ds = i, count + i, 2 * count + i, 3 * count + i
        prompt, output = c.prompt_tokens, c.output_tokens
        steps = output - 1.0 if budget else output
        written = output - 1.0 if exponential else (steps - 1.0) / 2.0
        pieces = geometric_chunks(prompt, size) if exponential else math.ceil(prompt / size)
        balance = np.zeros(columns)
        balance[[p, lost, dm, ds]] = steps, -steps, -1.0, -1.0
        equal.append(balance)
        read, end = pricing.prompt * prompt, pricing.output * output
        if pricing.scheme == "bundled":
            read, end = 0.0, read + end
        revenue[p], revenue[lost] = read + end, -end
        time[[dm, ds]] = gpu.iteration.epsilon * (prompt + written)
        beside[dm], alone[ds], tokens[p] = 1.0, 1.0, prompt
        if budget:
            chunks[p], chunks[dm] = prompt, 1.0
            fit[p], fit[dm] = pieces, 1.0
        else:
            chunks[p] = pieces
        if memory:
            kv_mixed[dm], kv_solo[ds] = prompt + written, prompt + written
            kv_wait[lost] = prompt / c.patience_rate
            reading = prompt * pieces
            if exponential:
                stay = (1.0 - 1.0 / prompt) ** size
                reading = prompt / (1.0 - stay) + size * stay / (1.0 - stay) ** 2
            kv_mixed[p] = reading
    for k, (chunk, decodes, seconds) in enumerate([*mixed, *solo]):
        u = 4 * count + k
        time[u] = seconds
        if k < len(mixed):
            beside[u], tokens[u] = -decodes, -chunk
            chunks[u] = -float(budget or 1)
            kv_mixed[u], fit[u] = -float(memory or 0), -float(gpu.batch_size)
        else:
            alone[u], kv_solo[u] = -decodes, -float(memory or 0)
    right = np.zeros(len(rows))
    right[0] = 1.0
    if memory:
        right[7] = memory
    bounds = [(0.0, c.arrival_rate) for c in classes] + [(0.0, None)] * (columns - count)
    scale = 1.0 / np.maximum(np.abs(np.array(rows)).max(axis=1), 1e-300)
    found = linprog(
        -revenue,
        A_ub=np.array(rows) * scale[:, None],
        b_ub=right * scale,
        A_eq=np.array(equal),
        b_eq=np.zeros(count),
        bounds=bounds,
        method="highs",
    )
    assert found.status == 0, found.message
    return -found.fun
