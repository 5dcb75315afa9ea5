"""The blocks of one engine against two lists: of those free, and of those that requests hold."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from fluidgate.gateway.prefixes.chain import Chain, chain_of_ids, chain_of_text
from fluidgate.gateway.prefixes.memory import Blocks


@dataclass
class Block:
    """A block of a played memory; who holds it, by the epochs at which they came."""

    holders: set[int] = field(default_factory=set)
    brought: int = 0
    ever: set[int] = field(default_factory=set)


class Listed:
    """The same, block by block, as plainly as it can be written; those first in a list go first."""

    def __init__(self, room: float, text: float, most: int) -> None:
        self.room, self.text, self.most = room, text, most
        self.known: dict[int, Block] = {}
        self.free: list[int] = []
        self.held: list[int] = []
        self.clock = 0

    def size(self, hashed: int) -> float:
        return 16.0 if hashed & 1 else self.text

    def fits(self, hashed: int) -> bool:
        return sum(map(self.size, self.known)) + self.size(hashed) <= self.room and len(self.known) < self.most

    def lose(self, line: list[int]) -> None:
        del self.known[line.pop(0)]

    def hold(self, chain: Chain) -> int:
        self.clock += 1
        for hashed in reversed(chain.hashes.tolist()):
            if hashed in self.known:
                (self.held if self.known[hashed].holders else self.free).remove(hashed)
            else:
                while not self.fits(hashed):
                    self.lose(self.free or self.held)
                self.known[hashed] = Block(brought=self.clock)
            self.known[hashed].holders.add(self.clock)
            self.known[hashed].ever.add(self.clock)
            self.held.append(hashed)
        return self.clock

    def leave(self, chain: Chain, own: int, epoch: int, read: bool) -> None:
        """Its first `own` blocks were held since `epoch`."""
        self.clock += 1
        for k, hashed in reversed(list(enumerate(chain.hashes.tolist()))):
            if hashed not in self.known:
                if not read:
                    continue
                while self.free and not self.fits(hashed):
                    self.lose(self.free)
                if not self.fits(hashed):
                    continue
                self.known[hashed] = Block(brought=self.clock)
            else:
                block = self.known[hashed]
                before = bool(block.holders)
                if k < own:
                    block.holders.discard(epoch)
                if block.holders:
                    continue
                (self.held if before else self.free).remove(hashed)
                if not read and block.ever == {epoch} and block.brought == epoch:
                    del self.known[hashed]
                    continue
            self.free.append(hashed)

    def find(self, chain: Chain) -> int:
        return next((k for k, each in enumerate(chain.hashes.tolist()) if each not in self.known), len(chain.hashes))


LETTERS = st.lists(st.sampled_from("abc"), min_size=1, max_size=8)


def text_of(letters: list[str]) -> Chain:
    """A block a letter, and half of one more."""
    return chain_of_text("".join(letter * 64 for letter in letters).encode() + b"-" * 32)


def ids_of(letters: list[str]) -> Chain:
    return chain_of_ids([ord(letter) for letter in letters for _ in range(16)] + [0] * 8)


STEPS = st.lists(st.tuples(st.booleans(), LETTERS, LETTERS, st.integers(0, 5), st.booleans()), max_size=25)


@given(STEPS, st.integers(9, 14), st.sampled_from([8.0, 16.0, 20.0]))
def test_as_two_lists_would_have_it(
    steps: list[tuple[bool, list[str], list[str], int, bool]], most: int, text: float
) -> None:
    room = most * 20.0
    blocks, listed = Blocks(24), Listed(room, text, 24)
    under_way: list[tuple[Chain, Chain, int]] = []
    for as_text, letters, more, ends, read in steps:
        make = text_of if as_text else ids_of
        chain, longer = make(letters), make(letters + more)
        assert blocks.find(chain.hashes) == listed.find(chain)
        epoch = blocks.hold(chain.hashes, room, text, 16.0)
        assert epoch == listed.hold(chain)
        under_way.append((chain, longer, epoch))
        if ends < len(under_way):
            chain, longer, epoch = under_way.pop(ends)
            if read:
                blocks.leave(longer.hashes, len(chain.hashes), epoch, room, text, 16.0)
                listed.leave(longer, len(chain.hashes), epoch, read)
            else:
                blocks.drop(chain.hashes, epoch)
                listed.leave(chain, len(chain.hashes), epoch, read)
        assert len(blocks) == len(listed.known)
        assert blocks.tokens(text, 16.0) == sum(map(listed.size, listed.known)) <= room
        for _, each, other, *_ in steps:
            for known in (text_of(each), ids_of(each), text_of(each + other)):
                assert blocks.find(known.hashes) == listed.find(known)


@given(st.lists(LETTERS, min_size=1, max_size=12), st.data())
def test_what_was_freed_before_a_block_that_is_gone_goes_too(prompts: list[list[str]], data: st.DataObject) -> None:
    blocks, freed = Blocks(1000), dict[int, int]()
    epochs = []
    for letters in prompts:
        chain = text_of(letters)
        since = blocks.hold(chain.hashes, 1e9, 16.0, 16.0)
        blocks.leave(chain.hashes, len(chain.hashes), since, 1e9, 16.0, 16.0)
        epochs.append(since + 1)
        freed |= dict.fromkeys(chain.hashes.tolist(), epochs[-1])
    held = ids_of(prompts[0])
    blocks.hold(held.hashes, 1e9, 16.0, 16.0)
    until = data.draw(st.sampled_from(epochs))
    blocks.forget_until(until)
    kept = {hashed for hashed, epoch in freed.items() if epoch > until}
    assert len(blocks) == len(kept) + len(held.hashes)
    for letters in prompts:
        chain = text_of(letters)
        assert blocks.find(chain.hashes) == next(
            (k for k, hashed in enumerate(chain.hashes.tolist()) if hashed not in kept), len(chain.hashes)
        )


def test_never_more_than_its_room() -> None:
    blocks = Blocks(50)
    size = blocks.bytes
    for k in range(40):
        chain = chain_of_ids(range(1000 * k, 1000 * k + 320))
        since = blocks.hold(chain.hashes, 1e9, 16.0, 16.0)
        assert len(blocks) == min(50, 20 * (k + 1))
        assert blocks.find(chain.hashes) == 20
        if k % 3:
            blocks.leave(chain.hashes, 20, since, 1e9, 16.0, 16.0)
    assert blocks.bytes == size
    blocks.shrink(160.0, 16.0, 16.0)
    assert len(blocks) == 10


def test_those_held_stay_until_nothing_is_free() -> None:
    blocks = Blocks(50)
    held, ended, last = (chain_of_ids(range(1000 * k, 1000 * k + 160)) for k in range(3))
    blocks.hold(held.hashes, 320.0, 16.0, 16.0)
    since = blocks.hold(ended.hashes, 320.0, 16.0, 16.0)
    blocks.leave(ended.hashes, 10, since, 320.0, 16.0, 16.0)
    blocks.hold(last.hashes, 320.0, 16.0, 16.0)
    assert [blocks.find(each.hashes) for each in (held, ended, last)] == [10, 0, 10]
    blocks.leave(ended.hashes, 0, since, 320.0, 16.0, 16.0)
    assert blocks.find(ended.hashes) == 0, "others hold all the room"


def test_when_a_block_had_become_free() -> None:
    blocks = Blocks(50)
    one, other = text_of(["a", "b"]), text_of(["a", "c"])
    first = blocks.hold(one.hashes, 1e9, 16.0, 16.0)
    blocks.leave(one.hashes, 2, first, 1e9, 16.0, 16.0)
    second = blocks.hold(other.hashes, 1e9, 16.0, 16.0)
    assert blocks.freed_before(other.hashes[:1], second) == first + 1
    assert blocks.freed_before(other.hashes[1:], second) == 0, "it was not there"
    third = blocks.hold(one.hashes, 1e9, 16.0, 16.0)
    assert blocks.freed_before(other.hashes[:1], second) == -1, "held by others since"
    assert blocks.freed_before(one.hashes[:1], third) == -1, "held by others then"
