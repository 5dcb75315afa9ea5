"""The hit rate against the memory, against a memory kept block by block."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fluidgate.workloads.hit_curve import HitCurve, by_session, hit_curve
from fluidgate.workloads.streams.requests import REQUEST, Requests
from fluidgate.workloads.streams.script import PIECE, Pieces

MOONCAKE = Path(__file__).parents[3] / "shared" / "data" / "mooncake_conversation_trace.jsonl"


def random_trace(seed: int, block: int) -> tuple[Pieces, Requests]:
    """A few dozen requests of a random tree of texts, some of them answers to others, some like no other."""
    random = np.random.default_rng(seed)
    pieces = np.zeros(random.integers(3, 25), PIECE)
    for p in range(1, len(pieces)):
        parent = random.integers(0, p)
        pieces[p] = parent, pieces["end"][parent] + random.integers(1, 4 * block)
    requests = np.zeros(60, REQUEST)
    for each in requests:
        each["cls"] = random.integers(0, 2)
        text = random.integers(0, len(pieces))
        children = np.flatnonzero((pieces["parent"] == text) & (np.arange(len(pieces)) > 0))
        each["text"], each["output"] = text, random.integers(1, 3 * block)
        each["prompt"] = pieces["end"][text] if text else random.integers(1, 4 * block)
        if text and len(children) and random.random() < 0.6:
            each["answer"] = random.choice(children)
            each["output"] = pieces["end"][each["answer"]] - each["prompt"]
    return pieces, requests


def blocks_of(pieces: Pieces, text: int, block: int) -> list[tuple[int, int]]:
    """The full blocks of a text, each named by its place and the piece that its last token is of."""
    owners: list[int] = []
    while text:
        parent = int(pieces["parent"][text])
        owners = [text] * int(pieces["end"][text] - pieces["end"][parent]) + owners
        text = parent
    return [(k, owners[(k + 1) * block - 1]) for k in range(len(owners) // block)]


def found_block_by_block(pieces: Pieces, requests: Requests, block: int, memory: int, answers: bool) -> list[int]:
    """Tokens of each class found in a memory of so many blocks."""
    kept: list[tuple[int, int]] = []
    found = [0, 0]
    for k, each in enumerate(requests):
        matched = 0
        for name in blocks_of(pieces, each["text"], block):
            if name not in kept:
                break
            matched += 1
        found[each["cls"]] += min(matched * block, (int(each["prompt"]) - 1) // block * block)
        used = blocks_of(pieces, each["answer"] if answers and each["answer"] else each["text"], block)
        tokens = int(each["prompt"]) + (int(each["output"]) if answers else 0)
        lost = [(-k - 1, place) for place in range(-(-tokens // block) - len(used))]
        for name in [*lost, *reversed(used)]:
            if name in kept:
                kept.remove(name)
            kept.append(name)
        kept = kept[-memory:] if memory else []
    return found


@pytest.mark.parametrize("answers", [False, True])
@pytest.mark.parametrize("block", [1, 4, 16])
@pytest.mark.parametrize("seed", range(8))
def test_each_memory_holds_what_one_kept_block_by_block_does(seed: int, block: int, answers: bool) -> None:
    pieces, requests = random_trace(seed, block)
    curve = hit_curve(pieces, requests, block=block, answers=answers)
    for memory in (0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 1000):
        wanted = found_block_by_block(pieces, requests, block, memory, answers)
        assert curve.found(memory * block).tolist() == wanted
        assert curve.found((memory + 1) * block - 0.5).tolist() == wanted, "a block that is not whole holds nothing"
    assert curve.found(np.inf).tolist() == wanted
    assert curve.prompt.tolist() == [int(requests["prompt"][requests["cls"] == k].sum()) for k in range(2)]


@pytest.mark.parametrize("seed", range(8))
def test_more_memory_never_finds_less_and_as_much_as_asked_for(seed: int) -> None:
    curve = hit_curve(*random_trace(seed, 16))
    rates = [curve.rate(memory) for memory in range(0, curve.largest + 32, 16)]
    assert np.all(np.diff(rates) >= 0.0)
    assert rates[-1] == curve.endless
    assert rates[-4] < curve.endless, "the largest memory that finds more"
    for share in (0.25, 0.5, 1.0):
        least = curve.memory_for(share * curve.endless)
        assert least is not None
        assert curve.rate(least) >= share * curve.endless > (curve.rate(least - 16) if least else -1.0)
    assert curve.memory_for(curve.endless + 0.01) is None


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_several_gpus_each_hold_what_their_own_requests_had(seed: int, together: bool) -> None:
    pieces, requests = random_trace(seed, 4)
    curve = hit_curve(pieces, requests, block=4, gpus=3, together=together)
    group = by_session(pieces, requests, 3) if together else np.arange(len(requests)) % 3
    for memory in (3, 10, 30):
        each = [found_block_by_block(pieces, requests[group == k], 4, memory, True) for k in range(3)]
        assert curve.found(4 * memory).tolist() == np.sum(each, axis=0).tolist()


def sessions(count: int, turns: int) -> tuple[Pieces, Requests]:
    """Sessions side by side: a common beginning of 64 tokens, then 160 a turn and an answer of 32."""
    pieces, rows = [(0, 0), (0, 64)], []
    heads = [1] * count
    for _ in range(turns):
        for k in range(count):
            end = pieces[heads[k]][1]
            pieces += [(heads[k], end + 160), (len(pieces), end + 192)]
            heads[k] = len(pieces) - 1
            rows.append((len(pieces) - 2, len(pieces) - 1, end + 160))
    requests = np.zeros(len(rows), REQUEST)
    for each, (text, answer, prompt) in zip(requests, rows, strict=True):
        each["text"], each["answer"], each["prompt"], each["output"] = text, answer, prompt, 32
    return np.array(pieces, PIECE), requests


def test_sessions_stay_together_and_begin_alike_everywhere() -> None:
    pieces, requests = sessions(40, 10)
    group = by_session(pieces, requests, 4)
    assert np.array_equal(group.reshape(10, 40), np.tile(np.arange(40) % 4, (10, 1)))
    alone, together, apart = (
        hit_curve(pieces, requests, **kind) for kind in ({}, {"gpus": 4}, {"gpus": 4, "together": False})
    )
    assert alone.endless - together.endless == pytest.approx(3 * 64 / requests["prompt"].sum())
    assert together.memory_for(0.5) < 0.3 * alone.memory_for(0.5)
    assert apart.endless == together.endless, "40 sessions in turn happen to stay where they were"
    mixed = requests[np.random.default_rng(1).permuted(np.arange(400).reshape(10, 40), axis=1).ravel()]
    apart = hit_curve(pieces, mixed, gpus=4, together=False)
    assert apart.endless < 0.8 * hit_curve(pieces, mixed, gpus=4).endless


def test_nothing_is_found_where_nothing_is_shared() -> None:
    requests = np.zeros(5, REQUEST)
    requests["prompt"], requests["output"] = 100, 10
    curve = hit_curve(np.zeros(1, PIECE), requests, gpus=2)
    assert curve.endless == 0.0
    assert curve.largest == 0
    assert curve.rates(1e6).tolist() == [0.0]
    empty = hit_curve(np.zeros(1, PIECE), requests[:0])
    assert (empty.endless, empty.rates(10).tolist()) == (0.0, [0.0])


def tree_of_blocks(prompts: list[list[int]], lengths: list[int], size: int) -> tuple[Pieces, Requests]:
    """The texts of prompts that have the numbers of their blocks, the last one cut."""
    known: dict[tuple[int, int, int], int] = {}
    pieces, requests = [(0, 0)], np.zeros(len(prompts), REQUEST)
    for each, ids, length in zip(requests, prompts, lengths, strict=True):
        piece = 0
        for k, number in enumerate(ids):
            end = min((k + 1) * size, length)
            key = (piece, number, end)
            if key not in known:
                known[key] = len(pieces)
                pieces.append((piece, end))
            piece = known[key]
        each["text"], each["prompt"], each["output"] = piece, length, 1
    return np.array(pieces, PIECE), requests


def test_the_public_trace_with_an_endless_memory() -> None:
    if not MOONCAKE.exists():
        pytest.skip(f"{MOONCAKE.name} is not at ../shared/data")
    rows = [json.loads(line) for line in MOONCAKE.read_text().splitlines()]
    prompts, lengths = [row["hash_ids"] for row in rows], [row["input_length"] for row in rows]
    pieces, requests = tree_of_blocks(prompts, lengths, 512)
    curve = hit_curve(pieces, requests, block=1)
    assert curve.endless == pytest.approx(0.3736, abs=2e-4)
    assert hit_curve(pieces, requests).endless == pytest.approx(0.3735, abs=2e-4)


def test_a_curve_of_no_stretches_is_flat() -> None:
    nothing = np.zeros(0, np.int64)
    curve = HitCurve(16, np.array([100]), nothing, nothing, np.zeros(0, np.int32))
    assert curve.rate(1e9) == 0.0
