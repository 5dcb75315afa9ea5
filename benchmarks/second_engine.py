"""Runs of transformers' continuous batching beside their replays, under laws from iterations of other runs.

    python -m benchmarks.second_engine [FOLDER]

FOLDER is `examples/h100`: logs of requests and of iterations, and what the probe measured on the same card.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fluidgate.calibration import calibrate_batches, read_measurements
from fluidgate.engine_table import EngineModel
from fluidgate.model import Gpu
from fluidgate.simulation.iteration.engine import Engine
from fluidgate.simulation.iteration.law import Law, law_of
from fluidgate.simulation.iteration.logged import THROUGHPUT, agreement, read_logged_run, replayed

HERE = Path(__file__).parents[1] / "examples" / "h100"
KV_BYTES_PER_TOKEN = 2 * 32 * 8 * 128 * 2
"""Llama 3.1 8B in bf16: keys and values, layers, KV heads, head dimension, bytes."""
MEMORY_BANDWIDTH = 3.35e12
"""Of an H100 SXM by its data sheet, bytes/s."""
PROBE = "probe-llama-3.1-8b"
STATISTICS = [*((q, s) for q in ("TTFT", "TPOT") for s in ("mean", "p50", "p90", "p99")), THROUGHPUT]


class Prediction(NamedTuple):
    """A law and the run that it is tried on.

    Attributes:
        source: run whose iterations the law was fitted to, or the probe's file.
        run: requests that are replayed.
        ahead: batches are composed an iteration ahead in the replay.
    """

    source: str
    run: str
    ahead: bool

    def errors(self, folder: Path) -> dict[tuple[str, str], float]:
        """Simulated over measured, less 1, by quantity and statistic."""
        keys = EngineModel(kv_tokens=131_072, kv_block=256, async_scheduling=self.ahead)
        run = read_logged_run(folder / f"{self.run}.jsonl.gz")
        simulated = replayed(run, Engine(law(folder, self.source), 64, 1024, keys=keys))
        return {(row.quantity, row.statistic): row.relative for row in agreement(run.summary, simulated.summary)}


PREDICTIONS = (
    Prediction("ahead-20", "ahead-14", True),
    Prediction("ahead-14", "ahead-14", True),
    Prediction("ahead-8", "ahead-14", True),
    Prediction("ahead-20", "ahead-14", False),
    Prediction("ahead-14", "ahead-20", True),
    Prediction("ahead-20", "ahead-8", True),
    Prediction("in-step-8", "in-step-8", False),
    Prediction("in-step-8", "in-step-14", False),
    Prediction(PROBE, "ahead-14", True),
)


def law(folder: Path, source: str) -> Law:
    """The law of `fluidgate calibrate --law linear`, or the table of the probe's rows (`--law table`)."""
    table = source == PROBE
    name = f"{source}.csv.gz" if table else f"{source}-iterations.csv.gz"
    rows = read_measurements(folder / name, {"batch_size": "requests"} if table else None)
    made = calibrate_batches(
        rows, kv_bytes_per_token=KV_BYTES_PER_TOKEN, memory_bandwidth=MEMORY_BANDWIDTH, table=table
    )
    assert made.profile.iteration is not None
    return law_of(Gpu(batch_size=1, chunk_size=1, iteration=made.profile.iteration))


def lines(folder: Path) -> Iterator[str]:
    """The table, a row a prediction."""
    yield "| law from | run | ahead | " + " | ".join(f"{s} {q}" for q, s in STATISTICS[:-1]) + " | tokens/s |"
    yield "|---" * (len(STATISTICS) + 3) + "|"
    for each in PREDICTIONS:
        errors = each.errors(folder)
        cells = " | ".join(f"{100 * errors[key]:+.1f}" for key in STATISTICS)
        yield f"| `{each.source}` | `{each.run}` | {'yes' if each.ahead else 'no'} | {cells} |"


def main() -> None:
    for line in lines(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE):
        print(line)


if __name__ == "__main__":
    main()
