"""The plan of the batch that runs, against the paper's own, a second writing of its rows, and its own differences."""

import dataclasses

import numpy as np
import pytest

from fluidgate import Gpu, InfeasiblePlanError, IterationTime, Pricing, RequestClass, Scenario, plan
from fluidgate.batching import Batching
from fluidgate.model import EngineModel, Indicators, Lengths
from fluidgate.planning.batches.instance import BatchInstance
from fluidgate.planning.batches.program import BatchProgram
from fluidgate.planning.batches.solve import solve
from tests.laws import random_law
from tests.planning.batch_oracle import best_revenue
from tests.scenarios import two_class_scenario

SEEDS = range(30)


def scenario(seed, kind, *, memory=None, lengths=None, full=False):
    """A random one; with `full` no prompt is shorter than a chunk."""
    random = np.random.default_rng(seed)
    chunk = int(random.choice([256, 512, 2048]))
    shortest = chunk if full else 30
    classes = tuple(
        RequestClass(
            name=f"c{k}",
            prompt_tokens=float(round(shortest * 10 ** random.uniform(0.0, 1.5))),
            output_tokens=float(round(10 ** random.uniform(0.5, 3))),
            arrival_rate=10 ** random.uniform(-1.5, 1.0),
            patience_rate=float(random.choice([0.05, 0.5])),
        )
        for k in range(random.integers(1, 4))
    )
    limited = random.random() < 0.5 if memory is None else memory
    longest = max(c.prompt_tokens + c.output_tokens for c in classes)
    tokens = int(longest * 10 ** random.uniform(1.5, 2.2)) // 16 * 16
    return Scenario(
        name=f"{kind}-{seed}",
        gpu=Gpu(batch_size=int(random.choice([4, 16, 64, 256])), chunk_size=chunk, iteration=random_law(random, kind)),
        pricing=Pricing(scheme=random.choice(["bundled", "separate"]), prompt=0.1, output=0.2),
        classes=classes,
        lengths=lengths or Lengths(**dict.fromkeys(("prompt", "output"), random.choice(["fixed", "exponential"]))),
        engine=EngineModel(kv_tokens=tokens if limited else None),
    )


def with_rate(cls, rate):
    return cls.model_copy(update={"arrival_rate": rate})


@pytest.mark.parametrize("seed", SEEDS)
def test_with_the_papers_law_and_full_chunks_it_is_the_papers_program(seed):
    given = scenario(seed, "paper", memory=False, full=True)
    papers = plan(given)
    assert papers.operating_point is None
    instance = BatchInstance.of(given, given.pricing.scheme, Indicators(), Batching.SINGLE_PREFILL, True)
    assert solve(BatchProgram(), instance).objective == pytest.approx(papers.revenue_rate, rel=1e-7)


@pytest.mark.parametrize("memory", [False, True])
def test_the_papers_two_numbers_come_out_of_it(memory):
    engine = EngineModel(kv_tokens=10**9) if memory else EngineModel(kv_block=16)
    given = two_class_scenario().replace(engine=engine)
    for scheme, revenue in (("bundled", 297.70316986424), ("separate", 298.58655675)):
        instance = BatchInstance.of(given, scheme, Indicators(), Batching.SINGLE_PREFILL, True)
        assert solve(BatchProgram(), instance).objective == pytest.approx(revenue, rel=1e-9)


@pytest.mark.parametrize("kind", ["linear", "table", "wide"])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_best_revenue_is_that_of_the_rows_written_again(seed, kind):
    given = scenario(seed, kind, memory=False if seed % 3 else None)
    if given.engine.kv_tokens and max(c.prompt_tokens + c.output_tokens for c in given.classes) * 21 > (
        given.engine.kv_tokens
    ):
        pytest.skip("requests that alone exceed the memory are counted apart")
    assert plan(given).revenue_rate == pytest.approx(best_revenue(given), rel=1e-6)
    tokens = given.gpu.chunk_size + given.gpu.batch_size - 1
    under_budget = plan(given, batching=Batching.TOKEN_BUDGET)
    assert under_budget.revenue_rate == pytest.approx(best_revenue(given, budget=tokens), rel=1e-6)


@pytest.mark.parametrize("kind", ["linear", "table", "wide"])
@pytest.mark.parametrize("seed", SEEDS)
def test_it_never_falls_with_more_of_anything(seed, kind):
    given = scenario(seed, kind)
    best = plan(given).revenue_rate * (1.0 - 1e-7)
    gpu, kv = given.gpu, given.engine.kv_tokens
    more = [
        given.replace(gpu=gpu.model_copy(update={"batch_size": 2 * gpu.batch_size})),
        given.replace(gpu=gpu.model_copy(update={"chunk_size": 2 * gpu.chunk_size})),
        given.replace(classes=tuple(with_rate(c, 1.3 * c.arrival_rate) for c in given.classes)),
        *([given.replace(engine=EngineModel(kv_tokens=size)) for size in (kv + 5000, None)] if kv else []),
    ]
    for batching in (Batching.SINGLE_PREFILL, Batching.TOKEN_BUDGET):
        best = plan(given, batching=batching).revenue_rate * (1.0 - 1e-7)
        for changed in more:
            assert plan(changed, batching=batching).revenue_rate >= best


