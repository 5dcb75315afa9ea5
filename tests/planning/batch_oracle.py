"""The program of the batch that runs, written a second time from its rows, for scipy: R* alone, in single prefills or
under a token budget, for linear laws and for tables.
"""

import math

import numpy as np
from scipy.optimize import linprog


def law_nodes(iteration, batch_size, largest_chunk, longest):
    """(chunk, decodes, seconds, context, pairs read before) of the iterations that any batch is a mean of.

    Context and pairs are 0 where a token of them costs the same in all; the seconds are then at none of them.
    """
    if iteration.table is None:
        corners = [(c, b) for c in (0.0, float(largest_chunk)) for b in (0.0, batch_size - 1.0)]
        mixed = [(c, b, iteration.alpha + iteration.beta * c + iteration.delta * b, 0.0, 0.0) for c, b in corners]
        alpha = iteration.alpha if iteration.solo_alpha is None else iteration.solo_alpha
        delta = iteration.delta if iteration.solo_delta is None else iteration.solo_delta
        return mixed, [(0.0, b, alpha + delta * b, 0.0, 0.0) for b in (1.0, float(batch_size))]
    table = iteration.table

    def reaching(nodes, far):
        return sorted({0.0, *nodes, max(far, nodes[-1])}) if len(nodes) > 1 else [0.0]

    alone_sizes, alone_contexts = table.solo_axes
    chunks = sorted({1, largest_chunk, *(c for c in table.chunk_sizes if 1 <= c <= largest_chunk)})
    beside = sorted({0, batch_size - 1, *(b for b in table.batch_sizes if b < batch_size)})
    alone = sorted({1, batch_size, *(b for b in alone_sizes if 1 <= b < batch_size)})
    mixed = [
        (c, b, iteration.mixed(c, b, b * k, c * r), b * k, c * r)
        for c in chunks
        for b in beside
        for k in reaching(table.contexts, longest[0])
        for r in reaching(table.read_before, longest[1])
    ]
    return mixed, [
        (0.0, b, iteration.solo(b, b * k), b * k, 0.0) for b in alone for k in reaching(alone_contexts, longest[0])
    ]


def geometric_chunks(mean, size):
    """`E ceil(X/size)` by adding up the tail."""
    stay, total, k = 1.0 - 1.0 / mean, 0.0, 0
    while stay ** (k * size) > 1e-16:
        total += stay ** (k * size)
        k += 1
    return total


