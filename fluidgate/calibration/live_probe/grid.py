"""Which iterations are measured, what that takes, and how it is made to fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from fluidgate.calibration.live_probe.batching import Batching
from fluidgate.calibration.live_probe.facts import Facts
from fluidgate.calibration.live_probe.settings import Settings
from fluidgate.errors import FluidgateError

DEFAULT_BATCH = 32
UNKNOWN_LENGTH = 4096
LEAST_CONTEXT = 192
LONG_CONTEXT = 4096
CHUNKS = 6
"""Chunk sizes, each half of the next, where none are given."""

SETTLE = 4
"""Iterations between two prompts, at least."""

JOINING = 3
"""Iterations from sending a prompt to its first chunk, at most."""

LONG_PROMPTS = 3
"""In each hold, of those that are read in several chunks."""

KV_SHARE = 0.9
"""Of the KV memory, that a hold may fill."""


@dataclass(frozen=True)
class Case:
    """Decodes that are held at some context, and what is sent beside them.

    Attributes:
        decodes: how many.
        context: tokens of each, in the middle of the hold.
        chunks: prompts that one iteration reads, tokens.
        long: a prompt of several chunks, tokens; 0 for none.
        rounds: how often each chunk is sent.
        lengths: tokens of the decodes' prompts.
        iterations: that the hold takes, once all of them run.
        output: most tokens that each decode writes.
    """

    decodes: int
    context: int
    chunks: tuple[int, ...]
    long: int
    rounds: int
    lengths: tuple[int, ...]
    iterations: int
    output: int

    @property
    def long_prompts(self) -> int:
        return min(LONG_PROMPTS, self.rounds) if self.long else 0

    @property
    def injected(self) -> int:
        """Tokens of the prompts sent beside the decodes."""
        return self.rounds * sum(self.chunks) + self.long_prompts * self.long

    @property
    def prompt_tokens(self) -> int:
        return sum(self.lengths) + self.injected

    @property
    def output_tokens(self) -> int:
        """At most."""
        return self.decodes * self.output + self.requests - self.decodes

    @property
    def requests(self) -> int:
        return self.decodes + self.rounds * len(self.chunks) + self.long_prompts

    @property
    def kv_tokens(self) -> int:
        """Held at once, at most."""
        return sum(self.lengths) + self.decodes * self.output + max([*self.chunks, self.long], default=0)


@dataclass(frozen=True)
class Grid:
    """What a probe sends.

    Attributes:
        cases: in the order in which they are run.
        left_out: what the engine has no room for, a phrase each.
    """

    cases: tuple[Case, ...]
    left_out: tuple[str, ...] = ()

    @property
    def requests(self) -> int:
        return sum(case.requests for case in self.cases)

    @property
    def prompt_tokens(self) -> int:
        return sum(case.prompt_tokens for case in self.cases)

    @property
    def output_tokens(self) -> int:
        return sum(case.output_tokens for case in self.cases)

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.output_tokens

    @property
    def decodes(self) -> int:
        """Most that are held at once."""
        return max(case.decodes for case in self.cases)

    def seconds(self, batching: Batching) -> float:
        """Roughly, by what is known of the engine's pace; decodes cost as a solo iteration of few of them."""
        iterations = sum(case.iterations for case in self.cases)
        return 1.3 * (iterations * batching.solo + self.prompt_tokens * batching.token)


@dataclass(frozen=True)
class Wanted:
    """The sizes that a grid is made of."""

    batch_sizes: tuple[int, ...]
    contexts: tuple[int, ...]
    chunk_sizes: tuple[int, ...]
    read_before: int
    rounds: int


