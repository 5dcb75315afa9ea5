"""The index against engines that are played: what they tell sets right what is believed of them."""

from __future__ import annotations

import random
from collections import OrderedDict

import pytest

from fluidgate.gateway.prefixes import Chain, PrefixIndex, chain_of_ids, chain_of_text


class PlayedEngine:
    """Blocks of 16 tokens, those used least recently out first, as vLLM keeps them."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.order: OrderedDict[tuple[int, ...], None] = OrderedDict()

    def read(self, ids: list[int]) -> int:
        """Tokens that had not to be read."""
        keys = [tuple(ids[: 16 * (k + 1)]) for k in range(len(ids) // 16)]
        found = next((k for k, key in enumerate(keys) if key not in self.order), len(keys))
        for key in reversed(keys):
            self.order[key] = None
            self.order.move_to_end(key)
        while len(self.order) > self.blocks:
            self.order.popitem(last=False)
        return min(found * 16, (len(ids) - 1) // 16 * 16)


def everywhere(engine: int) -> bool:
    return True


def found_on(index: PrefixIndex, chain: Chain, tokens: int) -> dict[int, int]:
    reuse = index.found(chain, tokens, everywhere)
    count = int(reuse.count[0])
    return dict(zip(reuse.gpu[:count].tolist(), reuse.tokens[:count].tolist(), strict=True))


def ids(start: int, number: int) -> list[int]:
    return list(range(start, start + number))


def test_most_first_and_only_where_requests_are_taken() -> None:
    index, prompt = PrefixIndex(), ids(0, 330)
    for engine, length in ((4, 100), (2, 330), (7, 200), (5, 10)):
        index.sent(engine, chain_of_ids(prompt[:length]), length)
    chain = chain_of_ids(prompt)
    assert found_on(index, chain, 330) == {2: 320, 7: 192, 4: 96}
    assert list(found_on(index, chain, 330)) == [2, 7, 4]
    reuse = index.found(chain, 330, lambda engine: engine != 2)
    assert reuse.gpu[: reuse.count[0]].tolist() == [7, 4]
    assert found_on(index, chain_of_ids(prompt[:320]), 320)[2] == 304, "one token is read"
    index.forget(2)
    index.remove(7)
    assert found_on(index, chain, 330) == {4: 96}


def test_no_more_candidates_than_a_rule_takes() -> None:
    index, chain = PrefixIndex(), chain_of_ids(ids(0, 160))
    for engine in range(100):
        index.sent(engine, chain, 160)
    assert len(found_on(index, chain, 160)) == 32


def test_a_text_counts_by_its_share_of_bytes() -> None:
    index = PrefixIndex()
    text = b"x" * 6400
    index.sent(0, chain_of_text(text), 2000)
    assert found_on(index, chain_of_text(text + b"y" * 6400), 4000) == {0: 2000}


def played(blocks: int, believed: int, seed: int = 3) -> tuple[PrefixIndex, int, int, int]:
    """Sessions on one engine that keeps fewer blocks than it is believed to: tokens believed, found and sent in the
    second half."""
    rng, engine, index = random.Random(seed), PlayedEngine(blocks), PrefixIndex(16 * believed)
    sessions = [ids(10_000 * k, 200) for k in range(40)]
    counts: list[tuple[int, int, int]] = []
    for _ in range(1200):
        k = min(int(rng.expovariate(0.15)), 39)
        sessions[k] = (
            sessions[k] + ids(10_000 * k + len(sessions[k]), 30)
            if len(sessions[k]) < 900
            else ids(rng.randrange(1 << 40), 200)
        )
        prompt = sessions[k]
        sent = index.sent(0, chain_of_ids(prompt), len(prompt))
        found = engine.read(prompt)
        index.told(0, sent, len(prompt), found)
        index.left(sent)
        counts.append((sent.found, found, len(prompt)))
    half = counts[len(counts) // 2 :]
    return index, *(sum(column) for column in zip(*half, strict=True))  # type: ignore[return-value]


@pytest.mark.parametrize("blocks", [300, 600, 1200])
def test_a_smaller_memory_than_believed_is_learnt(blocks: int) -> None:
    index, believed, found, sent = played(blocks, 4000)
    assert 0 < found < 0.95 * sent
    assert abs(believed - found) < 0.03 * sent
    assert index.snapshot(0)["room"] < 16 * 4000 * 0.6


def test_a_memory_that_is_known_is_followed_exactly() -> None:
    index, believed, found, _ = played(500, 500)
    assert believed == found
    assert index.snapshot(0)["room"] == 16 * 500
    assert index.snapshot(0)["blocks"] <= 500


def test_an_engine_that_tells_nothing_teaches_nothing() -> None:
    index, chain = PrefixIndex(), chain_of_ids(ids(0, 320))
    for _ in range(30):
        index.told(0, index.sent(0, chain, 320), 320, None)
    assert found_on(index, chain, 320) == {0: 304}


def test_one_that_tells_leaves_out_nothing_found() -> None:
    index, chain = PrefixIndex(), chain_of_ids(ids(0, 3200))
    index.told(0, index.sent(0, chain, 3200), 3200, 3184)
    for _ in range(60):
        index.told(0, index.sent(0, chain, 3200), 3200, None)
    assert found_on(index, chain, 3200)[0] < 1600


def test_a_counter_stands_in_for_answers_that_do_not_tell() -> None:
    index, chain, hits = PrefixIndex(), chain_of_ids(ids(0, 3200)), 0.0
    index.counted(0, hits)
    for _ in range(200):
        sent = index.sent(0, chain, 3200)
        hits += sent.listed / 2
        index.left(sent)
        index.counted(0, hits)
    assert index.snapshot(0)["told_tokens"] == pytest.approx(hits, rel=0.01)
    assert index.snapshot(0)["agreement"] < 0.6


@pytest.mark.parametrize("others", [0, 1, 3])
def test_what_others_send_is_no_find_of_ours(others: int) -> None:
    """They send as much as we do, or three times that, and find half of it, as we do of ours."""
    index, chain, hits, prompts = PrefixIndex(), chain_of_ids(ids(0, 3200)), 0.0, 0.0
    index.counted(0, hits, prompts)
    for _ in range(200):
        index.left(index.sent(0, chain, 3200))
        index.counted(0, hits, prompts)
        hits += 1600 * (1 + others)
        prompts += 3200 * (1 + others)
    index.counted(0, hits, prompts)
    assert index.snapshot(0)["told_tokens"] == pytest.approx(200 * 1600, rel=0.02)
    assert 0.45 < index.snapshot(0)["agreement"] < 0.6


def test_bytes_a_token_are_learnt() -> None:
    index = PrefixIndex(kv_tokens=1600)
    for _ in range(100):
        index.told(0, index.sent(0, chain_of_text(b"z" * 800), 200), 400, None)
    assert index.bytes_per_token == pytest.approx(2.0, rel=0.02)
    index.forget(0)
    index.sent(0, chain_of_text(b"a" * 64 * 200), 6400)
    assert index.snapshot(0)["blocks"] == 50, "of 32 tokens each"


def test_memory_is_bounded_whatever_comes() -> None:
    index = PrefixIndex(kv_tokens=16_000)
    rng = random.Random(5)
    sizes = set()
    for _ in range(300):
        index.sent(rng.randrange(3), chain_of_text(rng.randbytes(rng.randrange(1, 20_000))), 4000)
        sizes.add(sum(index.snapshot(engine)["bytes"] for engine in range(3)))
    assert max(index.snapshot(engine)["blocks"] for engine in range(3)) <= 1000
    assert max(sizes) < 3 * 60 * 1000
