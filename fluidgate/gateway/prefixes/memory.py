"""What one engine is believed to have: blocks by hash, as vLLM keeps them.

The blocks of requests on the engine are held. One that nobody holds any more is free, and keeps its content until its
room is needed: those freed longest ago go first, of a request the last block first. Requests in the engine's own queue
hold theirs too: when a later one joins, they have joined. Where more are on the engine than fit, those sent first will
have ended by then, and theirs go once nothing is free. So an engine that has a block has all before it, and the longest
beginning is found by bisection.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fluidgate.compiled import by_reference, inlined, kept

NOTHING = -1

FREE, HELD = range(2)
"""The lists that blocks are in, in the order in which they came there."""

USED, UNTOUCHED, CLOCK, TEXTS, IDS = range(5)
"""Numbers of a memory: places in use, the first place that is not, how often it was asked to hold or to free, and
blocks of either kind."""

FIND, HOLD, LEAVE, DROP, FORGET, SHRINK, BEFORE = range(7)

LOWEST = 1


class Memory(NamedTuple):
    """Blocks, each at a place; int32 but for hashes and epochs.

    Attributes:
        hash: of each, int64; the lowest bit is 1 for token ids.
        older, newer: its neighbours in its list.
        next: in its bucket; `bucket`, the first of each.
        holders: requests that hold it.
        since: when it was taken in; `moved`, when it came to its place in its list; `freed`, when it had become free
            before it was held last, -1 if somebody held it then: int64, counted by `CLOCK`.
        newest, oldest: of each list.
        number: see `USED`, int64.
    """

    hash: Any
    older: Any
    newer: Any
    next: Any
    bucket: Any
    holders: Any
    since: Any
    moved: Any
    freed: Any
    newest: Any
    oldest: Any
    number: Any


def new_memory(blocks: int) -> Memory:
    """Nothing, and room for so many blocks. Pages are taken from the system when they are first written to."""
    buckets = 1 << max(4, (blocks - 1).bit_length())
    return Memory(
        hash=np.zeros(blocks, np.int64),
        older=np.zeros(blocks, np.int32),
        newer=np.zeros(blocks, np.int32),
        next=np.zeros(blocks, np.int32),
        bucket=np.zeros(buckets, np.int32),  # of place + 1, so that 0 is nothing
        holders=np.zeros(blocks, np.int32),
        since=np.zeros(blocks, np.int64),
        moved=np.zeros(blocks, np.int64),
        freed=np.zeros(blocks, np.int64),
        newest=np.full(2, NOTHING, np.int64),
        oldest=np.full(2, NOTHING, np.int64),
        number=np.zeros(5, np.int64),
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
        """That are there, where a block of a text and one of ids have so many."""
        number = self._memory.number
        return float(number[TEXTS] * text + number[IDS] * ids)

    def find(self, hashes: Any) -> int:
        """How many of a prompt's first blocks are there."""
        return int(ask(self._state, FIND, hashes, 0, 0, 0.0, 0.0, 0.0))

    def hold(self, hashes: Any, room: float, text: float, ids: float) -> int:
        """A request has been sent, and holds all blocks of its prompt. The epoch of that."""
        return int(ask(self._state, HOLD, hashes, 0, 0, room, text, ids))

    def leave(self, hashes: Any, held: int, epoch: int, room: float, text: float, ids: float) -> None:
        """A request has ended that held the first `held` of these blocks since `epoch`; the others it has written."""
        ask(self._state, LEAVE, hashes, held, epoch, room, text, ids)

    def drop(self, hashes: Any, epoch: int) -> None:
        """A request has ended that held these blocks since `epoch` and was not read: what it alone has brought is not
        there."""
        ask(self._state, DROP, hashes, len(hashes), epoch, 0.0, 0.0, 0.0)

    def forget_until(self, epoch: int) -> None:
        """Whatever is free since `epoch` or before is not there."""
        ask(self._state, FORGET, self._none, 0, epoch, 0.0, 0.0, 0.0)

    def shrink(self, room: float, text: float, ids: float) -> None:
        """Take out what does not fit."""
        ask(self._state, SHRINK, self._none, 0, 0, room, text, ids)

    def freed_before(self, hashes: Any, epoch: int) -> int:
        """When the one block in `hashes` had become free before it was held at `epoch`; -1 if it was not free then, or
        has been held by others since."""
        return int(ask(self._state, BEFORE, hashes, 0, epoch, 0.0, 0.0, 0.0))


