"""What the kernel writes down: counts, histograms of times, the request log."""

from __future__ import annotations

import numpy as np

from fluidgate.compiled import called, inlined
from fluidgate.policies.decisions import stages
from fluidgate.policies.decisions.board import NOWHERE
from fluidgate.simulation import events
from fluidgate.simulation.iteration.kernel.cluster import (
    ALIVE,
    BINS,
    COMPLETED,
    FIRST_BIN,
    FREE_SLOT,
    FRESH,
    IN_WINDOW,
    KV_PEAK,
    KV_TIME,
    LOGGED,
    MIXED_TIME,
    NEXT_SAMPLE,
    NOW,
    OUTPUT_SERVED,
    PREFILL_TIME,
    PROMPT_ADMITTED,
    PROMPT_FOUND,
    PROMPT_SERVED,
    RUNNING,
    SAMPLES_TAKEN,
    SEGMENTS,
    SHIFT,
    SOLO_TIME,
    Cluster,
)
from fluidgate.simulation.iteration.kernel.prefixes import disown
from fluidgate.simulation.iteration.kernel.users import go_on
from fluidgate.simulation.iteration.law import ended_by, span
from fluidgate.simulation.iteration.times import GAP, LATENCY, STALL, TPOT, TTFT


@inlined
def bin_of(seconds: float) -> int:
    """The histogram bin of a time: the leading bits of its binary representation."""
    if seconds <= 0.0:
        return 0
    leading = int(np.float64(seconds).view(np.int64)) >> SHIFT
    return min(max(leading - FIRST_BIN + 1, 0), BINS - 1)


@inlined
def bin_end(k: int) -> float:
    """The least time beyond bin `k`."""
    return np.int64((k + FIRST_BIN) << SHIFT).view(np.float64)


@inlined
def observe(cluster: Cluster, quantity: int, cls: int, seconds: float, epoch: float) -> None:
    """A time that became known at `epoch`."""
    if epoch >= cluster.set.warmup and epoch <= cluster.set.horizon:
        cluster.histogram[quantity, cls, bin_of(seconds)] += 1
        cluster.seconds[quantity, cls] += seconds


@inlined
def take_back(cluster: Cluster, quantity: int, cls: int, seconds: float, epoch: float) -> None:
    """A time that was to become known at `epoch` never will."""
    if epoch >= cluster.set.warmup and epoch <= cluster.set.horizon:
        cluster.histogram[quantity, cls, bin_of(seconds)] -= 1
        cluster.seconds[quantity, cls] -= seconds


@inlined
def note_found(cluster: Cluster, slot: int, tokens: int, is_first: bool) -> None:
    """A request that is given memory for its prompt, for the first time or again, found `tokens` tokens of it there."""
    request = cluster.live[slot]
    if is_first:
        cluster.tokens[PROMPT_ADMITTED, request.cls] += request.prompt
        cluster.tokens[PROMPT_FOUND, request.cls] += tokens


@inlined
def count(cluster: Cluster, stage: int, cls: int, change: int) -> None:
    """`change` more members of (stage, class) from now on."""
    cluster.counts[stage, cls] += change
    cluster.area[stage, cls] -= change * max(cluster.clock[NOW] - cluster.set.warmup, 0.0)


@inlined
def move_clock(cluster: Cluster, epoch: float) -> bool:
    """Move to `epoch`, taking the samples and opening the window on the way; False if the horizon comes first."""
    end = min(epoch, cluster.set.horizon)
    if end == np.inf:
        return False
    while cluster.clock[NEXT_SAMPLE] <= end and cluster.tally[SAMPLES_TAKEN] < len(cluster.samples):
        take_sample(cluster)
    if cluster.tally[IN_WINDOW] == 0 and end >= cluster.set.warmup:
        open_window(cluster)
    cluster.clock[NOW] = end
    return epoch <= cluster.set.horizon


@called
def take_sample(cluster: Cluster) -> None:
    taken = cluster.tally[SAMPLES_TAKEN]
    for stage in range(stages.STAGES):
        for i in range(cluster.counts.shape[1]):
            cluster.samples[taken, stage, i] = cluster.counts[stage, i]
    cluster.tally[SAMPLES_TAKEN] = taken + 1
    cluster.clock[NEXT_SAMPLE] = (taken + 1) * cluster.set.sample_interval


