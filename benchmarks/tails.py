"""Predicted times beside simulated ones: TTFT, TPOT and latency of `fluidgate.tails` and of iterations.

    python -m benchmarks.tails [--set made|held-out|modulated] [--only TEXT] [--keep FOLDER] [--cells]

A cell is a workload, engines, a policy and a load, simulated for REQUESTS requests after a tenth of them. The sets:
those that the theory was made on, those that it had not seen, and arrivals whose rate changes. `--cells` prints each of
them, `--keep` reads simulations from a folder where they are there, else it puts them there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fluidgate import Gpu, RequestClass, Scenario, simulate
from fluidgate.model import Arrivals, EngineModel, IterationTime, Lengths
from fluidgate.profiles import find_profile
from fluidgate.tails import MEASURES, QUANTILES, Prediction, predict
from fluidgate.tails.discipline import Discipline
from fluidgate.tails.load import Load
from fluidgate.tails.predict import Cluster, engine_of

REQUESTS = 100_000
STATISTICS = ("mean", *QUANTILES)
CLOSE = 0.10
CYCLES = {"mmpp": 1600.0, "daily": 600.0}
"""s of the warm-up, and a tenth of the rest, of arrivals whose rate changes: whole periods, or many phases."""
POOL, TURN, LEAST, FIRST = "index-and-pool", "vllm-round-robin", "vllm-least-loaded", "prefill-first-round-robin"


EXPONENTIAL, POISSON = Lengths(), Arrivals()


@dataclass(frozen=True)
class Workload:
    """Classes of (prompt, output, share), and their laws."""

    name: str
    classes: tuple[tuple[float, float, float], ...]
    lengths: Lengths = EXPONENTIAL
    arrivals: Arrivals = POISSON


@dataclass(frozen=True)
class Cell:
    """What is predicted and simulated."""

    workload: Workload
    profile: str
    batch_size: int
    chunk_size: int
    batching: str
    policy: str
    engines: int
    load: float

    @property
    def name(self) -> str:
        parts = (self.workload.name, self.profile.replace("/", "-"), f"B{self.batch_size}-C{self.chunk_size}")
        return "_".join((*parts, self.batching, self.policy, f"n{self.engines}", f"{self.load:g}"))

    @property
    def kind(self) -> str:
        return f"{self.batching}, {self.policy}{', load 0.95' if self.load > 0.9 else ''}"

    def scenario(self) -> Scenario:
        """At its load, over what the theory says can be served."""
        at_one = self._at(1.0)
        discipline = Discipline.of(at_one, None, self.policy)
        load, low, high = Load.of(at_one), 1e-4, 1e4
        cluster = Cluster(at_one, discipline, engine_of(at_one, discipline.batching), self.engines)
        for _ in range(60):
            middle = (low * high) ** 0.5
            low, high = (middle, high) if cluster.serves(load.at(middle)) else (low, middle)
        return self._at(low * self.load)

    def _at(self, rate: float) -> Scenario:
        classes = tuple(
            RequestClass(name=f"c{k}", prompt_tokens=p, output_tokens=d, arrival_rate=rate * share, patience_rate=0.0)
            for k, (p, d, share) in enumerate(self.workload.classes)
        )
        return Scenario(
            name=self.name,
            gpu=Gpu(batch_size=self.batch_size, chunk_size=self.chunk_size, iteration=_law(self.profile)),
            classes=classes,
            arrivals=self.workload.arrivals,
            lengths=self.workload.lengths,
            engine=EngineModel(batching=self.batching),
        )


def _law(profile: str) -> IterationTime:
    return find_profile(profile).iteration


CHAT = Workload("chat", ((800, 250, 1.0),))
AZURE = Workload("azure", ((2048, 28, 0.317), (1155, 211, 0.683)))
BURSTS = Workload("bursts", AZURE.classes, arrivals=Arrivals(process="gamma", cv=3.0))
LONG = Workload("long", ((8000, 300, 1.0),))
THREE = Workload(
    "three",
    ((500, 300, 0.5), (2000, 150, 0.3), (4000, 400, 0.2)),
    Lengths(prompt="lognormal", output="lognormal", prompt_cv=1.2, output_cv=1.0),
)
FIXED = Workload("fixed", ((1500, 200, 1.0),), Lengths(prompt="fixed", output="fixed"))
SPREAD = Workload(
    "spread",
    ((1200, 250, 0.7), (5000, 150, 0.3)),
    Lengths(prompt="lognormal", output="lognormal", prompt_cv=1.5, output_cv=1.5),
)
CV2 = Workload("cv2", ((1000, 300, 1.0),), arrivals=Arrivals(process="gamma", cv=2.0))
CV5 = Workload("cv5", ((1500, 150, 0.6), (600, 400, 0.4)), arrivals=Arrivals(process="gamma", cv=5.0))
PHASES = Arrivals(process="mmpp", levels=(1, 4), sojourns=(60, 20))
SLOW = Workload("mmpp", CHAT.classes, arrivals=PHASES)
HOURS = Workload("daily", CHAT.classes, arrivals=Arrivals(process="daily", weights=(1, 2, 4, 5, 4, 2), period=600))

A100, H100 = "a100-40gb/qwen-8b", "h100/llama-3.1-8b"
KINDS = (("single-prefill", POOL), ("token-budget", POOL), ("token-budget", TURN), ("token-budget", LEAST),
         ("prefill-first", FIRST))  # fmt: skip


def _cells(
    workloads: Iterable[Workload],
    engines: Sequence[tuple[str, int, int]],
    sizes: Sequence[int],
    loads: Sequence[float],
    kinds: Sequence[tuple[str, str]] = KINDS,
) -> list[Cell]:
    return [
        Cell(w, profile, batch, chunk, batching, policy, n, load)
        for batching, policy in kinds
        for w in workloads
        for profile, batch, chunk in engines
        for n in sizes
        for load in loads
    ]


SETS: dict[str, Callable[[], list[Cell]]] = {
    "made": lambda: [
        *_cells((AZURE, CHAT), ((A100, 64, 512),), (4,), (0.6, 0.9)),
        *_cells((BURSTS, LONG, THREE), ((H100, 256, 2048),), (4, 20), (0.6, 0.8, 0.95)),
    ],
    "held-out": lambda: [
        *_cells((FIXED, SPREAD), (("h200/llama-3.1-8b", 256, 2048),), (6,), (0.7, 0.85, 0.95)),
        *_cells((CV2,), (("l40s/llama-3.1-8b", 64, 1024),), (12,), (0.6, 0.85)),
        *_cells((CV5, SPREAD), (("h100/llama-3.1-70b-tp4", 128, 2048),), (10, 50), (0.75,)),
        *_cells((CV2, FIXED), (("a100-80gb/qwen3-32b-tp2", 128, 1024),), (8,), (0.8,)),
    ],
    "modulated": lambda: _cells((SLOW, HOURS), ((H100, 256, 2048),), (4,), (0.4, 0.5, 0.8), KINDS[:3]),
}


def measured(cell: Cell, scenario: Scenario, keep: Path | None) -> dict[str, dict[str, float]]:
    """Statistics of all requests, by time."""
    file = None if keep is None else keep / f"{cell.name}.json"
    rate = sum(c.arrival_rate for c in scenario.classes) * cell.engines
    if file is not None and file.exists():
        kept: dict[str, Any] = json.loads(file.read_text())
        if abs(kept["rate"] / rate - 1.0) < 1e-6:
            return kept["times"]  # type: ignore[no-any-return]
    horizon, warmup = REQUESTS * 1.1 / rate, REQUESTS * 0.1 / rate
    if cell.workload.arrivals.process in CYCLES:
        warmup = CYCLES[cell.workload.arrivals.process]
        horizon = 11.0 * warmup
    started = time.perf_counter()
    found = simulate(
        scenario,
        cell.policy,
        gpus=cell.engines,
        horizon=horizon,
        warmup=warmup,
        replications=1,
        workers=1,
        fidelity="iteration",
    )
    overall = found.overall  # type: ignore[attr-defined]
    times: dict[str, dict[str, float]] = {m: {s: getattr(getattr(overall, m), s) for s in STATISTICS} for m in MEASURES}
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"rate": rate, "times": times, "seconds": time.perf_counter() - started}))
    return times


def errors(prediction: Prediction, times: dict[str, dict[str, float]]) -> np.ndarray:
    """Predicted over simulated, less 1, shape (times, statistics)."""
    found = []
    for measure in MEASURES:
        law = prediction.time(measure)
        own = [law.mean, *(law.quantile(share) for share in QUANTILES.values())]
        found.append([p / times[measure][s] - 1.0 for p, s in zip(own, STATISTICS, strict=True)])
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--set", choices=list(SETS), default="made")
    parser.add_argument("--only", default="")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--cells", action="store_true")
    options = parser.parse_args()
    by_kind: dict[str, list[np.ndarray]] = {}
    spent = []
    for cell in SETS[options.set]():
        if options.only not in cell.name:
            continue
        scenario = cell.scenario()
        predict(scenario, cell.engines, policy=cell.policy)
        started = time.perf_counter()
        prediction = predict(scenario, cell.engines, policy=cell.policy)
        spent.append(time.perf_counter() - started)
        found = errors(prediction, measured(cell, scenario, options.keep))
        by_kind.setdefault(cell.kind, []).append(found)
        if options.cells:
            numbers = "  ".join(" ".join(f"{100 * e:+6.1f}" for e in row) for row in found)
            print(f"{cell.name:75s} {prediction.load:.2f} {prediction.slots:.2f}  {numbers}", flush=True)
    print("| kind | cells | time | " + " | ".join(STATISTICS) + " | within 10 % (p90, p99) | worst p99 |")
    print("|---|---|---|" + "---|" * (len(STATISTICS) + 2))
    for kind, rows in by_kind.items():
        every = np.abs(np.array(rows))
        for k, measure in enumerate(MEASURES):
            own = every[:, k]
            medians = " | ".join(f"{100 * m:.1f}" for m in np.median(own, axis=0))
            close = [f"{100 * (own[:, j] <= CLOSE).mean():.0f} %" for j in (2, 4)]
            print(
                f"| {kind} | {len(rows)} | {measure} | {medians} | {', '.join(close)} | {100 * own[:, 4].max():.0f} % |"
            )
    print(f"{1e3 * float(np.median(spent)):.0f} ms a prediction, {1e3 * max(spent):.0f} at most")


if __name__ == "__main__":
    main()
