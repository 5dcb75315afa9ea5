"""Texts of prompts: from hashes of blocks and from sessions, against sets of beginnings written from scratch."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluidgate.workloads import Trace, read_trace
from fluidgate.workloads.blocks import Blocks
from fluidgate.workloads.sessions import NONE, Sessions
from fluidgate.workloads.streams import Texts, found_tokens, prefix_share, texts_of
from fluidgate.workloads.streams.texts import texts_of_blocks, texts_of_sessions

DATA = Path(__file__).parents[4] / "shared" / "data"
MOONCAKE = DATA / "mooncake_conversation_trace.jsonl"
AGENTS = DATA / "agentic_sessions.jsonl.gz"
quick = settings(deadline=None, max_examples=200)


def sound(texts: Texts, prompt: Any) -> None:
    """A tree, parents first, no piece of which is empty; prompts end with pieces, and no two could be joined."""
    parent, end = texts.pieces["parent"], texts.pieces["end"]
    assert parent[0] == end[0] == 0
    assert (parent[1:] < np.arange(1, len(parent))).all()
    assert (end[1:] > end[parent[1:]]).all()
    np.testing.assert_array_equal(end[texts.text], prompt)
    children = np.bincount(parent[1:], minlength=len(parent))
    inner = set(np.flatnonzero(children == 1).tolist()) - {0} - set(texts.text.tolist())
    assert not inner
    assert set(np.flatnonzero(children == 0).tolist()) - {0} <= set(texts.text.tolist())


def spelled(texts: Texts, k: int) -> list[tuple[int, int]]:
    """The tokens of a prompt, each as its piece and its place."""
    piece, tokens = int(texts.text[k]), []
    while piece:
        above = int(texts.pieces["parent"][piece])
        tokens += [(piece, place) for place in range(texts.pieces["end"][above], texts.pieces["end"][piece])]
        piece = above
    return sorted(tokens, key=lambda token: token[1])


def alike(one: list[Any], two: list[Any]) -> int:
    return next((k for k, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))


def same_beginnings(texts: Texts, tokens: list[list[Any]]) -> None:
    """Any two prompts begin alike for as long as their tokens do, and what is found is the longest of these."""
    found = found_tokens(texts.pieces, texts.text, np.array([len(each) for each in tokens]))
    for k, own in enumerate(tokens):
        shared = [alike(spelled(texts, j), spelled(texts, k)) for j in range(k)]
        assert shared == [alike(before, own) for before in tokens[:k]]
        assert found[k] == max(shared, default=0)


@quick
@given(
    st.lists(st.tuples(st.lists(st.integers(0, 2), min_size=0, max_size=4), st.integers(1, 4)), max_size=8),
    st.booleans(),
)
def test_texts_of_blocks_share_what_their_blocks_do(drawn: list[tuple[list[int], int]], wide: bool) -> None:
    size, shift = 4, 2**40 if wide else 0
    prompts = [[*ids, 7] for ids, _ in drawn]  # which all may end with one block, each cut elsewhere
    lengths = np.array([size * (len(ids) - 1) + last for ids, (_, last) in zip(prompts, drawn, strict=True)], np.int64)
    blocks = Blocks.joined(size, [np.array(ids, np.uint64) + np.uint64(shift) for ids in prompts])
    texts = texts_of_blocks(blocks, lengths)
    sound(texts, lengths)
    tokens = [
        [(*ids[: t // size + 1], t % size) for t in range(length)] for ids, length in zip(prompts, lengths, strict=True)
    ]
    same_beginnings(texts, tokens)


def test_tokens_beyond_the_known_blocks_are_like_no_others() -> None:
    blocks = Blocks.joined(4, [np.array(ids, np.uint64) for ids in ([5], [5], [5, 6], [])])
    prompt = np.array([6, 6, 8, 3])
    texts = texts_of_blocks(blocks, prompt)
    sound(texts, prompt)
    assert found_tokens(texts.pieces, texts.text, prompt).tolist() == [0, 4, 4, 0]


@st.composite
def chains(draw: Any) -> tuple[list[int], list[int], list[int]]:
    after: list[int] = []
    found: list[int] = []
    prompt: list[int] = []
    for _ in range(draw(st.integers(1, 3))):
        for turn in range(draw(st.integers(1, 6))):
            again = draw(st.integers(0, prompt[-1])) if turn else 0
            found.append(again)
            prompt.append(draw(st.integers(max(1, again), again + 5)))
            after.append(len(prompt) - 2 if turn else NONE)
    return after, found, prompt


@quick
@given(chains())
def test_texts_of_sessions_begin_with_what_is_found_of_the_last(chain: tuple[list[int], list[int], list[int]]) -> None:
    after, found, prompt = (np.array(column, np.int64) for column in chain)
    sessions = Sessions(after, np.full(len(after), NONE), np.zeros(len(after)), np.zeros(len(after)), found)
    texts = texts_of_sessions(sessions, found, prompt)
    sound(texts, prompt)
    tokens: list[list[Any]] = []
    for k, before in enumerate(after):
        last = [] if before == NONE else tokens[before]
        tokens.append([*last[: found[k]], *((k, t) for t in range(prompt[k] - found[k]))])
    same_beginnings(texts, tokens)


def test_two_traces_have_nothing_in_common() -> None:
    blocks = Blocks.joined(4, [np.array([5], np.uint64), np.array([5, 6], np.uint64)])
    one = texts_of_blocks(blocks, np.array([4, 8]))
    both = Texts.joined([one, one])
    prompt = np.array([4, 8, 4, 8])
    sound(both, prompt)
    assert found_tokens(both.pieces, both.text, prompt).tolist() == [0, 4, 0, 4]
    assert prefix_share(both.pieces, both.text, prompt) == 8 / 24


def test_a_trace_that_says_nothing_has_prompts_like_no_others() -> None:
    trace = Trace(np.zeros(2), np.array([3, 4]), np.array([1, 1]), None, "t")
    texts = texts_of(trace)
    assert texts.text.tolist() == [0, 0]
    assert prefix_share(texts.pieces, texts.text, trace.prompt_tokens) == 0.0


def test_the_public_trace_of_mooncake() -> None:
    if not MOONCAKE.exists():
        pytest.skip(f"{MOONCAKE.name} is not at ../shared/data")
    trace = read_trace(MOONCAKE)
    begun = time.process_time()
    texts = texts_of(trace)
    assert time.process_time() - begun < 2.0
    sound(texts, trace.prompt_tokens)
    assert round(prefix_share(texts.pieces, texts.text, trace.prompt_tokens), 4) == 0.3736
    seen: set[tuple[int, ...]] = set()
    expected = []
    for line in MOONCAKE.read_text().splitlines():
        request = json.loads(line)
        ids, held = request["hash_ids"], 0
        beginnings = [tuple(ids[: k + 1]) for k in range(len(ids))]
        while held < len(ids) and beginnings[held] in seen:
            held += 1
        seen.update(beginnings)
        expected.append(min(512 * held, request["input_length"]))
    found = found_tokens(texts.pieces, texts.text, trace.prompt_tokens)
    np.testing.assert_array_equal(found, expected)


def test_the_public_sessions_of_agents() -> None:
    if not AGENTS.exists():
        pytest.skip(f"{AGENTS.name} is not at ../shared/data")
    trace = read_trace(AGENTS)
    begun = time.process_time()
    texts = texts_of(trace)
    assert time.process_time() - begun < 2.0
    sound(texts, trace.prompt_tokens)
    assert round(prefix_share(texts.pieces, texts.text, trace.prompt_tokens), 4) == 0.9612
    assert trace.sessions is not None
    np.testing.assert_array_equal(found_tokens(texts.pieces, texts.text, trace.prompt_tokens), trace.sessions.found)
    with gzip.open(AGENTS, "rt") as file:
        sessions = [json.loads(line) for line in file]
    parts = [part for each in sessions for part in (each, *each["subagents"])]
    requests = [request for part in parts for request in part["requests"]]
    assert trace.prompt_tokens.tolist() == [prompt for _, prompt, output, *_ in requests if output > 0]
    assert (len(trace), trace.empty) == (32_528, 18)
    assert (trace.sessions.count, trace.sessions.subagents) == (473, 53)
    thought = 0.0  # none is lost with the requests without tokens in between
    for part in parts:
        answered = [k for k, request in enumerate(part["requests"]) if request[2] > 0]
        thought += sum(request[4] for request in part["requests"][answered[0] + 1 : answered[-1] + 1])
    assert trace.sessions.think is not None
    assert thought == pytest.approx(trace.sessions.think.sum(), rel=1e-9)
