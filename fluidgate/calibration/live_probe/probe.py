"""The probe of a live engine: it holds decodes, sends prompts beside them, and reads the gaps between tokens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median

import numpy as np
from numpy.typing import NDArray

from fluidgate.calibration.live_probe.batching import CLEAR, EARLY, Batching, find_batching, reading, solo_time
from fluidgate.calibration.live_probe.client import Client, Spent, StreamEnded
from fluidgate.calibration.live_probe.facts import Facts, load, look
from fluidgate.calibration.live_probe.grid import (
    JOINING,
    SETTLE,
    Case,
    Grid,
    fitting_grid,
    longest_prompt,
    most_decodes,
)
from fluidgate.calibration.live_probe.held import Held, Injection, NoPlace
from fluidgate.calibration.live_probe.measurements import ENOUGH, SHORTEST, Probed, Row, without_outliers
from fluidgate.calibration.live_probe.pace import Pace
from fluidgate.calibration.live_probe.prompts import Prompts, try_prompts
from fluidgate.calibration.live_probe.settings import Settings
from fluidgate.calibration.live_probe.timeline import IN_STEP, Timeline, trimmed_mean
from fluidgate.errors import FluidgateError
from fluidgate.event_loop import fast_loop

Say = Callable[[str], None]
Progress = Callable[[int, int], None]

QUIET = 30.0
"""s that others are waited for."""

ALONE = 5
"""Prompts sent to the idle engine for its front end."""

PATIENCE = 32
"""Iterations beyond those that read a prompt, until a decode that has not begun waits for a place."""

NEAR = 40
"""Iterations before and after a prompt whose solo ones are like those next to it."""


class TimeUp(Exception):
    """The seconds that the probe may take are over."""


def probe_engine(
    settings: Settings, *, say: Say = lambda line: None, progress: Progress = lambda done, total: None
) -> Probed:
    """Measure iterations of an engine that runs, as a client of its API.

    An interrupt (Ctrl-C) ends it early: what was measured by then is returned, and `partial` says so.

    Args:
        say: told in a line what will be sent, and what was found.
        progress: called with the holds done and their number.

    Raises:
        FluidgateError: a setting is bad; the engine does not answer, or refuses.
    """
    settings.check()
    with asyncio.Runner(loop_factory=fast_loop()) as runner:
        return runner.run(probe_live(settings, say=say, progress=progress))


async def probe_live(
    settings: Settings, *, say: Say = lambda line: None, progress: Progress = lambda done, total: None
) -> Probed:
    """As `probe_engine`, in the running event loop; cancelling the task ends it early."""
    async with Client(settings.url, settings.key, settings.max_tokens) as client:
        facts = await look(client, settings.model)
        say(introduction(settings, facts))
        client.model, client.extra = facts.model, facts.extra
        async with Pace() as pace:
            return await LiveProbe(settings, client, facts, pace, say, progress).run()


async def dry_run(settings: Settings) -> str:
    """What would be sent; nothing but the engine's pages is asked for.

    Raises:
        FluidgateError: the engine does not answer.
    """
    async with Client(settings.url, settings.key) as client:
        return introduction(settings, await look(client, settings.model))


def introduction(settings: Settings, facts: Facts) -> str:
    """What a probe will send to this engine, at most."""
    about = [facts.engine or "an engine", f"model {facts.model}"]
    known = {
        "longest": facts.max_model_len,
        "KV memory": facts.kv_tokens,
        "batch": facts.batch_size,
        "chunk": facts.chunk_size,
    }
    about += [f"{name} {value}" for name, value in known.items() if value]
    return (
        f"{', '.join(about)}. Will send at most {settings.max_tokens} tokens (prompts and answers), "
        f"{most_decodes(settings, facts) + 1} requests at once, for {settings.max_seconds:.0f} s: "
        "first some prompts to see how they are read, then the grid of iterations that fits"
    )


class LiveProbe:
    """One probe of one engine."""

    def __init__(
        self, settings: Settings, client: Client, facts: Facts, pace: Pace, say: Say, progress: Progress
    ) -> None:
        self._settings = settings
        self._client = client
        self._facts = facts
        self._pace = pace
        self._say = say
        self._progress = progress
        self._began = time.perf_counter()
        self._rows: list[Row] = []
        self._waits: list[float] = []
        self._odd = 0
        self._cap = most_decodes(settings, facts)
        self._probed = Probed(facts, header=_header(settings, facts))

    async def run(self) -> Probed:
        """All of it, or as far as tokens, seconds and the user allow."""
        probed = self._probed
        try:
            await self._measure()
        except Spent:
            probed.partial = "max_tokens"
        except TimeUp:
            probed.partial = "max_seconds"
        except asyncio.CancelledError:
            probed.partial = "interrupted"
        if probed.partial and not self._rows and probed.partial != "interrupted":
            option = f"--{probed.partial.replace('_', '-')}"
            raise FluidgateError(f"{option}: is used up before anything was measured; raise it")
        self._conclude()
        return probed

    async def _measure(self) -> None:
        await self._wait_until_quiet()
        prompts = await try_prompts(self._client, self._settings.seed)
        batching = await self._find_batching(prompts)
        grid = fitting_grid(
            self._settings,
            self._facts,
            batching,
            tokens=self._client.left,
            seconds=self._seconds_left,
            decodes=self._cap,
        )
        self._say(_announcement(grid, batching))
        await self._front_end(prompts, grid.cases[0].chunks[0])
        for done, case in enumerate(grid.cases):
            self._progress(done, len(grid.cases))
            if case.decodes <= self._cap:
                await self._hold(case, prompts, batching)
        self._progress(len(grid.cases), len(grid.cases))

    async def _find_batching(self, prompts: Prompts) -> Batching:
        settings, facts = self._settings, self._facts
        batching = await find_batching(
            self._client,
            prompts,
            longest=longest_prompt(settings, facts),
            decodes=self._cap,
            chunk_size=settings.chunk_size or facts.chunk_size,
        )
        self._probed.batching = batching
        if batching.apart:
            self._warn(
                "the engine reads prompts in iterations of their own, so that there are none with both; "
                "their rows have batch_size 0"
            )
        return batching

    async def _wait_until_quiet(self) -> None:
        """Others come first: wait for them, for some time."""
        until = time.perf_counter() + min(QUIET, self._settings.max_seconds / 10.0)
        while others := await load(self._client):
            if time.perf_counter() > until:
                self._warn(
                    f"the engine has {others} request{'s' if others > 1 else ''} of others; "
                    "rows taken beside them have others above 0: leave them out with --where others=0"
                )
                return
            await asyncio.sleep(0.5)

    async def _front_end(self, prompts: Prompts, tokens: int) -> None:
        """Times to the first token on the idle engine."""
        for _ in range(ALONE):
            await asyncio.sleep(0.05)
            stream = self._client.complete(prompts.draw(tokens), tokens, 1)
            await stream.finish()
            if stream.times:
                self._waits.append(stream.times[0] - stream.sent)

    async def _hold(self, case: Case, prompts: Prompts, batching: Batching) -> None:
        """Hold the decodes of a case, send its prompts, and take the rows."""
        async with Held(self._client, prompts, case.lengths, case.output) as held:
            running = await held.begin(PATIENCE + 2 * case.lengths[0] // batching.limit(case.decodes))
            if running < case.decodes:
                self._full(running)
                return
            sent: list[tuple[int, Injection]] = []
            others: dict[int, int] = {}
            starts = [held.iterations + SETTLE]
            try:
                await held.run(SETTLE)
                for repeat in range(case.rounds):
                    for tokens in _round(case, repeat):
                        self._check_time()
                        sent.append((repeat, await held.inject(tokens)))
                        await held.run(SETTLE)
                    others[repeat] = await self._others(held, case.decodes)
                    starts.append(held.iterations)
            except NoPlace:
                self._full(running)
            except StreamEnded:
                self._warn(f"{case.decodes} decodes at {case.context} tokens ended before all was measured")
            finally:
                self._take(case, batching, held, sent, starts, others)

    def _full(self, batch: int) -> None:
        """The engine runs no more than `batch` requests at once: one place is for a prompt."""
        self._cap = batch - 1
        self._warn(f"the engine runs {batch} requests at once; what needs more of them is left out")

    async def _others(self, held: Held, decodes: int) -> int:
        """Requests that the engine has beside the decodes; looked at twice, for those that have just ended."""
        if not self._facts.counts:
            return 0
        found = max(0, (await load(self._client) or 0) - decodes)
        if found:
            await held.run(2)
            found = min(found, max(0, (await load(self._client) or 0) - decodes))
        return found

    def _take(
        self,
        case: Case,
        batching: Batching,
        held: Held,
        sent: Sequence[tuple[int, Injection]],
        starts: Sequence[int],
        others: dict[int, int],
    ) -> None:
        """The rows of a hold."""
        if not sent:
            return
        seen = held.timeline()
        if seen.in_step < IN_STEP:
            raise FluidgateError(
                "--url: the decodes do not advance together, a token an iteration each (speculative decoding, "
                "several replicas behind one address?); a probe needs one engine without it"
            )
        full = np.isfinite(seen.seconds) & (seen.decodes == case.decodes)
        alone, unread = full.copy(), full.copy()
        usual = solo_time(seen, held.injections)
        for made in held.injections:
            token = seen.ended(made.first + EARLY * usual)
            alone[made.at : token + 2 + batching.lag] = False
            unread[token - batching.lag - -(-made.tokens // batching.limit(case.decodes)) : token + 2] = False
        for repeat, made in sent:
            near = slice(max(0, made.at - NEAR), made.at + NEAR)
            solo = trimmed_mean(seen.seconds[near][alone[near]]) if alone[near].any() else usual
            rows = self._mixed(case, batching, seen, made, solo, unread)
            self._rows += [replace(row, repeat=repeat, others=others.get(repeat, 0)) for row in rows]
            self._odd += not rows
        for repeat, (begin, end) in enumerate(pairwise(starts)):
            here = np.flatnonzero(alone[begin:end]) + begin
            if len(here) >= ENOUGH:
                seconds, context = trimmed_mean(seen.seconds[here]), float(seen.context[here].mean())
                self._rows.append(
                    Row(case.decodes, 0, seconds, case.context, 0, repeat, context, others.get(repeat, 0))
                )

    def _mixed(
        self,
        case: Case,
        batching: Batching,
        seen: Timeline,
        made: Injection,
        solo: float,
        unread: NDArray[np.bool_],
    ) -> list[Row]:
        """The iterations that read a prompt; none if it was not read as it should.

        Args:
            solo: s of the iterations about them.
            unread: which iterations read nothing.
        """
        if batching.apart:
            n = min(int(np.searchsorted(seen.ends, made.first)), len(seen.seconds) - 1)
            rest = float(seen.seconds[n]) - solo
            return [Row(0, made.tokens, rest, 0)] if rest > 0.0 else []
        limit = batching.limit(case.decodes)
        chunks = [min(limit, made.tokens - done) for done in range(0, made.tokens, limit)]
        found = reading(seen, made, solo)
        first = found.token - batching.lag - len(chunks) + 1
        if found.first is not None and found.excess > CLEAR * solo:
            if abs(found.first - first) > 1:
                return []
            first = found.first
        last = first + len(chunks) - 1
        if not 0 <= first - made.at <= JOINING:
            return []
        if not np.all(seen.decodes[first : last + 1] == case.decodes) or last >= len(seen.seconds):
            return []
        seconds = seen.seconds[first : last + 1].copy()
        if len(chunks) == 1:
            seconds[0] = seen.between(first, first, solo, unread)
        if not np.all(seconds > 0.0):
            return []
        return [
            Row(
                case.decodes,
                tokens,
                float(seconds[number]),
                case.context,
                number * limit,
                mean_context=float(seen.context[first + number]),
                late=self._pace.worst(seen.ends[first + number] - seconds[number], seen.ends[first + number]),
            )
            for number, tokens in enumerate(chunks)
        ]

    def _conclude(self) -> None:
        """What is left to say of the whole."""
        probed, client = self._probed, self._client
        probed.rows = without_outliers(self._rows)
        probed.facts = replace(self._facts, model=self._facts.model)
        probed.front_end = self._front_end_seconds()
        probed.requests, probed.prompt_tokens = client.requests, client.prompt_tokens
        probed.output_tokens = client.output_tokens
        probed.seconds = time.perf_counter() - self._began
        probed.client_late = self._pace.usual
        if dropped := len(self._rows) - len(probed.rows):
            self._warn(f"{dropped} of {len(self._rows)} times lay far from others of their kind, and are left out")
        if self._odd:
            self._warn(f"{self._odd} prompts were not read in the iterations that their length says, and are left out")
        if busy := sum(row.others > 0 for row in probed.rows):
            self._warn(f"{busy} rows were taken beside requests of others; leave them out with --where others=0")
        short = min((row.seconds for row in probed.rows), default=1.0)
        if short < SHORTEST:
            self._warn(f"iterations of {1e3 * short:.2g} ms: a client cannot tell gaps below 1 ms well")
        elif probed.client_late > 0.25 * short:
            self._warn(
                f"this client is up to {1e3 * probed.client_late:.2g} ms late itself, beside iterations of "
                f"{1e3 * short:.2g} ms: probe from a machine that is less busy"
            )

    def _front_end_seconds(self) -> float | None:
        """Median wait for a first token, less the iterations that it takes beside the fewest decodes."""
        mixed = [row for row in self._probed.rows if row.chunk_size > 0 and row.read_before == 0]
        if not (mixed and self._waits and self._probed.batching):
            return None
        least = min(mixed, key=lambda row: (row.batch_size, row.chunk_size, row.context)).kind
        seconds = median(row.seconds for row in mixed if row.kind == least)
        solo = [row.seconds for row in self._probed.rows if row.chunk_size == 0]
        return max(0.0, median(self._waits) - seconds - self._probed.batching.lag * min(solo, default=0.0))

    @property
    def _seconds_left(self) -> float:
        return self._settings.max_seconds - (time.perf_counter() - self._began)

    def _check_time(self) -> None:
        if self._seconds_left <= 0.0:
            raise TimeUp

    def _warn(self, warning: str) -> None:
        self._probed.warnings.append(warning)


def _round(case: Case, repeat: int) -> list[int]:
    """The prompts of a round: rising and falling by turns, so that each kind lies in the middle in the mean.

    The long one ends the first round, begins the last, and stands in the middle of the one between.
    """
    chunks = list(case.chunks[:: 1 if repeat % 2 == 0 else -1])
    place = {0: len(chunks), case.rounds - 1: 0, case.rounds // 2: len(chunks) // 2}
    if case.long and repeat in place:
        chunks.insert(place[repeat], case.long)
    return chunks


def _announcement(grid: Grid, batching: Batching) -> str:
    """What is sent now."""
    if batching.budget is None:
        read = f"prompts of up to {batching.longest} tokens are read at once"
    elif batching.shared:
        read = f"an iteration has up to {batching.budget} tokens, those of the decodes among them"
    else:
        read = f"an iteration reads up to {batching.budget} prompt tokens"
    lines = [
        f"{read}. Sending {grid.requests} requests, {grid.prompt_tokens} prompt tokens and at most "
        f"{grid.output_tokens} output tokens, {grid.decodes + 1} at once, for about {grid.seconds(batching):.0f} s"
    ]
    if grid.left_out:
        lines.append(f"no room for {'; '.join(grid.left_out)}")
    return ". ".join(lines)


def _header(settings: Settings, facts: Facts) -> dict[str, object]:
    """Keys of the file that the engine may not tell."""
    return {
        "gpu": settings.gpu,
        "tensor_parallel": settings.tensor_parallel or facts.tensor_parallel,
        "dtype": settings.dtype or facts.dtype,
        "date": datetime.now(UTC).date().isoformat(),
        **({"engine": settings.engine} if settings.engine else {}),
    }
