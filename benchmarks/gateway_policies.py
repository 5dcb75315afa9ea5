"""The same overloaded load through eight emulated engines under round robin, least loaded, and our policy.

    python -m benchmarks.gateway_policies [-o PICTURE] [--scenario FILE] [--load L] [--seconds S] [--policies A,...]

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
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.gateway_agreement import faster, gateway_file
from benchmarks.gateway_load import process
from fluidgate.emulator.player import Player, revenue
from fluidgate.model import Array, Scenario
from fluidgate.planning import plan
from fluidgate.replanning.replanner import with_share
from fluidgate.workloads.streams import Requests, drawn_requests

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MODEL = "emulated"
FIRST_PORT = 18900
GATEWAY_PORT = 18890
POLICIES = "vllm-round-robin,vllm-least-loaded,index-and-pool"


def played(
    of: Scenario, source: Path, policy: str, engines: int, requests: Requests, speed: float, seconds: float
) -> np.ndarray:
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
            return asyncio.run(Player(url, MODEL, tuple(of.class_names), speed).play(requests, seconds))


def draw(of: Scenario, results: dict[str, np.ndarray], rates: dict[str, Array], best: float, path: str) -> None:
    """Revenue by class under each policy, and the distributions of TTFT and TPOT."""
    from fluidgate.reports.looks import line
    from fluidgate.reports.plots import picture, save, style

    names = of.class_names
    with style():
        figure = picture(figsize=(11, 6), layout="constrained")
        rows = [
            ["revenue", *(f"TTFT, s: {name}" for name in names)],
            ["revenue", *(f"TPOT, ms: {name}" for name in names)],
        ]
        axes = figure.subplot_mosaic(rows, width_ratios=[1, *[1.3] * len(names)])
        draw_revenue(axes["revenue"], names, rates, best)
        for i, name in enumerate(names):
            for k, (policy, every) in enumerate(results.items()):
                own = every[every["cls"] == i]
                ttft = (own["first"] - own["sent"])[own["tokens"] > 0]
                ends = own[own["done"] & (own["tokens"] > 1)]
                tpot = 1e3 * (ends["last"] - ends["first"]) / (ends["tokens"] - 1)
                for quantity, times, share in (("TTFT, s", ttft, len(ttft) / len(own)), ("TPOT, ms", tpot, 1.0)):
                    heights = share * np.arange(1, len(times) + 1) / len(times)
                    axes[f"{quantity}: {name}"].plot(np.sort(times), heights, lw=1.6, label=policy, **line(k))
        for label, each in axes.items():
            if label != "revenue":
                each.set_title(label, loc="left")
                each.set_ylim(0, 1)
        axes[rows[0][1]].set_ylabel("share of all requests")
        axes[rows[1][1]].set_ylabel("share of the completed")
        axes[rows[0][1]].legend(loc="upper left")
        save(figure, path)


def draw_revenue(axes: Axes, names: list[str], rates: dict[str, Array], best: float) -> None:
    bottom = np.zeros(len(rates))
    for i, name in enumerate(names):
        earned = np.array([rate[i] for rate in rates.values()])
        axes.bar(range(len(rates)), earned, 0.6, bottom=bottom, label=name)
        bottom += earned
    axes.axhline(best, color="black", lw=1, ls=":")
    axes.annotate("R*", (len(rates) - 0.6, best), va="bottom", ha="right")
    axes.set_xticks(range(len(rates)), list(rates), rotation=20, ha="right")
    axes.set_ylim(0, 1.22 * best)
    axes.set_title("revenue a second and engine", loc="left")
    axes.legend(loc="upper left", ncols=len(names))


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
    parser.add_argument("--load", type=float, default=1.6, help="times the scenario's arrival rates")
    parser.add_argument("--seconds", type=float, default=240.0, help="of the load, over which requests arrive")
    parser.add_argument("--warmup", type=float, default=80.0, help="requests that arrive or end earlier don't count, s")
    parser.add_argument("--speed", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--policies", default=POLICIES)
    parser.add_argument("--json", dest="save", type=Path, help="also write what became of each request")
    given = parser.parse_args()
    of = with_share(Scenario.load(given.scenario).for_gpus(given.engines), given.load)
    requests = np.concatenate(list(drawn_requests(of, given.engines, seed=given.seed, horizon=given.seconds)))
    best = plan(of, with_indicators=False).revenue_rate
    results: dict[str, np.ndarray] = {}
    rates: dict[str, Array] = {}
    for policy in given.policies.split(","):
        rows = played(of, given.scenario, policy, given.engines, requests, given.speed, given.seconds)
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
