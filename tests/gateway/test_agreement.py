"""The simulator and the live system agree: one stream of requests through both, under the same policy and plan.

Bounds, where nobody leaves so that both serve all: mean decodes within 6 % and 0.1, prompts being read within 15 % and
0.03 (a request's way between gateway and engine, some ms, counts as reading), TTFT within 0.15 s, TPOT within 5 %,
revenue rate within 6 %. `python -m benchmarks.gateway_agreement` prints such a comparison of any size.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fluidgate.emulator.player import Player
from fluidgate.model import Gpu, IterationTime
from fluidgate.simulation.iteration.replay import replay
from fluidgate.simulation.iteration.results import RequestResult
from fluidgate.workloads import Trace
from fluidgate.workloads.streams import ClassTrace, Requests, drawn_requests
from tests.gateway.served import MODEL, live_gateway
from tests.scenarios import two_class_scenario

ENGINES = 2
GPU = Gpu(batch_size=8, chunk_size=256, iteration=IterationTime(alpha=0.0174, beta=6.2e-5, gamma=45.45))
BASE = two_class_scenario()
OF = BASE.replace(
    gpu=GPU,
    classes=tuple(
        each.model_copy(update={"output_tokens": tokens, "arrival_rate": 0.36, "patience_rate": 0.0})
        for each, tokens in zip(BASE.classes, (120.0, 50.0), strict=True)
    ),
)
TABLES = "[limits]\nmax_wait = 3600.0\n[replanning]\nenabled = false\n" + "".join(
    f'[[rules]]\nclass = "{name}"\nheader = {{ x-class = "{name}" }}\n' for name in OF.class_names
)


def simulated(policy: str, requests: Requests) -> RequestResult:
    """In the iteration simulator, until the last has left."""
    trace = Trace(requests["arrival"], requests["prompt"], requests["output"], None, "drawn")
    return replay(OF, [ClassTrace(trace, requests["cls"])], [policy], gpus=ENGINES).policies[0]  # type: ignore[return-value]


def served(policy: str, requests: Requests, folder: Path) -> tuple[pd.DataFrame, float]:
    """Through the gateway and emulated engines, in wall time: its log, and the seconds until the last token."""

    async def run() -> tuple[pd.DataFrame, float]:
        async with live_gateway(folder, engines=ENGINES, speed=1.0, of=OF, policy=policy, more=TABLES) as live:
            played = await Player(live.url, MODEL, tuple(OF.class_names), leaves="never").play(requests)
            await live.until(lambda: len(live.records()) == len(requests))
            return pd.DataFrame(live.records()), float(played["last"].max())

    return asyncio.run(run())


@pytest.mark.parametrize("policy", ["gate-and-route", "index-and-pool"])
def test_occupancies_revenue_and_latencies(policy: str, tmp_path: Path) -> None:
    requests = np.concatenate(list(drawn_requests(OF, ENGINES, seed=5, horizon=12.0)))
    requests["arrival"] -= requests["arrival"][0]
    sim = simulated(policy, requests)
    log, seconds = served(policy, requests, tmp_path)
    assert (log["outcome"] == "completed").all()
    decoding = log["last_token"] - log["first_token"]
    for each in sim.classes:
        live = log[log["class"] == each.name]
        assert len(live) == (requests["cls"] == OF.class_names.index(each.name)).sum()

        def held(since: pd.Series | float, until: pd.Series) -> float:
            """Requests per GPU between two events of theirs, by Little's law."""
            return float((until - since).sum() / seconds / ENGINES)

        decodes = each.mixed_decode.mean + each.solo_decode.mean
        assert held(live["decode_start"], live["last_token"]) == pytest.approx(decodes, abs=0.06 * decodes + 0.1)
        reading = held(live["prefill_start"], live["prompt_read"])
        assert reading == pytest.approx(each.prefill.mean, abs=0.15 * each.prefill.mean + 0.03)
        waiting = each.prefill_queue.mean
        assert held(0.0, live["prefill_start"]) == pytest.approx(waiting, abs=0.25 * waiting + 0.1)
        assert held(live["prompt_read"], live["decode_start"]) == pytest.approx(each.decode_queue.mean, abs=0.1)
        assert live["first_token"].mean() == pytest.approx(each.ttft.mean, abs=0.15)
        several = live["output_tokens"] > 1
        tpot = (decoding[live.index] / (live["output_tokens"] - 1))[several].mean()
        assert tpot == pytest.approx(each.tpot.mean, rel=0.05)
    earned = OF.pricing.prompt * log["prompt_tokens"] + OF.pricing.output * log["output_tokens"]
    assert earned.sum() / seconds / ENGINES == pytest.approx(sim.revenue_rate.mean, rel=0.06)
