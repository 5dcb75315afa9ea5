"""Decodes held running in an engine, and prompts sent in beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from fluidgate.calibration.live_probe.client import Client, Stream, StreamEnded
from fluidgate.calibration.live_probe.prompts import Prompts
from fluidgate.calibration.live_probe.timeline import Timeline, Track, timeline

PLACE = 48
"""Iterations after which a prompt that has no token waits for a place, and one more for each few tokens of it."""

SMALLEST_CHUNK = 16


class NoPlace(Exception):
    """A prompt was not read while the decodes ran: the engine's batch is full."""


@dataclass(frozen=True)
class Injection:
    """A prompt that was read beside the decodes.

    Attributes:
        tokens: of the prompt.
        at: iterations that had ended when it was sent.
        sent, first: when it was sent, and when its first token came, s.
    """

    tokens: int
    at: int
    sent: float
    first: float


class Held:
    """Some decodes that run at once.

    Args:
        lengths: tokens of their prompts.
        output: most tokens that each writes.
    """

    def __init__(self, client: Client, prompts: Prompts, lengths: Sequence[int], output: int) -> None:
        self._client = client
        self._prompts = prompts
        self._lengths = lengths
        self._output = output
        self.streams: list[Stream] = []
        self.injections: list[Injection] = []

    async def __aenter__(self) -> Self:
        self.streams = [
            self._client.complete(self._prompts.draw(tokens), tokens, self._output) for tokens in self._lengths
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(stream.close() for stream in self.streams))

    @property
    def iterations(self) -> int:
        """That the first decode has seen end."""
        return self.streams[0].tokens

    @property
    def running(self) -> int:
        """Decodes that have begun."""
        return sum(stream.tokens > 1 for stream in self.streams)

    async def begin(self, patience: int) -> int:
        """Wait until all run; those that wait for a place while the others write are given up.

        Args:
            patience: iterations without a new decode after which those that have not begun wait for a place.

        Returns:
            How many run.

        Raises:
            FluidgateError: the engine refuses one, or breaks off.
        """
        await self.streams[0].until(2)
        known, since = self.running, self.iterations
        while self.running < len(self.streams):
            await self.run(1)
            for stream in self.streams:
                if stream.ended and stream.tokens < 2:
                    await stream.until(2)
            if self.running > known:
                known, since = self.running, self.iterations
            elif self.iterations - since > patience:
                waiting = [stream for stream in self.streams if stream.tokens < 2]
                self.streams = [stream for stream in self.streams if stream.tokens >= 2]
                await asyncio.gather(*(stream.close() for stream in waiting))
        return self.running

    async def run(self, iterations: int) -> None:
        """Let so many iterations pass.

        Raises:
            StreamEnded: a decode has ended.
            FluidgateError: the engine breaks off.
        """
        await self.streams[0].until(self.iterations + iterations)
        if any(stream.ended and stream.tokens >= 2 for stream in self.streams):
            raise StreamEnded

    async def inject(self, tokens: int) -> Injection:
        """Send a prompt, and wait for its first token and the iteration after that.

        Raises:
            NoPlace: it is not read.
            StreamEnded: a decode has ended.
            FluidgateError: the engine refuses the prompt, or breaks off.
        """
        at = self.iterations
        stream = self._client.complete(self._prompts.draw(tokens), tokens, 1)
        first = asyncio.ensure_future(stream.until(1))
        end = asyncio.ensure_future(self.streams[0].until(at + PLACE + tokens // SMALLEST_CHUNK))
        try:
            await asyncio.wait((first, end), return_when=asyncio.FIRST_COMPLETED)
            if not first.done():
                await end
                raise NoPlace
            await first
            await stream.finish()
        finally:
            first.cancel()
            end.cancel()
            await asyncio.gather(first, end, return_exceptions=True)
            await stream.close()
        made = Injection(stream.prompt, at, stream.sent, stream.times[0])
        self.injections.append(made)
        await self.run(1)
        return made

    def timeline(self) -> Timeline:
        """The iterations so far."""
        return timeline([Track(stream.prompt, stream.times, stream.counts) for stream in self.streams])
