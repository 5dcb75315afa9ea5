"""Finite clusters: the gap to R* of index-and-pool over that of the paper's policy: `python -m benchmarks.finite`.

Random instances of [LDHZ] section 6.3 with kappa >= 1, then with kappa < 1, then two-class workloads of the Azure
traces with lengths, rates and batch size perturbed; a third of each loaded to 80 % of what the cluster can carry, a
third to 100 %, a third to 150 %; both pricing schemes. The paper's policy is gate-and-route (bundled) or
prioritize-and-route (separate). A gap is floored at 0.1 % of R*, and simulated until its 95 % interval is as narrow as
asked, with control variates (`fluidgate.simulation.controls`) over batches of at least 2.5 mean service times. With
`--csv` each result is kept as it comes, and a second call goes on from there.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.executors import add_options, executor
from fluidgate import Plan, Scenario, find_policy, plan
from fluidgate.execution import LocalProcesses
from fluidgate.model import Arrivals, Pricing, RequestClass, Scheme
from fluidgate.paper.instances import random_instance
from fluidgate.policies.reservation import slot_time
from fluidgate.simulation.controls import controlled_revenue
from fluidgate.simulation.markov.replication import Job, Measurement, replicate

OURS = "index-and-pool"
PAPER: dict[Scheme, str] = {"bundled": "gate-and-route", "separate": "prioritize-and-route"}
PUBLISHED = ("gate-and-route", "fi-wsp", "gi-wsp", "gf-wsp", "fg-sp")
LOADS = (0.8, 1.0, 1.5)
SIZES = (5, 20, 50, 200, 500)
FLOOR = 0.001
SEED = 11
BATCHES = 60
VARIANTS = ("none", "misjudged", "patient", "impatient", "bursty")


@dataclasses.dataclass(frozen=True)
class Case:
    """One instance, scheme and size.

    Attributes:
        scenario: what is simulated.
        believed: what the policies plan with.
    """

    kind: str
    instance: str
    load: float
    scheme: Scheme
    gpus: int
    scenario: Scenario
    believed: Scenario

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.kind, self.instance, self.scheme, self.gpus


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=60, help="random ones with kappa >= 1")
    parser.add_argument("--below", type=int, default=15, help="random ones with kappa < 1")
    parser.add_argument("--traces", type=int, default=15, help="perturbed trace workloads")
    parser.add_argument("--gpus", type=int, nargs="+", default=SIZES)
    parser.add_argument("--half-width", type=float, default=0.05,
                        help="of a gap's 95 %% interval, in %% of R* (a baseline's if near ours)")  # fmt: skip
    parser.add_argument("--most", type=float, default=4e7, help="GPU seconds after which a gap stays as it is")
    parser.add_argument("--variant", choices=VARIANTS, default="none", help="what the policies don't know, or the load")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--again", action="store_true", help="measure ours again, the others as they stand in --csv")
    parser.add_argument("--csv", type=Path, help="where the gaps go, and what is there already")
    add_options(parser)
    options = parser.parse_args()

    known = pd.read_csv(options.csv).to_dict("records") if options.csv and options.csv.exists() else []
    old = {(row["kind"], row["instance"], row["scheme"], row["gpus"]): row for row in known}
    rows = [] if options.again else known
    wanted = [case for case in cases(options) if (case.key in old) == options.again]
    others = [theirs(old[case.key]) if options.again else {} for case in wanted]
    jobs = [
        (case, options.half_width / 100, options.most, known_of) for case, known_of in zip(wanted, others, strict=True)
    ]
    for row in (executor(options) or LocalProcesses(options.workers)).map(measure, jobs):
        rows.append(row)
        if options.csv:
            pd.DataFrame(rows).to_csv(options.csv, index=False)
    gaps = pd.DataFrame(rows)
    print(summary(gaps).to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    print(f"\nhalf widths of a gap's interval, % of R*: mean {100 * gaps['half'].mean():.3f}, "
          f"largest {100 * gaps['half'].max():.3f}")  # fmt: skip


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """Every case, small clusters first."""
    instances = [
        *(("kappa >= 1", s) for s in itertools.islice(random_instances(below=False), options.instances)),
        *(("kappa < 1", s) for s in itertools.islice(random_instances(below=True), options.below)),
        *(("traces", s) for s in (trace_instance(number) for number in range(options.traces))),
    ]
    for gpus in options.gpus:
        for number, (kind, drawn) in enumerate(instances):
            load = LOADS[number % len(LOADS)]
            for scheme in PAPER:
                priced = drawn.replace(pricing=Pricing(scheme=scheme, prompt=0.1, output=0.2))
                scenario, believed = varied(loaded(priced, load), options.variant, number)
                yield Case(kind, drawn.name, load, scheme, gpus, scenario, believed)


def random_instances(below: bool) -> Iterator[Scenario]:
    """The random instances on one side of kappa = 1."""
    drawn = (random_instance(SEED, number) for number in itertools.count())
    return (scenario for scenario in drawn if (scenario.gpu.kappa < 1) == below)


def trace_instance(number: int) -> Scenario:
    """The two classes of the Azure traces with means, shares of the load and batch size perturbed by some 30 %."""
    azure = Scenario.load(Path(__file__).parent.parent / "examples" / "azure.toml")
    rng = np.random.default_rng(np.random.SeedSequence(SEED, spawn_key=(1, number)))
    classes = tuple(
        perturbed(c, *np.exp(rng.normal(0.0, 0.3, size=3)), patience=float(np.exp(rng.uniform(-3.9, -1.6))))
        for c in azure.for_gpus(60).classes
    )
    gpu = azure.gpu.model_copy(update={"batch_size": int(rng.choice([8, 16, 32])), "chunk_size": 256})
    return azure.replace(name=f"azure-{number}", classes=classes, gpu=gpu, cluster_gpus=None)


def perturbed(c: RequestClass, prompt: float, output: float, rate: float, patience: float) -> RequestClass:
    return c.model_copy(
        update={
            "prompt_tokens": c.prompt_tokens * prompt,
            "output_tokens": c.output_tokens * output,
            "arrival_rate": c.arrival_rate * rate,
            "patience_rate": patience,
        }
    )


def loaded(scenario: Scenario, load: float) -> Scenario:
    """The scenario with its arrivals scaled to `load` times what a GPU can serve in full."""
    rates, gpu = scenario.rates, scenario.gpu
    prefill = float((rates.arrival / rates.prefill).sum())
    decode = float((rates.arrival / rates.mixed_decode).sum())
    solo = max(0.0, decode - (gpu.batch_size - 1) * prefill) / (gpu.kappa * gpu.batch_size)
    factor = load / (prefill + solo)
    return scenario.replace(
        classes=tuple(c.model_copy(update={"arrival_rate": c.arrival_rate * factor}) for c in scenario.classes)
    )


def varied(scenario: Scenario, variant: str, number: int) -> tuple[Scenario, Scenario]:
    """What is simulated and what the policies plan with."""
    if variant == "misjudged":
        rng = np.random.default_rng(np.random.SeedSequence(SEED, spawn_key=(2, number)))
        classes = tuple(
            perturbed(c, *rng.choice([0.8, 1.2], size=3), patience=c.patience_rate) for c in scenario.classes
        )
        return scenario, scenario.replace(classes=classes)
    if variant in ("patient", "impatient"):
        factor = 0.1 if variant == "patient" else 10.0
        scenario = scenario.replace(
            classes=tuple(c.model_copy(update={"patience_rate": c.patience_rate * factor}) for c in scenario.classes)
        )
    if variant == "bursty":
        return scenario.replace(arrivals=Arrivals(process="gamma", cv=3.0)), scenario
    return scenario, scenario


Estimate = tuple[float, float]
"""Gap of a policy, and half the width of its interval, both over R*."""


def theirs(row: dict[str, float]) -> dict[str, Estimate]:
    """The estimates of a row but for our policy's."""
    names = [key.removeprefix("gap ") for key in row if key.startswith("gap ")]
    return {n: (row[f"gap {n}"], row[f"half {n}"]) for n in names if n != OURS and not math.isnan(row[f"gap {n}"])}


