"""What runs on a GPU where a plan's flows run: iterations, their batches, memory, and the rates that follow."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fluidgate.model import Array, Rates
from fluidgate.planning.batches.instance import BatchInstance
from fluidgate.planning.batches.iterations import Iterations
from fluidgate.planning.operating_point import OperatingPoint

_STEPS = 200
"""Halvings of a bisection."""

_SAME = 1e-13


@dataclass(frozen=True, eq=False)
class Flows:
    """Requests and tokens per second and GPU, class by class, shape (classes,).

    Attributes:
        fed: p, requests/s prefilled.
        lost: l, requests/s that leave the decode buffer.
        mixed, solo: d_m, d_s, decode tokens/s.
    """

    fed: Array
    lost: Array
    mixed: Array
    solo: Array


@dataclass(frozen=True, eq=False)
class Running:
    """An operating point with what plans read off it.

    Attributes:
        point: for who looks at it.
        mixed_share: of the time in mixed iterations, X.
        mixed_seconds, solo_seconds: of an iteration, s; of one that would run where there are none.
        mixed_decodes, solo_decodes: in the batch of one.
        mixed_context, solo_context: context of each of these decodes, tokens.
        chunk: prompt tokens of a mixed iteration.
        prefill_seconds: that a prefill takes, s, shape (classes,).
    """

    point: OperatingPoint
    mixed_share: float
    mixed_seconds: float
    solo_seconds: float
    mixed_decodes: float
    solo_decodes: float
    mixed_context: float
    solo_context: float
    chunk: float
    prefill_seconds: Array

    def request_seconds(self, instance: BatchInstance) -> Array:
        """Seconds of a GPU that one request more takes where this runs, shape (classes,): of its chunks, and what each
        of its decode tokens adds to an iteration that runs anyway.
        """
        kinds, decodes, context = instance.iterations(), self.solo_decodes, self.solo_context
        now = kinds.solo_seconds(decodes, decodes * context)
        more = [kinds.solo_seconds(decodes + 1.0, decodes * context + own) - now for own in instance.context]
        return np.asarray(self.prefill_seconds + instance.decodes * np.array(more))

    def rates(self, instance: BatchInstance) -> Rates:
        """Service rates, (4), where this runs."""
        decodes = np.maximum(instance.decodes, 1e-9)
        return Rates(
            arrival=instance.arrival,
            patience=instance.patience,
            prefill=1.0 / self.prefill_seconds,
            mixed_decode=1.0 / (decodes * self.mixed_seconds),
            solo_decode=1.0 / (decodes * self.solo_seconds),
            prompt_value=instance.prompt_value,
            output_value=instance.output_value,
        )


def running(instance: BatchInstance, flows: Flows) -> Running:
    """The operating point of some flows that obey the program's rows.

    Of the mixed iterations there are as many as the prompts have chunks: under a token budget, as many as there is time
    for. Solo iterations take the rest of the time, with as many decodes as bring the flow: one at least, so that a GPU
    may idle. Where the flows need more time than there is (a table is not convex), all iterations are faster in
    proportion, so that what runs obeys Little's law.
    """
    kinds = instance.iterations()
    mixed, solo = float(flows.mixed.sum()), float(flows.solo.sum())
    mixed_context = _mean(instance.context, flows.mixed, instance)
    solo_context = _mean(instance.context, flows.solo, instance)
    most = _most_decodes(instance, _mean(instance.held, flows.solo, instance))
    prompts, pairs = float(instance.reading @ flows.fed), float(instance.read_pairs @ flows.fed)

    def solo_time(decodes: float) -> float:
        return kinds.solo_seconds(decodes, decodes * solo_context)

    def mixed_time(iterations: float) -> float:
        beside = mixed / iterations
        return iterations * kinds.mixed_seconds(
            prompts / iterations, beside, beside * mixed_context, pairs / iterations
        )

    left = 1.0 - solo / most * solo_time(most)
    mixed_rate = _mixed_iterations(instance, flows, lambda rate: mixed_time(rate) <= left)
    share = mixed_time(mixed_rate) if mixed_rate > 0.0 else 0.0
    if solo > 0.0:
        decodes = _solo_decodes(solo, max(1.0 - share, 0.0), most, solo_time)
    else:
        decodes = min(most, max(1.0, mixed / mixed_rate if mixed_rate > 0.0 else 1.0))
    solo_rate, solo_seconds = solo / decodes, solo_time(decodes)
    beside = mixed / mixed_rate if mixed_rate > 0.0 else min(decodes, instance.batch_size - 1.0)
    chunk = prompts / mixed_rate if mixed_rate > 0.0 else _mean_chunk(instance)
    read = pairs / mixed_rate if mixed_rate > 0.0 else chunk * instance.mean_reach[1]
    mixed_seconds = kinds.mixed_seconds(chunk, beside, beside * mixed_context, read)
    flow, rate = mixed + solo, mixed_rate + solo_rate
    over = share + solo_rate * solo_seconds
    busy = min(over, 1.0)
    if over > 1.0:
        share, mixed_seconds, solo_seconds = share / over, mixed_seconds / over, solo_seconds / over
    held = _held(instance, flows, mixed_seconds, solo_seconds, share, mixed_rate, busy)
    point = OperatingPoint(
        mixed_iteration=mixed_seconds if mixed_rate > 0.0 else None,
        solo_iteration=solo_seconds if solo > 0.0 else None,
        iteration_rate=rate,
        decodes=flow / rate if rate > 0.0 else 0.0,
        kv_tokens=held,
        kv_share=held / instance.memory if math.isfinite(instance.memory) else None,
        busy=busy,
        tpot=(mixed * mixed_seconds + solo * solo_seconds) / flow if flow > 0.0 else solo_time(1.0),
        pooled_tpot=_pooled_tpot(instance, flows, kinds, most),
    )
    return Running(
        point=point,
        mixed_share=share,
        mixed_seconds=mixed_seconds,
        solo_seconds=solo_seconds,
        mixed_decodes=beside,
        solo_decodes=decodes,
        mixed_context=mixed_context,
        solo_context=solo_context,
        chunk=chunk,
        prefill_seconds=_prefill_seconds(instance, flows, kinds, beside, mixed_context, share),
    )


def _pooled_tpot(instance: BatchInstance, flows: Flows, kinds: Iterations, most: float) -> float:
    """Seconds per output token where every GPU has its share of prefills and decodes: the least fixed point of

    `t = (1 - m) solo(b) + m mixed(b)`, `m` the share of iterations with a chunk, `t` times the chunks that a second
    brings, `b = t` times its tokens, and one more, for a decode meets the others beside itself.
    """
    tokens, chunks = float(flows.mixed.sum() + flows.solo.sum()), float(instance.least_chunks @ flows.fed)
    context = _mean(instance.context, flows.mixed + flows.solo, instance)
    chunk = float(instance.reading @ flows.fed) / chunks if chunks > 0.0 else 0.0
    read = float(instance.read_pairs @ flows.fed) / chunks if chunks > 0.0 else 0.0
    seconds = kinds.solo_seconds(1.0, context)
    for _ in range(_STEPS):
        decodes = min(1.0 + seconds * tokens, most)
        mixed = min(1.0, seconds * chunks)
        beside = min(decodes, instance.batch_size - 1.0)
        fresh = (1.0 - mixed) * kinds.solo_seconds(decodes, decodes * context)
        fresh += mixed * kinds.mixed_seconds(chunk, beside, beside * context, read)
        if abs(fresh - seconds) <= _SAME * seconds:
            break
        seconds = fresh
    return seconds


def _mean(values: Array, weights: Array, instance: BatchInstance) -> float:
    """Over the tokens of some flows, or of all arrivals where they are none."""
    if weights.sum() <= 0.0:
        weights = instance.arrival * np.maximum(instance.decodes, 1e-9)
    return float(values @ weights / weights.sum())


def _mean_chunk(instance: BatchInstance) -> float:
    """Prompt tokens of a chunk of those who arrive."""
    return float(instance.reading @ instance.arrival / (instance.least_chunks @ instance.arrival))


def _most_decodes(instance: BatchInstance, held: float) -> float:
    """Decodes that a batch without a prefill has at most: B, or as many as the memory holds."""
    return max(1.0, min(float(instance.batch_size), instance.room / held if held > 0.0 else math.inf))


def _mixed_iterations(instance: BatchInstance, flows: Flows, fits: Callable[[float], bool]) -> float:
    """Mixed iterations/s."""
    most = float(instance.most_chunks @ flows.fed)
    if instance.least_chunks is instance.most_chunks or most <= 0.0:
        return most
    mixed, prompts = float(flows.mixed.sum()), float(instance.reading @ flows.fed)
    beside = max(instance.batch_size - 1.0, 1.0)
    least = max(
        (prompts + mixed) / instance.tokens,
        mixed / beside,
        (mixed + float(instance.least_chunks @ flows.fed)) / instance.batch_size,
        float(instance.held @ flows.mixed + instance.held_reading @ flows.fed) / instance.room,
        1e-12 * most,
    )
    if fits(most) or least >= most:
        return most
    low, high = least, most
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if fits(middle) else (low, middle)
        if high - low <= _SAME * high:
            break
    return low


def _solo_decodes(flow: float, time: float, most: float, seconds: Callable[[float], float]) -> float:
    """Decodes of a batch whose iterations, in `time` of each second, bring `flow` tokens."""
    if flow * seconds(1.0) <= time:
        return 1.0
    if flow * seconds(most) >= most * time:
        return most
    high = 2.0
    while high < most and flow * seconds(high) > high * time:
        high *= 2.0
    low = high / 2.0
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if flow * seconds(middle) > middle * time else (low, middle)
        if high - low <= _SAME * high:
            break
    return min(high, most)


def _held(
    instance: BatchInstance,
    flows: Flows,
    mixed_seconds: float,
    solo_seconds: float,
    share: float,
    mixed_rate: float,
    busy: float,
) -> float:
    """KV tokens, averaged over time: of decodes, of prompts under way, of those who wait for decode."""
    decodes = float(instance.held @ flows.mixed) * mixed_seconds + float(instance.held @ flows.solo) * solo_seconds
    reading = float(instance.held_reading @ flows.fed) * (share / mixed_rate if mixed_rate > 0.0 else 0.0)
    waits = instance.patience > 0.0
    waiting = float((flows.lost[waits] * instance.own_prompt[waits] / instance.patience[waits]).sum())
    return min(decodes + reading + waiting + busy * float(instance.shared.min()), instance.memory)


def _prefill_seconds(
    instance: BatchInstance, flows: Flows, kinds: Iterations, beside: float, context: float, share: float
) -> Array:
    """Seconds that a prefill takes: its chunks, each in an iteration with its own mean chunk."""
    chunks = instance.least_chunks
    each = chunks * [
        kinds.mixed_seconds(p / k, beside, beside * context, read / k)
        for p, k, read in zip(instance.reading, chunks, instance.read_pairs, strict=True)
    ]
    busy = float(flows.fed @ each)
    if instance.discipline.by_policy and busy > 0.0 and share > 0.0:
        each = each * (share / busy)
    return np.maximum(each, 1e-300)