@pytest.mark.parametrize("kind", ["linear", "table", "wide"])
@pytest.mark.parametrize("seed", SEEDS)
def test_prices_lie_between_the_differences(seed, kind):
    given = scenario(seed, kind, memory=True)
    solved = plan(given)

    def differences(change, step):
        least, middle, most = (plan(change(by)).revenue_rate for by in (-step, 0.0, step))
        return (middle - least) / step, (most - middle) / step

    def confirm(price, change, step):
        below, above = differences(change, step)
        slack = 1e-4 * max(abs(below), abs(above)) + 1e-9 * solved.revenue_rate / step
        assert above - slack <= price <= below + slack

    for i, c in enumerate(given.classes):

        def more_of_it(by, i=i, c=c):
            changed = with_rate(c, c.arrival_rate + by)
            return given.replace(classes=(*given.classes[:i], changed, *given.classes[i + 1 :]))

        confirm(solved.flow_price[i], more_of_it, 1e-4 * c.arrival_rate)

    def with_memory(by):
        return given.replace(engine=EngineModel(kv_tokens=given.engine.kv_tokens + round(by)))

    confirm(solved.shadow_prices["memory"], with_memory, 16 * max(1, round(1e-4 * given.engine.kv_tokens)))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_second_more_of_a_gpu_is_worth_its_price(seed):
    given, step = scenario(seed, "linear", memory=False), 1e-5
    low, middle, high = (plan(_slower(given, by)).revenue_rate for by in (1.0 / (1.0 - step), 1.0, 1.0 / (1.0 + step)))
    price = plan(given).shadow_prices["time"]
    slack = 1e-3 * price + 1e-9 * middle / step
    assert (high - middle) / step - slack <= price <= (middle - low) / step + slack


def _slower(given, factor):
    iteration = given.gpu.iteration
    scaled = {name: getattr(iteration, name) * factor for name in ("alpha", "beta", "delta", "epsilon")}
    solo = {"solo_alpha": iteration.solo_alpha * factor, "solo_delta": iteration.solo_delta * factor}
    return given.replace(gpu=given.gpu.model_copy(update={"iteration": IterationTime(**scaled, **solo)}))


@pytest.mark.parametrize("kind", ["linear", "table", "wide"])
@pytest.mark.parametrize("seed", SEEDS)
def test_index_above_one_is_served_in_full_and_below_not_at_all(seed, kind):
    """Complementary slackness, through what policies read."""
    given = scenario(seed, kind).replace(pricing=Pricing(scheme="bundled", prompt=0.1, output=0.2))
    solved = plan(given)
    index = solved.rates.bundled_value / np.maximum(solved.prefill_cost + solved.decode_cost, 1e-300)
    if any("faster than solo" in warning for warning in solved.warnings):
        return
    assert np.all(solved.served_fraction[index > 1.0 + 1e-6] > 1.0 - 1e-6)
    assert np.all(solved.served_fraction[index < 1.0 - 1e-6] < 1e-6)


@pytest.mark.parametrize("kind", ["linear", "table", "wide", "paper"])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_operating_point_obeys_littles_law_and_its_limits(seed, kind):
    given = scenario(seed, kind, memory=True)
    solved = plan(given)
    point = solved.operating_point
    tokens = solved.completion_rate * [c.output_tokens for c in given.classes]
    running = solved.mixed_decode.sum() + solved.solo_decode.sum()
    assert running == pytest.approx(point.tpot * tokens.sum(), rel=1e-6)
    assert point.decodes * point.iteration_rate == pytest.approx(tokens.sum(), rel=1e-6)
    assert 0.0 <= point.busy <= 1.0 + 1e-9
    assert solved.prefill.sum() == pytest.approx(solved.mixed_fraction, rel=1e-6)
    assert point.kv_tokens <= given.engine.kv_tokens * (1 + 1e-9)
    assert np.all(solved.served_fraction <= 1.0 + 1e-9)


@pytest.mark.parametrize("kind", ["linear", "table", "wide"])
@pytest.mark.parametrize("seed", range(12))
def test_a_cap_that_does_not_bind_changes_nothing(seed, kind):
    given = scenario(seed, kind)
    light = tuple(c.model_copy(update={"arrival_rate": 0.02 / len(given.classes)}) for c in given.classes)
    plans = [
        plan(given.replace(classes=light, gpu=given.gpu.model_copy(update={"batch_size": size})), batching=batching)
        for batching in (Batching.SINGLE_PREFILL,)
        for size in (64, 256)
    ]
    one, other = (each.to_dict() for each in plans)
    assert one["revenue_rate"] == pytest.approx(other["revenue_rate"], rel=1e-9)
    points = [
        {key: value for key, value in each["operating_point"].items() if value is not None} for each in (one, other)
    ]
    assert points[0] == pytest.approx(points[1], rel=1e-6)


