"""The same overloaded load through eight emulated engines under round robin, least loaded, and our policy.

    python -m benchmarks.gateway_policies [-o PICTURE] [--scenario FILE] [--seconds S] [--speed X] [--policies A,B,...]

Engines, gateway and clients are processes of their own, on one machine, in wall time. The engines batch as vLLM does
(token budget) whatever the policy. A client leaves when its first token has not come within its patience.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.gateway_agreement import faster, gateway_file
from benchmarks.gateway_load import process
from fluidgate.engine.player import Player, revenue
from fluidgate.model import Array, Scenario
from fluidgate.planning import plan
from fluidgate.workloads.streams import Requests, drawn_requests

MODEL = "emulated"
FIRST_PORT = 18900
GATEWAY_PORT = 18890
POLICIES = "vllm-round-robin,vllm-least-loaded,index-and-pool"


def played(of: Scenario, source: Path, policy: str, engines: int, requests: Requests, speed: float) -> np.ndarray:
    """What becomes of the requests under one policy, each with fresh engines and a fresh gateway."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        urls = [f"http://127.0.0.1:{FIRST_PORT + k}" for k in range(engines)]
        budget = of.gpu.chunk_size + of.gpu.batch_size - 1
        engine = [sys.executable, "-m", "fluidgate", "engine", str(source), "--count", str(engines)]
        engine += ["--port", str(FIRST_PORT), "--model", MODEL, "--speed", str(speed), "--batching", "token-budget"]
        engine += ["--max-num-batched-tokens", str(budget)]
        path = gateway_file(folder, faster(of, speed), policy, urls, 0, port=GATEWAY_PORT)
        gateway = [sys.executable, "-m", "fluidgate", "serve", str(path)]
        url = f"http://127.0.0.1:{GATEWAY_PORT}"
        with (
            process(engine, f"{urls[-1]}/health", folder / "engine.log"),
            process(gateway, f"{url}/ready", folder / "gateway.log"),
        ):
            return asyncio.run(Player(url, MODEL, tuple(of.class_names), speed).play(requests))


def draw(of: Scenario, results: dict[str, np.ndarray], rates: dict[str, Array], best: float, path: str) -> None:
    """Revenue by class under each policy, and the distributions of TTFT and TPOT."""
    from fluidgate.reports.plots import Figure, save, style

    names = of.class_names
    with style():
        figure = Figure(figsize=(11, 5.5), layout="constrained")
        bars, *curves = figure.subplots(1, 1 + len(names), width_ratios=[1, *[1.3] * len(names)], squeeze=False)[0]
        bottom = np.zeros(len(results))
        for i, name in enumerate(names):
            earned = np.array([rates[policy][i] for policy in results])
            bars.bar(range(len(results)), earned, 0.6, bottom=bottom, label=name)
            bottom += earned
        bars.axhline(best, color="black", lw=1, ls=":")
        bars.annotate("R*", (len(results) - 0.6, best), va="bottom", ha="right")
        bars.set_xticks(range(len(results)), results, rotation=20, ha="right")
        bars.set_title("revenue a second and engine", loc="left")
        bars.legend(loc="lower right")
        for i, axes in enumerate(curves):
            for policy, rows in results.items():
                own = rows[rows["cls"] == i]
                ttft = np.sort((own["first"] - own["sent"])[own["tokens"] > 0])
                axes.plot(ttft, np.arange(1, len(ttft) + 1) / len(own), lw=1.6, label=policy)
            axes.set_title(f"{names[i]}: share with its first token within", loc="left")
            axes.set_xlabel("s")
            axes.set_ylim(0, 1)
            axes.set_xlim(left=0)
        curves[-1].legend(loc="lower right")
        save(figure, path)


def table(of: Scenario, results: dict[str, np.ndarray], rates: dict[str, Array], best: float) -> None:
    print("| policy | class | revenue /s | of R* | completed | TTFT mean, p50, p90 (s) | TPOT mean, p90 (ms) |")
    print("|---|---|---|---|---|---|---|")
    for policy, rows in results.items():
        for i, name in enumerate(of.class_names):
            own = rows[rows["cls"] == i]
            ttft = (own["first"] - own["sent"])[own["tokens"] > 0]
            ends = own[own["done"] & (own["tokens"] > 1)]
            tpot = 1e3 * (ends["last"] - ends["first"]) / (ends["tokens"] - 1)
            print(
                f"| `{policy}` | {name} | {rates[policy][i]:.1f} | | {own['done'].mean():.1%} "
                f"| {ttft.mean():.2f}, {np.median(ttft):.2f}, {np.quantile(ttft, 0.9):.2f} "
                f"| {tpot.mean():.1f}, {np.quantile(tpot, 0.9):.1f} |"
            )
        total = float(rates[policy].sum())
        print(f"| `{policy}` | all | {total:.1f} | {total / best:.1%} | {rows['done'].mean():.1%} | | |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", help="picture to write (.png, .svg, .pdf)")
    parser.add_argument("--scenario", type=Path, default=Path("examples/two-class.toml"))
    parser.add_argument("--engines", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=180.0, help="of the load, over which requests arrive")
    parser.add_argument("--warmup", type=float, default=40.0, help="requests that arrive or end earlier don't count, s")
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--policies", default=POLICIES)
    parser.add_argument("--json", dest="save", type=Path, help="also write what became of each request")
    given = parser.parse_args()
    of = Scenario.load(given.scenario).for_gpus(given.engines)
    requests = np.concatenate(list(drawn_requests(of, given.engines, seed=given.seed, horizon=given.seconds)))
    best = plan(of, with_indicators=False).revenue_rate
    results: dict[str, np.ndarray] = {}
    rates: dict[str, Array] = {}
    for policy in given.policies.split(","):
        rows = played(of, given.scenario, policy, given.engines, requests, given.speed)
        window = (rows["last"] > given.warmup) & (rows["last"] <= given.seconds)
        earned = revenue(rows[window], of.pricing, len(of.classes))
        rates[policy] = earned / (given.seconds - given.warmup) / given.engines
        results[policy] = rows[rows["sent"] > given.warmup]
    print(f"{len(requests)} requests in {given.seconds:g} s on {given.engines} engines, speed {given.speed:g}\n")
    table(of, results, rates, best)
    if given.save is not None:
        given.save.write_text(json.dumps({policy: rows.tolist() for policy, rows in results.items()}))
    if given.output is not None:
        draw(of, results, rates, best, given.output)


if __name__ == "__main__":
    main()
