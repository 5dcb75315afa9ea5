"""The stepped reference alone, with prefix caching and sessions: by hand, and against texts compared token by token."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fluidgate.batching import Batching
from fluidgate.engine_table import EngineModel
from fluidgate.simulation.iteration.engine import Engine
from fluidgate.simulation.iteration.kernel.cluster import Placement
from fluidgate.simulation.iteration.law import linear_law
from fluidgate.workloads.streams import PIECE, REQUEST, Script
from tests.simulation.iteration.instances import Instance, gated_instance, placed_instance, policy_instance
from tests.simulation.iteration.prefix_instances import alike
from tests.simulation.iteration.reference import Reference, Request

DISCIPLINES = [batching for batching in Batching if batching != Batching.SINGLE_PREFILL]


def row(prompt: int, output: int = 1, arrival: float = 0.0, **more: Any) -> Any:
    made = np.zeros((), REQUEST)
    made["patience"] = math.inf
    for name, value in {"prompt": prompt, "output": output, "arrival": arrival, **more}.items():
        made[name] = value
    return made


def played(
    stream: list[Any],
    *pieces: tuple[int, int],
    rows: tuple[Any, ...] = (),
    batching: Batching = Batching.TOKEN_BUDGET,
    batch_size: int = 4,
    gpus: int = 1,
    keys: dict[str, Any] | None = None,
    **options: Any,
) -> Reference:
    """A token takes a second to read, and an iteration one more; `pieces` and `rows` are numbered from 1."""
    law = linear_law(1.0, 1.0, delta=0.0, epsilon=0.0, solo=(1.0, 0.0, 0.0))
    engine = Engine(law, batch_size, 1000, batching, EngineModel(prefix_caching=True, **(keys or {})))
    script = Script(np.array([(0, 0), *pieces], PIECE), np.array([np.zeros((), REQUEST), *rows], REQUEST))

    def seconds(chunk: int, decodes: int, context: int, read: int) -> float:
        return 1.0 + chunk

    block = np.array(stream, REQUEST)
    return Reference(block, engine, seconds, gpus=gpus, classes=1, script=script, **options).run()


def found(run: Reference) -> list[int]:
    return [r.found for r in run.requests]


def test_a_tree_of_three_prompts() -> None:
    # 40 tokens are common, which is two blocks; of what follows each reads its own
    stream = [row(70, text=2), row(56, arrival=1000, text=3), row(40, arrival=2000, text=1)]
    run = played(stream, (0, 40), (1, 70), (1, 56))
    assert found(run) == [0, 32, 32]
    assert [r.first for r in run.requests] == [71, 1025, 2009]
    assert run.count["prompt_found", 0] == 64
    assert run.count["prompt_admitted", 0] == 166


def test_who_is_admitted_together_reads_once() -> None:
    run = played([row(70, text=2), row(56, text=3)], (0, 40), (1, 70), (1, 56))
    assert found(run) == [0, 32]
    assert [r.first for r in run.requests] == [95, 95]


def test_a_request_reads_the_last_block_of_a_full_match_again_and_shares_it() -> None:
    # four blocks are common to both, and each takes one for its answer: six are enough, if just
    stream = [row(64, 10, text=1), row(64, 10, arrival=66, text=1)]
    run = played(stream, (0, 64), keys={"kv_tokens": 96})
    assert found(run) == [0, 48]
    assert [r.preemptions for r in run.requests] == [0, 0]
    assert [r.first for r in run.requests] == [65, 83]
    assert len(run.gpus[0].store.free) == 6
    fewer = played(stream, (0, 64), keys={"kv_tokens": 80})
    assert [r.preemptions for r in fewer.requests] == [0, 1]


def test_a_prompt_that_ends_where_a_block_does_beside_one_that_goes_on() -> None:
    stream = [row(32, text=1), row(48, arrival=100, text=2), row(32, arrival=200, text=1), row(33, arrival=300, text=3)]
    run = played(stream, (0, 32), (1, 48), (1, 33))
    assert found(run) == [0, 32, 16, 32]


@pytest.mark.parametrize(("output", "kept"), [(8, 32), (9, 48), (10, 48)])
def test_a_session_finds_its_last_prompt_and_answer(output: int, kept: int) -> None:
    # the KV of an answer's last token is never computed: 40 + 8 - 1 tokens fill two blocks of 16
    end = 40 + output
    turns = (
        row(end + 20, 12, text=3, answer=4, then=2, think=5),
        row(end + 50, 1, text=5),
    )
    run = played(
        [row(40, output, text=1, answer=2, then=1, think=5)],
        (0, 40),
        (1, end),
        (2, end + 20),
        (3, end + 32),
        (4, end + 50),
        rows=turns,
    )
    one, two, three = run.requests
    assert found(run) == [0, kept, (end + 31) // 16 * 16]
    assert one.left == 41 + output - 1
    assert two.sent == one.left + 5
    assert two.first == two.sent + 1 + end + 20 - kept
    assert two.left == two.first + 11
    assert three.sent == two.left + 5
    assert three.first == three.sent + 1 + end + 50 - three.found


def test_an_answer_that_nobody_asks_for_is_not_kept() -> None:
    run = played([row(40, 30, text=1), row(90, arrival=100, text=2)], (0, 40), (1, 90))
    assert found(run) == [0, 32]


@pytest.mark.parametrize(("between", "left"), [(12, 8), (16, 8), (20, 4), (23, 0)])
def test_the_free_block_that_was_freed_first_is_taken_first(between: int, left: int) -> None:
    # six blocks: three are free, then the first prompt's: its last, its second, its first
    stream = [row(12, text=1), row(between, arrival=100), row(12, arrival=200, text=1)]
    run = played(stream, (0, 12), keys={"kv_tokens": 24, "kv_block": 4})
    assert found(run) == [0, 0, left]


def test_what_is_used_again_is_freed_anew() -> None:
    # two prompts of two blocks fill the memory; the first is found again and is the later one then
    stream = [row(8, text=1), row(8, arrival=50, text=2), row(8, arrival=100, text=1), row(8, arrival=150)]
    stream += [row(8, arrival=200, text=1), row(8, arrival=250, text=2)]
    run = played(stream, (0, 8), (0, 8), keys={"kv_tokens": 16, "kv_block": 4})
    assert found(run) == [0, 0, 4, 0, 4, 0]


def short_of_memory(**keys: Any) -> Reference:
    """Six blocks of four: both hold three at 21 s, when the first takes the last of the second, at 25 s another."""
    stream = [row(8, 12), row(8, 6)]
    return played(stream, keys={"kv_tokens": 24, "kv_block": 4, **keys})


def test_a_preempted_request_finds_of_its_own_what_is_left() -> None:
    one, two = short_of_memory().requests
    assert (one.left, two.preemptions) == (28, 1)
    assert two.left == 28 + 1 + 13 - 4
    assert two.found == 0  # when it was admitted first


def test_what_is_found_is_not_swapped_in() -> None:
    # 12 s to swap it out in front of the iteration of 21 s, and 8 of 12 tokens back
    one, two = short_of_memory(preemption="swap", swap_seconds=1.0).requests
    assert (one.left, two.preemptions) == (28 + 12, 1)
    assert two.left == 40 + 8 + 1


def test_pools_send_what_the_decoding_gpu_does_not_have() -> None:
    stream = [row(64, 2, text=1), row(64, 2, arrival=1000, text=1), row(100, 2, arrival=2000, text=2)]
    for memory in ({}, {"kv_tokens": 4096}):
        keys = {"transfer_bandwidth": 1.0, **memory}
        run = played(stream, (0, 64), (1, 100), gpus=2, keys=keys, placement="POOLS", pools=(1, 0))
        assert found(run) == [0, 48, 64]
        assert [r.first for r in run.requests] == [65, 1017, 2037]
        assert [r.left for r in run.requests] == [65 + 64 + 1, 1017 + 1, 2037 + 36 + 1]


def test_what_a_gpu_has_is_in_its_memory_or_waits_there() -> None:
    # each reads a prompt of four blocks; the longer one waits on 0, which has 64 of it: 2 (64 + 256) < 2 (64 + 320)
    stream = [row(64, text=1), row(64, arrival=1, text=2), row(320, arrival=2, text=3)]
    run = played(stream, (0, 64), (0, 64), (1, 320), gpus=2, batch_size=1, placement="LMETRIC", horizon=3.0)
    assert [r.gpu for r in run.requests] == [0, 1, 0]
    assert [run.unread_of(g) for g in run.gpus] == [64 + 256, 64]
    probes = [Request(9, 0.0, 0, tokens, 1, math.inf, text=text) for tokens, text in ((64, 1), (64, 2), (320, 3))]
    assert [[run.has(g, probe) for probe in probes] for g in run.gpus] == [[48, 0, 304], [0, 48, 0]]


def test_sessions_start_by_themselves_and_sub_agents_when_they_are_set_off() -> None:
    # the first sets off two at 0 and 3; its next turn comes 2 s after its last token at 11 + 12
    rows = (row(5, then=4, think=1.0), row(10), row(20, arrival=3, beside=1), row(7))
    run = played([row(10, then=2, think=2.0, spawns=3), row(10, arrival=40)], rows=rows, keys={"front_end": 0.5})
    sent = [(r.sent, r.prompt) for r in run.requests]
    first, sub, other = run.requests[:3]
    assert sent[:3] == [(0.0, 10), (0.0, 5), (3.0, 20)]
    assert (first.left, sub.left) == (0.5 + 1 + 10 + 5, 0.5 + 1 + 10 + 5)
    assert sent[3:] == [(16.5 + 1, 7), (16.5 + 2, 10), (40.0, 10)]
    assert other.user == -1


def test_a_user_takes_a_session_after_the_other_and_sub_agents_are_nobodys() -> None:
    rows = (row(10), row(20, 100, arrival=1))
    run = played([row(10, then=1, think=2.0, spawns=2), row(5), row(3)], rows=rows, users=1)
    assert [(r.sent, r.prompt, r.user) for r in run.requests] == [
        (0.0, 10, 0),
        (1.0, 20, -1),
        (13.0, 10, 0),  # 11 + 2
        (43.0, 5, 0),  # it waits for the sub-agent's prompt until 32, and is read with it
        (50.0, 3, 0),  # sent in answer, it has missed the iteration that begins at 43
    ]


def test_a_session_ends_where_a_request_is_rejected_or_leaves() -> None:
    keys = {"kv_tokens": 64}
    rows = (row(80, then=2, think=3.0), row(1), row(9, patience=1.0, then=2))
    stream = [row(30, then=1, think=1.0), row(8, arrival=100), row(6, arrival=100.5, then=3)]
    run = played(stream, rows=rows, keys=keys, batch_size=1)
    assert [(r.prompt, r.outcome) for r in run.requests] == [(30, 1), (80, 4), (8, 1), (6, 1), (9, 1), (1, 1)]
    looped = played(stream, rows=rows, keys=keys, batch_size=1, users=1)
    assert [(r.sent, r.prompt) for r in looped.requests[:3]] == [(0.0, 30), (32.0, 80), (35.0, 8)]


def test_those_of_the_stream_come_before_those_of_sessions_and_these_as_they_began() -> None:
    # all at 10: two of the stream, then those set off: by the first that came, one beside the other, then by the second
    rows = (row(1, arrival=10), row(2, arrival=10, beside=1), row(3, arrival=5))
    stream = [row(9, spawns=2), row(8, arrival=5, spawns=3), row(5, arrival=10), row(4, arrival=10)]
    run = played(stream, rows=rows)
    assert [r.prompt for r in run.requests] == [9, 8, 5, 4, 2, 1, 3]


# --- against texts


def text_of(run: Reference, r: Request, tokens: int) -> list[tuple[int, int]]:
    """Its first tokens, each by the piece that it lies in and its place; of its own by its number."""
    pieces = run.script.pieces
    made = [(-1 - r.number, k) for k in range(tokens)]
    for whose, length in ((r.answer, tokens), (r.text, min(tokens, r.prompt))):
        piece = whose
        while piece > 0:
            parent = int(pieces["parent"][piece])
            for k in range(int(pieces["end"][parent]), min(int(pieces["end"][piece]), length)):
                made[k] = (piece, k)
            piece = parent
    return made


def alike_for(one: list[Any], other: list[Any]) -> int:
    return next((k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@pytest.mark.parametrize("batching", DISCIPLINES)
@pytest.mark.parametrize("followed", [False, True])
def test_an_endless_memory_holds_what_was_read_before(batching: Batching, followed: bool) -> None:
    """Of each prompt as much, in whole blocks, as any admitted before it has in common, with its answer once ended."""
    hits = 0
    for seed in range(5):
        instance = placed_instance(seed, batching, Placement.ROUND_ROBIN)
        instance = alike(instance, seed, followed=followed, limited=False)
        run = replace(instance, run=replace(instance.run, gpus=1)).by_reference()
        admitted = [r for r in run.requests if r.found >= 0]
        admitted.sort(key=lambda r: (r.scheduled, r.arrival, r.number))
        for k, r in enumerate(admitted):
            best = 0
            for q in admitted[:k]:
                ended = q.outcome == 1 and q.left <= r.scheduled and q.answer > 0
                known = q.prompt + q.output - 1 if ended else q.prompt
                best = max(best, alike_for(text_of(run, r, r.prompt), text_of(run, q, known)))
            assert r.found == min(best // 16 * 16, (r.prompt - 1) // 16 * 16)
            hits += r.found > 0
    assert hits > 30


@pytest.mark.parametrize("batching", DISCIPLINES)
def test_a_memory_that_holds_all_is_an_endless_one(batching: Batching) -> None:
    for seed, rule in enumerate(Placement):
        if rule == Placement.PRECISE:  # it looks at how full the memory is
            continue
        endless = alike(placed_instance(seed, batching, rule), seed, followed=True, limited=False)
        holds_all(endless)


@pytest.mark.parametrize("policy", ["gate-and-route", "sli-aware", "index-and-pool", "fg-sp"])
def test_the_same_under_a_policy(policy: str) -> None:
    for seed in range(4):
        holds_all(alike(policy_instance(seed, policy), seed, followed=seed % 2 == 1, limited=False))


def holds_all(endless: Instance) -> None:
    keys = EngineModel(**(endless.engine.keys.model_dump() | {"kv_tokens": 20_000}))
    one = endless.by_reference().requests
    other = replace(endless, engine=replace(endless.engine, keys=keys)).by_reference().requests
    assert [(r.found, r.gpu) for r in one] == [(r.found, r.gpu) for r in other]
    assert [r.left for r in one] == pytest.approx([r.left for r in other], nan_ok=True)


def test_what_no_prompt_shares_costs_what_it_did_without_a_cache() -> None:
    for seed, batching in enumerate(DISCIPLINES):
        plain = placed_instance(seed, batching, Placement.LMETRIC)
        keys = plain.engine.keys.model_copy(update={"kv_caching": False})
        cached = keys.model_copy(update={"prefix_caching": True})
        runs = [replace(plain, engine=replace(plain.engine, keys=k)).by_reference() for k in (keys, cached)]
        if sum(r.preemptions for r in runs[0].requests) == 0:  # who is preempted finds of its own
            assert [r.left for r in runs[0].requests] == pytest.approx([r.left for r in runs[1].requests], nan_ok=True)
        assert sum(r.found for r in runs[1].requests if r.found > 0) == 0


def test_random_runs_keep_every_block_accounted_for() -> None:
    """Asserted at every event; and they evict, preempt, swap, reject and go on as the comparison needs it."""
    seen = Counter[str]()
    for seed in range(2):
        makers = [placed_instance(seed, batching, rule) for batching in DISCIPLINES for rule in Placement]
        policies = ("gate-and-route", "index-and-pool", "sli-aware", "fg-sp")
        makers += [policy_instance(seed, policy) for policy in policies]
        made = [alike(one, seed, followed=seed % 2 == 1) for one in makers]
        gated = gated_instance(seed, "index-and-pool", Batching.TOKEN_BUDGET)
        made.append(alike(gated, seed, followed=seed % 2 == 0, limited=False))
        for instance in made:
            run = instance.by_reference()
            seen["hits"] += sum(r.found > 0 for r in run.requests)
            seen["lost"] += sum(g.store.lost for g in run.gpus)
            seen["preempted"] += sum(r.preemptions for r in run.requests)
            seen["swapped"] += sum(r.preemptions for r in run.requests) * run.swap
            seen["rejected"] += sum(r.outcome == 4 for r in run.requests)
            seen["turns"] += max(0, len(run.requests) - len(instance.requests))
    assert min(seen[name] for name in ("hits", "lost", "preempted", "swapped", "rejected", "turns")) > 20, seen
