"""A closed loop against closed forms, and what follows by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluidgate import FluidgateError, Scenario, compare, simulate
from fluidgate.batching import Batching
from fluidgate.engine_table import EngineModel
from fluidgate.model import Arrivals
from fluidgate.simulation.closed_loop import planned_load
from fluidgate.simulation.doubts import alone
from fluidgate.simulation.iteration.engine import Engine
from fluidgate.simulation.iteration.law import linear_law
from fluidgate.simulation.iteration.replay import replay
from fluidgate.simulation.iteration.results import RequestResult
from fluidgate.simulation.iteration.rules import Placements
from fluidgate.simulation.iteration.run import Run, run_requests
from fluidgate.workloads.streams import REQUEST, ClassTrace, drawn_requests
from fluidgate.workloads.traces import read_trace

MIXED, SOLO = 0.04, 0.01
"""Iteration times, s, whatever is in the batch."""


def scenario(*, batch_size: int = 1, prompt: float = 1, output: float = 200, **others: Any) -> Scenario:
    classes = (
        {"name": "one", "prompt_tokens": prompt, "output_tokens": output, "arrival_rate": 1, "patience_rate": 0},
    )
    iteration = {"alpha": SOLO - 1e-9, "beta": 1e-9, "gamma": 1 / SOLO}
    return Scenario.model_validate(
        {
            "name": "loop",
            "gpu": {"batch_size": batch_size, "chunk_size": 64, "iteration": iteration},
            "pricing": {"scheme": "bundled", "prompt": 0.1, "output": 0.2},
            "classes": classes,
            "lengths": {"prompt": "fixed"},
            **others,
        }
    )


def requests(*columns: tuple[int, int, float]) -> Any:
    """Of prompt, output and think time."""
    block = np.zeros(len(columns), REQUEST)
    block["prompt"], block["output"], block["think"] = np.array(columns).T
    block["patience"] = math.inf
    return block


def played(block: Any, users: int, **keys: Any) -> Any:
    """The log, by number, of requests sent by users to one GPU that reads 64 tokens an iteration."""
    law = linear_law(MIXED, 0.0, delta=0.0, epsilon=0.0, solo=(SOLO, 0.0, 0.0))
    engine = Engine(law, 8, 64, Batching.TOKEN_BUDGET, EngineModel(**keys))
    logs: list[Any] = []
    run_requests([block], engine, Run(1, 1, users=users, audited=True), Placements(), take_log=logs.append)
    return np.sort(np.concatenate(logs), order="number")


def test_one_user_sends_one_request_after_the_other() -> None:
    log = played(requests((64, 3, 0.0), (128, 1, 0.5), (10, 2, 9.0)), 1)
    assert log["user"].tolist() == [0, 0, 0]
    assert log["arrival"] == pytest.approx([0.0, 0.06, 0.64])
    assert log["first_token"] == pytest.approx([0.04, 0.14, 0.68])
    assert log["last_token"] == pytest.approx([0.06, 0.14, 0.69])


def test_the_front_end_lies_between_the_user_and_the_engine() -> None:
    """0.1 s to the queue, 0.02 s back: the user sends the next when it has the last token."""
    log = played(requests((64, 3, 0.0), (64, 1, 0.0)), 1, front_end=0.1, front_end_first=0.02)
    assert log["arrival"] == pytest.approx([0.0, 0.18])
    assert log["scheduled"] == pytest.approx([0.1, 0.28])
    assert log["first_token"] == pytest.approx([0.16, 0.34])
    assert log["last_token"] == pytest.approx([0.18, 0.34])


def test_users_who_are_answered_together_send_together() -> None:
    """They miss the iteration that starts as they are answered; the two that go on alone are solo by then."""
    log = played(requests((20, 2, 0.0), (20, 2, 0.0), (20, 3, 0.0), (20, 1, 0.0), (20, 1, 0.0)), 3)
    assert log["arrival"] == pytest.approx([0.0, 0.0, 0.0, 0.05, 0.05])
    assert log["scheduled"] == pytest.approx([0.0, 0.0, 0.0, 0.06, 0.06])
    assert log["user"].tolist() == [0, 1, 2, 0, 1]


def test_a_rejected_request_frees_its_user() -> None:
    log = played(requests((500, 1, 0.25), (10, 1, 0.0)), 1, kv_tokens=128)
    assert log["arrival"] == pytest.approx([0.0, 0.25])


def test_a_loop_whose_requests_are_all_rejected_at_once_is_refused() -> None:
    long = scenario(prompt=500, engine={"kv_tokens": 128})
    with pytest.raises(FluidgateError, match="kv_tokens: holds none of the requests"):
        simulate(long, "vllm-round-robin", gpus=1, horizon=100, replications=1, users=2)


@pytest.mark.parametrize(("users", "think"), [(1, 4.0), (4, 4.0), (8, 10.0)])
def test_a_machine_repairman(users: int, think: float) -> None:
    """M/M/1//N: a GPU that holds one request, exponential lengths and think times; to what chance leaves.

    p_k is proportional to N!/(N - k)! (S/Z)^k, throughput (1 - p_0)/S.
    """
    seconds = 200 * SOLO
    weights = [math.perm(users, k) * (seconds / think) ** k for k in range(users + 1)]
    throughput = (1 - weights[0] / sum(weights)) / seconds
    here = sum(k * weight for k, weight in enumerate(weights)) / sum(weights)
    found = simulate(
        scenario(), "vllm-round-robin", gpus=1, horizon=40_000, warmup=1_000, replications=4, seed=1, users=users,
        think=think, think_law="exponential",
    )  # fmt: skip
    assert isinstance(found, RequestResult)
    assert found.overall.completion_rate.mean == pytest.approx(throughput, rel=0.02)
    assert found.overall.latency.mean == pytest.approx(here / throughput, rel=0.03)
    assert found.gpu_time["idle"].mean == pytest.approx(weights[0] / sum(weights), abs=0.01)


@pytest.mark.parametrize("policy", ["vllm-least-loaded", "distserve", "gate-and-route", "index-and-pool", "fg-sp"])
def test_littles_law(policy: str) -> None:
    """N = X (R + Z), with the front end in R."""
    several = scenario(batch_size=4, prompt=90, output=40, engine={"front_end": 0.2, "front_end_first": 0.1})
    found = simulate(several, policy, gpus=2, horizon=3_000, warmup=100, replications=1, users=9, think=1.5)
    assert isinstance(found, RequestResult)
    throughput = 2 * (found.overall.completion_rate.mean or 0.0)
    assert throughput * ((found.overall.latency.mean or 0.0) + 1.5) == pytest.approx(9, rel=5e-3)
    assert found.optimality_ratio.mean is None
    assert found.objective_ratio.mean is None


def test_a_request_is_the_same_under_every_policy() -> None:
    loop = Arrivals(process="closed", users=6, think=0.3, think_law="exponential")
    several = scenario(batch_size=4, prompt=90, output=40, arrivals=loop)
    stream = np.concatenate(list(drawn_requests(several, 2, seed=4, most=500, size=100)))
    again = np.concatenate(list(drawn_requests(several, 2, seed=4, most=500, size=130)))
    assert stream.tolist() == again.tolist()
    assert stream["think"].mean() == pytest.approx(0.3, rel=0.15)
    found = compare(several, ["vllm-least-loaded", "gate-and-route"], gpus=2, horizon=200, replications=2, seed=4)
    alone = simulate(several, "gate-and-route", gpus=2, horizon=200, replications=2, seed=4)
    assert found.policies[1].to_dict()["revenue_rate"] == alone.to_dict()["revenue_rate"]
    assert alone.run.to_dict()["users"] == 6


def test_a_front_end_moves_what_clients_see_and_nothing_else() -> None:
    plain = scenario(batch_size=4, prompt=90, output=40, targets={"ttft": 0.5})
    ended = plain.replace(engine=EngineModel(front_end=0.3, front_end_first=0.2))
    options: dict[str, Any] = {"gpus": 2, "horizon": 400, "warmup": 0, "replications": 1, "fidelity": "iteration"}
    before, after = (simulate(each, "vllm-least-loaded", **options) for each in (plain, ended))
    assert isinstance(before, RequestResult)
    assert isinstance(after, RequestResult)
    one, two = before.overall, after.overall
    assert (two.ttft.mean or 0) - (one.ttft.mean or 0) == pytest.approx(0.5, rel=1e-3)
    assert (two.latency.mean or 0) - (one.latency.mean or 0) == pytest.approx(0.5, rel=0.02)
    assert two.tpot.mean == pytest.approx(one.tpot.mean, rel=1e-3)
    assert two.prefill_wait.mean == pytest.approx(one.prefill_wait.mean, rel=0.02, abs=1e-6)
    assert one.goodput.mean == one.completion_rate.mean
    assert two.goodput.mean == 0.0  # 0.5 s of front end and an iteration at least


def test_the_load_that_is_planned_for() -> None:
    """Few users send as fast as a request alone lets them; many, what can be served where nobody leaves."""
    base = scenario(batch_size=4, prompt=90, output=40)

    def planned(users: int) -> float:
        loop = replace_arrivals(base, users)
        return float(planned_load(loop, 1).rates.arrival.sum())

    assert planned(2) == pytest.approx(2 * planned(1))
    assert planned(1) <= 1 / (10 + 40 * SOLO)
    assert planned(100_000) == pytest.approx(planned(200_000), rel=0.1)
    assert planned_load(base, 1) is base

    each = base.classes[0].changed(prompt_tokens=190, turns=3, turns_law="fixed", turn_tokens=30, think=5.0)
    sessions = base.replace(
        classes=(each, each.changed(name="other", turns=1, turns_law="geometric", turn_tokens=None, think=0.0))
    )
    shares = [each.arrival_rate / 3, each.arrival_rate]
    cycle = 10.0 + 2 * 5.0 * shares[0] / sum(shares) + alone(sessions) * 2 * each.arrival_rate / sum(shares)
    rate = planned_load(replace_arrivals(sessions, 1), 1).rates.arrival
    assert rate == pytest.approx([shares[0] * 3 / sum(shares) / cycle, shares[1] / sum(shares) / cycle])


def replace_arrivals(base: Scenario, users: int) -> Scenario:
    return base.replace(arrivals=Arrivals(process="closed", users=users, think=10.0))


def test_a_run_has_no_negative_number_of_users() -> None:
    with pytest.raises(FluidgateError, match="-1 users"):
        replace(Run(1, 1), users=-1)


def test_a_trace_of_a_closed_loop_says_so_where_it_is_not_played_in_one(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("arrival_time,prompt_tokens,output_tokens\n0,90,40\n1,90,40\n2,90,40\n")
    trace = ClassTrace(replace(read_trace(file), users=2), np.zeros(3, np.int32))
    base = scenario(batch_size=4, prompt=90, output=40)
    as_it_came = replay(base, [trace], ["vllm-round-robin"], gpus=1)
    assert any("(replay: users=2)" in warning for warning in as_it_came.warnings)
    looped = replay(base, [trace], ["vllm-round-robin"], gpus=1, users=2)
    assert not any("users" in warning for warning in looped.warnings)
