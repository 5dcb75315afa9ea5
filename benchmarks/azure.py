"""The tables of docs/tutorials/traces.md: `python -m benchmarks.azure CODE.csv CONV.csv`, the two Azure traces."""

from __future__ import annotations

import sys
from dataclasses import replace

from fluidgate import Scenario, find_policy
from fluidgate.simulation.iteration.replay import replay
from fluidgate.simulation.iteration.results import RequestResult

SCENARIO = "examples/azure-replay.toml"
SCALE = 28.0
POLICIES = ("gate-and-route", "index-and-pool", "fi-wsp", "vllm-round-robin", "vllm-least-loaded")
SIZES = (50, 60, 70, 80, 90, 100)
MARGINS = (0.0, 0.2, 0.4, 0.6)
GPUS = 80


def main() -> None:
    scenario, traces = Scenario.load(SCENARIO), sys.argv[1:]
    base = find_policy("gate-and-route")
    wider = [replace(base.with_parameters({"margin": margin}), name=f"margin {margin:g}") for margin in MARGINS]
    result = replay(scenario, traces, wider, gpus=GPUS, rate_scale=SCALE)
    print("| margin | mixed + solo GPUs | good requests | TTFT p90, p99 |\n|---|---|---|---|")
    for margin, policy, each in zip(MARGINS, wider, result.policies, strict=True):
        assert isinstance(each, RequestResult)
        assert each.plan is not None
        mixed = int(policy.tabulate(each.plan, GPUS).mixed_gpus)
        ttft = each.overall.ttft
        print(f"| {margin:g} | {mixed} + {GPUS - mixed} | {good(each)} | {ttft.p90:.2f} s, {ttft.p99:.2f} s |")
    print("\n| GPUs | " + " | ".join(POLICIES) + " |\n|---|" + "---|" * len(POLICIES))
    for gpus in SIZES:
        result = replay(scenario, traces, POLICIES, gpus=gpus, rate_scale=SCALE)
        print(f"| {gpus} | " + " | ".join(map(good, result.policies)) + " |", flush=True)


def good(result: object) -> str:
    return f"{100 * good_share(result):.1f} %"


def good_share(result: object) -> float:
    """Share of the requests that kept both targets."""
    assert isinstance(result, RequestResult)
    overall = result.overall
    assert overall.goodput.mean is not None
    assert overall.arrival_rate.mean is not None
    return overall.goodput.mean / overall.arrival_rate.mean


if __name__ == "__main__":
    main()
