"""What a real engine said of itself by the second, beside its replay: requests that run and wait, KV memory taken.

    python -m benchmarks.engine_series SCENARIO LOG SERIES [-o PICTURE]

SCENARIO is the engine (`examples/vllm-rtx4090.toml`), LOG its run request by request, SERIES the run by the second
(columns t, gen_throughput, running, waiting, kv_cache_pct). Nothing is fitted to SERIES.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np

from fluidgate.batching import Batching
from fluidgate.model import Array, Scenario
from fluidgate.policies.decisions import stages
from fluidgate.scenario_file import load_scenario
from fluidgate.simulation.iteration.logged import LoggedRun, read_logged_run
from fluidgate.simulation.iteration.rules import Placements
from fluidgate.simulation.iteration.run import Run, run_requests
from fluidgate.simulation.iteration.scenario_engine import engine_of
from fluidgate.simulation.iteration.what_ran import TERMS, WhatRan
from fluidgate.workloads.streams import REQUEST

Series = dict[str, Array]
"""By name, a value a second."""

RUNNING, WAITING, KV, TOKENS = "running", "waiting", "KV memory, %", "output tokens/s"
IN_BATCH = [stages.PREFILL, stages.MIXED_DECODE, stages.SOLO_DECODE]
DECODES = [TERMS.index("decodes beside them"), TERMS.index("solo decodes")]


def measured(path: str | Path) -> tuple[Array, Series]:
    """Epochs, s, and what the engine said then."""
    with Path(path).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = {RUNNING: "running", WAITING: "waiting", KV: "kv_cache_pct", TOKENS: "gen_throughput"}
    found = {name: np.array([float(row[column]) for row in rows]) for name, column in names.items()}
    return np.array([float(row["t"]) for row in rows]), found


def simulated(scenario: Scenario, run: LoggedRun, seconds: Array) -> Series:
    """The same of the replay, at whole seconds from the first arrival."""
    requests = np.zeros(len(run.arrival), REQUEST)
    requests["arrival"], requests["prompt"], requests["output"] = run.arrival, run.prompt, run.output
    requests["patience"] = np.inf
    segments: list[Any] = []
    end = float(seconds[-1])
    found = run_requests(
        [requests],
        engine_of(scenario, Batching.TOKEN_BUDGET),
        Run(1, 1, samples=int(end) + 1, sample_over=end),
        Placements(),
        take_segments=segments.append,
    )
    what, place = WhatRan.of(segments), seconds.astype(int)
    engine = scenario.engine
    blocks = (engine.kv_tokens or 0) // engine.kv_block
    counts = np.zeros((int(end) + 1, stages.STAGES))
    counts[: len(found.samples)] = found.samples[:, :, 0]
    tokens = (what.by(seconds) - what.by(seconds - 1.0))[:, DECODES].sum(axis=1)
    return {
        RUNNING: counts[place][:, IN_BATCH].sum(axis=1),
        WAITING: counts[place][:, stages.PREFILL_QUEUE],
        KV: 100.0 * what.at(seconds, "blocks") / max(blocks, 1),
        TOKENS: tokens,
    }


def draw(seconds: Array, theirs: Series, ours: Series, path: str | Path) -> None:
    from fluidgate.reports.plots import picture, save, style

    with style():
        figure = picture(figsize=(10, 5.2), layout="constrained")
        for axes, name in zip(figure.subplots(2, 2, sharex=True).flat, theirs, strict=True):
            axes.plot(seconds, theirs[name], lw=1.4, label="the engine")
            axes.plot(seconds, ours[name], "--", lw=1.4, label="its replay")
            axes.set_title(name, loc="left")
            axes.set_ylim(bottom=0)
        for axes in figure.axes[2:]:
            axes.set_xlabel("s since the first request")
        figure.axes[1].legend(loc="upper right")
        save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", type=Path)
    parser.add_argument("log", type=Path)
    parser.add_argument("series", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="picture to write (.svg, .png, .pdf)")
    given = parser.parse_args()
    seconds, theirs = measured(given.series)
    ours = simulated(load_scenario(given.scenario), read_logged_run(given.log), seconds)
    print("| by the second | measured, mean | simulated | difference | mean size of it, a second | correlation |")
    print("|---|---|---|---|---|---|")
    for name, values in theirs.items():
        off = ours[name] - values
        related = np.corrcoef(ours[name], values)[0, 1]
        print(
            f"| {name} | {values.mean():.4g} | {ours[name].mean():.4g} | {100 * off.mean() / values.mean():+.1f} % "
            f"| {np.abs(off).mean():.3g} | {related:.3f} |"
        )
    if given.output is not None:
        draw(seconds, theirs, ours, given.output)


if __name__ == "__main__":
    main()
