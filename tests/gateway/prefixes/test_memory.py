"""The blocks of one engine against a list that is kept in the order of use."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fluidgate.gateway.prefixes.chain import Chain, chain_of_ids, chain_of_text
from fluidgate.gateway.prefixes.memory import Blocks


class Listed:
    """The same, block by block: the last of the list is the one used last."""

    def __init__(self) -> None:
        self.order: list[int] = []

    def touch(self, chain: Chain, room: float, text: float, ids: float) -> None:
        for hashed in reversed(chain.hashes.tolist()):
            if hashed in self.order:
                self.order.remove(hashed)
            self.order.append(hashed)
            while sum(ids if each & 1 else text for each in self.order) > room:
                del self.order[0]

    def find(self, chain: Chain) -> int:
        known = set(self.order)
        return next((k for k, hashed in enumerate(chain.hashes.tolist()) if hashed not in known), len(chain.hashes))


LETTERS = st.lists(st.sampled_from("abc"), min_size=1, max_size=8)


def text_of(letters: list[str]) -> Chain:
    """A block a letter, and half of one more."""
    return chain_of_text("".join(letter * 64 for letter in letters).encode() + b"-" * 32)


def ids_of(letters: list[str]) -> Chain:
    return chain_of_ids([ord(letter) for letter in letters for _ in range(16)] + [0] * 8)


@given(st.lists(st.tuples(st.booleans(), LETTERS), max_size=25), st.integers(2, 12), st.sampled_from([8.0, 16.0, 30.0]))
def test_least_recently_used_blocks_go_first(prompts: list[tuple[bool, list[str]]], most: int, text: float) -> None:
    blocks, listed, room = Blocks(24), Listed(), most * 16.0
    for as_text, letters in prompts:
        chain = text_of(letters) if as_text else ids_of(letters)
        assert blocks.find(chain.hashes) == listed.find(chain)
        blocks.touch(chain.hashes, room, text, 16.0)
        listed.touch(chain, room, text, 16.0)
        assert len(blocks) == len(listed.order)
        assert blocks.tokens(text, 16.0) <= room
    for _, letters in prompts:
        for chain in (text_of(letters), ids_of(letters)):
            assert blocks.find(chain.hashes) == listed.find(chain)


@given(st.lists(LETTERS, min_size=1, max_size=12), st.data())
def test_what_was_used_before_a_block_that_is_gone_goes_too(prompts: list[list[str]], data: st.DataObject) -> None:
    blocks, used = Blocks(1000), dict[int, int]()
    epochs = []
    for letters in prompts:
        chain = text_of(letters)
        epochs.append(blocks.touch(chain.hashes, 1e9, 16.0, 16.0))
        used |= dict.fromkeys(chain.hashes.tolist(), epochs[-1])
    until = data.draw(st.sampled_from(epochs))
    blocks.forget_until(until)
    kept = {hashed for hashed, epoch in used.items() if epoch > until}
    assert len(blocks) == len(kept)
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
        blocks.touch(chain.hashes, 1e9, 16.0, 16.0)
        assert len(blocks) == min(50, 20 * (k + 1))
        assert blocks.find(chain.hashes) == 20
    assert blocks.bytes == size
    blocks.shrink(160.0, 16.0, 16.0)
    assert (len(blocks), blocks.find(chain.hashes)) == (10, 10)


def test_when_a_block_was_used_before() -> None:
    blocks = Blocks(50)
    one, other = text_of(["a", "b"]), text_of(["a", "c"])
    first = blocks.touch(one.hashes, 1e9, 16.0, 16.0)
    second = blocks.touch(other.hashes, 1e9, 16.0, 16.0)
    assert blocks.used_before(other.hashes[:1], second) == first
    assert blocks.used_before(other.hashes[1:], second) == 0, "never"
    blocks.touch(one.hashes, 1e9, 16.0, 16.0)
    assert blocks.used_before(other.hashes[:1], second) == -1, "again since"