@called
def open_window(cluster: Cluster) -> None:
    cluster.tally[IN_WINDOW] = 1
    for i in range(cluster.counts.shape[1]):
        for row in range(cluster.events.shape[0]):
            cluster.events_before[row, i] = cluster.events[row, i]
        for row in range(cluster.tokens.shape[0]):
            cluster.tokens_before[row, i] = cluster.tokens[row, i]


@inlined
def record_segment(cluster: Cluster, g: int, iterations: int) -> None:
    """Write down the first `iterations` iterations of the segment of `g`: time, memory and the gaps between tokens."""
    here = cluster.gpu[g]
    if len(cluster.segments) > 0 and iterations > 0:
        log_segment(cluster, g, iterations)
    warmup = cluster.set.warmup
    end = here.origin + span(here.first, here.step, iterations)
    if end <= warmup or iterations == 0:
        return
    decodes = here.batch
    skipped = 0
    if here.start < warmup:
        skipped = ended_by(here.origin, here.first, here.step, warmup)
    since = max(here.start, warmup)
    mode = PREFILL_TIME
    if decodes > 0:
        mode = MIXED_TIME if here.chunk > 0 else SOLO_TIME
    cluster.mode_seconds[mode] += end - since
    held = float(here.context + here.held)
    if held > cluster.tops[KV_PEAK]:
        cluster.tops[KV_PEAK] = held
    cluster.mode_seconds[KV_TIME] += held * (end - since)
    if decodes == 0:
        return
    rise = 0.0  # sum over the iterations of (tokens grown * seconds)
    kept = iterations - skipped
    if kept > 1 or skipped > 0:
        top, low = iterations - 1.0, float(skipped)
        ones = 0.5 * (top * (top + 1.0) - (low - 1.0) * low)
        squares = (top * (top + 1.0) * (2.0 * top + 1.0) - (low - 1.0) * low * (2.0 * low - 1.0)) / 6.0
        rise = decodes * (here.first * ones + here.step * squares)
    if skipped > 0:  # the part of an iteration before the warm-up's end
        rise -= decodes * skipped * (warmup - here.origin - span(here.first, here.step, skipped))
    cluster.mode_seconds[KV_TIME] += rise

    stalled = here.chunk > 0
    if skipped == 0:
        gap = here.origin + here.first - here.last_token
        late = stalled or here.last_token < here.start
        at = bin_of(gap)
        for i in range(cluster.counts.shape[1]):
            weight = cluster.batch[g, RUNNING, i] - cluster.batch[g, FRESH, i]
            if weight > 0:
                cluster.histogram[GAP, i, at] += weight
                cluster.seconds[GAP, i] += weight * gap
                if late:
                    cluster.histogram[STALL, i, at] += weight
                    cluster.seconds[STALL, i] += weight * gap
        skipped = 1
    if iterations > skipped:
        record_gaps(cluster, g, skipped, iterations, stalled)


@called
def log_segment(cluster: Cluster, g: int, iterations: int) -> None:
    here, row = cluster.gpu[g], cluster.segments[cluster.tally[SEGMENTS]]
    cluster.tally[SEGMENTS] += 1
    row.origin = here.origin
    row.first = here.first
    row.step = here.step
    row.context = here.context if here.batch > 0 else 0
    row.read = here.read
    row.held = here.context + here.held
    row.gpu = g
    row.iterations = iterations
    row.chunk = here.chunk
    row.decodes = here.batch
    row.blocks = cluster.set.kv_blocks - here.blocks


