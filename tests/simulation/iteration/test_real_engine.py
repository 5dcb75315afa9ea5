"""A real run of vLLM, request by request, replayed with the engine's own settings and its GPU's own iteration times."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluidgate.simulation.iteration.engine import Engine, KvMemory
from fluidgate.simulation.iteration.law import table_law
from fluidgate.simulation.iteration.measure import IterationMeasurement
from fluidgate.simulation.iteration.run import Run, run_placed
from fluidgate.workloads.streams import REQUEST

DATA = Path(__file__).parents[3].parent / "shared" / "data"
TIMES = DATA / "rtx4090_llama31_8b_tau.csv"
LOGGED = DATA / "vllm_rtx4090_llama31_8b_requests.jsonl"

KV_BYTES = 32 * 2 * 8 * 128 * 2  # a token: layers, keys and values, heads, head size, bytes (Llama-3.1-8B, bf16)
BANDWIDTH = 1.008e12  # bytes/s of that GPU


@pytest.fixture(scope="module")
def logged() -> list[dict[str, Any]]:
    if not (TIMES.exists() and LOGGED.exists()):
        pytest.skip("the measured run is not at ../shared/data")
    rows = [json.loads(line) for line in LOGGED.read_text().splitlines()]
    return sorted(rows, key=lambda row: float(row["queued_ts"]))


@pytest.fixture(scope="module")
def simulated(logged: list[dict[str, Any]]) -> IterationMeasurement:
    requests = np.zeros(len(logged), REQUEST)
    requests["arrival"] = np.array([row["queued_ts"] for row in logged]) - logged[0]["queued_ts"]
    requests["prompt"] = [row["input_toks"] for row in logged]
    requests["output"] = [row["output_toks"] for row in logged]
    requests["patience"] = np.inf
    with TIMES.open() as file:
        times = {(int(row["C"]), int(row["B"])): float(row["tau_ms"]) / 1000 for row in csv.DictReader(file)}
    chunks, batches = sorted({c for c, _ in times}), sorted({b for _, b in times})
    table = [[times[c, b] for b in batches] for c in chunks]
    law = table_law(chunks, batches, table, epsilon=KV_BYTES / BANDWIDTH, context=1024)
    engine = Engine(law, batch_size=256, tokens=2048, kv=KvMemory(41_408, 16, caching=True))
    return run_placed([requests], engine, Run(1, 1))


@pytest.mark.parametrize("quantity", ["ttft", "tpot", "latency", "prefill_wait"])
def test_times_are_those_measured(quantity: str, logged: list[dict[str, Any]], simulated: IterationMeasurement) -> None:
    since = {"tpot": "first_token_ts"}.get(quantity, "queued_ts")
    until = {"ttft": "first_token_ts", "prefill_wait": "scheduled_ts"}.get(quantity, "last_token_ts")
    tokens = [row["output_toks"] - 1 if quantity == "tpot" else 1 for row in logged]
    measured = [(row[until] - row[since]) / n for row, n in zip(logged, tokens, strict=True) if n > 0]
    found = simulated.distribution(quantity)
    assert found.mean == pytest.approx(np.mean(measured), rel=0.05)
    for share, within in ((0.5, 0.05), (0.9, 0.1), (0.99, 0.1)):
        assert found.quantile(share) == pytest.approx(np.quantile(measured, share), rel=within)


def test_the_throughput_is_that_measured(logged: list[dict[str, Any]], simulated: IterationMeasurement) -> None:
    seconds = max(row["last_token_ts"] for row in logged) - logged[0]["queued_ts"]
    assert simulated.output_tokens.sum() / simulated.window == pytest.approx(
        sum(row["output_toks"] for row in logged) / seconds, rel=0.05
    )
    assert simulated.preemptions.sum() > 0
