"""A real engine's run beside its replay in the iteration model, the law calibrated from a table of iteration times.

    python -m benchmarks.true_to_engine TABLE LOG [--what-matters] [-o PICTURE]

TABLE holds iteration times of the same GPU and model (columns B, C, kv_decode, tau_ms), LOG the run, request by request
(vLLM JSONL). The options' defaults are the settings of the run in `docs/background/true-to-engines.md`.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from fluidgate.calibration import calibrate_batches, read_measurements
from fluidgate.engine_table import EngineModel
from fluidgate.model import Gpu
from fluidgate.simulation.iteration.engine import Engine
from fluidgate.simulation.iteration.law import Law, law_of
from fluidgate.simulation.iteration.logged import THROUGHPUT, LoggedRun, agreement, read_logged_run, replayed

COLUMNS = {"batch_size": "B", "chunk_size": "C", "seconds": "tau_ms", "context": "kv_decode"}
KV_BYTES_PER_TOKEN = 2 * 32 * 8 * 128 * 2
"""Llama 3.1 8B in bf16: keys and values, layers, KV heads, head dimension, bytes."""
MEMORY_BANDWIDTH = 1.008e12
"""Of an RTX 4090, bytes/s."""


FIRST = 11
"""Requests that the engine read while it was cold."""
UNSATURATED = 0.1
"""Of the run's arrival rate, at which no request of it waits for memory."""


def calibrated_law(table: str | Path, kv_bytes_per_token: float, memory_bandwidth: float, name: str = "linear") -> Law:
    """The law of `fluidgate calibrate --law NAME`, by way of the profile's rounded numbers."""
    rows = read_measurements(table, COLUMNS, unit="ms")
    made = calibrate_batches(
        rows, kv_bytes_per_token=kv_bytes_per_token, memory_bandwidth=memory_bandwidth, table=name == "table"
    )
    assert made.profile.iteration is not None
    return law_of(Gpu(batch_size=1, chunk_size=1, iteration=made.profile.iteration))


def with_keys(engine: Engine, **keys: object) -> Engine:
    return replace(engine, keys=engine.keys.model_copy(update=keys))


def what_matters(measured: LoggedRun, engine: Engine, tabulated: Law) -> None:
    """The agreement with the run when one thing is put otherwise, and asynchronous scheduling at a low load."""
    variants = {
        "nothing": engine,
        "the preempted find none of their blocks again": with_keys(engine, kv_caching=False),
        "the table itself, interpolated, in the place of the fitted law": replace(engine, law=tabulated),
        "scheduling is not asynchronous": with_keys(engine, async_scheduling=False),
    }
    statistics = [("TTFT", "mean"), ("TTFT", "p50"), ("TPOT", "mean"), ("latency", "mean"), ("latency", "p50")]
    print("\n| left out or put otherwise | " + " | ".join(f"{s} {q}" for q, s in statistics) + " | output throughput |")
    print("|---" * (len(statistics) + 2) + "|")
    for name, changed in variants.items():
        found = {
            (row.quantity, row.statistic): row
            for row in agreement(measured.summary, replayed(measured, changed).summary)
        }
        cells = [f"{100 * found[key].relative:+.1f} %" for key in (*statistics, THROUGHPUT)]
        print(f"| {name} | " + " | ".join(cells) + " |")
    ours, theirs = replayed(measured, engine).times["TTFT"], measured.times["TTFT"]
    early = [f"{times[:FIRST].min():.2f} to {times[:FIRST].max():.2f} s" for times in (theirs, ours)]
    rest = np.abs(ours[FIRST:] / theirs[FIRST:] - 1.0)
    print(f"\nTTFT of the first {FIRST} requests: measured {early[0]}, simulated {early[1]}; the others differ by ")
    print(
        f"{100 * np.median(rest):.1f} % in the median and {100 * np.quantile(rest, 0.9):.1f} % at the 90th percentile"
    )
    thin = replace(measured, arrival=measured.arrival / UNSATURATED)
    print(f"\nat {UNSATURATED:g} times the rate, s | " + " | ".join(f"{s} {q}" for q, s in statistics))
    for name in ("nothing", "scheduling is not asynchronous"):
        summary = replayed(thin, variants[name]).summary
        print(f"{name} | " + " | ".join(f"{summary[key]:.4g}" for key in statistics))


def draw(measured: LoggedRun, simulated: LoggedRun, path: str | Path) -> None:
    """Cumulative distributions of TTFT, TPOT and latency."""
    from fluidgate.reports.plots import picture, save, style

    with style():
        figure = picture(figsize=(10, 3.2), layout="constrained")
        figure.set_layout_engine("constrained", wspace=0.05)
        for axes, quantity in zip(figure.subplots(1, 3, sharey=True), measured.times, strict=True):
            for run, label, look in ((measured, "measured", "-"), (simulated, "simulated", "--")):
                times = np.sort(run.times[quantity]) * (1000 if quantity == "TPOT" else 1)
                axes.plot(times, np.arange(1, len(times) + 1) / len(times), look, lw=1.6, label=label)
            axes.set_title(f"{quantity}, {'ms' if quantity == 'TPOT' else 's'}", loc="left")
            axes.set_xlim(left=0)
        figure.axes[0].set_ylabel("share of the requests")
        figure.axes[0].legend(loc="lower right")
        save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("log", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="picture to write (.svg, .png, .pdf)")
    parser.add_argument("--kv-bytes-per-token", type=float, default=KV_BYTES_PER_TOKEN)
    parser.add_argument("--memory-bandwidth", type=float, default=MEMORY_BANDWIDTH)
    parser.add_argument("--max-num-seqs", type=int, default=256)
    parser.add_argument("--max-num-batched-tokens", type=int, default=2048)
    parser.add_argument("--kv-tokens", type=int, default=41_408)
    parser.add_argument("--block-tokens", type=int, default=16)
    parser.add_argument("--no-caching", action="store_true", help="the engine runs without prefix caching")
    parser.add_argument("--synchronous", action="store_true", help="it runs with --no-async-scheduling")
    parser.add_argument("--law", choices=["linear", "table"], default="linear")
    parser.add_argument("--what-matters", action="store_true", help="leave one thing out after the other, too")
    given = parser.parse_args()
    law, tabulated = (
        calibrated_law(given.table, given.kv_bytes_per_token, given.memory_bandwidth, name)
        for name in (given.law, "table")
    )
    keys = EngineModel(
        kv_tokens=given.kv_tokens,
        kv_block=given.block_tokens,
        kv_caching=not given.no_caching,
        async_scheduling=not given.synchronous,
    )
    engine = Engine(law, given.max_num_seqs, given.max_num_batched_tokens, keys=keys)
    measured = read_logged_run(given.log)
    replayed(measured, engine)  # compiles
    began = time.perf_counter()
    simulated = replayed(measured, engine)
    wall = time.perf_counter() - began
    print("| quantity | statistic | measured | simulated | difference |")
    print("|---|---|---|---|---|")
    for row in agreement(measured.summary, simulated.summary):
        print(
            f"| {row.quantity} | {row.statistic} | {row.measured:.4g} | {row.simulated:.4g} "
            f"| {100 * row.relative:+.1f} % |"
        )
    print(f"\n{simulated.preemptions} preemptions, {1e3 * wall:.1f} ms of wall time, overheads of a call included")
    if given.what_matters:
        what_matters(measured, engine, tabulated)
    if given.output is not None:
        draw(measured, simulated, given.output)


if __name__ == "__main__":
    main()
