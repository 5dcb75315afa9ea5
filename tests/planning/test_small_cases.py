"""Small scenarios whose plans were wrong when hardware was read at full batches, with what is right."""

import numpy as np
import pytest

from fluidgate import InfeasiblePlanError, Scenario, plan, simulate
from fluidgate.scenario_file import parse_scenario

CLUSTER = """
name = "case"
{cluster}
[gpu]
{gpu}
[pricing]
scheme = "bundled"
prompt = 0.1
output = 0.2
[[classes]]
name = "c0"
prompt_tokens = {prompt}
output_tokens = {output}
{rate}
patience_rate = {patience}
{more}
"""

PAPERS = """
batch_size = 64
chunk_size = {chunk}
alpha = 0.0174
beta = 6.2e-05
gamma = 45.45
"""

H100 = """
profile = "h100/llama-3.1-8b"
batch_size = {batch}
chunk_size = {chunk}
"""

FIXED = '[lengths]\nprompt = "fixed"\noutput = "fixed"\n'


def scenario(
    gpu: str, prompt: float, output: float, rate: float, *, gpus: int = 0, more: str = "", patience: float = 0.1
) -> Scenario:
    cluster = f"[cluster]\ngpus = {gpus}" if gpus else ""
    key = "total_arrival_rate" if gpus else "arrival_rate"
    text = CLUSTER.format(
        cluster=cluster, gpu=gpu, prompt=prompt, output=output, rate=f"{key} = {rate}", patience=patience, more=more
    )
    return parse_scenario(text, "case.toml")


@pytest.mark.parametrize(("chunk", "prompt"), [(8192, 300), (65536, 300), (2048, 1000)])
def test_a_chunk_is_as_long_as_its_prompt(chunk: int, prompt: int) -> None:
    given = scenario(PAPERS.format(chunk=chunk), prompt, 150, 4.0, more=FIXED)
    iteration = 0.0174 + 6.2e-5 * prompt
    solved = plan(given, gpus=20)
    assert solved.partition is not None
    assert solved.mixed_fraction == pytest.approx(4.0 * iteration)
    assert solved.partition.mixed == int(np.ceil(20 * 4.0 * iteration))
    assert 0.022 <= solved.tpot <= 0.023
    found = simulate(given, "gate-and-route", gpus=20, horizon=300.0, replications=2, fidelity="iteration")
    assert found.optimality_ratio.mean == pytest.approx(1.0, abs=0.03)


def test_without_lengths_the_model_takes_chunks_as_full_and_says_so() -> None:
    solved = plan(scenario(PAPERS.format(chunk=8192), 300, 150, 4.0), gpus=20)
    assert any("much shorter than chunk_size 8192" in warning for warning in solved.warnings)
    counted = plan(scenario(PAPERS.format(chunk=8192), 300, 150, 4.0), gpus=20, by_iterations=True)
    assert counted.mixed_fraction == pytest.approx(4.0 * (0.0174 + 6.2e-5 * 300))


@pytest.mark.parametrize("memory", [41_408, 20_000, 100_000])
def test_memory_bounds_the_decodes(memory: int) -> None:
    more = f"[engine]\nkv_tokens = {memory}\n{FIXED}"
    given = scenario(PAPERS.format(chunk=512), 6000, 600, 0.8, more=more, patience=0.05)
    solved = plan(given)
    point = solved.operating_point
    assert point is not None
    assert point.decodes <= memory / 6000
    assert point.kv_share == pytest.approx(1.0 if solved.served_fraction[0] < 1.0 else point.kv_tokens / memory)
    simulated = simulate(given, "fi-wsp", gpus=10, horizon=1500.0, replications=2, fidelity="iteration")
    assert simulated.optimality_ratio.mean is not None
    assert 0.7 < simulated.optimality_ratio.mean <= 1.01


