"""The capacity of a real engine: Llama 3.1 8B on an RTX 4090 under vLLM, its queue full.

docs/background/true-to-engines.md tells of the run.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fluidgate.batching import Batching
from fluidgate.model import Lengths, Scenario
from fluidgate.planning.batches.need import need
from fluidgate.simulation import simulate

EXAMPLE = Path(__file__).parents[2] / "examples" / "vllm-rtx4090.toml"
MEASURED = 1119.0
"""Output tokens/s while requests waited."""
LOGGED = Lengths(prompt="lognormal", prompt_cv=0.615, output="lognormal", output_cv=0.151)
"""As spread out as the log's."""


def test_the_bound_and_the_proof_are_within_a_tenth_of_the_engine() -> None:
    scenario = Scenario.load(EXAMPLE).replace(lengths=LOGGED)
    (chat,) = scenario.classes
    most = chat.arrival_rate / need(scenario, Batching.TOKEN_BUDGET).gpus * chat.output_tokens
    assert MEASURED < most < 1.1 * MEASURED
    full = scenario.replace(classes=(chat.model_copy(update={"arrival_rate": 2.0}),))
    run = simulate(full, "vllm-round-robin", gpus=1, horizon=2000, warmup=500, replications=2, seed=5, workers=1)
    assert run.overall.output_token_rate.mean == pytest.approx(MEASURED, rel=0.03)  # type: ignore[attr-defined]
