"""What one engine is believed to have: blocks by hash, the least recently used taken out when there are too many.

Within a prompt the last block counts as used least recently, as in vLLM, where a request frees its last block first. So
an engine that has a block has all before it, and the longest beginning is found by bisection.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fluidgate.compiled import by_reference, inlined, kept

NOTHING = -1

NEWEST, OLDEST, FREE, USED, CLOCK, TEXTS, IDS = range(7)
"""Numbers of a memory: ends of the list in the order of use, the first of those never used, how many are used, how
often it was touched, and blocks of either kind."""

FIND, TOUCH, FORGET, SHRINK, BEFORE = range(5)

LOWEST = 1


class Memory(NamedTuple):
    """Blocks, each at a place; int32 but for hashes and epochs.

    Attributes:
        hash: of each, int64; the lowest bit is 1 for token ids.
        older, newer: its neighbours in the order of use.
        next: in its bucket; `bucket`, the first of each.
        touched: when it was used last, and `before`, the time before that (0: never), int64, counted in touches.
        number: see `NEWEST`, int64.
    """

    hash: Any
    older: Any
    newer: Any
    next: Any
    bucket: Any
    touched: Any
    before: Any
    number: Any


def new_memory(blocks: int) -> Memory:
    """Nothing, and room for so many blocks. Pages are taken from the system when they are first written to."""
    buckets = 1 << max(4, (blocks - 1).bit_length())
    number = np.zeros(7, np.int64)
    number[NEWEST] = number[OLDEST] = NOTHING
    return Memory(
        hash=np.zeros(blocks, np.int64),
        older=np.zeros(blocks, np.int32),
        newer=np.zeros(blocks, np.int32),
        next=np.zeros(blocks, np.int32),
        bucket=np.zeros(buckets, np.int32),  # of place + 1, so that 0 is nothing
        touched=np.zeros(blocks, np.int64),
        before=np.zeros(blocks, np.int64),
        number=number,
    )


class Blocks:
    """The blocks of one engine; room in tokens, of which a block of either kind has some."""

    def __init__(self, most: int) -> None:
        """
        Args:
            most: blocks at a time, whatever the room.
        """
        self._memory = new_memory(most)
        self._state = by_reference(self._memory)
        self._none = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return int(self._memory.number[USED])

    @property
    def bytes(self) -> int:
        """Of memory, used or not."""
        return sum(each.nbytes for each in self._memory)

    def tokens(self, text: float, ids: float) -> float:
        """That are held, where a block of a text and one of ids have so many."""
        number = self._memory.number
        return float(number[TEXTS] * text + number[IDS] * ids)

    def find(self, hashes: Any) -> int:
        """How many of a prompt's first blocks are there."""
        return int(ask(self._state, FIND, hashes, 0, 0.0, 0.0, 0.0))

    def touch(self, hashes: Any, room: float, text: float, ids: float) -> int:
        """A prompt has been sent: all its blocks are there now, and when they were used is now. The epoch of that."""
        return int(ask(self._state, TOUCH, hashes, 0, room, text, ids))

    def forget_until(self, epoch: int) -> None:
        """Whatever was used last at `epoch` or before is not there."""
        ask(self._state, FORGET, self._none, epoch, 0.0, 0.0, 0.0)

    def shrink(self, room: float, text: float, ids: float) -> None:
        """Take out what does not fit."""
        ask(self._state, SHRINK, self._none, 0, room, text, ids)

    def used_before(self, hashes: Any, epoch: int) -> int:
        """When the one block in `hashes` was used before `epoch`, at which it was touched; -1 if it was again since."""
        return int(ask(self._state, BEFORE, hashes, epoch, 0.0, 0.0, 0.0))