def measure(job: tuple[Case, float, float, dict[str, Estimate]]) -> dict[str, object]:
    """Gaps to R* of every policy on one case, and what our gap is over; those that are known are not measured."""
    case, half_width, most, known = job
    best_possible = plan(case.scenario, with_indicators=False).revenue_rate
    gap: dict[str, float] = {}
    half: dict[str, float] = {}
    compared = (OURS, PAPER[case.scheme])
    for name in dict.fromkeys([*compared, *PUBLISHED]):
        ours = math.inf if name in compared else gap[OURS] + 2 * half[OURS]
        gap[name], half[name] = known.get(name) or estimate(case, name, best_possible, half_width, most, ours)
    best = min(PUBLISHED, key=lambda name: gap[name])
    return {
        "kind": case.kind,
        "instance": case.instance,
        "load": case.load,
        "scheme": case.scheme,
        "gpus": case.gpus,
        **{f"gap {name}": value for name, value in gap.items()},
        **{f"half {name}": value for name, value in half.items()},
        "half": max(half[name] for name in compared),
        "over paper": max(gap[OURS], FLOOR) / max(gap[PAPER[case.scheme]], FLOOR),
        "best": best,
        "behind best": gap[OURS] - gap[best],
        "worse than best": gap[OURS] - gap[best] > math.hypot(half[OURS], half[best]),
    }


