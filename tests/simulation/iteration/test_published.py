"""The published policies, by hand where the rule decides, and their table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fluidgate.errors import FluidgateError
from fluidgate.simulation.iteration.engine import Engine, Transfer
from fluidgate.simulation.iteration.law import linear_law
from fluidgate.simulation.iteration.published import PUBLISHED, best_prompt_gpus, run_published
from fluidgate.simulation.iteration.run import Run
from fluidgate.workloads.streams import REQUEST

PLAIN = Engine(linear_law(1.0, 0.01), 4, 100)


def block(*rows: tuple[float, int, int]) -> Any:
    made = np.zeros(len(rows), REQUEST)
    made["arrival"], made["prompt"], made["output"] = zip(*rows, strict=True)
    made["patience"] = np.inf
    return made


def log_of(name: str, requests: Any, engine: Engine = PLAIN, gpus: int = 1, **options: Any) -> Any:
    logs: list[Any] = []
    run_published([requests], engine, Run(gpus, 1, audited=True), PUBLISHED[name], take_log=logs.append, **options)
    return np.sort(np.concatenate(logs), order="number")


def test_distserve_sends_the_kv_on() -> None:
    engine = replace(PLAIN, transfer=Transfer(0.25, 0.001))
    log = log_of("distserve", block((0.0, 100, 3), (0.0, 50, 1)), engine, gpus=3, prompt_gpus=1)
    # alone in its batch, for both are more than the budget: read by 2.0, landed at 2.35; two decode iterations
    assert [log[0][name] for name in ("scheduled", "first_token", "last_token")] == pytest.approx([0.0, 2.0, 4.35])
    assert (log[0]["prefill_gpu"], log[0]["decode_gpu"]) == (0, 1)
    assert (log[1]["first_token"], log[1]["decode_gpu"]) == (3.5, 0)


def test_splitwise_lends_a_gpu_while_a_queue_is_long() -> None:
    engine = replace(PLAIN, tokens=60)
    log = log_of("splitwise", block((0.0, 50, 3), (0.1, 50, 3), (1.7, 20, 2)), engine, gpus=2, prompt_gpus=1)
    # 50 unread tokens and 50 more exceed 60: the token GPU reads the second prompt, by 1.6, and goes home
    assert log["prefill_gpu"].tolist() == [0, 1, 0]
    assert log["decode_gpu"].tolist() == [1, 1, 1]
    assert log["first_token"] == pytest.approx([1.5, 1.6, 2.9])
    # the first lands at 1.5 and joins at 1.6
    assert log["last_token"][:2] == pytest.approx([3.6, 3.6])


def test_wait_admits_a_class_together() -> None:
    requests = block((0.0, 50, 1), (1.0, 50, 1), (5.0, 50, 1))
    log = log_of("wait", requests, thresholds=(2,))
    assert log["scheduled"] == pytest.approx([1.0, 1.0, 5.0])  # nobody comes after the third
    assert log["first_token"] == pytest.approx([3.0, 3.0, 6.5])


def test_slai_puts_decodes_off_until_they_are_critical() -> None:
    requests = block((0.0, 50, 4), (1.0, 100, 1))
    far = log_of("slai", requests, replace(PLAIN, token_deadline=10.0))
    assert far["first_token"] == pytest.approx([1.5, 3.5])  # the second prompt fills a budget alone
    assert far["last_token"] == pytest.approx([6.5, 3.5])
    near = log_of("slai", requests, replace(PLAIN, token_deadline=3.0))
    assert near["first_token"] == pytest.approx([1.5, 4.5])  # 99 tokens beside the decode, then one
    assert near["last_token"] == pytest.approx([5.5, 4.5])


def crowd(count: int = 300) -> Any:
    rng = np.random.default_rng(1)
    requests = np.zeros(count, REQUEST)
    requests["arrival"] = np.cumsum(rng.exponential(0.6, count))
    requests["prompt"], requests["output"] = np.ceil(rng.exponential(60, count)), np.ceil(rng.exponential(8, count))
    requests["patience"] = np.inf
    return requests


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_every_policy_serves_everybody(name: str) -> None:
    published = PUBLISHED[name]
    run = Run(4, 1, tpot_targets=(6.0,), audited=True)
    pools = {"prompt_gpus": 2} if published.has_pools else {}
    measured = run_published([crowd()], PLAIN, run, published, **pools)  # type: ignore[arg-type]
    assert measured.completions.sum() == 300


def test_best_ratio_is_the_best_of_all() -> None:
    run = Run(6, 1, ttft_targets=(8.0,), tpot_targets=(1.2,))
    best, tried = best_prompt_gpus(lambda: [crowd()], PLAIN, run, PUBLISHED["distserve"])
    assert sorted(tried) == [1, 2, 3, 4, 5]
    every = {
        size: run_published([crowd()], PLAIN, run, PUBLISHED["distserve"], prompt_gpus=size).within_targets.sum()
        for size in range(1, 6)
    }
    assert every[best] == max(every.values()) > min(every.values())


def test_best_ratio_of_many_gpus_narrows_down() -> None:
    best, tried = best_prompt_gpus(lambda: [crowd()], PLAIN, Run(40, 1), PUBLISHED["distserve"])
    assert len(tried) < 39
    assert all(tried[best] >= tried[size] for size in tried)


def test_wrong_use_is_told() -> None:
    for name, options, word in (
        ("distserve", {}, "best_prompt_gpus"),
        ("distserve", {"prompt_gpus": 1}, "leave none for tokens"),
        ("slai", {}, "token deadline"),
        ("lmetric", {"prompt_gpus": 1}, "every GPU reads prompts"),
        ("lmetric", {"thresholds": (2,)}, "don't accumulate"),
        ("wait", {"thresholds": (2, 2)}, "thresholds"),
    ):
        with pytest.raises(FluidgateError, match=word):
            log_of(name, block((0.0, 1, 1)), **options)
    with pytest.raises(FluidgateError, match="no ratio"):
        best_prompt_gpus(lambda: [crowd()], PLAIN, Run(4, 1), PUBLISHED["slai"])
    with pytest.raises(FluidgateError, match="at least 2 GPUs"):
        best_prompt_gpus(lambda: [crowd()], PLAIN, Run(1, 1), PUBLISHED["splitwise"])
