"""The schedule of an engine's iterations is that of the iteration simulator, request by request."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fluidgate.engine.kv_cache import KvCache
from fluidgate.engine.metrics import EngineMetrics
from fluidgate.engine.request import EngineRequest
from fluidgate.engine.scheduler import Scheduler
from fluidgate.engine.settings import BLOCK, EngineSettings
from fluidgate.model import Gpu, IterationTime, Pricing, RequestClass, Scenario
from fluidgate.simulation.requests.replay import replay
from fluidgate.workloads.streams import ClassTrace
from fluidgate.workloads.traces import Trace

LAWS = {
    "paper": IterationTime(alpha=0.0174, beta=6.2e-5, gamma=45.45),
    "by batch": IterationTime(alpha=0.009, beta=9.3e-5, delta=2.4e-4, epsilon=1.3e-7, solo_alpha=0.017),
}
FAR = 1e9
Rows = list[tuple[float, int, int]]


def rows(seed: int, requests: int = 300) -> Rows:
    """Arrivals, prompts and outputs that keep one GPU of 8 slots busy, with idle times between."""
    random = np.random.default_rng(seed)
    gaps = random.exponential(0.35, requests) * np.where(random.random(requests) < 0.1, 20.0, 0.3)
    prompt = random.geometric(1 / 300.0, requests)
    output = random.geometric(1 / 40.0, requests)
    return [(float(a), int(p), int(d)) for a, p, d in zip(np.cumsum(gaps), prompt, output, strict=True)]


def emulated(requests: Rows, settings: EngineSettings) -> list[EngineRequest]:
    scheduler = made(settings)
    served = []
    for number, (arrival, prompt, output) in enumerate(requests):
        request = EngineRequest(str(number), b"%d" % number, prompt, output, arrival=arrival, since=arrival)
        assert scheduler.advance(arrival, 10**9)
        scheduler.add(request)
        served.append(request)
    assert scheduler.advance(FAR, 10**9)
    assert scheduler.running == scheduler.waiting == 0
    return served


def made(settings: EngineSettings) -> Scheduler:
    return Scheduler(settings, KvCache(settings), EngineMetrics(settings.speed))


def simulated(requests: Rows, gpu: Gpu, policy: str) -> Any:
    scenario = Scenario(
        name="one",
        gpu=gpu,
        pricing=Pricing(scheme="bundled", prompt=1.0, output=1.0),
        classes=(RequestClass(name="all", prompt_tokens=300, output_tokens=40, arrival_rate=0.5, patience_rate=0.0),),
    )
    arrival, prompt, output = (np.array(column) for column in zip(*requests, strict=True))
    trace = ClassTrace(Trace(arrival, prompt, output, None, "one"), np.zeros(len(arrival), np.int64))
    log: list[Any] = []
    replay(scenario, [trace], [policy], gpus=1, take_log=lambda _policy, _replication, part: log.append(part.copy()))
    return np.sort(np.concatenate(log), order="number")


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("batching", "policy"), [("single-prefill", "fi-wsp"), ("token-budget", "vllm-round-robin")])
def test_it_is_the_schedule_of_the_simulator(law: str, batching: Any, policy: str) -> None:
    gpu = Gpu(batch_size=8, chunk_size=128, iteration=LAWS[law])
    requests = rows(seed=1)
    log = simulated(requests, gpu, policy)
    served = emulated(requests, EngineSettings(gpu, batching=batching))
    start = requests[0][0]
    assert len(log) == len(served)
    for name in ("first_token", "last_token"):
        ours = np.array([getattr(request, name) for request in served]) - start
        np.testing.assert_allclose(ours, log[name] - log["arrival"][0], rtol=0, atol=1e-6)
    started = np.array([request.started for request in served]) - start
    np.testing.assert_allclose(started, log["scheduled"] - log["arrival"][0], rtol=0, atol=1e-6)
