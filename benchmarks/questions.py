"""The picture of README.md, three questions with their answers: `python -m benchmarks.questions DATA -o PICTURE`.

DATA is the folder of the public traces. How many GPUs: p95 of TTFT against the engines, for ten times the conversations
of Azure's trace. Which policy: the share of good requests against the GPUs, on both Azure traces. Is it true: TTFT of
the requests of a real engine's run, measured and replayed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.azure import SCALE, SCENARIO, good_share
from benchmarks.true_to_engine import KV_BYTES_PER_TOKEN, MEMORY_BANDWIDTH, calibrated_law
from fluidgate import Scenario, size
from fluidgate.engine_table import EngineModel
from fluidgate.reports.looks import line, marked
from fluidgate.reports.plots import picture, plain_ticks, save, style
from fluidgate.simulation.iteration.engine import Engine
from fluidgate.simulation.iteration.logged import read_logged_run, replayed
from fluidgate.simulation.iteration.replay import replay
from fluidgate.simulation.iteration.results import RequestResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FLEET = "examples/own-fleet.toml"
FLEET_SCALE = 10.0
LIMIT = 1.0
"""Of FLEET, p95 of TTFT, s."""
POLICIES = ("index-and-pool", "vllm-least-loaded", "vllm-round-robin")
ENGINES = (3, 4, 5, 6, 7)
GPUS = (50, 60, 70, 80, 90, 100)


def draw_fleet(axes: Axes, data: Path) -> None:
    """p95 of TTFT against the number of engines; fewer than the bound serve the load under no policy."""
    trace = data / "AzureLLMInferenceTrace_conv.csv"
    tails = []
    for engines in ENGINES:
        found = replay(FLEET, [str(trace)], POLICIES, gpus=engines, rate_scale=FLEET_SCALE)
        tails.append([each.overall.ttft.p95 for each in found.policies if isinstance(each, RequestResult)])
    for k, policy in enumerate(POLICIES):
        axes.plot(ENGINES, [tail[k] for tail in tails], lw=1.8, ms=5, label=policy, **marked(k))
    best = size(FLEET, traces=[trace], rate_scale=FLEET_SCALE).best
    assert best is not None
    least, limit = best.bound_engines, LIMIT
    axes.axvspan(least - 1, least - 0.5, color="0.88", lw=0)
    axes.text(least - 0.75, 0.28, "no policy can", rotation=90, ha="center", va="center", color="0.35",
              transform=axes.get_xaxis_transform())  # fmt: skip
    axes.axhline(limit, color="black", lw=1, ls="--")
    axes.text(ENGINES[-1], 1.1 * limit, "promised", ha="right", va="bottom")
    axes.set_yscale("log")
    plain_ticks(axes.yaxis)
    axes.set_xlim(least - 1, ENGINES[-1] + 0.2)
    axes.set_xticks(ENGINES)
    axes.set_xlabel("H100s, for the conversations of a service")
    axes.set_ylabel("p95 of the time to first token, s")
    axes.set_title("How many GPUs?", loc="left", weight="bold")


def draw_policies(axes: Axes, data: Path) -> None:
    """Share of the requests of the Azure traces that keep both targets, against the number of GPUs."""
    scenario = Scenario.load(SCENARIO)
    traces = [str(data / f"AzureLLMInferenceTrace_{name}.csv") for name in ("code", "conv")]
    shares = np.array(
        [
            [good_share(each) for each in replay(scenario, traces, POLICIES, gpus=gpus, rate_scale=SCALE).policies]
            for gpus in GPUS
        ]
    )
    for k, policy in enumerate(POLICIES):
        axes.plot(GPUS, 100.0 * shares[:, k], lw=1.8, ms=5, label=policy, **marked(k))
    axes.set_ylim(0, 102)
    axes.set_xlabel("GPUs, for two Azure services")
    axes.set_ylabel("requests within both targets, %")
    axes.set_title("Which policy?", loc="left", weight="bold")


def draw_truth(axes: Axes, data: Path) -> None:
    """TTFT of a vLLM engine on an RTX 4090, measured and replayed."""
    table = data / "rtx4090_llama31_8b_tau.csv"
    law = calibrated_law(table, KV_BYTES_PER_TOKEN, MEMORY_BANDWIDTH)
    keys = EngineModel(kv_tokens=41_408, kv_caching=True, async_scheduling=True)
    measured = read_logged_run(data / "vllm_rtx4090_llama31_8b_requests.jsonl")
    runs = {"measured": measured, "simulated": replayed(measured, Engine(law, 256, 2048, keys=keys))}
    for k, (name, run) in enumerate(runs.items()):
        times = np.sort(run.times["TTFT"])
        axes.plot(times, 100.0 * np.arange(1, len(times) + 1) / len(times), lw=1.8, label=name, **line(3 - 3 * k))
    axes.set_ylim(0, 102)
    axes.set_xlim(left=0)
    axes.set_xlabel("time to first token, s (vLLM, overloaded)")
    axes.set_ylabel("requests, %")
    axes.legend(loc="lower right")
    axes.set_title("Is it true?", loc="left", weight="bold")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="picture to write (.svg, .png, .pdf)")
    given = parser.parse_args()
    with style():
        figure = picture(figsize=(12, 3.8), layout="constrained")
        fleet, policies, truth = figure.subplots(1, 3)
        draw_fleet(fleet, given.data)
        draw_policies(policies, given.data)
        draw_truth(truth, given.data)
        handles, labels = fleet.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=len(labels), fontsize=9)
        save(figure, given.output)


if __name__ == "__main__":
    main()
