"""Machines as they are: the gap to R* of index-and-pool over that of the best rival: `python -m benchmarks.hardware`.

Random clusters by iterations: laws linear, of tables, and of the shipped profiles; every other one with memory that
binds; batches of 16 to 256, chunks of 256 to 8,192 tokens, 2 to 50 GPUs, at 0.7, 1 and 1.5 times the load that they can
serve in full; lengths fixed, exponential, log-normal, and those of the Azure traces (`--traces CODE.csv CONV.csv`).
Every policy meets the same requests. R* is the bound of the program in token rates (`docs/background/programs.md`), the
larger of that for one prompt at a time and that for a token budget, so that it bounds all of them alike.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.executors import add_options, executor
from fluidgate import Gpu, IterationTime, Pricing, RequestClass, Scenario, compare, plan
from fluidgate.batching import Batching
from fluidgate.execution import Executor
from fluidgate.model import EngineModel, Lengths, Targets, TimeTable
from fluidgate.planning import Planner
from fluidgate.policies.value import loaded
from fluidgate.profiles import shipped

OURS = "index-and-pool"
RIVALS = ("fi-wsp", "gate-and-route", "vllm-least-loaded", "vllm-lmetric", "wait", "slai")
SIZES, LOADS = (2, 4, 10, 50), (0.7, 1.0, 1.5)
LAWS = ("linear", "table", "profile")
LENGTHS = ("fixed", "exponential", "lognormal", "azure")
FLOOR = 0.002
"""Share of R* below which a gap is none."""


@dataclasses.dataclass(frozen=True)
class Instance:
    """A random cluster.

    Attributes:
        seed: what it was drawn from.
        load: times what it can serve in full.
    """

    seed: int
    law: str
    lengths: str
    load: float
    gpus: int
    scenario: Scenario


def instance(seed: int, traces: list[str] | None = None) -> Instance:
    """The instance of a seed: what is compared goes round in turn, the rest is drawn."""
    random = np.random.default_rng([20260202, seed])
    law = LAWS[seed % 3]
    kinds = LENGTHS if traces else LENGTHS[:3]
    kind = kinds[seed // 3 % len(kinds)]
    classes, lengths = azure_classes(random, traces) if kind == "azure" and traces else drawn_classes(random, kind)
    plain = Scenario(
        name=f"{law}-{kind}-{seed}",
        gpu=Gpu(
            batch_size=int(random.choice([16, 32, 64, 128, 256])),
            chunk_size=int(random.choice([256, 512, 1024, 2048, 4096, 8192])),
            iteration=random_law(random, law),
        ),
        pricing=Pricing(scheme="bundled", prompt=0.1, output=0.2),
        classes=classes,
        lengths=lengths,
        targets=Targets(tpot=0.1),
    )
    load, gpus = float(LOADS[int(random.integers(3))]), int(SIZES[int(random.integers(4))])
    if seed % 2:
        plain = plain.replace(engine=EngineModel(kv_tokens=scarce_memory(random, plain)))
    return Instance(seed, law, kind, load, gpus, loaded(plain, load * capacity(plain)))


def drawn_classes(random: np.random.Generator, law: str) -> tuple[tuple[RequestClass, ...], Lengths]:
    number = int(random.integers(1, 4))
    classes = tuple(
        RequestClass(
            name=f"c{k}",
            prompt_tokens=float(round(10 ** random.uniform(2.0, 3.9))),
            output_tokens=float(round(10 ** random.uniform(1.3, 3.0))),
            arrival_rate=float(random.uniform(0.5, 1.5)),
            patience_rate=float(10 ** random.uniform(-1.7, 0.0)),
        )
        for k in range(number)
    )
    spread = {"prompt_cv": random.uniform(0.3, 1.5), "output_cv": random.uniform(0.3, 1.5)}
    return classes, Lengths(prompt=law, output=law, **(spread if law == "lognormal" else {}))


def azure_classes(random: np.random.Generator, traces: list[str]) -> tuple[tuple[RequestClass, ...], Lengths]:
    """The two classes of the Azure traces, in a random proportion."""
    classes = tuple(
        RequestClass(
            name=name,
            prompt_tokens=prompt,
            output_tokens=output,
            arrival_rate=float(random.uniform(0.2, 1.0)),
            patience_rate=float(10 ** random.uniform(-1.7, 0.0)),
        )
        for name, prompt, output in (("code", 2047.8487, 27.8825), ("conv", 1154.6973, 211.1257))
    )
    files = tuple(f"{each.name}={path}" for each, path in zip(classes, traces, strict=True))
    return classes, Lengths(prompt="empirical", output="empirical", traces=files)


def random_law(random: np.random.Generator, kind: str) -> IterationTime:
    """One with terms by decode and context, a rough table, or that of a shipped profile."""
    if kind == "profile":
        profiles = [profile for profile in shipped() if profile.iteration.by_batch]
        return profiles[int(random.integers(len(profiles)))].iteration
    alpha, beta = random.uniform(0.003, 0.02), 10 ** random.uniform(-5, -4)
    if kind == "linear":
        delta = 10 ** random.uniform(-5, -3.3)
        return IterationTime(
            alpha=alpha,
            beta=beta,
            delta=delta,
            epsilon=10 ** random.uniform(-8, -6.5),
            solo_alpha=alpha * random.uniform(0.6, 1.0),
            solo_delta=delta * random.uniform(0.5, 1.0),
        )
    return rough_table(random, alpha, beta)


def rough_table(random: np.random.Generator, alpha: float, beta: float) -> IterationTime:
    """A table about `alpha + beta chunk`, as uneven as measured ones."""
    chunks, batches = (0, 64, 256, 1024, 4096), (1, 8, 32, 128, 256)
    rough = [
        [alpha + beta * c * random.uniform(0.9, 1.1) + 2e-4 * b ** random.uniform(0.8, 1) for b in batches]
        for c in chunks
    ]
    seconds = np.maximum.accumulate(np.maximum.accumulate(np.array(rough), 0), 1)
    table = TimeTable(chunk_sizes=chunks, batch_sizes=batches, seconds=tuple(map(tuple, seconds.tolist())))
    return IterationTime(alpha=alpha, beta=beta, epsilon=10 ** random.uniform(-8.5, -7.3), table=table)


def scarce_memory(random: np.random.Generator, plain: Scenario) -> int:
    """KV tokens that bind: a share of what decodes would hold without the limit, but room for a few of the longest."""
    point = plan(loaded(plain, capacity(plain)), scheme="bundled").operating_point
    assert point is not None
    longest = max(c.prompt_tokens + c.output_tokens for c in plain.classes)
    return int(max(4.0 * longest, random.uniform(0.2, 0.7) * point.kv_tokens))


def capacity(scenario: Scenario) -> float:
    """The multiple of the arrivals up to which everybody is served."""
    low, high = 1e-4, 1e4
    while high > 1.003 * low:
        middle = (low * high) ** 0.5
        served = plan(loaded(scenario, middle), scheme="bundled").served_fraction.min()
        low, high = (middle, high) if served > 0.999 else (low, middle)
    return low


def bounds(each: Instance) -> dict[str, float]:
    """R* a GPU of each way of batching, money/s."""
    planner = Planner()
    return {
        batching: planner.solve(
            each.scenario, gpus=each.gpus, with_indicators=False, batching=batching, by_iterations=True
        ).revenue_rate
        for batching in (Batching.SINGLE_PREFILL, Batching.TOKEN_BUDGET)
    }


def measured(each: Instance, options: argparse.Namespace, where: Executor | None) -> dict[str, Any]:
    """A row: the share of R* of every policy, and how surely ours is not below the best of the others."""
    scenario = each.scenario
    found = bounds(each)
    most = max(found.values())
    solved = Planner().solve(scenario, gpus=each.gpus, with_indicators=False)
    arrivals = each.gpus * sum(c.arrival_rate for c in scenario.classes)
    point = solved.operating_point
    assert point is not None
    settles = max(c.output_tokens * point.pooled_tpot + 1.0 / c.patience_rate for c in scenario.classes)
    horizon = 6.0 * settles + max(options.requests / arrivals, 20.0 * settles)
    began = time.perf_counter()
    result = compare(
        scenario, [OURS, *RIVALS], gpus=each.gpus, horizon=horizon, warmup=6.0 * settles,
        replications=options.replications, seed=options.seed, fidelity="iteration",
        workers=options.workers, executor=where,
    )  # fmt: skip
    row: dict[str, Any] = {
        "seed": each.seed, "law": each.law, "lengths": each.lengths, "load": each.load, "gpus": each.gpus,
        "batch": scenario.gpu.batch_size, "chunk": scenario.gpu.chunk_size, "classes": len(scenario.classes),
        "memory": scenario.engine.kv_tokens or 0, "budget": found[Batching.TOKEN_BUDGET] / most,
        "seconds": time.perf_counter() - began,
    }  # fmt: skip
    row |= {one.policy: one.revenue_rate.mean / most for one in result.policies}
    best = max(RIVALS, key=lambda name: row[name])
    pair = next(pair.revenue_difference for pair in result.paired if pair.policy == best)
    row |= {"rival": best, "lead": -pair.mean / most, "lead_half": half_width(pair) / most}
    row |= {"half": half_width(result.policies[0].revenue_rate) / most, "gap": 1.0 - row[OURS]}
    row["rival_gap"] = 1.0 - row[best]
    row["ratio"] = max(row["gap"], FLOOR) / max(row["rival_gap"], FLOOR)
    row["lost"] = row["lead"] + row["lead_half"] < 0.0
    return row


def half_width(value: Any) -> float:
    """Half of a 95 % interval."""
    low, high = value.ci95
    return float(high - low) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", nargs=2, metavar=("CODE.csv", "CONV.csv"), help="for lengths of the Azure traces")
    parser.add_argument("--instances", type=int, default=72)
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--only", type=int, nargs="+", help="these numbers")
    parser.add_argument("--requests", type=float, default=20000, help="that arrive in a replication, about")
    parser.add_argument("--replications", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--csv", type=Path, help="where the rows go")
    parser.add_argument("--workers", type=int, default=1)
    add_options(parser)
    options = parser.parse_args()
    where = executor(options)
    rows = []
    for number in options.only or range(options.first, options.first + options.instances):
        rows.append(measured(instance(number, options.traces), options, where))
        print(line(rows[-1]), flush=True)
        if options.csv:
            pd.DataFrame(rows).to_csv(options.csv, index=False)
    summarise(pd.DataFrame(rows))


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['seed']:3d} {row['law']:7s} {row['lengths']:11s} load {row['load']:.1f} n {row['gpus']:2d} "
        f"B {row['batch']:3d} C {row['chunk']:4d} classes {row['classes']} KV {row['memory']:6d} | "
        f"ours {row[OURS]:.4f} ±{row['half']:.4f}, less {row['rival']} {row['lead']:+.4f} ±{row['lead_half']:.4f}, "
        f"ratio {row['ratio']:.2f}{' LOST' if row['lost'] else ''}, {row['seconds']:.0f} s"
    )


def summarise(rows: pd.DataFrame) -> None:
    """Tables over what was varied."""
    print("\n| | instances | geometric mean of the ratio | ours, % of R* | the best other, % | lost |")
    print("|---|---|---|---|---|---|")
    rows = rows.assign(KV=np.where(rows.memory > 0, "scarce", "no limit"))
    parts = [("all", rows)]
    for key in ("load", "KV", "law", "lengths", "gpus"):
        parts += [(f"{key} {value}", part) for value, part in rows.groupby(key)]
    for name, part in parts:
        ratio = float(np.exp(np.log(part.ratio).mean()))
        ours, other = 100 * part[OURS].mean(), 100 * (1 - part.rival_gap.mean())
        print(f"| {name} | {len(part)} | {ratio:.3f} | {ours:.2f} | {other:.2f} | {int(part.lost.sum())} |")


if __name__ == "__main__":
    main()
