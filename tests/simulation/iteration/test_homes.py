"""index-and-pool where prompts find what was read before: goodput beside published rules, and nobody waits for ever."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluidgate import Scenario, compare
from fluidgate.batching import Batching
from fluidgate.policies.homes import at_home
from fluidgate.policies.view import HOLD
from fluidgate.simulation.iteration.replay import replay
from fluidgate.simulation.statistics import statistic
from tests.simulation.iteration.instances import Instance, gated_instance
from tests.simulation.iteration.prefix_instances import alike

LOADED = 1.15
RIVALS = ("vllm-lmetric", "vllm-sticky")
SMALL, LARGE = 1024, 15360
MEMORY = """
schema = 1
name = "memory"
[gpu]
profile = "h100/llama-3.1-8b"
batch_size = 256
chunk_size = 2048
[engine]
prefix_caching = true
batching = "token-budget"
kv_tokens = 20480
[pricing]
scheme = "bundled"
prompt = 0.1
output = 0.4
"""


def test_goodput_on_sessions_is_not_below_the_published_rules() -> None:
    """Paired over twenty replications, with 95 % confidence no more than 1 % below."""
    given = Scenario.load("examples/deep-sessions.toml")
    scenario = given.changed(classes=tuple(each.changed(arrival_rate=LOADED) for each in given.classes))
    result = compare(
        scenario, ["index-and-pool", *RIVALS], gpus=4, horizon=1500, warmup=500, replications=20, seed=1, workers=1
    )
    ours, *rivals = (np.array(each.overall.goodput.values) for each in result.policies)  # type: ignore[attr-defined]
    for rival in rivals:
        gained = statistic(ours - rival)
        assert gained.ci95 is not None
        assert gained.ci95[0] > -0.01 * rival.mean()


@pytest.mark.parametrize("gpus", [1, 2])
def test_everybody_is_served_a_large_prompt_among_small_ones_too(tmp_path: Path, gpus: int) -> None:
    """Who waits for memory in the policy's queue gets it, if only when the others have gone."""
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.exponential(1 / (7 * gpus), size=1000 * gpus))
    rows: list[dict[str, Any]] = [
        {"timestamp": int(1e3 * at), "input_length": SMALL, "output_length": 200, "hash_ids": [2 * k, 2 * k + 1]}
        for k, at in enumerate(times, 1)
    ]
    blocks = list(range(10**6, 10**6 + LARGE // 512))
    rows.append({"timestamp": 20_000, "input_length": LARGE, "output_length": 200, "hash_ids": blocks})
    trace, scenario = tmp_path / "trace.jsonl", tmp_path / "memory.toml"
    trace.write_text("\n".join(json.dumps(row) for row in sorted(rows, key=lambda row: row["timestamp"])))
    scenario.write_text(MEMORY)
    found = replay(scenario, [trace], ["index-and-pool"], gpus=gpus, workers=1).policies[0].overall
    assert found.ttft.count == len(rows)


def last_first(view, tables):  # type: ignore[no-untyped-def]
    """The last class that waits."""
    for cls in range(view.waiting.size - 1, -1, -1):
        if view.waiting[cls] > 0:
            return cls
    return HOLD


@pytest.mark.parametrize("batching", [Batching.TOKEN_BUDGET, Batching.SINGLE_PREFILL])
def test_a_gate_of_a_users_own_is_asked_where_gate_and_placement_would_decide_together(batching: Batching) -> None:
    differ = 0
    for seed in range(6):
        given = gated_instance(seed, "index-and-pool", batching)
        apart = alike(given, seed, followed=True, limited=False)
        assert apart.tables is not None
        together = replace(apart, tables=at_home(apart.tables, apart.plan, 10.0))
        assert log_of(own(together)) == log_of(own(apart))
        differ += log_of(together) != log_of(own(together))
    assert differ > 0


def own(instance: Instance) -> Instance:
    assert instance.policy is not None
    return replace(instance, policy=instance.policy.with_functions("own", gate=last_first))


def log_of(instance: Instance) -> list[str]:
    return [f"{number}: {row}" for number, row in sorted(instance.by_kernel()[1].items())]
