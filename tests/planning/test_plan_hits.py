"""Plans of prompts that are found in memory in part: what is read, what is held, and what finding more is worth."""

import numpy as np
import pytest

from fluidgate import Gpu, Pricing, RequestClass, Scenario, plan
from fluidgate.batching import Batching
from fluidgate.model import EngineModel, Lengths
from tests.laws import random_law
from tests.planning.batch_oracle import best_revenue
from tests.scenarios import two_class_scenario

SEEDS = range(12)
KINDS = ["linear", "table", "wide"]


def scenario(seed, kind, *, memory=None, laws=None):
    """A random one, of prompts so long that reading them counts; half of what they bring is found, more or less."""
    random = np.random.default_rng(seed)
    law = laws or random.choice(["fixed", "exponential"])
    classes = []
    for k in range(random.integers(1, 4)):
        prompt = float(round(10 ** random.uniform(3.0, 4.3)))
        classes.append(
            RequestClass(
                name=f"c{k}",
                prompt_tokens=prompt,
                output_tokens=float(round(10 ** random.uniform(0.5, 2.2))),
                arrival_rate=10 ** random.uniform(-0.5, 1.5),
                patience_rate=0.1,
                prefix_hit_rate=round(random.uniform(0.1, 0.9) * prompt) / prompt,
            )
        )
    limited = random.random() < 0.5 if memory is None else memory
    tokens = int(25 * max(c.prompt_tokens + c.output_tokens for c in classes)) // 16 * 16
    return Scenario(
        name=f"{kind}-{seed}",
        gpu=Gpu(
            batch_size=int(random.choice([16, 64, 256])),
            chunk_size=int(random.choice([256, 512, 2048])),
            iteration=random_law(random, kind),
        ),
        pricing=Pricing(scheme=random.choice(["bundled", "separate"]), prompt=0.1, output=0.2),
        classes=tuple(classes),
        lengths=Lengths(prompt=law, output=law),
        engine=EngineModel(kv_tokens=tokens if limited else None, prefix_caching=True),
    )


def with_hits(given, hits):
    rates = np.broadcast_to(hits, len(given.classes)).tolist()
    classes = (c.model_copy(update={"prefix_hit_rate": h}) for c, h in zip(given.classes, rates, strict=True))
    return given.replace(classes=tuple(classes))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_best_revenue_is_that_of_the_rows_written_again(seed, kind):
    given = scenario(seed, kind)
    assert plan(given).revenue_rate == pytest.approx(best_revenue(given), rel=1e-6)
    tokens = given.gpu.chunk_size + given.gpu.batch_size - 1
    under_budget = plan(given, batching=Batching.TOKEN_BUDGET)
    assert under_budget.revenue_rate == pytest.approx(best_revenue(given, budget=tokens), rel=1e-6)


@pytest.mark.parametrize("batching", [Batching.SINGLE_PREFILL, Batching.TOKEN_BUDGET, Batching.PREFILL_FIRST])
@pytest.mark.parametrize("kind", [*KINDS, "paper"])
@pytest.mark.parametrize("seed", SEEDS)
def test_it_never_falls_as_more_is_found(seed, kind, batching):
    given = scenario(seed, kind)
    plans = [plan(with_hits(given, h), batching=batching) for h in (0.0, 0.3, 0.6, 0.9, 0.99)]
    found = [each.revenue_rate for each in plans]
    assert np.all(np.diff(found) >= -1e-7 * found[0])
    assert found[-1] > found[0] or plans[0].served_fraction.min() > 1.0 - 1e-6


@pytest.mark.parametrize("kind", [*KINDS, "paper"])
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_found_is_the_plan_without_prefix_caching(seed, kind):
    given = with_hits(scenario(seed, kind), None)
    assert plan(given).revenue_rate == plan(with_hits(given, 0.0)).revenue_rate
    assert not any("wholly" in warning for warning in plan(with_hits(given, 0.0)).warnings), "a rate is given"
    other_key = {"prefix_caching": False, "transfer_latency": 1.0}
    without = given.replace(engine=given.engine.model_copy(update=other_key))
    one, other = plan(given).to_dict(), plan(without).to_dict()
    assert one.pop("prefix_hit_rate") == 0.0
    assert any("reads every prompt wholly" in warning for warning in one.pop("warnings"))
    assert not any("reads every prompt wholly" in warning for warning in other.pop("warnings"))
    for each in one["classes"]:
        assert each.pop("prefix_hit_rate") == 0.0
        each.pop("hit_price")
    assert one == other
    ignored = with_hits(without, 0.5)
    assert plan(ignored).to_dict() == plan(without).to_dict(), "without prefix caching nothing is found"


@pytest.mark.parametrize("batching", [Batching.SINGLE_PREFILL, Batching.TOKEN_BUDGET])
@pytest.mark.parametrize("kind", ["linear", "paper"])
@pytest.mark.parametrize("seed", SEEDS)
def test_without_context_and_memory_it_is_the_plan_of_what_is_read(seed, kind, batching):
    given = scenario(seed, kind, memory=False).replace(pricing=Pricing(scheme="bundled", prompt=0.0, output=1.0))
    law = given.gpu.iteration.changed(epsilon=0.0, zeta=0.0, solo_epsilon=None)
    given = given.replace(gpu=given.gpu.model_copy(update={"iteration": law}))
    shorter = tuple(
        c.model_copy(update={"prompt_tokens": c.prompt_tokens * (1 - c.prefix_hit_rate), "prefix_hit_rate": 0.0})
        for c in given.classes
    )
    read = plan(given.replace(classes=shorter), batching=batching)
    assert plan(given, batching=batching).revenue_rate == pytest.approx(read.revenue_rate, rel=1e-9)


