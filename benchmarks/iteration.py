"""Speed and memory of the iteration kernel beside Dynamo's simulator: `python -m benchmarks.iteration [PYTHON]`.

The same requests for both, in one run: conversation-like (1,200 prompt and 200 output tokens on average, exponential),
Poisson at 80 % of what the GPUs can carry, token budget 8,192, round robin. PYTHON is that of an environment with
`ai-dynamo` 1.4.2, this one if none is given; without it only ours is measured. The two differ in their models of a
GPU, so read the ratios as orders of magnitude.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.random import Generator

from benchmarks.dynamo import has_dynamo, replay, write_trace
from fluidgate.simulation.iteration.engine import Engine
from fluidgate.simulation.iteration.law import linear_law
from fluidgate.simulation.iteration.measure import IterationMeasurement
from fluidgate.simulation.iteration.rules import Placements
from fluidgate.simulation.iteration.run import Run, run_requests
from fluidgate.workloads.streams import REQUEST, Requests

ROUNDS = 3
PROMPT, OUTPUT = 1200.0, 200.0
LAW = {"alpha": 0.0174, "beta": 6.2e-5, "delta": 3e-5, "epsilon": 2e-8}
ENGINE = Engine(linear_law(**LAW), batch_size=256, tokens=8192)
BLOCK = 65_536
STREAMS = (1_000_000, 2_000_000, 4_000_000, 8_000_000, 16_000_000)
"""Requests, for memory and time as a stream grows."""


def main() -> None:
    python = sys.argv[1] if len(sys.argv) > 1 else sys.executable
    rate = 0.8 * capacity()
    print(
        f"{rate:.2f} requests/s per GPU, 80 % of {capacity():.2f}; requests/s of wall time, best of {ROUNDS} rounds\n"
    )
    print(f"{'GPUs':>6} {'ours':>12} {'us a request':>13} {'bytes a live request':>21} {'ai-dynamo':>10} {'ratio':>7}")
    peer_is_there = has_dynamo(python)
    for gpus, count, peer_count in ((16, 1_000_000, 20_000), (128, 2_000_000, 20_000), (1000, 4_000_000, 20_000)):
        best, measured = fastest(gpus, count, rate)
        line = f"{gpus:>6} {best:>12,.0f} {1e6 / best:>13.2f} {bytes_a_request(measured):>21.0f}"
        if peer_is_there:
            peer = dynamo(python, gpus, peer_count, rate)
            line += f" {peer:>10,.0f} {best / peer:>7.0f}"
        print(line, flush=True)
    if not peer_is_there:
        print("\nai-dynamo is not installed in", python)
    for gpus in (128, 1000):
        stream_through(gpus, rate)


def stream_through(gpus: int, rate: float) -> None:
    """Print memory and time as the stream grows, and their slopes over the last doubling."""
    print(f"\n{gpus} GPUs, a longer and longer stream:")
    print(
        f"{'requests':>12} {'simulated h':>12} {'alive at once':>14} {'state, MiB':>11} {'process, MiB':>13} {'s':>7}"
    )
    told = []
    for count in STREAMS:
        began = time.perf_counter()
        measured = run(gpus, count, rate)
        wall = time.perf_counter() - began
        hours, state = measured.window / 3600, measured.bytes_held / 2**20
        told.append((count / 1e6, resident(), wall))
        line = f"{count:>12,} {hours:>12.2f} {measured.most_alive:>14,} {state:>11.1f} {resident():>13.1f} {wall:>7.1f}"
        print(line, flush=True)
    (few, before, short), (many, after, long) = told[-2:]
    print(
        f"  {(after - before) / (many - few):.2f} MiB and {(long - short) / (many - few):.2f} s a million requests more"
    )


def capacity() -> float:
    """Requests/s a GPU at which its batch, of the mean size, fills all slots."""
    low, high = 0.0, 1.0 / (LAW["beta"] * PROMPT)
    for _ in range(60):
        rate = 0.5 * (low + high)
        decodes = float(ENGINE.batch_size)
        context = decodes * (PROMPT + 0.5 * OUTPUT)
        fixed = LAW["alpha"] + LAW["delta"] * decodes + LAW["epsilon"] * context
        seconds = fixed / (1.0 - rate * LAW["beta"] * PROMPT)
        low, high = (rate, high) if rate * OUTPUT * seconds < decodes else (low, rate)
    return low


def stream(count: int, rate: float, seed: int = 0) -> Iterator[Requests]:
    """`count` requests at `rate` a second, a block at a time."""
    rng = np.random.default_rng(seed)
    epoch = 0.0
    while count > 0:
        block = requests(rng, min(count, BLOCK), rate, epoch)
        epoch = float(block["arrival"][-1])
        count -= len(block)
        yield block


def requests(rng: Generator, count: int, rate: float, since: float) -> Requests:
    block = np.zeros(count, REQUEST)
    block["arrival"] = since + np.cumsum(rng.exponential(1.0 / rate, count))
    block["prompt"] = np.ceil(rng.exponential(PROMPT, count))
    block["output"] = np.ceil(rng.exponential(OUTPUT, count))
    block["patience"] = np.inf
    return block


def run(gpus: int, count: int, rate: float) -> IterationMeasurement:
    return run_requests(stream(count, rate * gpus), ENGINE, Run(gpus, 1), Placements())


def fastest(gpus: int, count: int, rate: float) -> tuple[float, IterationMeasurement]:
    """Requests/s of wall time, drawing the requests included."""
    run(gpus, 1000, rate)
    best = 0.0
    for _ in range(ROUNDS):
        began = time.perf_counter()
        measured = run(gpus, count, rate)
        best = max(best, count / (time.perf_counter() - began))
    assert measured.completions.sum() == count
    return best, measured


def bytes_a_request(measured: IterationMeasurement) -> float:
    """Memory of the state, but for its histograms, for each request alive at the busiest moment."""
    return (measured.bytes_held - measured.histograms.nbytes) / measured.most_alive


def resident() -> float:
    """Memory of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def dynamo(python: str, gpus: int, count: int, rate: float) -> float:
    """Requests/s of wall time of `python -m dynamo.replay` on the same requests, by its own clock."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.jsonl"
        write_trace(trace, next(stream(count, rate * gpus)))
        told = replay(python, trace, gpus)
        return count / (float(told["wall_time_ms"]) / 1000)


if __name__ == "__main__":
    main()