@pytest.mark.parametrize("kind", ["linear", "table", "wide", "paper"])
@pytest.mark.parametrize("seed", range(12))
def test_a_limit_on_tpot_is_one_on_what_decodes_feel(seed, kind):
    given = scenario(seed, kind, memory=True).replace(pricing=Pricing(scheme="bundled", prompt=0.1, output=0.2))
    free = plan(given)
    kept = plan(given.replace(indicators=Indicators(max_tpot=1.01 * free.tpot)))
    assert kept.revenue_rate == pytest.approx(free.revenue_rate)
    assert kept.indicators["max_tpot"]["shadow_price"] == 0.0
    fastest = given.gpu.iteration.solo(1.0, 0.0)
    revenues = [free.revenue_rate]
    for share in (0.75, 0.5, 0.25):
        limit = fastest + share * (free.tpot - fastest)
        limited = given.replace(indicators=Indicators(max_tpot=limit))
        try:
            tight = plan(limited)
        except InfeasiblePlanError:
            with pytest.raises(InfeasiblePlanError, match="the least that can is"):
                plan(limited)
            break
        assert tight.tpot <= limit * (1.0 + 1e-6)
        assert tight.decode_buffer_free
        revenues.append(tight.revenue_rate)
    assert np.all(np.diff(revenues) <= 1e-6 * free.revenue_rate)


@pytest.mark.parametrize("name", ["max_prefill_gap", "max_solo_gap"])
@pytest.mark.parametrize("seed", range(12))
def test_gaps_are_kept_at_the_operating_point(seed, name):
    given = scenario(seed, "linear").replace(pricing=Pricing(scheme="bundled", prompt=0.1, output=0.2))
    values = {"max_prefill_gap": np.ptp(plan(given).prefill), "max_solo_gap": np.ptp(plan(given).solo_decode)}
    if values[name] < 1e-6:
        pytest.skip("one class, or none apart")
    limited = plan(given.replace(indicators=Indicators(**{name: 0.7 * values[name]})))
    assert limited.indicators[name]["value"] <= 0.7 * values[name] * (1.0 + 1e-6)


def test_what_is_short_is_named():
    given = scenario(3, "linear", memory=True)
    classes = tuple(c.model_copy(update={"arrival_rate": 50.0, "patience_rate": 0.0}) for c in given.classes)
    small = EngineModel(kv_tokens=int(2 * max(c.prompt_tokens + c.output_tokens for c in classes)) // 16 * 16 + 16)
    with pytest.raises(InfeasiblePlanError, match=r"GPUs there are, short of KV memory.*and time.*kv_tokens"):
        plan(given.replace(classes=classes, engine=small))
    few = given.gpu.model_copy(update={"batch_size": 2})
    with pytest.raises(InfeasiblePlanError, match=r"short of decode slots.*and time.*raise batch_size"):
        plan(given.replace(classes=classes, engine=EngineModel(), gpu=few))


def test_an_unmet_limit_says_the_least_that_can_be_met():
    given = scenario(1, "linear", memory=False)
    classes = tuple(c.model_copy(update={"arrival_rate": 0.01, "patience_rate": 0.0}) for c in given.classes)
    patient = given.replace(classes=classes)
    with pytest.raises(InfeasiblePlanError, match=r"max_tpot 1e-05 cannot be met: the least that can is") as refused:
        plan(patient.replace(indicators=Indicators(max_tpot=1e-5)))
    least = float(str(refused.value).partition("the least that can is ")[2].partition(";")[0])
    assert plan(patient.replace(indicators=Indicators(max_tpot=least * 1.001))).tpot <= least * 1.001 * (1 + 1e-6)


def test_weights_are_penalties_on_what_decodes_feel():
    given = scenario(4, "linear", memory=False).replace(pricing=Pricing(scheme="bundled", prompt=0.1, output=0.2))
    free = plan(given)
    earned = float(free.completion_rate @ free.rates.bundled_value)
    for weight in (0.1, 1.0, 10.0):
        scale = weight * free.revenue_rate / free.tpot
        weighted = plan(given.replace(indicators=Indicators(tpot_weight=scale)))
        assert weighted.penalty == pytest.approx(scale * weighted.tpot)
        assert weighted.objective >= earned - scale * free.tpot - 1e-6 * earned


def test_replacing_an_instance_keeps_its_rows():
    given = scenario(2, "linear")
    instance = BatchInstance.of(given, "bundled", Indicators(), Batching.SINGLE_PREFILL, True)
    program = BatchProgram()
    first = solve(program, instance).objective
    solve(program, dataclasses.replace(instance, arrival=instance.arrival * 3.0))
    assert solve(program, instance).objective == first