def ask_kernel(memory, what, hashes, held, epoch, room, text, ids):
    number = memory.number
    if what == FIND:
        return longest(memory, hashes)
    if what == HOLD:
        number[CLOCK] += 1
        for k in range(min(hashes.size, memory.hash.size) - 1, -1, -1):
            hold(memory, hashes[k], room, text, ids)
        return number[CLOCK]
    if what in (LEAVE, DROP):
        number[CLOCK] += 1
        for k in range(min(hashes.size, memory.hash.size) - 1, -1, -1):
            let_go(memory, hashes[k], k < held, epoch, what == LEAVE, room, text, ids)
    elif what == FORGET:
        while memory.oldest[FREE] != NOTHING and memory.moved[memory.oldest[FREE]] <= epoch:
            take_out(memory, memory.oldest[FREE])
    elif what == SHRINK:
        make_room(memory, room, text, ids)
    else:
        place = place_of(memory, hashes[0])
        return memory.freed[place] if place != NOTHING and memory.moved[place] == epoch else NOTHING
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
def hold(memory, hashed, room, text, ids):
    """A block has one holder more, and is the one held last; taken in if it was not there."""
    place = place_of(memory, hashed)
    if place != NOTHING:
        memory.freed[place] = NOTHING if memory.holders[place] > 0 else memory.moved[place]
        unlink(memory, place)
    else:
        make_room(memory, room - (ids if hashed & LOWEST else text), text, ids)
        while memory.number[USED] >= memory.hash.size:
            take_out_oldest(memory)
        place = take_in(memory, hashed)
        memory.freed[place] = 0
    memory.holders[place] += 1
    link(memory, place, HELD)


@inlined
def let_go(memory, hashed, held, epoch, there, room, text, ids):
    """A block that a request has held since `epoch` if `held`, else has written, is free unless others hold it."""
    size = ids if hashed & LOWEST else text
    place = place_of(memory, hashed)
    if place == NOTHING:
        if not there or not fits_free(memory, size, room, text, ids):
            return
        place = take_in(memory, hashed)
    else:
        if held and memory.since[place] <= epoch and memory.holders[place] > 0:
            memory.holders[place] -= 1
        if memory.holders[place] > 0:
            return
        if not there and memory.since[place] == epoch and memory.moved[place] == epoch:
            take_out(memory, place)
            return
        unlink(memory, place)
    link(memory, place, FREE)


@inlined
def fits_free(memory, size, room, text, ids):
    """Whether one more block fits without one that is held; those free that are in its way are taken out."""
    number = memory.number
    while number[TEXTS] * text + number[IDS] * ids + size > room or number[USED] >= memory.hash.size:
        if memory.oldest[FREE] == NOTHING:
            return False
        take_out(memory, memory.oldest[FREE])
    return True


@inlined
def make_room(memory, room, text, ids):
    number = memory.number
    while number[USED] > 0 and number[TEXTS] * text + number[IDS] * ids > room:
        take_out_oldest(memory)


@inlined
def take_out_oldest(memory):
    """Of those free, or else of those held."""
    take_out(memory, memory.oldest[FREE] if memory.oldest[FREE] != NOTHING else memory.oldest[HELD])


@inlined
def take_in(memory, hashed):
    """A place that is not in use gets a block: the last that was given back, chained by `older`, or one never used."""
    number = memory.number
    place = number[UNTOUCHED]
    number[UNTOUCHED] = place + 1 if memory.moved[place] == 0 else np.int64(memory.older[place])
    memory.hash[place] = hashed
    at = bucket_of(memory, hashed)
    memory.next[place] = memory.bucket[at]
    memory.bucket[at] = place + 1
    memory.holders[place] = 0
    memory.since[place] = number[CLOCK]
    number[USED] += 1
    number[IDS if hashed & LOWEST else TEXTS] += 1
    return place


@inlined
def take_out(memory, place):
    number = memory.number
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
    memory.older[place] = number[UNTOUCHED]
    number[UNTOUCHED] = place
    number[USED] -= 1
    number[IDS if hashed & LOWEST else TEXTS] -= 1
    memory.holders[place] = 0


@inlined
def link(memory, place, into):
    """A block is the newest of a list."""
    newest = memory.newest[into]
    memory.moved[place] = memory.number[CLOCK]
    memory.older[place] = newest
    memory.newer[place] = NOTHING
    if newest == NOTHING:
        memory.oldest[into] = place
    else:
        memory.newer[newest] = place
    memory.newest[into] = place


@inlined
def unlink(memory, place):
    """Out of the list that a block is in."""
    older, newer = np.int64(memory.older[place]), np.int64(memory.newer[place])
    for each in range(2):
        if memory.newest[each] == place:
            memory.newest[each] = older
        if memory.oldest[each] == place:
            memory.oldest[each] = newer
    if newer != NOTHING:
        memory.older[newer] = older
    if older != NOTHING:
        memory.newer[older] = newer


ask = kept(ask_kernel, "what engines have of prompts", seconds=2)
