"""Plans at the hit rates of what they leave of the memory."""

import numpy as np
import pytest

from fluidgate import FluidgateError, InfeasiblePlanError, plan
from fluidgate.planning.cached import at_memories, plan_with_cache, with_hit_rates
from tests.planning.test_plan_hits import KINDS, scenario
from tests.scenarios import two_class_scenario


def curve(given, most, half):
    """Hit rates of all classes that rise with the memory, half of the most where it has so many tokens."""
    return lambda memory: np.full(len(given.classes), most * (memory / (memory + half) if np.isfinite(memory) else 1.0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(10))
def test_the_plan_leaves_the_memory_that_its_hit_rates_are_of(seed, kind):
    given = scenario(seed, kind, memory=True)
    rates = curve(given, 0.9, 0.3 * given.engine.kv_tokens)
    found = plan_with_cache(given, rates)
    left = given.engine.kv_tokens - found.plan.operating_point.kv_tokens
    assert found.memory == pytest.approx(left, abs=1e-4 * given.engine.kv_tokens) or not found.converged
    assert found.gap == pytest.approx(left - found.memory)
    again = with_hit_rates(given, rates(found.memory))
    assert plan(again).revenue_rate == pytest.approx(found.plan.revenue_rate, rel=1e-6)
    nothing, everything = (plan(with_hit_rates(given, np.full(len(given.classes), h))) for h in (0.0, 0.9))
    slack = 1e-6 * everything.revenue_rate
    assert nothing.revenue_rate - slack <= found.plan.revenue_rate <= everything.revenue_rate + slack


def test_most_random_cases_converge():
    found = [
        plan_with_cache(given, curve(given, 0.9, 0.3 * given.engine.kv_tokens)).converged
        for given in (scenario(seed, "linear", memory=True) for seed in range(10))
    ]
    assert sum(found) >= 8


def test_a_larger_memory_finds_more():
    given = scenario(0, "linear", memory=True)
    sizes = [given.engine.kv_tokens * k for k in (1, 2, 4, 8)]
    rates = curve(given, 0.9, 4.0 * sizes[0])
    larger = [given.replace(engine=given.engine.model_copy(update={"kv_tokens": size})) for size in sizes]
    hits = [plan_with_cache(each, rates).plan.prefix_hit_rate for each in larger]
    assert np.all(np.diff(hits) > 0.0)


def test_a_plan_that_jumps_is_said_not_to_converge():
    given = scenario(0, "linear", memory=True)
    held = [plan(with_hit_rates(given, np.full(len(given.classes), h))).operating_point.kv_tokens for h in (0.0, 0.9)]
    middle = given.engine.kv_tokens - sum(held) / 2.0
    assert held[1] > 1.05 * held[0], "who reads less decodes more"
    found = plan_with_cache(given, lambda memory: np.full(len(given.classes), 0.9 if memory > middle else 0.0))
    assert not found.converged
    assert found.memory == pytest.approx(middle, rel=1e-3)


def test_an_endless_memory_holds_what_there_is():
    given = scenario(1, "linear", memory=False)
    found = plan_with_cache(given, curve(given, 0.7, 1e6))
    assert (found.memory, found.gap, found.converged) == (np.inf, 0.0, True)
    assert found.plan.scenario.hit_rates == pytest.approx(0.7)


def test_nothing_is_found_without_prefix_caching():
    with pytest.raises(FluidgateError, match=r"engine\.prefix_caching: false.*set it to true"):
        plan_with_cache(two_class_scenario(), lambda _: np.zeros(2))


def test_a_cache_that_leaves_no_room_for_what_runs_is_refused():
    given = scenario(0, "linear", memory=True)
    patient = tuple(c.model_copy(update={"patience_rate": 0.0, "arrival_rate": 1e-3}) for c in given.classes)
    slow = given.replace(classes=patient)
    load = 1.0
    while True:  # more than can be served if nothing is found, and less than if all is
        more = tuple(c.model_copy(update={"arrival_rate": 1e-3 * load}) for c in patient)
        try:
            plan(with_hit_rates(slow.replace(classes=more), np.zeros(len(more))))
        except InfeasiblePlanError:
            break
        load *= 1.1
    whole = given.engine.kv_tokens
    steep = slow.replace(classes=more)
    with pytest.raises(InfeasiblePlanError, match="no plan leaves the KV memory that it needs for its cache"):
        plan_with_cache(steep, lambda memory: np.full(len(more), 0.9 if memory > 0.999 * whole else 0.0))
    assert at_memories(steep, lambda memory: np.full(len(more), 0.9), [whole, np.inf])[1] is not None
    assert at_memories(steep, lambda memory: np.zeros(len(more)), [whole]) == [None]
