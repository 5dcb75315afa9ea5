"""A closed loop is sized: its bound, where the search begins, and what users say of the load."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fluidgate.model import Scenario
from fluidgate.simulation import simulate
from fluidgate.sizing import size
from fluidgate.sizing.closed_loop import at_pace, least_share, sent_by_users
from fluidgate.sizing.floor import Pace
from fluidgate.sizing.targets import targets_of
from tests.sizing.instances import chat


def loop(users: int, think: float, targets: str, **keys: str) -> Scenario:
    law = "exponential" if think else "fixed"
    more = f'[arrivals]\nprocess = "closed"\nusers = {users}\nthink = {think}\nthink_law = "{law}"'
    return chat(targets=targets, more=keys.pop("more", "") + "\n" + more, **keys)


@pytest.mark.parametrize(("users", "think", "limit"), [(400, 5.0, 4.0), (1200, 0.5, 5.0), (200, 0.0, 4.0)])
def test_the_bound_is_never_above_the_least_of_all_numbers_simulated(users: int, think: float, limit: float) -> None:
    scenario = loop(users, think, f"latency_mean = {limit}")
    answer = size(scenario, workers=1).answers[0]
    assert answer.status == "met"
    assert answer.engines is not None
    assert 1 < answer.bound_engines <= answer.engines
    least = next(n for n in range(1, 40) if _latency(scenario, n) <= limit)
    assert answer.bound_engines <= least
    assert abs(answer.engines - least) <= 1


def _latency(scenario: Scenario, engines: int) -> float:
    run = simulate(scenario, "index-and-pool", gpus=engines, horizon=200, warmup=80, replications=2, seed=7, workers=1)
    return float(run.overall.latency.mean)  # type: ignore[attr-defined]


def test_percentiles_are_found_without_a_bound_of_the_rate() -> None:
    answer = size(loop(400, 5.0, "ttft_p99 = 0.2\ntpot_p95 = 0.02"), workers=1).answers[0]
    assert (answer.status, answer.bound_engines) == ("met", 1)
    assert answer.one_less is not None
    assert answer.whole is not None
    served = answer.whole.result.overall.completion_rate.mean or 0.0
    latency = answer.whole.result.overall.latency.mean
    assert served * answer.whole.result.run.gpus == pytest.approx(400 / (5.0 + latency), rel=0.03)
    assert answer.utilisation is not None
    assert 0.5 < answer.utilisation < 1.0


def test_one_engine_a_user_is_the_most() -> None:
    best = Pace.of(chat(), "index-and-pool").token
    (answer,) = size(loop(3, 0.0, f"tpot_p95 = {1.0001 * best}"), workers=1).answers
    assert answer.status == "impossible"
    assert max(trial.engines for trial in answer.trials) == 3


def test_rates_are_those_that_users_send_at() -> None:
    scenario = loop(300, 5.0, "latency_mean = 10.0")
    sent = sent_by_users(scenario, targets_of(scenario))
    assert sent.rates.arrival.sum() == pytest.approx(300 / 15.0)
    assert at_pace(scenario, np.array([25.0])).rates.arrival.sum() == pytest.approx(10.0)
    assert at_pace(scenario).rates.arrival.sum() > sent.rates.arrival.sum()
    assert least_share(sent, targets_of(sent)) == pytest.approx(1.0)
    tail = loop(300, 5.0, "latency_p99 = 10.0")
    assert least_share(sent_by_users(tail, targets_of(tail)), targets_of(tail)) == 0.0
    assert least_share(chat(), targets_of(chat())) == 1.0


def test_a_peak_has_more_users() -> None:
    few = size(loop(400, 5.0, "ttft_p99 = 0.3"), workers=1).answers[0]
    many = size(loop(400, 5.0, "ttft_p99 = 0.3"), rate_scale=3.0, workers=1).answers[0]
    assert few.engines is not None
    assert many.engines is not None
    assert many.engines > few.engines


def test_users_send_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    rows = (f"{k / 100},{600 + 37 * k % 900},{100 + 13 * k % 200}" for k in range(4000))
    path.write_text("arrival_time,prompt_tokens,output_tokens\n" + "\n".join(rows), "utf-8")
    (answer,) = size(loop(300, 1.0, "tpot_p95 = 0.015"), traces=[path], workers=1).answers
    assert answer.status == "met"
    assert answer.bound_engines == 1
    assert answer.peak is None
