"""Serving points of real engines beside closed loops of the iteration model: so many users, fixed lengths, mean TPOT.

    python -m benchmarks.serving_points DATA

DATA is the folder of the public points. The law of each is a shipped profile, or a table of the same engine; beside it
stands the same with an overhead, `a + b` a decode, fitted to the TPOT of a few points alone, and tried on the others.
Their TTFT holds the clients' warm-up and is left out.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from fluidgate import Gpu, RequestClass, Scenario, simulate
from fluidgate.calibration import calibrate_batches, read_measurements
from fluidgate.model import Array, EngineModel, IterationTime, LengthLaw, Lengths
from fluidgate.profiles import find_profile

BUDGET = 2048
"""Tokens of an iteration; the points don't say, and it is vLLM's default on most cards."""
ROUNDS = 4
"""Of the fit: the slope of TPOT in an overhead is taken anew where the fit before stands."""
STEP = (2e-4, 1e-5)
"""s, and s a decode, by which that slope is taken."""
FEW = 5
"""Points that a fit sees, of more than twice as many; else two."""


@dataclass(frozen=True)
class Point:
    """One point: tokens of prompt and answer and their law, users, and the mean TPOT measured, s."""

    prompt: float
    output: float
    users: int
    tpot: float
    law: LengthLaw = "fixed"

    def simulated(self, time: IterationTime) -> float:
        """Mean TPOT of the same closed loop, s."""
        horizon = 12.0 * self.output * max(self.tpot, 0.005) + 20.0
        scenario = Scenario(
            name="point",
            gpu=Gpu(batch_size=1024, chunk_size=BUDGET, iteration=time),
            classes=(
                RequestClass(
                    name="all",
                    prompt_tokens=self.prompt,
                    output_tokens=self.output,
                    arrival_rate=1.0,
                    patience_rate=0.0,
                ),
            ),
            lengths=Lengths(prompt=self.law, output=self.law),
            engine=EngineModel(max_batched_tokens=BUDGET),
        )
        options = {"horizon": horizon, "warmup": 0.25 * horizon, "replications": 1, "users": self.users}
        found = simulate(scenario, "vllm-round-robin", gpus=1, fidelity="iteration", **options)
        mean: float = found.to_dict()["classes"][0]["tpot"]["mean"]
        return mean


@dataclass(frozen=True)
class Source:
    """A file of points, those of one tensor-parallel size, and the law that they are tried on.

    Attributes:
        profile: a shipped one; empty for the table that AIConfigurator makes of its operators for TensorRT-LLM.
    """

    file: str
    gpus: int
    profile: str
    name: str

    @property
    def law(self) -> str:
        return f"`{self.profile}`" if self.profile else "its operators, added up"

    def points(self, folder: Path) -> list[Point]:
        with (folder / self.file).open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if int(row["tp"]) == self.gpus]
        if "isl" not in rows[0]:
            names = ("mean_prompt", "mean_output", "max_concurrency", "tpot_mean_ms")
            return [_point(row, names, "exponential") for row in rows]
        return [_point(row, ("isl", "osl", "concurrency", "tpot_ms"), "fixed") for row in rows]

    def time(self, folder: Path) -> IterationTime:
        if self.profile:
            return find_profile(self.profile).iteration
        where = {"gpu": "h100_sxm", "backend": "trtllm", "model": MODEL, "tp": str(self.gpus)}
        columns = {"batch_size": "B", "chunk_size": "C", "seconds": "tau_ms"}
        rows = read_measurements(folder / TABLES, columns, unit="ms", where=where)
        return calibrate_batches(rows, context=CONTEXT, table=True, **KV).profile.iteration


TABLES, MODEL, CONTEXT = "aiconfigurator_tau.csv", "meta-llama/Meta-Llama-3.1-8B", 2176
KV = {"kv_bytes_per_token": 131072, "memory_bandwidth": 3.35e12}
SOURCES = (
    Source("silicon_h100_qwen3_32b_vllm012.csv", 2, "h100/qwen3-32b-tp2", "Qwen3 32B, 2 x H100, vLLM 0.12"),
    Source("silicon_h100_llama31_8b_trtllm.csv", 1, "", "Llama 3.1 8B, H100, TensorRT-LLM 1.0"),
    Source("silicon_h100_llama31_8b_trtllm.csv", 1, "h100/llama-3.1-8b", "Llama 3.1 8B, H100, TensorRT-LLM 1.0"),
    Source("gpustack_h100_qwen3_8b_vllm.csv", 1, "h100/qwen3-8b", "Qwen3 8B, H100, vLLM 0.11"),
)


def _point(row: Mapping[str, str], names: Sequence[str], law: LengthLaw) -> Point:
    prompt, output, users, tpot = (float(row[name]) for name in names)
    return Point(prompt, output, int(users), tpot / 1e3, law)


def few_of(points: Sequence[Point]) -> list[int]:
    """Those that a fit sees: evenly along the number of users."""
    order = np.argsort([p.users * 10_000 + p.output for p in points], kind="stable")
    few = FEW if len(points) > 2 * FEW else 2
    return sorted(int(order[k]) for k in np.linspace(0, len(points) - 1, few).round().astype(int))


def fitted(time: IterationTime, points: Sequence[Point]) -> tuple[float, float]:
    """Overhead, s, and s a decode, by least squares of the relative errors of TPOT; neither is negative."""
    found = np.zeros(2)
    measured = np.array([p.tpot for p in points])
    for _ in range(ROUNDS):

        def tpot(overhead: Array) -> Array:
            return np.array([p.simulated(time.with_overhead(*overhead.tolist())) for p in points])

        now = tpot(found)
        slopes = np.column_stack([(tpot(found + np.eye(2)[k] * STEP[k]) - now) / STEP[k] for k in range(2)])
        target = measured - now + slopes @ found
        found, _ = nnls(slopes / measured[:, None], target / measured)
    return float(found[0]), float(found[1])


def errors(time: IterationTime, points: Sequence[Point]) -> Array:
    """TPOT simulated over measured, less 1."""
    return np.array([p.simulated(time) / p.tpot - 1.0 for p in points])


def main(folder: str) -> None:
    print("| points | law | fitted on | tried on | mean | median | median size | 90 % below | largest |")
    print("|---|---|---|---|---|---|---|---|---|")
    for source in SOURCES:
        points, time = source.points(Path(folder)), source.time(Path(folder))
        seen = few_of(points)
        others = [p for k, p in enumerate(points) if k not in seen]
        overhead = fitted(time, [points[k] for k in seen])
        for law, fit, tried in ((time, "-", points), (time.with_overhead(*overhead), str(len(seen)), others)):
            off = errors(law, tried)
            sizes = np.abs(off)
            added = "" if law is time else f" + {1e3 * overhead[0]:.2f} ms + {1e6 * overhead[1]:.1f} us a decode"
            signed = [f"{100 * value:+.1f} %" for value in (off.mean(), np.median(off))]
            plain = [f"{100 * np.quantile(sizes, share):.1f} %" for share in (0.5, 0.9)]
            cells = [source.name, f"{source.law}{added}", fit, str(len(tried)), *signed, *plain]
            print("| " + " | ".join([*cells, f"{100 * off[sizes.argmax()]:+.1f} %"]) + " |")


if __name__ == "__main__":
    main(*sys.argv[1:])
