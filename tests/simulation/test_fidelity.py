"""The iteration model against the Markov network where both model the same, and how it departs where they don't."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t as student

from fluidgate import Scenario, SimulationResult, simulate
from fluidgate.model import Lengths
from fluidgate.simulation.statistics import Statistic
from tests.scenarios import two_class_scenario

REPLICATIONS = 6
ALLOWED = 0.015
"""What chunks of 8 tokens leave: a prompt of 300 takes half a chunk more than its tokens."""


def run(scenario: Scenario, policy: str, fidelity: str, seed: int) -> SimulationResult:
    options = {"gpus": 20, "horizon": 5000.0, "warmup": 300.0, "replications": REPLICATIONS, "seed": seed}
    return simulate(scenario, policy, fidelity=fidelity, workers=1, **options)  # type: ignore[arg-type]


def small_chunks() -> Scenario:
    """The two-class instance; chunks and iterations a 32nd, outputs as much longer and cheaper: its plan stays."""
    base = two_class_scenario()
    iteration = base.gpu.iteration.model_copy(update={"alpha": 0.0174 / 32, "gamma": 45.45 * 32})
    return base.replace(
        gpu=base.gpu.model_copy(update={"chunk_size": 8, "iteration": iteration}),
        classes=tuple(c.model_copy(update={"output_tokens": 32 * c.output_tokens}) for c in base.classes),
        pricing=base.pricing.model_copy(update={"output": 0.2 / 32}),
    )


def total(*parts: Statistic) -> np.ndarray:
    """The sum of quantities, replication by replication."""
    return np.sum([part.values for part in parts], axis=0)


@pytest.mark.parametrize("policy", ["gate-and-route", "gi-wsp", "sli-aware"])
def test_exponential_lengths_and_small_chunks_are_the_markov_network(policy: str) -> None:
    """Differences lie within a 99.9 % interval (Welch, both sides) and 1.5 %; the seed is fixed."""
    scenario = small_chunks()
    markov = run(scenario, policy, "markov", seed=4)
    iterations = run(scenario, policy, "iteration", seed=4)

    def same(what: str, theirs: np.ndarray, ours: np.ndarray, least: float = 0.0) -> None:
        error = math.hypot(theirs.std(ddof=1), ours.std(ddof=1)) / math.sqrt(REPLICATIONS)
        allowed = student.ppf(0.9995, REPLICATIONS - 1) * error + max(ALLOWED * theirs.mean(), least)
        assert ours.mean() == pytest.approx(theirs.mean(), abs=allowed), what
        assert allowed < 0.3 * theirs.mean() + least, f"{what}: the interval is too wide to say anything"

    same("revenue", total(markov.revenue_rate), total(iterations.revenue_rate))
    for theirs, ours in zip(markov.classes, iterations.classes, strict=True):
        same("prefill", total(theirs.prefill), total(ours.prefill))
        same("decode", total(theirs.mixed_decode, theirs.solo_decode), total(ours.mixed_decode, ours.solo_decode))
        same("mixed decode", total(theirs.mixed_decode), total(ours.mixed_decode))
        same("completions", total(theirs.completion_rate), total(ours.completion_rate))
        same("prefill queue", total(theirs.prefill_queue), total(ours.prefill_queue), least=0.1)


def test_the_last_chunk_makes_prefills_longer() -> None:
    """A prompt of P tokens takes `ceil(P/C)` iterations, the last one shorter: about `alpha/2` s more than `P tau/C`.

    At equal numbers of prefills a second, the time in prefill grows by that share.
    """
    scenario = two_class_scenario().replace(lengths=Lengths(output="fixed"))
    found = run(scenario, "fi-wsp", "iteration", seed=7)
    gpu = scenario.gpu
    for cls, each in zip(scenario.classes, found.classes, strict=True):
        seconds = total(each.prefill) / total(each.prefill_completion_rate)
        # Geometric prompts take 1/(1 - (1 - 1/P)^C) iterations, on average; each costs alpha, each token beta.
        iterations = 1.0 / (1.0 - (1.0 - 1.0 / cls.prompt_tokens) ** gpu.chunk_size)
        exact = gpu.iteration.alpha * iterations + gpu.iteration.beta * cls.prompt_tokens
        # A prefill that begins beside decodes waits for their iteration to end: at most one mixed iteration.
        assert exact <= seconds.mean() * 1.02
        assert seconds.mean() <= 1.02 * (exact + gpu.tau)
        assert exact > cls.prompt_tokens * gpu.tau / gpu.chunk_size + 0.4 * gpu.iteration.alpha