def ask_kernel(memory, what, hashes, epoch, room, text, ids):
    number = memory.number
    if what == FIND:
        return longest(memory, hashes)
    if what == TOUCH:
        number[CLOCK] += 1
        for k in range(min(hashes.size, memory.hash.size) - 1, -1, -1):
            use(memory, hashes[k], room, text, ids)
        return number[CLOCK]
    if what == FORGET:
        while number[OLDEST] != NOTHING and memory.touched[number[OLDEST]] <= epoch:
            take_out_oldest(memory)
    elif what == SHRINK:
        make_room(memory, room, text, ids)
    else:
        place = place_of(memory, hashes[0])
        return memory.before[place] if place != NOTHING and memory.touched[place] == epoch else NOTHING
    return 0


@inlined
def longest(memory, hashes):
    """By bisection: below `low` all are there, from `high` on none is."""
    low, high = 0, hashes.size
    while low < high:
        middle = (low + high) // 2
        if place_of(memory, hashes[middle]) != NOTHING:
            low = middle + 1
        else:
            high = middle
    return low


@inlined
def bucket_of(memory, hashed):
    return (hashed >> 20) & (memory.bucket.size - 1)


@inlined
def place_of(memory, hashed):
    place = np.int64(memory.bucket[bucket_of(memory, hashed)]) - 1
    while place != NOTHING and memory.hash[place] != hashed:
        place = np.int64(memory.next[place]) - 1
    return place


@inlined
def use(memory, hashed, room, text, ids):
    """A block is the one used last; taken in if it was not there."""
    number = memory.number
    place = place_of(memory, hashed)
    if place != NOTHING:
        memory.before[place] = memory.touched[place]
        unlink(memory, place)
    else:
        make_room(memory, room - (ids if hashed & LOWEST else text), text, ids)
        while number[USED] >= memory.hash.size:
            take_out_oldest(memory)
        place = take_free(memory)
        memory.hash[place] = hashed
        at = bucket_of(memory, hashed)
        memory.next[place] = memory.bucket[at]
        memory.bucket[at] = place + 1
        memory.before[place] = 0
        number[USED] += 1
        number[IDS if hashed & LOWEST else TEXTS] += 1
    memory.touched[place] = number[CLOCK]
    memory.older[place] = number[NEWEST]
    memory.newer[place] = NOTHING
    if number[NEWEST] == NOTHING:
        number[OLDEST] = place
    else:
        memory.newer[number[NEWEST]] = place
    number[NEWEST] = place


@inlined
def take_free(memory):
    """A place that is free: the last that was given back, chained by `older` from `FREE`, or one never used."""
    number = memory.number
    place = number[FREE]
    if memory.touched[place] == 0:  # never used: the next free one is the one beside it
        number[FREE] = place + 1
    else:
        number[FREE] = memory.older[place]
    return place


@inlined
def make_room(memory, room, text, ids):
    number = memory.number
    while number[USED] > 0 and number[TEXTS] * text + number[IDS] * ids > room:
        take_out_oldest(memory)


@inlined
def unlink(memory, place):
    number = memory.number
    older, newer = np.int64(memory.older[place]), np.int64(memory.newer[place])
    if newer == NOTHING:
        number[NEWEST] = older
    else:
        memory.older[newer] = older
    if older == NOTHING:
        number[OLDEST] = newer
    else:
        memory.newer[older] = newer


@inlined
def take_out_oldest(memory):
    number = memory.number
    place = number[OLDEST]
    unlink(memory, place)
    hashed = memory.hash[place]
    at = bucket_of(memory, hashed)
    if memory.bucket[at] == place + 1:
        memory.bucket[at] = memory.next[place]
    else:
        other = np.int64(memory.bucket[at]) - 1
        while memory.next[other] != place + 1:
            other = np.int64(memory.next[other]) - 1
        memory.next[other] = memory.next[place]
    memory.older[place] = number[FREE]
    number[FREE] = place
    number[USED] -= 1
    number[IDS if hashed & LOWEST else TEXTS] -= 1


ask = kept(ask_kernel, "what engines have of prompts", seconds=2)
