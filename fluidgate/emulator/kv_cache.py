"""KV memory of an emulated engine, in blocks, as vLLM V1 keeps it."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count

from fluidgate.emulator.kv_events import KvEvents
from fluidgate.emulator.prompt import BLOCK, ids_of
from fluidgate.emulator.request import Block, EngineRequest
from fluidgate.emulator.settings import EngineSettings, blocks
from fluidgate.emulator.wire import OPENINGS, WORDS, token

IDS = {word: ids_of(word) for word in (*OPENINGS, *WORDS)}
"""Of each token of an answer."""


@dataclass(frozen=True)
class Pin:
    """KV of a prompt that waits to be fetched; `expires` in seconds of the engine."""

    tokens: int
    blocks: list[Block]
    expires: float


class KvCache:
    """Blocks of KV.

    A request takes the blocks of its whole prompt when it joins, and one more whenever its answer has filled the last.
    A block that is full is known by a hash of its tokens and of all before them: who joins later takes over the blocks
    that its prompt begins with. A block that nobody holds any more keeps its content until it is taken: those freed
    longest ago first, of a request the last first.

    Args:
        events: told of what is stored and removed; None if nobody listens.

    Attributes:
        expired: leases that have ended before the KV was fetched.
        free: blocks that nobody holds.
    """

    def __init__(self, settings: EngineSettings, events: KvEvents | None = None) -> None:
        self._capacity = settings.kv_blocks
        self._lease = settings.kv_lease
        self._caching = settings.prefix_caching
        self._events = events
        self._untouched = settings.kv_blocks
        self._queue: OrderedDict[Block, None] = OrderedDict()
        self._known: dict[int, dict[Block, None]] = {}
        self._pins: dict[str, Pin] = {}
        self._pin_numbers = count()
        self.expired = 0

    @property
    def free(self) -> int:
        return self._untouched + len(self._queue)

    @property
    def usage(self) -> float:
        """Share of the memory that requests hold, and prompts that wait to be fetched."""
        return 1.0 - self.free / self._capacity

    @property
    def pins(self) -> int:
        """Prompts that wait to be fetched."""
        return len(self._pins)

    @property
    def next_expiry(self) -> float:
        """When the next lease ends, s of the engine; inf if nothing is pinned."""
        return min((pin.expires for pin in self._pins.values()), default=math.inf)

    def cached(self, request: EngineRequest) -> int:
        """Tokens of a request that need not be read: its first blocks that are there, without its last token."""
        return len(self._matched(request)) * BLOCK

    def take(self, request: EngineRequest) -> bool:
        """Hold the blocks of what a request that joins has to read; False if they do not fit."""
        matched = self._matched(request)
        new = blocks(request.prompt + request.again) - len(matched)
        if new + sum(block.holders == 0 for block in matched) > self.free:
            return False
        for block in matched:
            if block.holders == 0:
                del self._queue[block]
            block.holders += 1
        request.blocks, request.known = matched + self._new(new), len(matched)
        return True

    def lacks(self, request: EngineRequest) -> bool:
        """Whether a request that decodes needs one more block in the next iteration."""
        return request.prompt + request.written > len(request.blocks) * BLOCK

    def grow(self, request: EngineRequest) -> None:
        """One more block, which is there."""
        request.blocks += self._new(1)

    def fill(self, request: EngineRequest, tokens: int) -> None:
        """The first `tokens` tokens of a request are in its blocks: the full ones are known from now on."""
        if not self._caching or request.text is None or request.garbled:
            return
        first, end = request.known, tokens // BLOCK
        if first >= end:
            return
        self._hash(request, end)
        request.known = end
        for k in range(first, end):
            block = request.blocks[k]
            block.hash = request.hashes[k]
            self._known.setdefault(block.hash, {})[block] = None
        if self._events is not None:
            self._events.stored(request, first, self._ids(request, first * BLOCK, end * BLOCK))

    def release(self, request: EngineRequest) -> None:
        """Give the blocks of a request back, the last one first."""
        self._give_back(request.blocks)
        request.blocks, request.known = [], 0

    def pin(self, request: EngineRequest, now: float) -> None:
        """Keep the KV of a prompt for another engine, from now on for the lease."""
        request.pin = f"{request.id}-{next(self._pin_numbers)}"
        self._pins[request.pin] = Pin(request.prompt, request.blocks, now + self._lease)
        request.blocks, request.known = [], 0

    def unpin(self, name: str, now: float) -> int | None:
        """Hand out pinned KV, its tokens; None where there is none or its lease has ended."""
        self.expire(now)
        pin = self._pins.pop(name, None)
        if pin is None:
            return None
        self._give_back(pin.blocks)
        return pin.tokens

    def expire(self, now: float) -> None:
        """Drop what is pinned beyond its lease."""
        for name in [name for name, pin in self._pins.items() if pin.expires <= now]:
            self._give_back(self._pins.pop(name).blocks)
            self.expired += 1

    def lose(self) -> None:
        """Drop all that no running request holds."""
        for pin in self._pins.values():
            self._give_back(pin.blocks)
        self._pins.clear()
        if not self.reset():
            for block in self._queue:
                self._forget(block)

    def reset(self) -> bool:
        """Forget everything at once, as vLLM does where nobody holds a block; whether that is so."""
        if self.free < self._capacity:
            return False
        self._untouched = self._capacity
        self._queue.clear()
        self._known.clear()
        if self._events is not None:
            self._events.cleared()
        return True

    def _matched(self, request: EngineRequest) -> list[Block]:
        """The first blocks of a request that are there; one token at least is left to be read, unless all has come."""
        if not self._caching or request.text is None:
            return []
        most = (request.prompt + request.again - (0 if request.brought else 1)) // BLOCK
        if request.again:
            self._hash(request, most)
        hashes = request.hashes if request.again else request.text.hashes
        found = []
        for each in hashes[:most]:
            same = self._known.get(each)
            if same is None:
                break
            found.append(next(iter(same)))
        return found

    def _hash(self, request: EngineRequest, end: int) -> None:
        """Know the hashes of the first `end` blocks of a request, those of its answer too."""
        assert request.text is not None
        known = request.hashes
        known += request.text.hashes[len(known) : end]
        for k in range(len(known), end):
            ids = self._ids(request, k * BLOCK, (k + 1) * BLOCK)
            known.append(request.text.hash_behind(known[-1] if known else None, ids))

    def _ids(self, request: EngineRequest, start: int, end: int) -> bytes:
        """Of tokens of a request, its answer's too."""
        assert request.text is not None
        prompt = request.prompt
        said = [IDS[token(request, number)] for number in range(max(start - prompt, 0) + 1, end - prompt + 1)]
        return request.text.ids(start, end) + b"".join(said)

    def _new(self, number: int) -> list[Block]:
        """So many blocks, the untouched first, then those freed longest ago; what they held is lost."""
        untouched = min(number, self._untouched)
        self._untouched -= untouched
        found = [Block() for _ in range(untouched)]
        for _ in range(number - untouched):
            block, _ = self._queue.popitem(last=False)
            self._forget(block)
            found.append(block)
        for block in found:
            block.holders = 1
        return found

    def _give_back(self, held: Iterable[Block]) -> None:
        for block in reversed(list(held)):
            block.holders -= 1
            if block.holders == 0:
                self._queue[block] = None

    def _forget(self, block: Block) -> None:
        """The content of a block is lost."""
        if block.hash is None:
            return
        same = self._known[block.hash]
        del same[block]
        if not same:
            del self._known[block.hash]
        if self._events is not None:
            self._events.removed(block.hash)
        block.hash = None
