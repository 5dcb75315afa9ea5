"""The published policies beside each other: `python -m benchmarks.published [REQUESTS]`.

Conversation-like requests (as in `benchmarks.iteration`) on 16 GPUs at 50, 70 and 85 % of what mixed batching carries,
the same for every policy. TTFT within 2 s and TPOT within 60 ms count for goodput. KV goes at 64 KiB a token over
50 GB/s and 1 ms. The prompt pools have the best size by simulation of a tenth of the requests.

Then SLAI beside round robin under budgets of some hundred tokens, with a TPOT target of 200 ms, and beside both again
with an offset of one iteration instead of two.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

from benchmarks.iteration import ENGINE, capacity, stream
from fluidgate.engine_table import EngineModel
from fluidgate.policies import PLACED, PlacedPolicy
from fluidgate.simulation.iteration.engine import Engine
from fluidgate.simulation.iteration.measure import IterationMeasurement
from fluidgate.simulation.iteration.published import best_prompt_gpus, run_published
from fluidgate.simulation.iteration.run import Run

GPUS = 16
TRANSFER = EngineModel(transfer_latency=1e-3, transfer_bandwidth=50e9 / (64 * 1024))
HEADER = "| policy | TTFT p50 | p99 | TPOT p50 | p99 | goodput |\n|---|---|---|---|---|---|"


def cluster(tokens: int, tpot: float) -> tuple[Engine, Run]:
    """GPUs with a budget of `tokens`, and a run with that TPOT target, s."""
    engine = replace(ENGINE, keys=TRANSFER, tokens=tokens, token_deadline=tpot)
    return engine, Run(GPUS, 1, ttft_targets=(2.0,), tpot_targets=(tpot,))


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    engine, run = cluster(8192, 0.06)
    for load in (0.5, 0.7, 0.85):
        rate = load * capacity() * GPUS
        print(f"\n{100 * load:.0f} % load, {rate:.1f} requests/s; times in ms, goodput in requests/s\n\n{HEADER}")
        for policy in PLACED.values():
            fitted = policy
            if policy.has_pools:
                size, _ = best_prompt_gpus(lambda rate=rate: stream(count // 10, rate), engine, run, policy)
                fitted = policy.with_parameters({"prompt_gpus": size})
            print(row(fitted, run_published(stream(count, rate), engine, run, fitted)), flush=True)
    for tokens, load in ((256, 0.3), (256, 0.4), (512, 0.5), (512, 0.6)):
        engine, run = cluster(tokens, 0.2)
        rate = load * capacity() * GPUS
        print(f"\nbudget {tokens} tokens, {100 * load:.0f} % load, {rate:.1f} requests/s\n\n{HEADER}")
        for policy in small_budget_policies():
            print(row(policy, run_published(stream(count, rate), engine, run, policy)), flush=True)


def small_budget_policies() -> Iterator[PlacedPolicy]:
    yield PLACED["vllm-round-robin"]
    yield PLACED["slai"]
    yield PLACED["slai"].with_parameters({"offset": 1.0})


def row(policy: PlacedPolicy, measured: IterationMeasurement) -> str:
    """A line of the table."""
    times = [
        1e3 * (measured.distribution(name).quantile(share) or 0.0) for name in ("ttft", "tpot") for share in (0.5, 0.99)
    ]
    cells = " | ".join(f"{value:,.0f}" for value in times)
    goodput = float(measured.within_targets.sum()) / measured.window
    return f"| `{policy.name}`{note(policy)} | {cells} | {goodput:.1f} |"


def note(policy: PlacedPolicy) -> str:
    """What a reader must know of the parameters."""
    size, offset = policy.values.get("prompt_gpus"), policy.settings.get("offset")
    if size:
        return f" ({size} + {GPUS - int(size)})"
    return "" if offset is None else f" (offset {offset:g})"


if __name__ == "__main__":
    main()
