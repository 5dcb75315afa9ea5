"""index-and-pool where arrivals and lengths are not the model's, by iterations: `python -m benchmarks.robustness`.

The two Azure workloads (`examples/azure.toml`) and the two-class instance, each loaded to 80, 100 and 150 % of what the
GPUs can serve in full, with one law at a time that the plan does not know. Every policy meets the same requests; a cell
is our revenue less that of the other policy, in % of the plan's `R*`, with the 95 % interval of paired differences.
`--traces CODE.csv CONV.csv` adds the lengths of the traces, prompt and output of one request together.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from benchmarks.executors import add_options, executor
from benchmarks.finite import LOADS, OURS, loaded
from fluidgate import Comparison, Scenario, compare
from fluidgate.model import Arrivals, Lengths

OTHERS = ("gate-and-route", "capped-gate-and-route", "fi-wsp", "gi-wsp", "vllm-round-robin")
EXAMPLES = Path(__file__).parent.parent / "examples"
HORIZON, WARMUP, REPLICATIONS, SEED = 400.0, 60.0, 6, 3

LAWS: dict[str, dict[str, object]] = {
    "the model's": {},
    "Gamma gaps, CV 4": {"arrivals": Arrivals(process="gamma", cv=4.0)},
    "rate in phases, 1 : 5": {"arrivals": Arrivals(process="mmpp", levels=(1.0, 5.0), sojourns=(30.0, 10.0))},
    "lengths fixed": {"lengths": Lengths(prompt="fixed", output="fixed")},
    "lengths log-normal, CV 2": {
        "lengths": Lengths(prompt="lognormal", output="lognormal", prompt_cv=2.0, output_cv=2.0)
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", nargs=2, metavar=("CODE.csv", "CONV.csv"), help="for empirical lengths")
    parser.add_argument("--gpus", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    add_options(parser)
    options = parser.parse_args()
    where = executor(options)
    print(f"{options.gpus} GPUs, {REPLICATIONS} replications of {HORIZON:g} s after {WARMUP:g} s, seed {SEED}; "
          f"{OURS} less each policy, % of R*\n")  # fmt: skip
    print(
        "| workload | law | load | ours, % of R* | "
        + " | ".join(OTHERS)
        + " |\n|---|---|---|---|"
        + "---|" * len(OTHERS)
    )
    for workload, law, scenario in cases(options.traces):
        for load in LOADS:
            result = compare(
                loaded(scenario, load),
                [OURS, *OTHERS],
                gpus=options.gpus,
                horizon=HORIZON,
                warmup=WARMUP,
                replications=REPLICATIONS,
                seed=SEED,
                workers=options.workers,
                executor=where,
                fidelity="iteration",
            )
            print(f"| {workload} | {law} | {load:g} | {ours(result)} | {' | '.join(leads(result))} |", flush=True)


def cases(traces: list[str] | None) -> Iterator[tuple[str, str, Scenario]]:
    """Workload, law and scenario."""
    azure = Scenario.load(EXAMPLES / "azure.toml").for_gpus(60).replace(cluster_gpus=None)
    for workload, base in (("azure", azure), ("two-class", Scenario.load(EXAMPLES / "two-class.toml"))):
        laws = dict(LAWS)
        if workload == "azure" and traces:
            files = tuple(f"{name}={path}" for name, path in zip(base.class_names, traces, strict=True))
            laws["lengths of the traces"] = {"lengths": Lengths(prompt="empirical", output="empirical", traces=files)}
        for law, changes in laws.items():
            yield workload, law, base.replace(**changes)


def ours(result: Comparison) -> str:
    share = result.policies[0].optimality_ratio.mean
    return "-" if share is None else f"{100 * share:.1f}"


def leads(result: Comparison) -> Iterator[str]:
    """What ours earns more than each other policy, % of R*."""
    mine = result.policies[0]
    assert mine.plan is not None
    best = mine.revenue_rate.mean
    assert best is not None
    assert mine.optimality_ratio.mean is not None
    scale = -100 * mine.optimality_ratio.mean / best
    for each in result.paired:
        found = each.revenue_difference
        assert found.mean is not None
        assert found.ci95 is not None
        half = abs(scale) * (found.ci95[1] - found.ci95[0]) / 2
        yield f"{scale * found.mean:+.1f} ±{half:.1f}"


if __name__ == "__main__":
    main()
