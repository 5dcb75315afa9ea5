"""KV memory of an emulated engine: what requests hold, what waits for a remote decode, what prompts have left."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from itertools import count

from fluidgate.emulator.request import EngineRequest
from fluidgate.emulator.settings import BLOCK, EngineSettings, blocks


@dataclass(frozen=True)
class Pin:
    """KV of a prompt that waits to be fetched; `expires` in seconds of the engine."""

    tokens: int
    expires: float


class KvCache:
    """Blocks of KV.

    A request takes the blocks of its whole prompt and answer when it joins. What is free keeps the KV of the prompts
    read last, the one used longest ago overwritten first.

    Attributes:
        expired: leases that have ended before the KV was fetched.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self._capacity = settings.kv_blocks
        self._lease = settings.kv_lease
        self._caching = settings.prefix_caching
        self._held = 0
        self._pinned = 0
        self._cached = 0
        self._pins: dict[str, Pin] = {}
        self._pin_numbers = count()
        self.expired = 0
        self._prompts: OrderedDict[bytes, int] = OrderedDict()

    @property
    def pinned_tokens(self) -> int:
        return sum(pin.tokens for pin in self._pins.values())

    @property
    def pins(self) -> int:
        """Prompts that wait to be fetched."""
        return len(self._pins)

    @property
    def next_expiry(self) -> float:
        """When the next lease ends, s of the engine; inf if nothing is pinned."""
        return min((pin.expires for pin in self._pins.values()), default=math.inf)

    def cached(self, request: EngineRequest) -> int:
        """Tokens of a request's prompt that need not be read again: all full blocks but for the last token."""
        if request.key not in self._prompts:
            return 0
        return (request.prompt - 1) // BLOCK * BLOCK

    def take(self, request: EngineRequest) -> bool:
        """Hold the blocks of a request that joins; False if they do not fit."""
        needed = _needed(request)
        if self._held + self._pinned + needed > self._capacity:
            return False
        self._held += needed
        self._trim()
        return True

    def release(self, request: EngineRequest) -> None:
        """Free the blocks of a request."""
        self._held -= _needed(request)

    def remember(self, request: EngineRequest) -> None:
        """The prompt of a request has been read."""
        if not self._caching:
            return
        if request.key not in self._prompts:
            self._cached += blocks(request.prompt)
            self._prompts[request.key] = request.prompt
        self._prompts.move_to_end(request.key)
        self._trim()

    def pin(self, request: EngineRequest, now: float) -> None:
        """Keep the KV of a prompt for another engine, from now on for the lease."""
        request.pin = f"{request.id}-{next(self._pin_numbers)}"
        self._pins[request.pin] = Pin(request.prompt, now + self._lease)
        self._pinned += blocks(request.prompt)

    def unpin(self, name: str, now: float) -> int | None:
        """Hand out pinned KV, its tokens; None where there is none or its lease has ended."""
        self.expire(now)
        pin = self._pins.pop(name, None)
        if pin is None:
            return None
        self._pinned -= blocks(pin.tokens)
        return pin.tokens

    def expire(self, now: float) -> None:
        """Drop what is pinned beyond its lease."""
        for name in [name for name, pin in self._pins.items() if pin.expires <= now]:
            self._pinned -= blocks(self._pins.pop(name).tokens)
            self.expired += 1

    def lose(self) -> None:
        """Drop all that no running request holds."""
        self._pins.clear()
        self._prompts.clear()
        self._pinned = self._cached = 0

    def usage(self, running_tokens: int) -> float:
        """Share of the memory that running requests and pinned prompts fill."""
        return min(1.0, (running_tokens + self.pinned_tokens) / (self._capacity * BLOCK))

    def _trim(self) -> None:
        while self._cached > self._capacity - self._held - self._pinned and self._prompts:
            _, tokens = self._prompts.popitem(last=False)
            self._cached -= blocks(tokens)


def _needed(request: EngineRequest) -> int:
    return blocks(request.prompt + request.output)
