"""Chains of hashes: alike for as long as prompts are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fluidgate.gateway.prefixes.chain import IDS_BLOCK, TEXT_BLOCK, chain_of_ids, chain_of_text


def shared(one: list[int], other: list[int]) -> int:
    """Hashes that two chains begin with."""
    return next((k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@given(st.binary(max_size=400), st.binary(max_size=300), st.binary(max_size=300))
def test_texts_share_the_blocks_that_they_begin_with(start: bytes, one: bytes, other: bytes) -> None:
    texts = start + one, start + other
    chains = [chain_of_text(text) for text in texts]
    assert [len(chain.hashes) for chain in chains] == [len(text) // TEXT_BLOCK for text in texts]
    alike = next((k for k, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
    assert shared(*(chain.hashes.tolist() for chain in chains)) == alike // TEXT_BLOCK


@given(st.lists(st.integers(0, 2**63 - 1), max_size=60), st.lists(st.integers(0, 2**63 - 1), max_size=60))
def test_a_chain_goes_on_as_if_it_had_been_whole(one: list[int], other: list[int]) -> None:
    whole, continued = chain_of_ids(one + other), chain_of_ids(one).followed_by(other)
    assert continued.hashes.tolist() == whole.hashes.tolist()
    assert continued.size == whole.size == len(one + other)
    assert len(whole.hashes) == whole.size // IDS_BLOCK


@given(st.lists(st.binary(max_size=150), max_size=6))
def test_a_text_goes_on_piece_by_piece(pieces: list[bytes]) -> None:
    chain = chain_of_text(b"", b"model")
    for piece in pieces:
        chain = chain.followed_by(piece)
    assert chain.hashes.tolist() == chain_of_text(b"".join(pieces), b"model").hashes.tolist()


def test_models_texts_and_ids_are_told_apart() -> None:
    text = b"\0" * 640
    chains = [chain_of_text(text), chain_of_text(text, b"adapter"), chain_of_ids([0] * 160)]
    hashes = [set(chain.hashes.tolist()) for chain in chains]
    assert not hashes[0] & hashes[1]
    assert not (hashes[0] | hashes[1]) & hashes[2]
    assert {each & 1 for each in hashes[0]} == {0}
    assert {each & 1 for each in hashes[2]} == {1}
