"""Ranks in step: a group goes on at the pace of its longest batch, and shares out its requests as vLLM does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fluidgate import FluidgateError, Scenario, plan, simulate
from fluidgate.engine_table import EngineModel
from fluidgate.policies.decisions.tables import Placement
from fluidgate.simulation.iteration.engine import Engine, Pools
from fluidgate.simulation.iteration.law import linear_law
from fluidgate.simulation.iteration.rules import Placements
from fluidgate.simulation.iteration.run import Run, run_requests
from fluidgate.workloads.streams import REQUEST

LAW = linear_law(0.02, 1e-3, delta=1e-3, epsilon=1e-5, solo=(0.01, 1e-3, 1e-5))


def requests(*rows: tuple[float, int, int]) -> Any:
    block = np.zeros(len(rows), REQUEST)
    for row, (arrival, prompt, output) in zip(block, rows, strict=True):
        row["arrival"], row["prompt"], row["output"], row["patience"] = arrival, prompt, output, math.inf
    return block


def served(block: Any, *, ranks: int, gpus: int, placement: Placement = Placement.ROUND_ROBIN, **keys: Any) -> Any:
    """The log, by number."""
    engine = Engine(LAW, 8, 64, keys=EngineModel(data_parallel=ranks, **keys))
    logs: list[Any] = []
    run_requests([block], engine, Run(gpus, 1, audited=True), Placements(placement), take_log=logs.append)
    return np.sort(np.concatenate(logs), order="number")


def test_a_group_whose_ranks_hold_the_same_takes_what_one_rank_takes() -> None:
    alone = [(0.0, 40, 12), (0.3, 100, 20), (0.31, 30, 5)]
    one = served(requests(*alone), ranks=1, gpus=1)
    both = served(requests(*(row for row in alone for _ in range(2))), ranks=2, gpus=2)
    assert both["prefill_gpu"].tolist() == [0, 1] * 3
    for name in ("scheduled", "first_token", "last_token"):
        np.testing.assert_allclose(both[name], np.repeat(one[name], 2), rtol=1e-12)


def test_a_prefill_on_one_rank_slows_the_decodes_on_the_other_by_the_difference() -> None:
    decode, prompt = (0.0, 8, 41), (0.2, 50, 1)
    alone = served(requests(decode), ranks=1, gpus=1)[0]
    slowed = served(requests(decode, prompt), ranks=2, gpus=2)
    assert slowed["prefill_gpu"].tolist() == [0, 1]
    apart = served(requests(decode, prompt), ranks=1, gpus=2)
    assert apart[0]["last_token"] == alone["last_token"]
    prefill = slowed[1]["first_token"] - slowed[1]["scheduled"]
    assert prefill == pytest.approx(0.02 + 50e-3)
    written = round((slowed[1]["scheduled"] - alone["first_token"]) / 0.011)
    decoding = 0.01 + 1e-3 + 1e-5 * (8 + 1 + written)
    assert slowed[0]["last_token"] - alone["last_token"] == pytest.approx(prefill - decoding, abs=2e-5)
    # who comes to a rank without a batch waits until the others have ended their iteration
    assert slowed[1]["scheduled"] > 0.2 == apart[1]["scheduled"]


def test_requests_go_to_the_rank_with_the_least_score() -> None:
    """Waiting weighs four times; what was sent since the last tenth of a second waits, what came before is known."""
    long = [(0.01 + 0.001 * k, 4, 200) for k in range(4)]
    later = [(0.5, 4, 1), (0.51, 4, 1), (0.52, 4, 1)]
    log = served(requests(*long, *later), ranks=2, gpus=2)
    assert log["prefill_gpu"].tolist() == [0, 1, 0, 1, 0, 1, 0]
    # counts are published ten times a second: those of the last iteration that had ended, without those sent after it
    log = served(requests((0.09, 64, 50), (0.101, 64, 50), (0.18, 4, 1)), ranks=2, gpus=2)
    assert log["prefill_gpu"].tolist() == [0, 0, 1]


def test_a_policy_chooses_the_group_and_the_balancer_the_rank() -> None:
    block = requests(*((0.001 * k, 16, 100) for k in range(8)))
    assert served(block, ranks=2, gpus=4)["prefill_gpu"].tolist() == [0, 2, 1, 3, 0, 2, 1, 3]
    least = served(block, ranks=2, gpus=4, placement=Placement.LEAST_LOADED)
    assert least["prefill_gpu"].tolist() == [0, 2, 1, 3, 0, 2, 1, 3]


def test_gpus_that_are_no_whole_groups_and_pools_are_refused() -> None:
    with pytest.raises(FluidgateError, match="5 GPUs are no whole number of groups of 2 ranks"):
        served(requests((0.0, 1, 1)), ranks=2, gpus=5)
    engine = Engine(LAW, 8, 64, keys=EngineModel(data_parallel=2))
    with pytest.raises(FluidgateError, match="pools of GPUs"):
        run_requests([], engine, Run(4, 1), Placements(Placement.POOLS, Pools(2)))


def scenario(ranks: int) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "ranks",
            "gpu": {"batch_size": 16, "chunk_size": 256, "iteration": {"alpha": 0.02, "beta": 2e-4, "gamma": 60.0}},
            "pricing": {"scheme": "bundled", "prompt": 0.1, "output": 0.2},
            "classes": (
                {"name": "a", "prompt_tokens": 600, "output_tokens": 80, "arrival_rate": 0.8, "patience_rate": 0.1},
            ),
            "engine": {"data_parallel": ranks},
        }
    )


def test_a_simulation_in_step_is_slower_and_its_plan_says_that_it_is_a_bound() -> None:
    apart = simulate(scenario(1), "vllm-least-loaded", gpus=4, horizon=200, replications=1, workers=1)
    in_step = simulate(scenario(2), "vllm-least-loaded", gpus=4, horizon=200, replications=1, workers=1)
    assert any("2 ranks of a group" in warning for warning in in_step.warnings)
    slow, quick = (each.classes[0].tpot.mean for each in (in_step, apart))
    assert slow is not None
    assert quick is not None
    assert slow > 1.05 * quick
    with pytest.raises(FluidgateError, match=r"engine\.data_parallel.*'distserve'"):
        simulate(scenario(2), "distserve", gpus=4)
    with pytest.raises(FluidgateError, match="3 GPUs are no whole number"):
        simulate(scenario(2), "gate-and-route", gpus=3)


def test_the_mixed_group_is_of_whole_groups_of_ranks() -> None:
    bare = plan(scenario(1), gpus=6).partition
    whole = plan(scenario(2), gpus=6).partition
    assert bare is not None
    assert whole is not None
    assert whole.mixed % 2 == 0
    assert bare.mixed <= whole.mixed <= bare.mixed + 1


def test_markov_says_that_it_does_not_see_it() -> None:
    run = simulate(scenario(2), "gate-and-route", gpus=2, horizon=20, replications=1, workers=1, fidelity="markov")
    assert any("[engine] data_parallel = 2" in warning for warning in run.warnings)