@pytest.mark.parametrize("kind", [*KINDS, "paper"])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_price_of_a_hit_lies_between_the_differences(seed, kind):
    given = scenario(seed, kind, laws="exponential", memory=kind != "paper")
    solved, step = plan(given), 1e-5
    hits = given.hit_rates
    for k, price in enumerate(solved.hit_price):
        less, more = (plan(with_hits(given, hits + by * np.eye(len(hits))[k])).revenue_rate for by in (-step, step))
        below, above = (solved.revenue_rate - less) / step, (more - solved.revenue_rate) / step
        slack = 2e-3 * max(abs(below), abs(above)) + 1e-8 * solved.revenue_rate / step
        assert min(above, below) - slack <= price <= max(above, below) + slack


def with_prefixes(given, seed):
    """Up to nine tenths of each prompt begin like the others of its class."""
    random = np.random.default_rng(seed)
    shares = [random.uniform(0.1, 0.9) if random.random() < 0.8 else 0.0 for _ in given.classes]
    classes = (
        c.model_copy(update={"prefix_tokens": int(share * c.prompt_tokens)})
        for c, share in zip(given.classes, shares, strict=True)
    )
    return given.replace(classes=tuple(classes))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_shared_blocks_are_held_once(seed, kind):
    """Written again with the iterations that each class has a request in."""
    apart = scenario(seed, kind, memory=True, laws="fixed")
    given = with_prefixes(apart, seed)
    for budget in (None, given.gpu.chunk_size + given.gpu.batch_size - 1):
        batching = Batching.TOKEN_BUDGET if budget else Batching.SINGLE_PREFILL
        solved = plan(given, batching=batching)
        assert solved.revenue_rate == pytest.approx(best_revenue(given, budget=budget), rel=1e-6)
        assert solved.revenue_rate >= plan(apart, batching=batching).revenue_rate * (1.0 - 1e-9)
        assert solved.operating_point.kv_tokens <= given.engine.kv_tokens * (1.0 + 1e-9)


def test_a_memory_full_of_one_prefix_holds_as_many_decodes_as_the_rest_has_room_for():
    law = random_law(np.random.default_rng(0), "linear")
    one = RequestClass(
        name="agent", prompt_tokens=8000, output_tokens=1001, arrival_rate=100.0, patience_rate=0.1,
        prefix_hit_rate=0.8, prefix_tokens=7200,
    )  # fmt: skip
    given = Scenario(
        name="agents",
        gpu=Gpu(batch_size=256, chunk_size=2048, iteration=law),
        classes=(one,),
        lengths=Lengths(prompt="fixed", output="fixed"),
        engine=EngineModel(kv_tokens=7200 + 20 * 1300, prefix_caching=True),
    )
    assert plan(given).slots == pytest.approx(20.0)
    longer = given.replace(classes=(one.model_copy(update={"prefix_tokens": 0}),))
    assert plan(longer).slots == pytest.approx((7200 + 20 * 1300) / 8500.0)
    assert plan(given).operating_point.kv_share == pytest.approx(1.0, abs=0.05)


def test_the_hit_rate_of_sessions_is_that_of_an_endless_memory_where_none_is_given():
    given = two_class_scenario().replace(engine=EngineModel(prefix_caching=True))
    chat = given.classes[1].model_copy(
        update={"prefix_tokens": 500, "turns": 4.0, "turn_tokens": 300.0, "output_tokens": 100.0}
    )
    other = given.classes[0]
    solved = plan(given.replace(classes=(other, chat)))
    assert chat.prefix_share == pytest.approx(1.0 - (3000 - 1200 - 500 + 3 * 300) / 4 / 3000)
    assert solved.scenario.hit_rates == pytest.approx([0.0, chat.prefix_share])
    assert any("'prefill-heavy' 0.8167 is what an endless memory finds" in warning for warning in solved.warnings)
    less = chat.model_copy(update={"prefix_hit_rate": 0.5})
    assert plan(given.replace(classes=(other, less))).scenario.hit_rates == pytest.approx([0.0, 0.5])
    assert solved.mixed_fraction < plan(given.replace(classes=(other, less))).mixed_fraction


def test_hits_need_a_cache():
    classes = [c.model_copy(update={"prefix_hit_rate": 0.5}) for c in two_class_scenario().classes]
    with pytest.raises(ValueError, match="prefix_hit_rate belongs to an engine with prefix_caching"):
        two_class_scenario().changed(classes=classes)


def test_the_papers_program_reads_what_is_not_found():
    given = two_class_scenario()
    classes = tuple(c.model_copy(update={"prompt_tokens": 2 * c.prompt_tokens}) for c in given.classes)
    pricing = Pricing(scheme="separate", prompt=0.05, output=0.2)
    found = given.replace(classes=classes, pricing=pricing, engine=EngineModel(prefix_caching=True))
    papers = plan(with_hits(found, 0.5))
    assert papers.operating_point is None
    assert papers.revenue_rate == pytest.approx(298.58655675, rel=1e-8)
    assert papers.prefix_hit_rate == pytest.approx(0.5)
    assert papers.rates.prefill == pytest.approx(given.rates.prefill)
