"""The requests of a check: those that were sized for, as aiperf takes them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fluidgate.deployment.fleet import Fleet
from fluidgate.simulation.doubts import alone_by_class
from fluidgate.sizing.load import Load, TracedLoad
from fluidgate.workloads.streams import NO_SCRIPT, NOTHING, Pieces, Requests, Script, drawn_requests, drawn_sessions

REQUESTS = 4_000.0
"""To be measured, where that takes neither less nor more time than"""
SECONDS = (120.0, 1_200.0)
SETTLES = 5.0
"""Times of the longest request alone before that,"""
WARMUP = 30.0
"""s, and at least so long."""
ROUNDS = 20
"""Requests, or sessions, for each user of a closed loop."""
GROUPS = 4
"""Of the clients of a class, by how long they wait."""
LEAST_OF_GROUP = 25
"""Requests."""
LEAST_BLOCK = 64
"""Tokens of a block that prompts share."""


@dataclass(frozen=True)
class Part:
    """What one aiperf sends: requests or sessions of one class, and of one patience.

    Attributes:
        name: of its files.
        lines: as Mooncake's traces have them: ms, tokens in, tokens out.
        starts: requests that come by themselves.
        goes_on: whether sessions have a second turn.
        wait: how long its clients wait for a prefill, and again for a decode, s; None: for ever.
        block: tokens of a block, where prompts begin alike; None where they do not.
    """

    name: str
    lines: tuple[dict[str, object], ...]
    starts: int
    goes_on: bool
    wait: float | None
    block: int | None


@dataclass(frozen=True)
class Sent:
    """The requests of a check.

    Attributes:
        parts: by class; none of a class without requests.
        warmup, seconds: s that are not measured, and that are.
    """

    parts: tuple[tuple[Part, ...], ...]
    warmup: float
    seconds: float

    @staticmethod
    def of(fleet: Fleet, load: Load | None, seed: int) -> Sent:
        """Of traces their own; else drawn. Where the load rises and falls, those of the peak that binds."""
        scenario = fleet.load
        warmup, seconds = _span(fleet)
        ranks, users = scenario.cluster_gpus or 1, scenario.arrivals.users
        traced = isinstance(load, TracedLoad)
        peak, begins, script = fleet.answer.peak, 0.0, NO_SCRIPT
        if traced and users is None and load is not None and load.seconds <= warmup + seconds:
            warmup, seconds = 0.0, load.seconds
        elif peak is not None:
            begins = max(0.0, min(peak.begins, peak.period - warmup - seconds) if traced else peak.begins)
        ends = begins + warmup + seconds
        if traced and load is not None:
            source = load.source(scenario)
            first, script = _joined(source.requests(0), begins), source.script(0)
        elif scenario.has_sessions:
            most = None if users is None else ROUNDS * users
            drawn = drawn_sessions(scenario, ranks, seed=seed, horizon=ends, most=most)
            first, script = drawn.first, drawn.script
        elif users is None:
            first = _joined(drawn_requests(scenario, ranks, seed=seed, horizon=ends), begins)
        else:
            first = _joined(drawn_requests(scenario, ranks, seed=seed, most=ROUNDS * users))
        if users is not None:
            return Sent(_parts(fleet, first, script), 0.0, seconds)
        first = first[(first["arrival"] >= begins) & (first["arrival"] <= ends)].copy()
        first["arrival"] -= begins
        return Sent(_parts(fleet, first, script), warmup, seconds)


def _parts(fleet: Fleet, first: Requests, script: Script) -> tuple[tuple[Part, ...], ...]:
    """By class, of requests that come by themselves."""
    first = _with_agents(fleet, first, script)
    classes, closed = range(len(fleet.load.classes)), fleet.load.arrivals.closed
    return tuple(tuple(_of_class(cls, first[first["cls"] == cls], script, alike=closed)) for cls in classes)


def _of_class(cls: int, first: Requests, script: Script, *, alike: bool) -> Iterator[Part]:
    """All in one part where they are `alike`, or share blocks: a block is another in another file."""
    block, blocks = _shared(first, script.pieces)
    goes_on = bool((first["then"] != NOTHING).any())
    groups = [np.arange(len(first))] if alike or block is not None else _groups(first)
    for number, group in enumerate(groups, 1):
        if len(group) == 0:
            continue
        patience = first["patience"][group]
        known = patience[np.isfinite(patience)]
        yield Part(
            name=f"{cls + 1}" if len(groups) == 1 else f"{cls + 1}-{number}",
            lines=tuple(line for at in group for line in _lines(first[at], int(at), blocks[at], script)),
            starts=len(group),
            goes_on=goes_on,
            wait=float(known.mean()) if len(known) else None,
            block=block,
        )


def _span(fleet: Fleet) -> tuple[float, float]:
    """Seconds of warm-up, and seconds that are measured."""
    scenario = fleet.load
    warmup = max(WARMUP, SETTLES * max(float(alone_by_class(pool.scenario).max()) for pool in fleet.pools))
    rate = float(scenario.rates.arrival.sum()) * (scenario.cluster_gpus or 1)
    return float(np.ceil(warmup)), float(np.ceil(np.clip(REQUESTS / rate, *SECONDS)))


def _joined(blocks: Iterator[Requests], begins: float = 0.0) -> Requests:
    """Those that come from `begins` on, s."""
    return np.concatenate([block[block["arrival"] >= begins] for block in blocks])


def _with_agents(fleet: Fleet, first: Requests, script: Script) -> Requests:
    """With the first requests of sub-agents, when they come if each answer takes as long as it did on average."""
    if not first["spawns"].any() and not script.rows["spawns"].any():
        return first
    begins, each = _times(fleet)
    found = [first]
    going = [(request, float(request["arrival"])) for request in first]
    while going:
        request, now = going.pop()
        row = request["spawns"]
        while row != NOTHING:
            sub = script.rows[[row]].copy()
            sub["arrival"] = now + float(sub["arrival"][0])
            found.append(sub)
            going.append((sub[0], float(sub["arrival"][0])))
            row = script.rows[row]["beside"]
        if request["then"] != NOTHING:
            answered = now + begins[request["cls"]] + each[request["cls"]] * float(request["output"])
            going.append((script.rows[request["then"]], answered + float(request["think"])))
    whole = np.concatenate(found)
    return whole[np.argsort(whole["arrival"], kind="stable")]


def _times(fleet: Fleet) -> tuple[list[float], list[float]]:
    """To the first token, and of each token, s by class: as simulated, or else as of a request alone."""
    rates, whole = fleet.load.rates, fleet.answer.whole
    outputs = [cls.output_tokens for cls in fleet.load.classes]
    begins, each = list(1.0 / rates.prefill), list(1.0 / rates.solo_decode / np.array(outputs))
    for k, result in enumerate(whole.result.classes if whole else ()):
        begins[k], each[k] = result.ttft.mean or begins[k], result.tpot.mean or each[k]
    return begins, each


def _groups(first: Requests) -> list[np.ndarray]:
    """The requests from the least patient to the most, in order of arrival each."""
    count = min(GROUPS, len(first) // LEAST_OF_GROUP) if np.isfinite(first["patience"]).any() else 1
    return [np.sort(part) for part in np.array_split(np.argsort(first["patience"], kind="stable"), max(1, count))]


def _shared(first: Requests, pieces: Pieces) -> tuple[int | None, list[list[int]]]:
    """Tokens of a block, and of each prompt the blocks with which others begin too, in numbers."""
    chains = [list(_chain(int(text), pieces)) for text in first["text"]]
    uses = Counter(piece for chain in chains for piece in chain)
    common = [[piece for piece in chain if uses[piece] > 1] for chain in chains]
    ends = {int(pieces[piece]["end"]) for chain in common for piece in chain}
    if not ends:
        return None, [[] for _ in chains]
    block = max(LEAST_BLOCK, math.gcd(*ends))
    numbers: dict[tuple[int, int], int] = {}
    found = []
    for chain in common:
        blocks = []
        for at in range(int(pieces[chain[-1]]["end"]) // block if chain else 0):
            piece = next(piece for piece in chain if pieces[piece]["end"] >= (at + 1) * block)
            blocks.append(numbers.setdefault((piece, at), len(numbers)))
        found.append(blocks)
    return block, found


def _chain(text: int, pieces: Pieces) -> list[int]:
    """The pieces of a text, from its beginning."""
    chain = []
    while text != NOTHING:
        chain.append(text)
        text = int(pieces[text]["parent"])
    return chain[::-1]


def _lines(request: np.void, number: int, blocks: list[int], script: Script) -> Iterator[dict[str, object]]:
    """A line a request; of a session one a turn, with what is new of its prompt, ms after the answer before it."""
    line: dict[str, object] = {
        "timestamp": round(1e3 * float(request["arrival"]), 1),
        "input_length": int(request["prompt"]),
        "output_length": int(request["output"]),
    }
    if blocks:
        line["hash_ids"] = blocks
    if request["then"] == NOTHING:
        yield line
        return
    yield {"session_id": str(number + 1), **line}
    while request["then"] != NOTHING:
        before, request = request, script.rows[request["then"]]
        new = int(request["prompt"]) - int(before["prompt"]) - int(before["output"])
        yield {
            "session_id": str(number + 1),
            "delay": round(1e3 * float(before["think"]), 1),
            "input_length": max(new, 1),
            "output_length": int(request["output"]),
        }
