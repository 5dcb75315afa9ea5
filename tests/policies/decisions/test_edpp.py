"""EDPP against the rule in plain Python, and what each of its terms does."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fluidgate.compiled import by_reference, entry_point
from fluidgate.policies.decisions import edpp as rule
from fluidgate.policies.decisions.edpp import DECODER, READER, Coefficients, Edpp, new_edpp
from fluidgate.policies.decisions.placement import Reuse, no_reuse
from tests.oracles.edpp import PlainEdpp

_choose, _begun, _completed = rule.choose, rule.begun, rule.completed
_comes = rule.comes
SECONDS = Coefficients(alpha=0.01, beta=1e-4, zeta=1e-8, solo_alpha=0.008, delta=2e-4, epsilon=1e-7)


@entry_point
def choose(edpp, cls, prompt, reuse):  # type: ignore[no-untyped-def]
    return _choose(edpp, cls, prompt, reuse)


@entry_point
def begun(edpp, g, work):  # type: ignore[no-untyped-def]
    _begun(edpp, g, work)


@entry_point
def comes(edpp, g, requests, context):  # type: ignore[no-untyped-def]
    _comes(edpp, g, requests, context)


@entry_point
def completed(edpp, now, cls, ttft, itl, output):  # type: ignore[no-untyped-def]
    _completed(edpp, now, cls, ttft, itl, output)


def reuse_of(found: dict[int, int]) -> Reuse:
    reuse = no_reuse()
    reuse.count[0] = len(found)
    reuse.gpu[: len(found)] = list(found)
    reuse.tokens[: len(found)] = list(found.values())
    return reuse


def small(gpus: int = 3, prompt_gpus: int = 1, **numbers: float) -> Edpp:
    given = {"chunk": 512, "price": 1.0, "latency": 0.01, "per_token": 0.0} | numbers
    targets = {"ttft_targets": [1.0], "itl_targets": [0.05]}
    return new_edpp(gpus, prompt_gpus, seconds=SECONDS, **given, **targets)  # type: ignore[arg-type]


def asked(edpp: Edpp, prompt: int = 1000, found: dict[int, int] | None = None) -> tuple[int, int]:
    """The GPUs that read and decode."""
    choose(by_reference(edpp), 0, prompt, by_reference(reuse_of(found or {})))
    return int(edpp.chosen[READER]), int(edpp.chosen[DECODER])


@pytest.mark.parametrize(("gpus", "prompt_gpus"), [(2, 1), (5, 2), (9, 3), (40, 8)])
def test_it_chooses_as_the_plain_rule_does(gpus: int, prompt_gpus: int) -> None:
    rng = np.random.default_rng(gpus)
    targets = [(0.5, 0.03), (2.0, 0.02), (1.0, 0.005)]
    given = {"chunk": 300, "price": 0.5, "seconds": SECONDS, "latency": 0.002, "per_token": 1e-6}
    plain = PlainEdpp(gpus, prompt_gpus, targets=targets, **given)  # type: ignore[arg-type]
    ttft, itl = zip(*targets, strict=True)
    edpp = new_edpp(gpus, prompt_gpus, ttft_targets=ttft, itl_targets=itl, **given)  # type: ignore[arg-type]
    state = by_reference(edpp)
    waiting: list[tuple[int, float]] = []
    ways = set()
    for step in range(400):
        cls, prompt = int(rng.integers(3)), int(rng.integers(1, 3000))
        holders = rng.choice(gpus, size=int(rng.integers(0, min(gpus, 32) + 1)), replace=False)
        found = {int(g): int(rng.integers(0, prompt)) // 16 * 16 for g in holders}
        choose(state, cls, prompt, by_reference(reuse_of(found)))
        expected = plain.choose(cls, prompt, found)
        assert plain.margin > 1e-12  # else either way is right
        assert edpp.excess[0] == pytest.approx([plain.late[cls] for cls in range(3)])
        assert edpp.excess[1] == pytest.approx([plain.slow[cls] for cls in range(3)])
        assert (*edpp.chosen,) == expected[:2]
        assert edpp.work == pytest.approx(expected[2:])
        ways.add(bool(edpp.chosen[READER] == edpp.chosen[DECODER]))
        waiting += [part for part in zip(expected[:2], expected[2:], strict=True) if part[1] >= 0]
        while len(waiting) > 6:
            g, work = waiting.pop(int(rng.integers(len(waiting))))
            begun(state, g, work)
            plain.backlog[g] = sum(more for where, more in waiting if where == g)  # type: ignore[assignment]
        g, more, tokens = int(rng.integers(gpus)), int(rng.integers(-1, 3)), int(rng.integers(0, 900))
        more = max(more, -plain.requests[g])
        comes(state, g, more, tokens)
        plain.requests[g] += more
        plain.context[g] += tokens
        for k in range(int(rng.integers(1, 4))):
            now = float(step + (k > 1) / 2)
            late, slow = float(rng.uniform(0, 2.2)), float(rng.choice([math.nan, 0.01, 0.04]))
            output = int(rng.integers(1, 300))
            completed(state, now, cls, late, slow, output)
            plain.completed(now, cls, late, slow, output)
    assert ways == {True, False}


def test_an_idle_cluster_saves_the_transfer() -> None:
    assert asked(small()) == (1, 1)
    assert asked(small(price=0.0)) == (1, 1)  # as dear: it stays


def test_a_backlog_where_it_decodes_sends_it_to_the_prompt_pool() -> None:
    edpp = small(gpus=2)
    edpp.backlog[1] = 2.0
    assert asked(edpp) == (0, 1)
    edpp.backlog[0] = 4.0
    assert asked(edpp) == (1, 1)


def test_decodes_that_were_slow_send_it_to_the_prompt_pool() -> None:
    edpp = small(gpus=2)
    for k in range(10):
        completed(by_reference(edpp), float(k), 0, 0.1, 0.06, 50)
    assert asked(edpp) == (0, 1)
    assert edpp.excess[:, 0] == pytest.approx([0.0, 0.1])
    for k in range(10):
        completed(by_reference(edpp), 10.0 + k, 0, 0.1, 0.01, 50)
    edpp.backlog[:] = 0.0
    assert asked(edpp) == (1, 1)
    assert edpp.excess[1, 0] == 0.0


def test_those_who_are_served_at_one_epoch_count_together() -> None:
    edpp, other = small(), small()
    for each, ttfts in ((edpp, (1.5, 0.6)), (other, (0.6, 1.5))):
        for ttft in ttfts:
            completed(by_reference(each), 1.0, 0, ttft, math.nan, 1)
        asked(each)
        assert each.excess[0, 0] == pytest.approx(0.1)


def test_first_tokens_that_were_late_send_it_where_its_own_is_sooner() -> None:
    edpp = small(gpus=2, price=0.0)
    completed(by_reference(edpp), 1.0, 0, 3.0, math.nan, 1)
    comes(by_reference(edpp), 1, 200, 100_000)  # its iterations are long
    assert asked(edpp) == (0, 1)
    edpp = small(gpus=2, price=0.0)
    completed(by_reference(edpp), 1.0, 0, 3.0, math.nan, 1)
    assert asked(edpp) == (1, 1)


def test_what_is_cached_is_no_work() -> None:
    edpp = small(gpus=4, prompt_gpus=1)
    edpp.backlog[3] = 2.0
    assert asked(edpp, 1000, {3: 992}) == (3, 3)  # 8 tokens do not pay for the transfer
    assert edpp.work[DECODER] == pytest.approx(8e-4 + 8 * 992e-8 + 2e-4 + 1e-4)
    assert asked(edpp, 1000, {3: 16}) != (3, 3)


def test_what_begins_is_no_backlog() -> None:
    edpp = small(gpus=2)
    asked(edpp)
    assert edpp.backlog[1] == edpp.work[DECODER] > 0
    begun(by_reference(edpp), 1, float(edpp.work[DECODER]))
    assert edpp.backlog[1] == 0.0