@inlined
def record_gaps(cluster, g, first, last, stalled):
    """The gaps of iterations `first` to `last - 1` of a segment, which grow by its step, bin by bin."""
    here = cluster.gpu[g]
    total = span(here.first, here.step, last) - span(here.first, here.step, first)
    for i in range(cluster.counts.shape[1]):
        weight = cluster.batch[g, RUNNING, i]
        if weight > 0:
            cluster.seconds[GAP, i] += weight * total
            if stalled:
                cluster.seconds[STALL, i] += weight * total
    least, step = here.first, here.step
    if step < 0.0:  # beyond the nodes of a table: from the last to the first
        least += step * (last - 1 + first)
        step = -step
    k = first
    while k < last:
        at = bin_of(least + step * k)
        after = last
        if step > 0.0 and bin_of(least + step * (last - 1)) > at:
            after = min(max(int(np.ceil((bin_end(at) - least) / step)), k + 1), last)
        for i in range(cluster.counts.shape[1]):
            weight = cluster.batch[g, RUNNING, i]
            if weight > 0:
                cluster.histogram[GAP, i, at] += weight * (after - k)
                if stalled:
                    cluster.histogram[STALL, i, at] += weight * (after - k)
        k = after


@inlined
def time_to_first(cluster: Cluster, slot: int) -> float:
    """TTFT of a request, as its client sees it, s."""
    request = cluster.live[slot]
    return request.first + cluster.set.keys.front_end_first - request.sent


@inlined
def record_completion(cluster: Cluster, slot: int) -> None:
    """The last token of a request has come."""
    request = cluster.live[slot]
    now = cluster.clock[NOW]
    cls = request.cls
    cluster.events[events.DECODE_END, cls] += 1
    cluster.tokens[PROMPT_SERVED, cls] += request.prompt
    cluster.tokens[OUTPUT_SERVED, cls] += request.output
    observe(cluster, LATENCY, cls, now + cluster.set.keys.front_end_first - request.sent, now)
    tpot = 0.0
    if request.output > 1:
        tpot = (now - request.first) / (request.output - 1)
        observe(cluster, TPOT, cls, tpot, now)
    if time_to_first(cluster, slot) <= cluster.targets[TTFT, cls] and tpot <= cluster.targets[TPOT, cls]:
        cluster.events[events.GOOD, cls] += 1
    retire(cluster, slot, COMPLETED)


@inlined
def retire(cluster: Cluster, slot: int, outcome: int) -> None:
    """A request leaves the cluster: its row goes into the log, if there is one, and becomes free."""
    request = cluster.live[slot]
    if len(cluster.log) > 0:
        row = cluster.log[cluster.tally[LOGGED]]
        cluster.tally[LOGGED] += 1
        row.number = request.number
        row.arrival = request.sent
        row.scheduled = request.scheduled
        row.first_token = request.first + cluster.set.keys.front_end_first
        row.last_token = cluster.clock[NOW] + (cluster.set.keys.front_end_first if outcome == COMPLETED else 0.0)
        row.cls = request.cls
        row.prompt = request.prompt
        row.output = request.output
        row.prefill_gpu = request.prefill_gpu
        row.decode_gpu = request.gpu
        row.preemptions = request.preemptions
        row.outcome = outcome
        row.user = request.user
    if cluster.set.caching:
        disown(cluster, slot)
    if len(cluster.users) > 0:
        go_on(cluster, slot, outcome)
    request.stage = NOWHERE
    request.next = cluster.tally[FREE_SLOT]
    cluster.tally[FREE_SLOT] = slot
    cluster.tally[ALIVE] -= 1


@called
def close_segments(cluster: Cluster) -> None:
    """Write down what the segments under way have done by the end of the run."""
    now = cluster.clock[NOW]
    for g in range(cluster.gpus):
        here = cluster.gpu[g]
        if here.busy == 0 or now <= here.start:
            continue
        record_part(cluster, g)
        here.busy = 0


@inlined
def record_part(cluster: Cluster, g: int) -> int:
    """Write down what the segment under way on `g` has done by now; its iterations that are over."""
    here = cluster.gpu[g]
    now = cluster.clock[NOW]
    k = min(ended_by(here.origin, here.first, here.step, now), here.length)
    record_segment(cluster, g, k)
    begun = max(here.origin + span(here.first, here.step, k) if k > 0 else here.start, cluster.set.warmup)
    mode = PREFILL_TIME
    if here.batch > 0:
        mode = MIXED_TIME if here.chunk > 0 else SOLO_TIME
    rest = max(now - begun, 0.0)
    cluster.mode_seconds[mode] += rest
    cluster.mode_seconds[KV_TIME] += rest * (here.context + here.held + here.batch * k)
    return k
