"""Tables of simulations request by request: what the Markov network does not know."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from fluidgate.planning import plan
from fluidgate.replanning import Replanning
from fluidgate.reports.requests import pool_table, replay_tables, request_comparison_tables, request_tables
from fluidgate.reports.tables import number
from fluidgate.simulation import Comparison
from fluidgate.simulation.iteration.logged import LoggedRun
from fluidgate.simulation.iteration.pilot import Pilot
from fluidgate.simulation.iteration.plan_path import PlanPath
from fluidgate.simulation.iteration.replay_options import ReplayOptions
from fluidgate.simulation.iteration.results import ReplayComparison
from tests.reports.results import path, request_class_result, served, value
from tests.reports.seen import by_first, cells, headers
from tests.scenarios import two_class_scenario

FOLLOWING = PlanPath(
    replanning=Replanning(),
    solved=value(4.0),
    changed=value(2.0),
    kept=value(1.0),
    time=np.array([0.0, 1.0, 2.0]),
    mixed_planned=np.array([2.0, 4.0, 6.0]),
    mixed_target=np.array([2.0, 4.0, 6.0]),
    mixed_gpus=np.array([3.0, 4.0, 8.0]),
    reading=np.array([1.0, 2.0, 3.0]),
    targets=path(),
)
PILOT = Pilot(1_500, "completed requests, then least mean latency")
REPLAYED = ReplayOptions(gpus=10, horizon=math.inf, warmup=0.0, replications=1, seed=0, traces=("a.csv", "b.csv"))


def test_the_whole_tells_tokens_gpus_and_memory() -> None:
    said = by_first(next(iter(request_tables(served()))))
    assert said["goodput per GPU (within the targets)"] == ["0.4 (80.0 %)"]
    assert said["tokens read, written per GPU"] == ["3000, 250 /s"]
    assert said["GPU time"] == ["idle 10.0 %, solo 50.0 %, mixed 30.0 %, prefill 10.0 %"]
    assert said["KV tokens on a GPU: mean, most"] == ["40,000, 65,536"]
    assert said["preempted, rejected per GPU"] == ["0.01, 0 /s"]
    assert said["batching"] == ["token-budget"]
    assert not {"parameters", "prompt_gpus found by"} & said.keys()


def test_parameters_and_the_pilot_are_told_where_there_are_some() -> None:
    result = served("distserve", parameters={"prompt_gpus": 4.0}, pilot=PILOT)
    said = by_first(next(iter(request_tables(result))))
    assert said["parameters"] == ["prompt_gpus 4"]
    assert said["prompt_gpus found by"] == [
        "a pilot run of 1,500 requests: most completed requests, then least mean latency"
    ]


def test_without_targets_there_is_no_goodput() -> None:
    result = served(overall=request_class_result("all", goodput=request_class_result("none").ttft))
    said = by_first(next(iter(request_tables(result))))
    assert said["goodput per GPU (within the targets)"] == ["no targets"]


def test_times_have_means_and_quantiles_in_their_units() -> None:
    *_, times = request_tables(served())
    said = {(name, label): rest for name, label, *rest in cells(times)}
    assert len(said) == 3 * 7
    mean, *quantiles = (float(cell) for cell in said["chat", "TTFT, s"])
    assert mean == pytest.approx(0.7 / 3, rel=1e-3)
    assert quantiles == pytest.approx(np.quantile([0.1, 0.2, 0.4], [0.5, 0.9, 0.95, 0.99]), rel=3e-3)
    assert said["chat", "TPOT, ms"] == ["-"] * 5
    assert said["code", "TPOT, ms"][0] == "20"


def test_a_plan_that_follows_the_load_is_told() -> None:
    solved = plan(two_class_scenario())
    _, followed, *_ = request_tables(served(plan=solved, plan_path=FOLLOWING))
    first = number(10 * solved.mixed_fraction, 3)
    assert cells(followed) == [("vllm-round-robin", "4", "2", "1", first, "2", "4", "6", "5", "2")]
    titles = [str(table.title) for table in request_tables(served(plan=solved))]
    assert "Plans that follow the load" not in titles


def test_a_comparison_has_gpus_and_the_times_of_every_class_best_policy_first() -> None:
    low, high = served("low", value(100.0)), served("high", value(150.0))
    _, gpus, *times = request_comparison_tables(Comparison("small", low.run, (low, high)))
    assert [row[0] for row in cells(gpus)] == ["high", "low"]
    assert cells(gpus)[0][1:8] == ("token-budget", "10.0 %", "50.0 %", "30.0 %", "10.0 %", "40,000", "65,536")
    assert [str(table.title) for table in times] == ["TTFT, s", "TPOT, ms", "Gap beside a prefill, ms", "Latency, s"]
    assert [row[:2] for row in cells(times[0])] == [(p, c) for p in ("high", "low") for c in ("chat", "code", "all")]


def test_a_comparison_says_what_was_found_where_prefixes_are_cached() -> None:
    nothing = request_class_result("none").ttft
    plain = served("plain", overall=replace(request_class_result("all"), prefix_hit_rate=nothing))
    cached = served("cached", overall=replace(request_class_result("all"), prefix_hit_rate=value(0.875)))
    _, gpus, *_ = request_comparison_tables(Comparison("small", plain.run, (plain, cached)))
    column = [str(each.header) for each in gpus.columns].index("found")
    assert {row[0]: row[column] for row in cells(gpus)} == {"plain": "-", "cached": "87.5 %"}
    _, gpus, *_ = request_comparison_tables(Comparison("small", plain.run, (plain,)))
    assert "found" not in [str(each.header) for each in gpus.columns]


def test_what_gpus_cost_that_come_and_go_is_told() -> None:
    lost = request_class_result("all", loss_rate=value(0.02))
    result = served("one", has_fleet=True, overall=lost, gpu_hours=value(1.25), availability=value(0.9))
    said = by_first(next(iter(request_tables(result))))
    assert [said[row] for row in ("GPU hours", "available", "lost with a GPU, per GPU")] == [
        ["1.25"], ["90.0 %"], ["0.02 /s"],
    ]  # fmt: skip
    assert "GPU hours" not in by_first(next(iter(request_tables(served()))))
    _, _, fleet, *_ = request_comparison_tables(Comparison("small", result.run, (result,)))
    assert cells(fleet) == [("one", "1.25", "90.0 %", "0.02")]


def test_pools_are_told_with_who_found_them() -> None:
    given = served("splitwise", parameters={"prompt_gpus": 3.0})
    found = served("distserve", parameters={"prompt_gpus": 4.0}, pilot=PILOT)
    rows = cells(pool_table([given, found, served()]))
    assert rows[0] == ("splitwise", "given", "3", "7")
    assert rows[1][0] == "distserve"
    assert rows[1][1].startswith("a pilot run of 1,500 requests")
    assert rows[1][2:] == ("4", "6")
    assert len(rows) == 2, "a policy without pools is left out"


def test_a_replay_says_how_the_traces_were_played() -> None:
    result = ReplayComparison("small", REPLAYED, (served(run=REPLAYED),))
    first, *rest = replay_tables(result)
    assert str(first.title) == (
        "a.csv + b.csv on 'small': 10 GPUs, until the last has left, played once, rates times 1"
    )
    assert not any("As the trace measured it" in str(table.title) for table in rest)


def test_a_replay_is_held_against_what_the_trace_measured() -> None:
    zero = np.zeros(2)
    # TTFT of 1 s and 3 s, TPOT of 0.5 s, latency of 3 s and 5 s
    logged = LoggedRun(zero, np.array([1.0, 3.0]), np.array([3.0, 5.0]), np.full(2, 10), np.full(2, 5))
    result = ReplayComparison("small", REPLAYED, (served(run=REPLAYED),), logged)
    *_, shown = replay_tables(result)
    assert headers(shown)[3:] == ["measured", "simulated", "difference"]
    said = {(quantity, name): rest for _, quantity, name, *rest in cells(shown)}
    # ten tokens in 5 s; the simulation wrote 250 a second on each of 10 GPUs
    assert said["output throughput", "tokens/s"] == ["2", "2500", "+124900.0 %"]
