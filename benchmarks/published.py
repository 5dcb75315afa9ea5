"""The published policies beside each other: `python -m benchmarks.published [REQUESTS]`.

Conversation-like requests (as in `benchmarks.iteration`) on 16 GPUs at 50, 70 and 85 % of what mixed batching carries,
the same for every policy. TTFT within 2 s and TPOT within 60 ms count for goodput. KV goes at 64 KiB a token over
50 GB/s and 1 ms. The prompt pools have the best size by simulation of a tenth of the requests.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace

from benchmarks.iteration import ENGINE, capacity, stream
from fluidgate.simulation.iteration.engine import Transfer
from fluidgate.simulation.iteration.published import PUBLISHED, best_prompt_gpus, run_published
from fluidgate.simulation.iteration.run import Run
from fluidgate.workloads.streams import Requests

GPUS = 16
RUN = Run(GPUS, 1, ttft_targets=(2.0,), tpot_targets=(0.06,))
CLUSTER = replace(ENGINE, transfer=Transfer(1e-3, 64 * 1024 / 50e9))


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    for load in (0.5, 0.7, 0.85):
        rate = load * capacity() * GPUS
        print(f"\n{100 * load:.0f} % load, {rate:.1f} requests/s; times in ms, goodput in requests/s\n")
        print("| policy | TTFT p50 | p99 | TPOT p50 | p99 | goodput |\n|---|---|---|---|---|---|")
        for published in PUBLISHED.values():
            size = None
            if published.has_pools:
                size, _ = best_prompt_gpus(lambda rate=rate: requests(count // 10, rate), CLUSTER, RUN, published)
            measured = run_published(requests(count, rate), CLUSTER, RUN, published, prompt_gpus=size)
            times = [
                1e3 * (measured.distribution(name).quantile(share) or 0.0)
                for name in ("ttft", "tpot")
                for share in (0.5, 0.99)
            ]
            name = f"`{published.name}`" + (f" ({size} + {GPUS - size})" if size else "")
            cells = " | ".join(f"{value:,.0f}" for value in times)
            goodput = float(measured.within_targets.sum()) / measured.window
            print(f"| {name} | {cells} | {goodput:.1f} |", flush=True)


def requests(count: int, rate: float) -> Iterable[Requests]:
    return stream(count, rate)


if __name__ == "__main__":
    main()
