"""What the prompts of a trace have in common: the tree of pieces of their texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluidgate.model import Array
from fluidgate.workloads.blocks import Blocks
from fluidgate.workloads.sessions import NONE, Sessions
from fluidgate.workloads.streams.requests import NOTHING
from fluidgate.workloads.streams.script import PIECE, Pieces, no_pieces
from fluidgate.workloads.traces import Trace

Lengths = NDArray[np.int64]


@dataclass(frozen=True)
class Texts:
    """The texts of the prompts of requests, in order.

    Attributes:
        pieces: of all of them; as few as there can be: each ends where prompts part, or where one ends.
        text: the piece with which each prompt ends, shape (requests,); NOTHING: it is like no other.
    """

    pieces: Pieces
    text: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.text)

    @staticmethod
    def joined(parts: Sequence[Texts]) -> Texts:
        """Those of several traces, which have nothing in common, one after the other."""
        pieces, texts, begin = [no_pieces()], [], 0
        for part in parts:
            own = part.pieces[1:].copy()
            own["parent"] = np.where(own["parent"] == 0, 0, own["parent"] + begin)
            pieces.append(own)
            texts.append(np.where(part.text == NOTHING, NOTHING, part.text + begin))
            begin += len(own)
        return Texts(np.concatenate(pieces), np.concatenate([np.empty(0, np.int32), *texts]).astype(np.int32))


def texts_of(trace: Trace) -> Texts:
    """The texts of a trace's prompts; each like no other where the file does not say."""
    if trace.blocks is not None:
        return texts_of_blocks(trace.blocks, trace.prompt_tokens)
    if trace.sessions is not None and trace.sessions.found is not None:
        return texts_of_sessions(trace.sessions, trace.sessions.found, trace.prompt_tokens)
    return unlike(len(trace))


def unlike(count: int) -> Texts:
    """Of so many prompts of which none begins like another."""
    return Texts(no_pieces(), np.zeros(count, np.int32))


def found_tokens(pieces: Pieces, text: NDArray[np.int32], prompt: Lengths) -> Lengths:
    """The leading tokens of each prompt that those before it had, of requests in order; shape (requests,).

    That is what an endless memory would hold of it, by the token.

    Args:
        pieces, text: see `Texts`.
        prompt: tokens of each.
    """
    first = np.full(len(pieces), len(text))
    np.minimum.at(first, text, np.arange(len(text)))
    parents = pieces["parent"].tolist()
    seen = first.tolist()
    for piece in range(len(pieces) - 1, 0, -1):  # a parent has a smaller number
        parent = parents[piece]
        if seen[piece] < seen[parent]:
            seen[parent] = seen[piece]
    new = np.bincount(seen[1:], pieces["end"][1:] - pieces["end"][pieces["parent"][1:]], len(text) + 1)[: len(text)]
    return np.where(text == NOTHING, 0, prompt - new.astype(np.int64))


def prefix_share(pieces: Pieces, text: NDArray[np.int32], prompt: Lengths) -> float:
    """The share of all prompt tokens that an endless memory would hold; see `found_tokens`."""
    return float(found_tokens(pieces, text, prompt).sum() / prompt.sum())


def texts_of_blocks(blocks: Blocks, prompt: Lengths) -> Texts:
    """The texts of prompts that are known by the hashes of their blocks.

    Tokens beyond the last block that is known are like no others. Where prompts end with one block and different
    numbers of its tokens, the shorter is the beginning of the longer.
    """
    count = np.diff(blocks.first)
    known = np.minimum(count * blocks.size, prompt)
    width = 4 if not len(blocks.ids) or blocks.ids.max() < 2**32 else 8
    raw = blocks.ids.astype(f">u{width}").tobytes()  # of which the order is that of the numbers
    edges = (blocks.first * width).tolist()
    order = sorted(range(len(prompt)), key=lambda k: (raw[edges[k] : edges[k + 1]], known[k]))
    tree = _Tree()
    text = np.zeros(len(prompt), np.int64)
    last = -1
    for k in order:
        alike = 0 if last < 0 else min(_alike(blocks, last, k) * blocks.size, int(known[last]), int(known[k]))
        text[k] = tree.add(alike, int(known[k]))
        last = k
    for k in np.flatnonzero(known < prompt).tolist():
        text[k] = tree.beyond(int(text[k]), int(prompt[k]))
    return tree.texts(text)


