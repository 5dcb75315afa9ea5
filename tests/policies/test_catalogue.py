"""The catalogue: names, tables read off plans, and policies of a user's own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fluidgate import FluidgateError, find_policy, plan, simulate
from fluidgate.policies import LISTED, PLACED, POLICIES, GateRule, RouteRule, find_any_policy
from fluidgate.policies.decisions.view import HOLD
from tests.scenarios import two_class_scenario

SCENARIO = two_class_scenario()
PUBLISHED = {
    "vllm-round-robin": ("token-budget", "round-robin"),
    "vllm-least-loaded": ("token-budget", "least-loaded"),
    "vllm-power-of-two": ("token-budget", "power-of-two"),
    "vllm-lmetric": ("token-budget", "lmetric"),
    "vllm-least-prefill": ("token-budget", "least-prefill"),
    "vllm-sticky": ("token-budget", "sticky"),
    "vllm-precise": ("token-budget", "precise"),
    "vllm-cache-aware": ("token-budget", "cache-aware"),
    "prefill-first-round-robin": ("prefill-first", "round-robin"),
    "prefill-first-least-loaded": ("prefill-first", "least-loaded"),
    "distserve": ("prefill-first", "pools"),
    "splitwise": ("token-budget", "pools"),
    "edpp": ("token-budget", "pools"),
    "slai": ("last-schedulable", "round-robin"),
    "wait": ("token-budget", "round-robin"),
}
CONTRACT = {
    "gate-and-route": "paper",
    "capped-gate-and-route": "paper",
    "prioritize-and-route": "paper",
    "sli-aware": "paper",
    "sli-aware-general": "paper",
    "index-and-pool": "ours",
    "fi-wsp": "baseline",
    "gi-wsp": "baseline",
    "gf-wsp": "baseline",
    "gi-wsp-uncapped": "baseline",
    "gf-wsp-uncapped": "baseline",
    "fg-sp": "baseline",
}


def test_names_and_origins() -> None:
    assert {name: policy.origin for name, policy in POLICIES.items()} == CONTRACT
    assert find_policy("gg-sp") is find_policy("gate-and-route")


def test_published_baselines_batch_and_place_by_their_names() -> None:
    assert {name: (p.batching, p.placement) for name, p in PLACED.items()} == PUBLISHED
    assert {p.origin for p in PLACED.values()} == {"published"}
    assert all(
        "arXiv:" in p.source or "llm-d" in p.source or "sgl" in p.source or "inference-sim" in p.source
        for p in PLACED.values()
    )
    parameters = {p.name: " ".join(q.name for q in p.parameters) for p in PLACED.values() if p.parameters}
    assert parameters == {
        "vllm-sticky": "share tolerated_ttft",
        "vllm-precise": "prefix_weight queue_weight memory_weight",
        "vllm-cache-aware": "share apart ratio",
        "distserve": "prompt_gpus pilot",
        "splitwise": "prompt_gpus pilot queue_tokens",
        "edpp": "prompt_gpus pilot transfer_price",
        "slai": "offset",
        "wait": "threshold",
    }
    assert not set(PLACED) & set(POLICIES)
    for name, policy in PLACED.items():
        assert find_any_policy(name) is policy
        with pytest.raises(FluidgateError, match=f"policy '{name}' batches in its own way.*fidelity='iteration'"):
            find_policy(name)
    for alias, name in (("gg-sp", "gate-and-route"), ("lmetric", "vllm-lmetric")):
        assert find_any_policy(alias) is LISTED[name]
    assert find_any_policy("prefill-first") is PLACED["prefill-first-round-robin"]
    with pytest.raises(FluidgateError, match="did you mean 'vllm-round-robin'"):
        find_any_policy("vllm-roundrobin")


def test_which_plan_feeds_which_policy() -> None:
    for name in CONTRACT:
        scheme, buffer = find_policy(name).program.key(SCENARIO)
        assert scheme == ("separate" if name == "prioritize-and-route" else "bundled")
        assert buffer == (name != "sli-aware")
    separate = SCENARIO.replace(pricing=SCENARIO.pricing.model_copy(update={"scheme": "separate"}))
    assert find_policy("gate-and-route").program.key(separate) == ("bundled", True)
    assert find_policy("sli-aware").program.key(separate) == ("separate", False)
    assert find_policy("sli-aware-general").program.key(separate) == ("separate", True)


def test_partition_and_caps() -> None:
    solved = plan(SCENARIO)
    tables = find_policy("capped-gate-and-route").tabulate(solved, 500)
    assert tables.mixed_gpus == tables.max_prefills == 107
    assert tables.reserve
    assert tables.cap.tolist() == [math.ceil(500 * x) for x in solved.prefill]
    free = find_policy("fi-wsp").tabulate(solved, 500)
    assert (free.mixed_gpus, free.max_prefills, free.reserve) == (500, 500, False)
    assert free.gate_rule == GateRule.FCFS
    assert find_policy("gi-wsp").tabulate(solved, 500).max_prefills == 107
    assert find_policy("gi-wsp-uncapped").tabulate(solved, 500).max_prefills == 500
    assert find_policy("gf-wsp").tabulate(solved, 500).route_rule == RouteRule.BUFFER


def test_sides_carry_the_planned_throughput() -> None:
    solved = plan(SCENARIO)
    tables = find_policy("sli-aware").tabulate(solved, 500)
    rates = SCENARIO.rates
    mixed, solo = rates.mixed_decode * solved.mixed_decode, rates.solo_decode * solved.solo_decode
    assert tables.solo_probability == pytest.approx(solo / (mixed + solo))
    assert tables.weights == pytest.approx(np.stack([mixed, solo]))
    assert tables.split_buffers


def test_functions_of_a_users_own_decide() -> None:
    """A gate that says what the shipped one says gives the same path; one that holds admits nobody."""

    def fewest_first(view, tables):  # type: ignore[no-untyped-def]
        if view.prefilling.sum() >= tables.max_prefills:
            return -1
        best = -1
        for i in range(view.waiting.size):
            if view.waiting[i] > 0 and (best < 0 or view.waiting_since[i] < view.waiting_since[best]):
                best = i
        return best

    def never(view, tables):  # type: ignore[no-untyped-def]
        return HOLD

    mine = find_policy("fg-sp").with_functions("mine", gate=fewest_first)
    assert mine.origin == "user"
    options = {"gpus": 6, "horizon": 200.0, "replications": 2}
    ours = simulate(SCENARIO, mine, **options)  # type: ignore[arg-type]
    shipped = simulate(SCENARIO, "fg-sp", **options)  # type: ignore[arg-type]
    assert ours.policy == "mine"
    assert ours.classes == shipped.classes
    shut = simulate(SCENARIO, find_policy("fg-sp").with_functions("shut", gate=never), **options)  # type: ignore[arg-type]
    assert shut.revenue_rate.mean == 0.0
    assert shut.classes[0].prefill_queue.mean is not None
    assert shut.classes[0].prefill_queue.mean > 1.0


def test_functions_that_make_arrays_are_refused_in_one_line() -> None:
    def greedy(view, tables):  # type: ignore[no-untyped-def]
        return int(np.argmax(np.zeros(3)))

    mine = find_policy("fg-sp").with_functions("mine", gate=greedy)
    with pytest.raises(
        FluidgateError,
        match=r"test_catalogue.py, line \d+: .*'greedy' can't be compiled: it makes an array",
    ) as caught:
        simulate(SCENARIO, mine, gpus=2, horizon=10.0, replications=1)
    assert "\n" not in str(caught.value)


def test_tables_of_a_users_own() -> None:
    from dataclasses import replace

    base = find_policy("gate-and-route")
    wider = replace(
        base, name="wider", tabulate=lambda p, n: base.tabulate(p, n)._replace(mixed_gpus=5, max_prefills=5)
    )
    options = {"gpus": 12, "horizon": 500.0, "replications": 3}
    queue, shipped = (simulate(SCENARIO, p, **options).classes[1].prefill_queue.mean for p in (wider, base))  # type: ignore[arg-type]
    assert queue is not None
    assert shipped is not None
    assert queue < shipped / 3  # five mixed GPUs in the place of three: hardly anybody waits for prefill


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ({"gate": lambda view, tables: 5}, "the gate named a class"),
        ({"gate": lambda view, tables: -3}, "the gate named a class"),
        ({"route": lambda view, tables, cls, draw: 7}, "the route is none of"),
        (
            {"route": lambda view, tables, cls, draw: 3, "refill": lambda view, tables, group, draw: 2},
            "the refill named",
        ),
    ],
    ids=["gate", "negative", "route", "refill"],
)
def test_impossible_answers_of_a_users_functions_are_named(functions: dict[str, Any], message: str) -> None:
    mine = find_policy("gate-and-route").with_functions("mine", **functions)
    with pytest.raises(FluidgateError, match=message):
        simulate(SCENARIO, mine, gpus=3, horizon=50.0, replications=1)