def pairs_read_before(mean, size, exponential):
    """Pairs of a token of a prompt and one in a chunk before its own, token by token."""
    if not exponential:
        return sum(size * (token // size) for token in range(round(mean)))
    stay = 1.0 - 1.0 / mean
    return sum(size * (token // size) * stay**token for token in range(round(60 * mean)))


def pairs_with_found(mean, hit, exponential):
    """Pairs of a token that is read and one that was found, prompt by prompt."""
    if not exponential:
        return hit * mean * (1.0 - hit) * mean
    lengths = np.arange(1, round(60 * mean))
    chance = (1.0 - 1.0 / mean) ** (lengths - 1) / mean
    return float((chance * (hit * lengths) * ((1.0 - hit) * lengths)).sum())


def _written(output, budget, exponential):
    """Tokens that a decode iteration finds written."""
    steps = output - 1.0 if budget else output
    return output - 1.0 if exponential else (steps - 1.0) / 2.0


def best_revenue(scenario, *, budget=None):
    """R* of a scenario of fixed or exponential lengths without indicators; under a token budget if one is given."""
    gpu, pricing, exponential = scenario.gpu, scenario.pricing, scenario.lengths.output == "exponential"
    size = budget or gpu.chunk_size
    classes, memory = scenario.classes, scenario.engine.kv_tokens
    contexts = [c.prompt_tokens + _written(c.output_tokens, budget, exponential) for c in classes]
    longest = 20.0 * max(contexts), 20.0 * max(c.prompt_tokens for c in classes)
    mixed, solo = law_nodes(gpu.iteration, gpu.batch_size, size, longest)
    count, kinds = len(classes), len(mixed) + len(solo)
    # p, l, d_m, d_s of each class, the iterations, and those of both kinds that a class has a request in.
    columns = 4 * count + kinds + 2 * count
    with_class = [4 * count + kinds + np.arange(count), 5 * count + kinds + np.arange(count)]
    revenue, rows, equal = np.zeros(columns), [], []

    def row():
        rows.append(np.zeros(columns))
        return rows[-1]

    time, beside, alone, chunks, tokens = (row() for _ in range(5))
    context_mixed, context_solo, read_before = np.zeros(columns), np.zeros(columns), np.zeros(columns)
    wide, slopes, pair = (False, False, False), (gpu.iteration.epsilon, gpu.iteration.epsilon), gpu.iteration.zeta
    if (table := gpu.iteration.table) is not None:
        wide = (len(table.contexts) > 1, len(table.solo_axes[1]) > 1, len(table.read_before) > 1)
        slopes, pair = gpu.iteration.context_slopes, gpu.iteration.read_slope
    elif gpu.iteration.solo_epsilon is not None:
        slopes = (slopes[0], gpu.iteration.solo_epsilon)
    kv_mixed, kv_solo, kv_wait = (row() for _ in range(3)) if memory else (np.zeros(columns),) * 3
    fit = row() if budget else np.zeros(columns)
    for i, c in enumerate(classes):
        p, lost, dm, ds = i, count + i, 2 * count + i, 3 * count + i
        prompt, output = c.prompt_tokens, c.output_tokens
        steps = output - 1.0 if budget else output
        written = _written(output, budget, exponential)
        hit = c.prefix_hit_rate or 0.0 if scenario.engine.prefix_caching else 0.0
        fresh = (1.0 - hit) * prompt
        pieces = geometric_chunks(fresh, size) if exponential else math.ceil(fresh / size)
        balance = np.zeros(columns)
        balance[[p, lost, dm, ds]] = steps, -steps, -1.0, -1.0
        equal.append(balance)
        read, end = pricing.prompt * prompt, pricing.output * output
        if pricing.scheme == "bundled":
            read, end = 0.0, read + end
        revenue[p], revenue[lost] = read + end, -end
        time[dm], time[ds] = slopes[0] * (prompt + written), slopes[1] * (prompt + written)
        context_mixed[dm] = context_solo[ds] = prompt + written
        read_before[p] = pairs_read_before(fresh, size, exponential) + pairs_with_found(prompt, hit, exponential)
        time[p] = pair * read_before[p]
        beside[dm], alone[ds], tokens[p] = 1.0, 1.0, fresh
        if budget:
            chunks[p], chunks[dm] = fresh, 1.0
            fit[p], fit[dm] = pieces, 1.0
        else:
            chunks[p] = pieces
        if memory:
            block = scenario.engine.kv_block
            shared = c.prefix_tokens // block * block if scenario.engine.prefix_caching else 0
            kv_mixed[dm] = kv_solo[ds] = prompt + written - shared
            kv_mixed[with_class[0][i]] = kv_solo[with_class[1][i]] = shared
            kv_wait[lost] = (prompt - shared) / c.patience_rate
            reading = prompt * pieces
            if exponential:
                stay = (1.0 - 1.0 / fresh) ** size
                reading = (fresh / (1.0 - stay) + size * stay / (1.0 - stay) ** 2) / (1.0 - hit)
            kv_mixed[p] = reading - shared * pieces
            for tokens_of, takes_part in ((dm, with_class[0][i]), (ds, with_class[1][i])):
                part = row()
                part[tokens_of], part[takes_part] = 1.0, -float(gpu.batch_size)
                part[p] = pieces if tokens_of == dm else 0.0
    for k, (chunk, decodes, seconds, context, pairs) in enumerate([*mixed, *solo]):
        u = 4 * count + k
        time[u], (context_mixed if k < len(mixed) else context_solo)[u], read_before[u] = seconds, -context, -pairs
        if k < len(mixed):
            beside[u], tokens[u] = -decodes, -chunk
            chunks[u] = -float(budget or 1)
            kv_mixed[u], fit[u] = -float(memory or 0), -float(gpu.batch_size)
        else:
            alone[u], kv_solo[u] = -decodes, -float(memory or 0)
    if memory:
        for with_it, there in zip(with_class, (slice(None, len(mixed)), slice(len(mixed), None)), strict=True):
            all_of_them = row()
            all_of_them[4 * count : 4 * count + kinds][there] = 1.0
            all_of_them[with_it] = -1.0
    rows += [each for each, there in zip((context_mixed, context_solo, read_before), wide, strict=True) if there]
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