def estimate(case: Case, name: str, best_possible: float, half_width: float, most: float, ours: float) -> Estimate:
    """The gap of a policy; rougher where it is beyond `ours` for sure."""
    policy = find_policy(name)
    tables = policy.tabulate(plan_for(case.believed, name), case.gpus)
    slowest = float(slot_time(plan(case.scenario)).max())
    batch = max(200.0, 4000.0 / case.gpus, 2.5 * slowest)
    warmup = max(300.0, 6.0 * slowest)
    horizon = warmup + BATCHES * batch
    runs: list[Measurement] = []
    while True:
        job = Job(case.scenario, policy.for_worker(), tables, case.gpus, horizon, warmup, 1, len(runs), batches=BATCHES)
        runs.append(replicate(job))
        revenue = controlled_revenue(case.scenario, runs, case.gpus)
        gap, half = 1.0 - revenue.mean / best_possible, revenue.half_width / best_possible
        precise = half <= half_width or gap - 2 * half > ours
        if precise or len(runs) * BATCHES * batch * case.gpus >= most:
            return gap, half


def plan_for(scenario: Scenario, name: str) -> Plan:
    """The plan that feeds a policy."""
    program = find_policy(name).program
    return plan(scenario, scheme=program.scheme, allow_decode_buffer=program.allow_decode_buffer)


def summary(gaps: pd.DataFrame) -> pd.DataFrame:
    """A row a kind, scheme and size: geometric mean and worst of the gap ratio, mean gaps in %, instances lost."""
    rows = []
    for (kind, scheme, gpus), part in gaps.groupby(["kind", "scheme", "gpus"]):
        paper = PAPER[scheme]  # type: ignore[index]
        rows.append(
            {
                "kind": kind,
                "scheme": scheme,
                "n": gpus,
                "instances": len(part),
                "geo. mean ratio": float(np.exp(np.log(part["over paper"]).mean())),
                "worst ratio": float(part["over paper"].max()),
                "our gap, %": 100 * float(part[f"gap {OURS}"].mean()),
                "paper's gap, %": 100 * float(part[f"gap {paper}"].mean()),
                "lost": int(part["worse than best"].sum()),
                "lost by at most, %": 100 * float(part["behind best"].where(part["worse than best"], 0.0).max()),
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