def _alike(blocks: Blocks, one: int, two: int) -> int:
    """Leading blocks that two prompts have in common."""
    a, b = blocks.of(one), blocks.of(two)
    least = min(len(a), len(b))
    other = a[:least] != b[:least]
    place = int(other.argmax()) if least else 0
    return place if least and other[place] else least


class _Tree:
    """The tree of texts that come in the order of a dictionary: each parts from the way to the last one."""

    def __init__(self) -> None:
        self.parent, self.end = [0], [0]
        self._way = [0]

    def add(self, alike: int, end: int) -> int:
        """The node of a text of `end` tokens, of which so many are those of the last text."""
        way, below = self._way, 0
        while self.end[way[-1]] > alike:
            below = way.pop()
        if self.end[way[-1]] < alike:
            node = self.beyond(way[-1], alike)
            self.parent[below] = node
            way.append(node)
        if end > alike:
            way.append(self.beyond(way[-1], end))
        return way[-1]

    def beyond(self, parent: int, end: int) -> int:
        self.parent.append(parent)
        self.end.append(end)
        return len(self.end) - 1

    def texts(self, nodes: Lengths) -> Texts:
        """With nodes as pieces, parents first."""
        end = np.array(self.end)
        order = np.argsort(end, kind="stable")
        piece = np.empty(len(order), np.int64)
        piece[order] = np.arange(len(order))
        pieces = np.zeros(len(order), PIECE)
        pieces["parent"], pieces["end"] = piece[np.array(self.parent)[order]], end[order]
        return Texts(pieces, piece[nodes].astype(np.int32))


def texts_of_sessions(sessions: Sessions, found: Lengths, prompt: Lengths) -> Texts:
    """The texts of prompts of which each begins with so many tokens of the last one of its session.

    What is new in a prompt is like no other. A request follows right behind the one before it in its session.
    """
    count = len(prompt)
    source, depth = np.full(count, NONE), np.zeros(count, np.int64)  # where the new tokens of each begin: in which
    way: list[int] = []  # requests whose new tokens the last prompt is made of
    begins = found.tolist()
    for k, (before, begin) in enumerate(zip(sessions.after.tolist(), begins, strict=True)):
        if before == NONE:
            way = []
        while way and begins[way[-1]] >= begin:
            way.pop()
        if way:
            source[k], depth[k] = way[-1], begin
        if prompt[k] > begin:
            way.append(k)
    fresh = prompt > found
    own = np.where(fresh, np.arange(count), source)
    key = own * 2**32 + prompt  # a cut: in whose new tokens, and after how many of its prompt
    base = source * 2**32 + depth
    cuts = np.unique(np.concatenate([key, base[source != NONE]]))
    owner, end = cuts >> 32, cuts & (2**32 - 1)
    starts = np.searchsorted(cuts, base) + 1
    goes_on = np.concatenate([[False], owner[1:] == owner[:-1]])
    pieces = np.zeros(len(cuts) + 1, PIECE)
    pieces["end"][1:] = end
    pieces["parent"][1:] = np.where(goes_on, np.arange(len(cuts)), np.where(source[owner] == NONE, 0, starts[owner]))
    return Texts(pieces, (np.searchsorted(cuts, key) + 1).astype(np.int32))


def new_tokens(found: Lengths, prompt: Lengths) -> Array:
    """Prompt tokens that an endless memory does not hold, one at least: it is read for the first token."""
    least: Array = np.maximum(prompt - found, 1).astype(float)
    return least
