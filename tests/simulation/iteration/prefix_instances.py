"""Random small instances whose prompts begin alike, and whose requests are followed by others."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.random import Generator

from fluidgate.engine_table import EngineModel
from fluidgate.workloads.streams import PIECE, REQUEST, Script
from tests.simulation.iteration.instances import Instance, memory, on_grid, time_on_grid


@dataclass
class Texts:
    """A tree that grows: few beginnings, from which texts branch off on the bounds of blocks and beside them."""

    rng: Generator
    size: int
    pieces: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])

    def end(self, piece: int) -> int:
        return self.pieces[piece][1]

    def grow(self, parent: int, tokens: int) -> int:
        """A new piece of so many tokens."""
        self.pieces.append((parent, self.end(parent) + tokens))
        return len(self.pieces) - 1

    def branch(self, parent: int) -> int:
        """A new piece, which ends where a block does or elsewhere."""
        end = self.end(parent) + int(self.rng.integers(1, 3 * self.size + 12))
        if self.rng.random() < 0.4:
            end = -(-end // self.size) * self.size
        return self.grow(parent, end - self.end(parent))

    def plant(self) -> list[int]:
        """Texts of prompts that all requests have in common."""
        found = [self.branch(0) for _ in range(int(self.rng.integers(1, 4)))]
        for _ in range(int(self.rng.integers(1, 8))):
            found.append(self.branch(int(self.rng.choice(found))))
        return found


@dataclass
class Sessions:
    """Requests with their texts, and what follows them."""

    rng: Generator
    texts: Texts
    common: list[int]
    classes: int
    share: float  # of requests that are followed
    rows: list[Any] = field(default_factory=lambda: [np.zeros((), REQUEST)])

    def begin(self, row: Any, text: int | None = None, depth: int = 0) -> None:
        """Let `row` have a text, an answer, a session that goes on, sub-agents."""
        self.have_text(row, int(self.rng.choice(self.common)) if text is None else text)
        while self.rng.random() < self.share and depth < 2:
            self.set_off(row, depth + 1)
        if self.rng.random() < self.share:
            self.go_on(row)

    def have_text(self, row: Any, text: int) -> None:
        draw = self.rng.random()
        if text == 0 or draw < 0.15:
            return  # like no other
        if draw < 0.6:
            text = self.texts.branch(text)
        row["text"], row["prompt"] = text, self.texts.end(text)

    def answered(self, row: Any) -> int:
        """The piece that the answer of `row` is."""
        if row["answer"] == 0 and row["text"] > 0:
            row["answer"] = self.texts.grow(int(row["text"]), int(row["output"]))
        return int(row["answer"])

    def go_on(self, row: Any) -> None:
        row["think"] = on_grid(self.rng.choice([0.0, self.rng.exponential(0.1)]))
        turn = self.request(row)
        before = int(self.rng.choice([self.answered(row), row["text"]], p=[0.8, 0.2]))
        self.have_text(turn, before)
        if self.rng.random() < 0.7:
            self.go_on(turn)
        elif self.rng.random() < 0.3:
            self.set_off(turn, 2)
        row["then"] = self.keep(turn)

    def set_off(self, row: Any, depth: int) -> None:
        first = self.request(row)
        first["arrival"] = on_grid(self.rng.choice([0.0, self.rng.exponential(0.2)]))
        self.begin(first, int(row["text"]) if self.rng.random() < 0.5 else None, depth)
        first["beside"] = row["spawns"]
        row["spawns"] = self.keep(first)

    def request(self, row: Any) -> Any:
        new = np.zeros((), REQUEST)
        new["cls"] = row["cls"] if self.rng.random() < 0.7 else self.rng.integers(0, self.classes)
        new["prompt"] = math.ceil(self.rng.exponential(20))
        new["output"] = math.ceil(self.rng.exponential(15))
        new["patience"] = row["patience"]
        return new

    def keep(self, row: Any) -> int:
        self.rows.append(row)
        return len(self.rows) - 1


def alike(
    instance: Instance,
    seed: int,
    *,
    followed: bool,
    limited: bool = True,
    cached: bool = True,
) -> Instance:
    """The same GPUs, with prefix caching, and requests that begin alike.

    An answer is in no prompt that is sent before it has ended: so do sessions send theirs.

    Args:
        followed: whether sessions go on after them.
        limited: whether memory may be; it is endless now and then all the same.
        cached: without it texts mean nothing.
    """
    rng = np.random.default_rng([seed, 4])
    stream = instance.requests.copy()
    keys = instance.engine.keys.model_dump()
    for key in ("kv_tokens", "kv_block", "kv_reservation", "kv_caching", "preemption", "swap_seconds"):
        keys.pop(key)
    size = int(rng.choice([1, 4, 16])) if limited else 16
    texts = Texts(rng, size)
    sessions = Sessions(rng, texts, texts.plant(), instance.run.classes, float(rng.uniform(0.1, 0.4)) * followed)
    if followed:  # the rest comes by itself
        stream = stream[: max(5, len(stream) // 3)]
    stream["output"] *= int(rng.integers(1, 4))
    for row in stream:
        sessions.begin(row)
        if not followed and row["text"] > 0 and rng.random() < 0.1:
            sessions.answered(row)
    rows = np.array(sessions.rows, REQUEST)
    everything = np.concatenate([stream, rows])
    held = memory(rng, everything, may_cache=False) if limited else {}
    if held and instance.tables is not None and np.isfinite(instance.tables.limit[2:]).any():
        held |= {"preemption": "recompute", "swap_seconds": 0.0}  # see `limited_instance`
    if held:
        held["kv_block"] = size
        longest = np.quantile(everything["prompt"] + everything["output"], rng.choice([0.7, 0.9, 1.0]))
        held["kv_tokens"] = int(longest * rng.choice([1.0, 1.2, 1.5, 4.0])) + size
    engine = replace(instance.engine, keys=EngineModel(**(keys | held | {"prefix_caching": cached})))
    script = Script(np.array(texts.pieces, PIECE), rows)
    made = replace(instance, requests=stream, engine=engine, script=script)
    if followed:
        time = time_on_grid(made)
        made = replace(made, time=time, engine=replace(made.engine, law=time.law()))
    return made