def longest_prompt(settings: Settings, facts: Facts) -> int:
    """Tokens that a prompt may have."""
    length = (facts.max_model_len or UNKNOWN_LENGTH) - 1
    room = length if facts.kv_tokens is None else min(length, int(KV_SHARE * facts.kv_tokens))
    return max(1, min(room, settings.max_tokens // 40))


def most_decodes(settings: Settings, facts: Facts) -> int:
    """That are held at once; one place is left for a prompt beside them."""
    if settings.batch_sizes:
        return max(settings.batch_sizes)
    if settings.batch_size is not None:
        return settings.batch_size
    return max(1, min(DEFAULT_BATCH, (facts.batch_size or DEFAULT_BATCH + 1) - 1))


def fitting_grid(
    settings: Settings, facts: Facts, batching: Batching, *, tokens: float, seconds: float, decodes: int
) -> Grid:
    """The richest grid within so many tokens and seconds.

    Args:
        decodes: most that the engine holds at once.

    Raises:
        FluidgateError: not even the poorest fits.
    """
    wanted = wanted_sizes(settings, facts, batching, decodes)
    least = None
    for poorer in _poorer(wanted, settings):
        grid = make_grid(poorer, facts, batching)
        if not grid.cases:
            continue
        if grid.tokens <= tokens and grid.seconds(batching) <= seconds:
            return grid
        least = grid
    if least is None:
        raise FluidgateError("--contexts: the engine has no room for any of them; give shorter ones")
    if least.tokens > tokens:
        raise FluidgateError(
            f"--max-tokens: {tokens:.0f} tokens are left, and the least probe takes {least.tokens}; raise it"
        )
    raise FluidgateError(
        f"--max-seconds: {seconds:.0f} s are left, and the least probe takes about "
        f"{least.seconds(batching):.0f} s; raise it"
    )


def wanted_sizes(settings: Settings, facts: Facts, batching: Batching, decodes: int) -> Wanted:
    """What is asked for, and defaults for the rest."""
    batch_sizes = tuple(sorted({min(size, decodes) for size in settings.batch_sizes or _powers(1, decodes)}))
    limit = min(batching.limit(batch_sizes[-1]), longest_prompt(settings, facts))
    chunks = tuple(sorted({min(size, limit) for size in settings.chunk_sizes or _chunk_sizes(limit)}))
    length = facts.max_model_len or UNKNOWN_LENGTH
    contexts = settings.contexts or (LEAST_CONTEXT, max(2 * LEAST_CONTEXT, min(LONG_CONTEXT, length // 2)))
    return Wanted(batch_sizes, tuple(sorted(set(contexts))), chunks, settings.read_before, settings.repeats)


def make_grid(wanted: Wanted, facts: Facts, batching: Batching) -> Grid:
    """The cases of some sizes, without those that the engine has no room for."""
    cases, left_out = [], []
    length = facts.max_model_len or UNKNOWN_LENGTH
    for context in wanted.contexts:
        for decodes in wanted.batch_sizes:
            case = make_case(decodes, context, wanted, batching, length)
            if max(case.lengths) + case.output > length:
                left_out.append(f"{decodes} decodes at {context} tokens (longest {length})")
            elif facts.kv_tokens is not None and case.kv_tokens > KV_SHARE * facts.kv_tokens:
                left_out.append(f"{decodes} decodes at {context} tokens (KV memory {facts.kv_tokens})")
            else:
                cases.append(case)
    return Grid(tuple(cases), tuple(left_out))


def make_case(decodes: int, context: int, wanted: Wanted, batching: Batching, length: int) -> Case:
    """A hold whose decodes have `context` tokens in its middle, in the mean.

    Prompts are read one after another; those that are read first have written more when the last begins, and are
    shorter by as much.
    """
    limit = batching.limit(decodes)
    long = 0
    if batching.budget is not None and not batching.apart and wanted.read_before:
        chunks = max(2, -(-wanted.read_before // limit))
        long = limit * chunks + wanted.chunk_sizes[len(wanted.chunk_sizes) // 2]
        long = min(long, length - 2)
        long = long if long > limit else 0
    each = SETTLE + JOINING + batching.lag
    iterations = wanted.rounds * len(wanted.chunk_sizes) * each + SETTLE
    if long:
        iterations += min(LONG_PROMPTS, wanted.rounds) * (each + -(-long // limit))
    start = context - iterations // 2
    lengths: list[int] = []
    unread, later = 0.0, 0
    for _ in range(decodes):  # from the last to the first
        lengths.append(max(1, start - later))
        unread += lengths[-1] / limit
        later = int(unread)
    growth = later + decodes
    output = int(1.5 * iterations) + growth + 4 * SETTLE
    return Case(decodes, context, wanted.chunk_sizes, long, wanted.rounds, tuple(lengths[::-1]), iterations, output)


def _poorer(wanted: Wanted, settings: Settings) -> Iterator[Wanted]:
    """The sizes, then less and less of what was not asked for by name."""
    yield wanted
    if settings.read_before == Settings.read_before:
        wanted = replace(wanted, read_before=min(wanted.read_before, 1))
        yield wanted
    while not settings.contexts and wanted.contexts[-1] > 4 * wanted.contexts[0]:
        wanted = replace(wanted, contexts=(*wanted.contexts[:-1], wanted.contexts[-1] // 2))
        yield wanted
    while wanted.rounds > 2 and settings.repeats == Settings.repeats:
        wanted = replace(wanted, rounds=wanted.rounds - 1)
        yield wanted
    while not settings.batch_sizes and len(wanted.batch_sizes) > 3:
        wanted = replace(wanted, batch_sizes=(*wanted.batch_sizes[:-1][::2], wanted.batch_sizes[-1]))
        yield wanted
    while not settings.chunk_sizes and len(wanted.chunk_sizes) > 2:
        wanted = replace(wanted, chunk_sizes=wanted.chunk_sizes[:-1])
        yield wanted
    if not settings.contexts:
        wanted = replace(wanted, contexts=wanted.contexts[:1])
        yield wanted
    while not settings.batch_sizes and wanted.batch_sizes[-1] > 2:
        largest = wanted.batch_sizes[-1] // 2
        wanted = replace(wanted, batch_sizes=tuple(sorted({min(size, largest) for size in wanted.batch_sizes})))
        yield wanted


def _powers(least: int, most: int) -> list[int]:
    """Powers of two from the least on, and the most."""
    found = []
    while least < most:
        found.append(least)
        least *= 2
    return [*found, most]


def _chunk_sizes(limit: int) -> list[int]:
    """Powers of two below a limit, and the limit."""
    below = [2**k for k in range(4, 20) if 2**k < 0.9 * limit]
    return [*below[-(CHUNKS - 1) :], limit]
