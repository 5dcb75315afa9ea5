"""What a reader of a plan should know."""

from __future__ import annotations

from collections.abc import Iterator

from fluidgate.model import Gpu, Scenario
from fluidgate.planning.partition import Partition
from fluidgate.planning.per_gpu_rates import looks_like_a_total
from fluidgate.planning.wording import listed

_FULL = 0.9

_FILLED = 0.5
"""Share of a chunk that a prompt fills at least for the chunk to pass as full."""

AGED = "2025"
"""Profiles of before this year are of the engines before vLLM's V1; those of 2023 were found 2.4 to 5 times slow."""


def advice(scenario: Scenario, partition: Partition | None) -> tuple[str, ...]:
    """What was measured, the GPU's speeds (Proposition 3.2), and the partition's margin, a sentence each."""
    gpu, sentences = scenario.gpu, list(of_profile(scenario))
    if scenario.arrivals.closed:
        sentences.append(
            'arrivals.process = "closed": users send as fast as they are answered, which a plan does not know; it is '
            "for the classes' arrival rates, as if requests came by themselves; `fluidgate simulate` plays the loop"
        )
    if not gpu.iteration.by_batch:
        sentences += _of_speeds(gpu)
    sentences += of_ranks(scenario)
    sentences += _of_hits(scenario)
    if partition is not None:
        sentences += of_margin(partition)
        sentences += looks_like_a_total(scenario, partition.gpus)
    return tuple(sentences)


def of_margin(partition: Partition) -> Iterator[str]:
    """A mixed group that is hardly enough."""
    if partition.prefill_utilisation > _FULL:
        yield (
            f"prefill utilisation is {partition.prefill_utilisation:.1%} on {partition.mixed} mixed GPUs: "
            "the bare partition leaves no margin"
        )


def of_ranks(scenario: Scenario) -> Iterator[str]:
    """Ranks in step, each of which the plan lets go at its own pace."""
    if (ranks := scenario.engine.data_parallel) > 1:
        yield (
            f"the plan lets each GPU go at its own pace, but the {ranks} ranks of a group take as long as the longest "
            "batch among them: R* bounds what they earn, and they run below it; `fluidgate simulate` and `replay` "
            "say how far"
        )


def _of_hits(scenario: Scenario) -> Iterator[str]:
    """Hit rates that nobody gave, where engines cache prefixes."""
    if not scenario.engine.prefix_caching or all(c.prefix_hit_rate is not None for c in scenario.classes):
        return
    if not scenario.hit_rates.any():
        yield (
            "prefix_caching: the plan reads every prompt wholly: give [[classes]] prefix_hit_rate, "
            "or let `fluidgate plan --trace TRACE` measure it"
        )
        return
    of_sessions = [f"'{c.name}' {c.found_share:.4g}" for c in scenario.classes if c.prefix_hit_rate is None]
    yield (
        f"prefix_hit_rate of {listed(of_sessions)} is what an endless memory finds of the class's sessions; "
        "give [[classes]] prefix_hit_rate where memory is less"
    )


def of_full_chunks(scenario: Scenario) -> Iterator[str]:
    """The classes whose prompts hardly fill a chunk, where every chunk is taken as full."""
    gpu = scenario.gpu
    read = zip(scenario.classes, scenario.reading, strict=True)
    short = [f"'{c.name}'" for c, tokens in read if tokens < _FILLED * gpu.chunk_size]
    if short:
        yield (
            f"the prompts of {listed(short)} are much shorter than chunk_size {gpu.chunk_size}, but the model takes "
            f"every chunk as full ({gpu.tau * 1e3:.4g} ms): with [lengths] a plan counts them as they are"
        )


def _of_speeds(gpu: Gpu) -> Iterator[str]:
    least_kappa = (gpu.batch_size - 1) / gpu.batch_size
    if gpu.kappa < least_kappa:
        yield (
            f"kappa {gpu.kappa:.4g} is less than (B-1)/B = {least_kappa:.4g}: a plan may keep a decode "
            "buffer on purpose, and gate-and-route is then not optimal"
        )
    if gpu.kappa < 1:
        yield (
            f"a mixed iteration ({gpu.tau * 1e3:.4g} ms) is faster than a solo one "
            f"({gpu.solo * 1e3:.4g} ms): is chunk_size {gpu.chunk_size} below the calibrated range?"
        )


def of_profile(scenario: Scenario) -> Iterator[str]:
    """What to know of the profile that the GPU's iteration times are from: their ranges, their age, what a GPU is."""
    gpu, known = scenario.gpu, scenario.gpu.calibrated
    if known.measured is not None and known.measured < AGED:
        yield (
            f"profile {known.profile} is of {known.measured}: engines of today may take a fraction of such times; "
            "calibrate your own, or take a newer profile"
        )
    yield from of_group(gpu)
    yield from _beyond_sizes(gpu)
    yield from _beyond_contexts(scenario)
    if known.kv_memory:
        yield (
            f"kv_tokens = {scenario.engine.kv_tokens} follows from {known.kv_memory}; "
            'give kv_tokens, or kv_memory = "unlimited", in [engine] for another'
        )


def of_group(gpu: Gpu) -> Iterator[str]:
    """What counts as a GPU."""
    if (gpus := gpu.calibrated.gpus) > 1:
        yield f"each GPU of this scenario is a group of {gpus} GPUs: {gpus} times as many are needed"


def _beyond_sizes(gpu: Gpu) -> Iterator[str]:
    for key, size in {"batch_size": gpu.batch_size, "chunk_size": gpu.chunk_size}.items():
        ends = getattr(gpu.calibrated, f"{key}s")
        if ends is not None and not ends[0] <= size <= ends[1]:
            yield (
                f"{key} {size} lies outside the profile's range, {ends[0]} to {ends[1]}: "
                "its iteration times were not measured there"
            )


def _beyond_contexts(scenario: Scenario) -> Iterator[str]:
    """The class whose requests are the longest, where these are longer than what was measured."""
    known, time = scenario.gpu.calibrated, scenario.gpu.iteration
    longest = max(scenario.classes, key=lambda c: c.prompt_tokens + c.output_tokens)
    length = longest.prompt_tokens + longest.output_tokens
    if known.contexts is not None and length > known.contexts[1]:
        chunks = "" if known.read_before is not None or time.zeta > 0.0 else ", chunks take longer than said"
        yield (
            f"class '{longest.name}' has {length:,.6g} tokens of prompt and output on average, but contexts of more "
            f"than {known.contexts[1]:,} were not measured: decodes follow epsilon there{chunks}"
        )
    prompt = max(c.prompt_tokens for c in scenario.classes)
    if known.read_before is not None and prompt - scenario.gpu.chunk_size > known.read_before[1]:
        yield (
            f"prompts of {prompt:,.6g} tokens on average have chunks after more than {known.read_before[1]:,} tokens, "
            "which were not measured: their times go straight on from there"
        )
