"""What the program of the batch that runs reads of a scenario, for one way of batching."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fluidgate.batching import DISCIPLINES, Batching, Discipline
from fluidgate.model import Array, Indicators, Scenario, Scheme
from fluidgate.planning.batches.iterations import Iterations, iterations_by_batch, iterations_of
from fluidgate.planning.batches.reused import Reading, Reused, read_of
from fluidgate.planning.lengths import lengths_of


@dataclass(frozen=True, eq=False)
class BatchInstance:
    """A scenario in requests, tokens and iterations per second and GPU; arrays of shape (classes,).

    Attributes:
        scenario: per GPU.
        scheme: of the objective.
        indicators: imposed.
        batching: how the batch of an iteration is formed.
        decode_buffer: whether `q_d > 0` is allowed.
        chunks_end: whether there are no more mixed iterations than chunks.
        tokens: of an iteration: the chunk C, or the budget.
        memory: KV tokens of a GPU, inf for no limit.
        arrival: lambda, requests/s.
        patience: theta, 1/s.
        prompt: P, tokens.
        reading: tokens of a prompt that are read: what is not found in memory.
        decodes: decode iterations of a request, S: D, or D - 1 where the first token comes with the last chunk.
        context: tokens that a decode iteration finds in its request, L.
        held: the same, at most the memory, of tokens that are not shared: what its request takes of the room.
        shared: tokens of a request that others of its class have too, and a GPU holds once.
        least_chunks: mixed iterations that a prompt is part of, at least.
        most_chunks: mixed iterations that there are for a prompt, at most.
        held_reading: tokens times iterations that a prompt holds while it is read, H.
        read_pairs: pairs of a token of a prompt and one that was found or read in a chunk before it, at least.
        capped_prompt: the mean of what is read of a prompt, at most `tokens` of each.
        prompt_value, output_value: c_p P and c_d D, money.
    """

    scenario: Scenario
    scheme: Scheme
    indicators: Indicators
    batching: Batching
    decode_buffer: bool
    chunks_end: bool
    tokens: int
    memory: float
    arrival: Array
    patience: Array
    prompt: Array
    reading: Array
    decodes: Array
    context: Array
    held: Array
    shared: Array
    least_chunks: Array
    most_chunks: Array
    held_reading: Array
    read_pairs: Array
    capped_prompt: Array
    prompt_value: Array
    output_value: Array

    @staticmethod
    def of(
        scenario: Scenario, scheme: Scheme, indicators: Indicators, batching: Batching, allow_decode_buffer: bool
    ) -> BatchInstance:
        """The instance of a scenario; each hard limit comes with `q_d = 0`.

        Raises:
            FluidgateError: a trace of empirical lengths is wrong.
        """
        known, gpu, engine = DISCIPLINES[batching], scenario.gpu, scenario.engine
        tokens = engine.max_batched_tokens
        if tokens is None or known.by_policy:
            tokens = known.default_tokens(gpu.batch_size, gpu.chunk_size)
        memory = math.inf if engine.kv_tokens is None else float(engine.kv_tokens // engine.kv_block * engine.kv_block)
        sizes = lengths_of(scenario)
        read = [read_of(each, float(h)) for each, h in zip(sizes, scenario.hit_rates, strict=True)]
        skipped = 0 if known.by_policy else 1
        prompt = np.array([each.prompt for each in sizes])
        output = np.array([each.output for each in sizes])
        shared = np.minimum(scenario.shared_tokens, prompt)
        once = (shared - shared.min()) / gpu.batch_size
        least, most = _chunks(scenario, read, known, batching, tokens)
        return BatchInstance(
            scenario=scenario,
            scheme=scheme,
            indicators=indicators,
            batching=batching,
            decode_buffer=allow_decode_buffer and not indicators.any_limit,
            chunks_end=not gpu.iteration.by_batch,
            tokens=tokens,
            memory=memory,
            arrival=np.array([c.arrival_rate for c in scenario.classes]),
            patience=np.array([c.patience_rate for c in scenario.classes]),
            prompt=prompt,
            reading=np.array([each.prompt for each in read]),
            decodes=np.maximum(output - skipped, 0.0),
            context=np.array([each.context(skipped) for each in sizes]),
            held=np.maximum(np.array([each.context_within(skipped, memory) for each in sizes]) - shared, 0.0) + once,
            shared=shared,
            least_chunks=least,
            most_chunks=most,
            held_reading=np.maximum(
                np.minimum(_held_reading(prompt, read, batching, tokens), least * memory) - least * shared, 0.0
            )
            + least * once,
            read_pairs=_read_pairs(read, batching, tokens),
            capped_prompt=np.array([each.capped(tokens) for each in read]),
            prompt_value=scenario.pricing.prompt * prompt,
            output_value=scenario.pricing.output * output,
        )

    @property
    def classes(self) -> int:
        return len(self.arrival)

    @property
    def discipline(self) -> Discipline:
        return DISCIPLINES[self.batching]

    @property
    def batch_size(self) -> int:
        return self.scenario.gpu.batch_size

    @property
    def room(self) -> float:
        """KV tokens of a GPU for what is not shared; inf for no limit.

        Of `v` iterations per second with requests of a class among them, each holds its shared tokens once: `v` is at
        least that class's tokens, and chunks, over B, and over all classes `v` is at least the iterations. So shared
        tokens take, of any policy, at least those of the class that has the least, in each iteration, and of the
        others what exceeds that, spread over B (in `held` and `held_reading`). For one class that is exact.
        """
        return max(self.memory - float(self.shared.min()), 1.0)

    @property
    def own_prompt(self) -> Array:
        """Tokens of a prompt that are not shared, shape (classes,)."""
        return self.prompt - self.shared

    @property
    def waits_for_ever(self) -> NDArray[np.bool_]:
        """Classes with `theta = 0`, which cannot be shed."""
        return np.equal(self.patience, 0.0)

    @property
    def mixed_is_faster(self) -> bool:
        """Whether the law has mixed iterations, but for their prompt tokens, that are faster than solo ones.

        No engine has; laws that are fitted may, and tables that are noisy.
        """
        kinds = self.iterations()
        sizes = np.union1d(kinds.mixed.decodes, 1.0)
        token = 1.0 if kinds.by_node else 0.0
        mixed = np.array([kinds.mixed_seconds(token, b, 0.0) for b in sizes])
        solo = np.array([kinds.solo_seconds(b, 0.0) for b in sizes])
        return bool((mixed < solo * (1.0 - 1e-9)).any())

    @property
    def earned_reading(self) -> Array:
        """Money for a prompt read, (23)."""
        return self.prompt_value if self.scheme == "separate" else np.zeros(self.classes)

    @property
    def earned_ending(self) -> Array:
        """Money for a request completed, (22) or (23)."""
        return self.output_value if self.scheme == "separate" else self.prompt_value + self.output_value

    @property
    def largest_chunk(self) -> float:
        """Prompt tokens of an iteration at most; whole prompts may exceed the budget."""
        if self.batching == Batching.PREFILL_FIRST:
            return max(float(self.tokens), 20.0 * float(self.prompt.max()))
        return float(self.tokens)

    def with_more_hits(self, step: float) -> BatchInstance:
        """The instance of hit rates that are higher by `step` of what they lack to 1."""
        classes = tuple(
            c.model_copy(update={"prefix_hit_rate": c.found_share + step * (1.0 - c.found_share)})
            for c in self.scenario.classes
        )
        scenario = self.scenario.replace(classes=classes)
        more = BatchInstance.of(scenario, self.scheme, self.indicators, self.batching, self.decode_buffer)
        return replace(more, chunks_end=self.chunks_end)

    def iterations(self, grid: Array | None = None, chunk: float | None = None) -> Iterations:
        """The kinds of iterations; with a `grid`, by the number of decodes, mixed ones with a `chunk` of one size."""
        gpu = self.scenario.gpu
        if grid is None:
            return iterations_of(gpu, self.largest_chunk, self.longest)
        return iterations_by_batch(gpu, self.largest_chunk if chunk is None else chunk, grid, *self.mean_reach)

    @property
    def longest(self) -> tuple[float, float]:
        """Context of a decode, and tokens of a prompt read before a chunk, that hardly any iteration exceeds."""
        return 20.0 * float(self.context.max()), 20.0 * float(self.prompt.max())

    @property
    def mean_reach(self) -> tuple[float, float]:
        """Mean context of a decode, and mean tokens of its prompt that a token finds read, over all that arrives."""
        decodes = self.arrival * np.maximum(self.decodes, 1e-9)
        return float(decodes @ self.context / decodes.sum()), float(
            self.arrival @ self.read_pairs / (self.arrival @ self.reading)
        )


def _held_reading(prompt: Array, read: Sequence[Reading], batching: Batching, tokens: int) -> Array:
    """Tokens times iterations that a prompt holds at least: all of it in each of its chunks."""
    if batching == Batching.PREFILL_FIRST:
        return prompt
    return np.array([each.held_reading(tokens) for each in read])


def _read_pairs(read: Sequence[Reading], batching: Batching, tokens: int) -> Array:
    if batching == Batching.PREFILL_FIRST:
        return np.array([each.found_pairs if isinstance(each, Reused) else 0.0 for each in read])
    return np.array([each.read_pairs(tokens) for each in read])


def _chunks(
    scenario: Scenario, read: Sequence[Reading], known: Discipline, batching: Batching, tokens: int
) -> tuple[Array, Array]:
    """Mixed iterations that a prompt is part of at least, and that there are for it at most.

    Under [LDHZ]'s own law every chunk is full, so that a prompt is `P/C` of them, and one at least.
    """
    if known.by_policy:
        if scenario.gpu.iteration.by_batch:
            each = np.array([r.chunks(tokens) for r in read])
        else:
            each = np.maximum(np.array([r.prompt for r in read]) / tokens, 1.0)
        return each, each
    if batching == Batching.PREFILL_FIRST:
        return np.ones(len(read)), np.ones(len(read))
    left = max(1, tokens - scenario.gpu.batch_size + 1)
    return np.array([r.chunks(tokens) for r in read]), np.array([r.chunks(left) for r in read])