@pytest.mark.parametrize("batch", [32, 256])
def test_a_limit_that_the_plan_keeps_anyway_costs_nothing(batch: int) -> None:
    given = scenario(H100.format(batch=batch, chunk=2048), 16000, 100, 10.0, gpus=8, patience=0.0)
    limited = parse_with(given, 0.05)
    assert limited.revenue_rate == pytest.approx(plan(given).revenue_rate)
    assert limited.indicators["max_tpot"]["shadow_price"] == 0.0
    assert limited.tpot < 0.02
    with pytest.raises(InfeasiblePlanError, match="the least that can is"):
        parse_with(given, 0.001)


def parse_with(given: Scenario, limit: float) -> object:
    indicators = given.indicators.model_copy(update={"max_tpot": limit})
    return plan(given.replace(indicators=indicators))


def test_the_cap_of_a_batch_is_not_its_speed() -> None:
    plans = [
        plan(scenario(H100.format(batch=batch, chunk=2048), 16000, 100, 10.0, gpus=8, patience=0.0)).to_dict()
        for batch in (64, 256)
    ]
    for one in plans:
        del one["warnings"]
    assert plans[0]["operating_point"] == pytest.approx(plans[1]["operating_point"], rel=1e-6)
    assert plans[0]["tpot"] == pytest.approx(plans[1]["tpot"], rel=1e-6)


def test_prompts_beyond_what_was_measured_are_doubted() -> None:
    given = scenario(H100.format(batch=32, chunk=512), 100_000, 343, 3.4, gpus=16, patience=0.01)
    solved = plan(given)
    assert any("were not measured" in warning for warning in solved.warnings)
    point = solved.operating_point
    assert point is not None
    assert point.solo_iteration is not None
    assert point.solo_iteration > 0.008


@pytest.mark.parametrize("policy", ["index-and-pool", "gate-and-route", "sli-aware"])
def test_a_limit_that_binds_before_any_slot_does_not_hang(policy: str) -> None:
    more = "[indicators]\nmax_tpot = 0.00681\n"
    given = scenario(H100.format(batch=64, chunk=512), 4000, 50, 1.0, more=more)
    found = simulate(given, policy, gpus=4, horizon=100.0, replications=1, fidelity="iteration")
    assert found.revenue_rate.mean is not None


@pytest.mark.parametrize("load", [0.3, 0.6, 0.85])
def test_the_tpot_of_a_pool_is_the_one_that_its_decodes_feel(load: float) -> None:
    """12 H100, the mean of two classes; index-and-pool spreads prefills and decodes over all GPUs."""
    given = Scenario.load("examples/azure-h100.toml")
    classes = tuple(c.model_copy(update={"arrival_rate": c.arrival_rate * load}) for c in given.classes)
    given = given.replace(classes=classes)
    point = plan(given).operating_point
    assert point is not None
    found = simulate(given, "index-and-pool", gpus=12, horizon=200.0, replications=2, seed=1, fidelity="iteration")
    served = [c.completion_rate.mean or 0.0 for c in found.classes]
    felt = np.average([c.tpot.mean or 0.0 for c in found.classes], weights=served)
    assert point.pooled_tpot == pytest.approx(felt, rel=0.06)
    assert point.tpot <= point.pooled_tpot
    held = found.kv_tokens.mean  # type: ignore[attr-defined]
    assert point.kv_tokens < held


@pytest.mark.parametrize("policy", ["index-and-pool", "gate-and-route", "sli-aware", "gf-wsp", "vllm-least-loaded"])
def test_a_cap_that_nobody_reaches_changes_no_number_of_a_simulation(policy: str) -> None:
    """Two classes that may leave; 20 decodes on a GPU at most, under 64 and under 256."""
    given = Scenario.load("examples/azure-h100.toml")
    classes = tuple(c.model_copy(update={"arrival_rate": c.arrival_rate * 0.15}) for c in given.classes)
    engine = given.engine.model_copy(update={"max_batched_tokens": 2048})
    found = []
    for size in (64, 256):
        gpu = given.gpu.model_copy(update={"batch_size": size})
        capped = given.replace(classes=classes, engine=engine, gpu=gpu)
        run = simulate(capped, policy, gpus=4, horizon=60.0, replications=1, seed=1, fidelity="iteration").to_dict()
        found.append({key: value for key, value in run.items() if key not in ("wall_seconds", "warnings")})
    assert found[0] == found[1]
