"""How an engine reads prompts beside its decodes: in chunks of how many tokens, found out by sending some."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Self

import numpy as np

from fluidgate.calibration.live_probe.client import Client, StreamEnded
from fluidgate.calibration.live_probe.held import Held, Injection, NoPlace
from fluidgate.calibration.live_probe.prompts import Prompts
from fluidgate.calibration.live_probe.timeline import Timeline
from fluidgate.errors import FluidgateError
from fluidgate.shown import Brief

TRIAL_SIZES = ((250, 280, 310), (1000, 1120, 1240), (4000, 4480, 4960))
"""Prompts that show where a first token comes: the first three that are seen at all."""

LONGEST = 8192
"""Tokens of the prompt whose chunks are counted."""

VISIBLE = 0.08
"""Of a solo iteration: what the longest iteration of a prompt must take more."""

CLEAR = 0.3
"""The same, where it is beyond doubt."""

EARLY = 0.3
"""Of a solo iteration: how long before the tokens of the decodes a first token may come. It may come later than they,
for its answer has to be begun."""

HELD_PROMPT, HELD_OUTPUT, SETTLE = 64, 1024, 3
BESIDE = 5
"""Decodes beside which it is seen whether they share the budget."""


@dataclass(frozen=True, repr=False)
class Batching(Brief):
    """How prompts are read.

    Attributes:
        budget: tokens of an iteration, or prompt tokens of it; None where no prompt was cut.
        shared: whether each decode takes one of these tokens.
        longest: the longest prompt that was tried, tokens.
        lag: iterations from the one that ends a prompt to the one that ends with its first token.
        apart: whether prompts are read in iterations of their own, between those of the decodes.
        solo, token: rough times of an iteration, and of a token of a prompt, s.
    """

    budget: int | None
    shared: bool
    longest: int
    lag: int
    apart: bool
    solo: float
    token: float

    def limit(self, decodes: int) -> int:
        """Prompt tokens of an iteration beside so many decodes; the longest that is known where nothing is cut."""
        if self.budget is None:
            return self.longest
        return max(1, self.budget - decodes) if self.shared else self.budget


@dataclass(frozen=True)
class Reading:
    """The iterations in which a prompt was read, as they look.

    Attributes:
        first, last: that took visibly longer than others; None where none does.
        token: that ended with the first token.
        excess: what the longest took beyond a solo one, s.
    """

    first: int | None
    last: int | None
    token: int
    excess: float


def reading(seen: Timeline, injection: Injection, solo: float) -> Reading:
    """Where a prompt was read."""
    token = seen.ended(injection.first + EARLY * solo)
    window = np.arange(min(injection.at, token), min(token + 2, len(seen.ends)))
    excess = np.nan_to_num(seen.seconds[window], nan=solo) - solo
    most = float(excess.max())
    if most < VISIBLE * solo:
        return Reading(None, None, token, most)
    long = window[excess > 0.4 * most]
    return Reading(int(long[0]), int(long[-1]), token, most)


class Trial:
    """Some decodes that are held, and taken up again when they have ended, to send prompts beside."""

    def __init__(self, client: Client, prompts: Prompts, decodes: int, longest: int) -> None:
        self._client = client
        self._prompts = prompts
        self._decodes = decodes
        self._output = max(16, min(HELD_OUTPUT, longest - HELD_PROMPT))
        self._stack = AsyncExitStack()
        self._held: Held | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def send(self, tokens: int) -> tuple[Timeline, Injection, float]:
        """A prompt is read: the iterations, the prompt, and the time of a solo one, s.

        Raises:
            NoPlace: the engine's batch is full.
            FluidgateError: the engine refuses it, or breaks off.
        """
        while True:
            try:
                held = self._held or await self._begin()
                made = await held.inject(tokens)
                await held.run(SETTLE)
            except StreamEnded:
                await self._stack.aclose()
                self._held = None
                continue
            seen = held.timeline()
            return seen, made, solo_time(seen, held.injections)

    async def _begin(self) -> Held:
        lengths = [HELD_PROMPT] * self._decodes
        held = Held(self._client, self._prompts, lengths, self._output)
        self._held = await self._stack.enter_async_context(held)
        if await held.begin(self._output // 2) < self._decodes:
            raise NoPlace
        await held.run(2 * SETTLE)
        return held


def solo_time(seen: Timeline, injections: list[Injection]) -> float:
    """Median of the iterations beside which nothing was read, s."""
    alone = np.isfinite(seen.seconds)
    for each in injections:
        alone[each.at : seen.ended(each.first) + 3] = False
    return float(np.median(seen.seconds[alone] if alone.any() else seen.seconds[np.isfinite(seen.seconds)]))


async def find_batching(
    client: Client, prompts: Prompts, *, longest: int, decodes: int, chunk_size: int | None = None
) -> Batching:
    """Send prompts beside one decode, and beside some, and count the iterations that they take.

    Args:
        longest: tokens of the longest prompt that may be sent.
        decodes: most that may be held.
        chunk_size: the budget, where it is known.

    Raises:
        FluidgateError: the engine refuses a prompt, or breaks off.
    """
    try:
        return await _find_batching(client, prompts, longest, decodes, chunk_size)
    except NoPlace:
        raise FluidgateError(
            "--url: the engine runs one request at a time, so that nothing is read beside it"
        ) from None


async def _find_batching(
    client: Client, prompts: Prompts, longest: int, decodes: int, chunk_size: int | None
) -> Batching:
    async with Trial(client, prompts, 1, longest) as trial:
        lag, apart, solo = await _first_tokens(trial, longest)
        most = min(longest, LONGEST)
        limit: int | None = None
        if chunk_size is not None:
            limit = (
                chunk_size if chunk_size >= longest or await _chunks(trial, chunk_size, lag) == 1 else chunk_size - 1
            )
            seconds = await _seconds(trial, min(limit, most), lag)
        else:
            count = await _chunks(trial, most, lag)
            if count > 1:
                limit = await _limit(trial, most, count, lag)
            seconds = await _seconds(trial, limit or most, lag)
    token = max(0.0, seconds - solo) / (limit or most)
    if limit is None:
        return Batching(None, False, most, lag, apart, solo, token)
    shared = limit + 1 == chunk_size
    for beside in range(min(BESIDE, decodes), 1, -1):
        if chunk_size is not None or limit >= longest or apart:
            break
        try:
            async with Trial(client, prompts, beside, longest) as trial:
                shared = await _chunks(trial, limit, lag) > 1
            break
        except NoPlace:
            continue
    return Batching(limit + 1 if shared else limit, shared, most, lag, apart, solo, token)


async def _first_tokens(trial: Trial, longest: int) -> tuple[int, bool, float]:
    """The lag, whether first tokens come off the end of iterations, and the time of a solo one, s."""
    lags: list[int] = []
    off: list[bool] = []
    solo = 0.0
    for sizes in TRIAL_SIZES:
        if sizes[0] > longest and lags:
            break
        for size in sizes:
            seen, made, solo = await trial.send(min(size, longest))
            found = reading(seen, made, solo)
            if found.last is not None:
                inside = seen.ends[found.last] - made.first > solo / 2
                off.append(bool(inside and made.first > seen.ends[found.last - 1]))
                lags.append(found.token - found.last)
        if lags:
            break
    apart = sum(off) > len(off) / 2
    return 0 if apart else max(0, min(lags, default=0)), apart, solo


async def _chunks(trial: Trial, tokens: int, lag: int) -> int:
    """Iterations that read a prompt: what two of up to five tries agree on."""
    found: Counter[int] = Counter()
    for _ in range(5):
        seen, made, solo = await trial.send(tokens)
        read = reading(seen, made, solo)
        first = read.first if read.first is not None else read.token - lag
        found[max(1, read.token - lag - first + 1)] += 1
        if found.most_common(1)[0][1] == 2:
            break
    return found.most_common(1)[0][0]


async def _seconds(trial: Trial, tokens: int, lag: int) -> float:
    """Of the iteration that reads the first chunk of a prompt."""
    seen, made, solo = await trial.send(tokens)
    return reading(seen, made, solo).excess + solo


async def _limit(trial: Trial, tokens: int, count: int, lag: int) -> int:
    """The longest prompt that one iteration reads, where one of `tokens` takes `count` of them."""
    low, high = -(-tokens // count), -(-tokens // (count - 1)) - 1
    for guess in _round_numbers(low, high):
        if await _chunks(trial, guess, lag) > 1:
            high = min(high, guess - 1)
        elif await _chunks(trial, guess + 1, lag) > 1:
            return guess
        else:
            low = max(low, guess + 1)
    while low < high:
        middle = (low + high + 1) // 2
        if await _chunks(trial, middle, lag) == 1:
            low = middle
        else:
            high = middle - 1
    return low


def _round_numbers(low: int, high: int) -> Iterator[int]:
    """Powers of two, and those less the one decode that is held, within the bounds."""
    power = 1
    while power <= high + 1:
        yield from (guess for guess in (power - 1, power) if low <= guess <= high)
        power *= 2
