"""The schedule of an engine's iterations is that of the iteration simulator, request by request."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fluidgate.emulator.kv_cache import KvCache
from fluidgate.emulator.metrics import EngineMetrics, Reading, page
from fluidgate.emulator.prompt import BLOCK, token_prompt
from fluidgate.emulator.ranks import Rank, RanksInStep
from fluidgate.emulator.request import EngineRequest
from fluidgate.emulator.scheduler import Scheduler
from fluidgate.emulator.settings import EngineSettings
from fluidgate.errors import FluidgateError
from fluidgate.model import EngineModel, Gpu, IterationTime, Pricing, RequestClass, Scenario
from fluidgate.simulation.iteration.replay import replay
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
    ranks = settings.data_parallel
    scheduler = made(settings) if ranks == 1 else RanksInStep([Rank.of(settings) for _ in range(ranks)])
    served = []
    for number, (arrival, prompt, output) in enumerate(requests):
        text = token_prompt([number] * prompt)
        request = EngineRequest(str(number), text.key, prompt, output, arrival=arrival, since=arrival, text=text)
        assert scheduler.advance(arrival, 10**9)
        scheduler.add(request)
        served.append(request)
    assert scheduler.advance(FAR, 10**9)
    assert scheduler.running == scheduler.waiting == 0
    return served


def made(settings: EngineSettings) -> Scheduler:
    return Scheduler(settings, KvCache(settings), EngineMetrics(settings.speed))


def simulated(requests: Rows, gpu: Gpu, policy: str, ranks: int = 1, **engine: Any) -> Any:
    scenario = Scenario(
        name="one",
        gpu=gpu,
        pricing=Pricing(scheme="bundled", prompt=1.0, output=1.0),
        classes=(RequestClass(name="all", prompt_tokens=300, output_tokens=40, arrival_rate=0.5, patience_rate=0.0),),
        engine=EngineModel(data_parallel=ranks, **engine),
    )
    arrival, prompt, output = (np.array(column) for column in zip(*requests, strict=True))
    trace = ClassTrace(Trace(arrival, prompt, output, None, "one"), np.zeros(len(arrival), np.int64))
    log: list[Any] = []
    replay(
        scenario, [trace], [policy], gpus=ranks, take_log=lambda _policy, _replication, part: log.append(part.copy())
    )
    return np.sort(np.concatenate(log), order="number")


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    ("batching", "policy", "ranks"),
    [
        ("single-prefill", "fi-wsp", 1),
        ("token-budget", "vllm-round-robin", 1),
        ("token-budget", "vllm-round-robin", 2),
        ("token-budget", "vllm-round-robin", 3),
    ],
)
def test_it_is_the_schedule_of_the_simulator(law: str, batching: Any, policy: str, ranks: int) -> None:
    """That of several ranks too, each request on the same one."""
    gpu = Gpu(batch_size=8, chunk_size=128, iteration=LAWS[law])
    # the clock of a replay begins with the first arrival: a whole second apart, counts are published at the same times
    first = 1.0
    drawn = rows(seed=1)
    requests = [(first + (arrival - drawn[0][0]) / ranks, *lengths) for arrival, *lengths in drawn]
    log = simulated(requests, gpu, policy, ranks)
    served = emulated(requests, EngineSettings(gpu, batching=batching, data_parallel=ranks))
    start = requests[0][0]
    assert [request.rank for request in served] == (log["prefill_gpu"].tolist() if ranks > 1 else [0] * len(log))
    assert len(log) == len(served)
    for name in ("first_token", "last_token"):
        ours = np.array([getattr(request, name) for request in served]) - start
        np.testing.assert_allclose(ours, log[name] - log["arrival"][0], rtol=0, atol=1e-6)
    started = np.array([request.started for request in served]) - start
    np.testing.assert_allclose(started, log["scheduled"] - log["arrival"][0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("caching", [False, True])
@pytest.mark.parametrize("kv_tokens", [2304, 1600])
def test_it_is_the_schedule_of_the_simulator_where_memory_runs_short(kv_tokens: int, caching: bool) -> None:
    """Who is preempted, and what of its KV is there when it joins again."""
    gpu = Gpu(batch_size=8, chunk_size=128, iteration=LAWS["by batch"])
    requests = [(arrival, min(prompt, 1000), min(output, 200)) for arrival, prompt, output in rows(seed=1)]
    log = simulated(requests, gpu, "vllm-round-robin", kv_tokens=kv_tokens, kv_caching=caching)
    limits = {"kv_tokens": kv_tokens, "max_model_len": 1250, "prefix_caching": caching}
    served = emulated(requests, EngineSettings(gpu, batching="token-budget", **limits))
    assert sum(request.preempted for request in served) > 10
    for name in ("first_token", "last_token"):
        ours = np.array([getattr(request, name) for request in served]) - requests[0][0]
        np.testing.assert_allclose(ours, log[name] - log["arrival"][0], rtol=0, atol=1e-6)


def test_each_rank_has_its_series_in_the_metrics() -> None:
    settings = EngineSettings(SMALL, data_parallel=2)
    ranks = [Rank.of(settings) for _ in range(2)]
    both = RanksInStep(ranks)
    for name in "abc":
        both.add(request(name))
    both.advance(0.05, 10)
    assert [each.scheduler.running + each.scheduler.waiting for each in ranks] == [2, 1]
    readings = [Reading(each.metrics, {"num_requests_running": each.scheduler.running}, 0, {}) for each in ranks]
    shown = page("m", readings)
    assert shown.count("# TYPE vllm:num_requests_running gauge") == 1
    assert 'vllm:num_requests_running{engine="0",model_name="m"} 1.0' in shown
    assert 'vllm:num_requests_running{engine="1",model_name="m"} 1.0' in shown
    both.advance(FAR, 1000)
    assert [each.metrics.generation_tokens for each in ranks] == [4, 2]
    with pytest.raises(FluidgateError, match="data_parallel is emulated with kinds vllm and openai"):
        EngineSettings(SMALL, data_parallel=2, kind="sglang")


SMALL = Gpu(batch_size=3, chunk_size=64, iteration=IterationTime(alpha=0.02, beta=1e-3, gamma=100.0))


def request(name: str, prompt: int = 100, output: int = 2, arrival: float = 0.0, **more: Any) -> EngineRequest:
    text = token_prompt([ord(name)] * prompt)
    return EngineRequest(name, text.key, prompt, output, arrival=arrival, since=arrival, text=text, **more)


def run(scheduler: Scheduler, *requests: EngineRequest) -> None:
    for each in requests:
        assert scheduler.advance(each.since, 1000)
        scheduler.add(each)
    assert scheduler.advance(FAR, 1000)


def test_a_prompt_in_the_cache_is_decoded_beside_the_prefill_of_another() -> None:
    scheduler = made(EngineSettings(SMALL))
    first = request("a", output=1, remote_decode=True)
    run(scheduler, first)
    assert first.prompt_read == pytest.approx(0.084 + 0.056)  # chunks of 64 and 36
    again, other = request("a", arrival=1.0), request("b", arrival=0.999)
    run(scheduler, other, again)
    assert again.cached == 96
    assert other.started == 0.999
    assert again.started == pytest.approx(0.999 + 0.084)
    assert again.first_token == other.prompt_read == pytest.approx(again.started + 0.02 + (36 + 4) * 1e-3)
    assert scheduler.occupancy.prefill == pytest.approx(0.14 + 0.084 + 0.06)
    assert scheduler.occupancy.mixed_decode == pytest.approx(0.06)
    assert scheduler.occupancy.solo_decode == pytest.approx(2 * 0.01 + 0.01)


def test_without_prefix_caching_every_prompt_is_read() -> None:
    scheduler = made(EngineSettings(SMALL, prefix_caching=False))
    first, again = request("a"), request("a", arrival=1.0)
    run(scheduler, first, again)
    assert again.cached == 0
    assert again.prompt_read - again.started == pytest.approx(0.14)


def test_the_prompts_used_longest_ago_are_overwritten() -> None:
    settings = EngineSettings(SMALL, kv_tokens=3 * BLOCK * 7, max_model_len=150)
    scheduler = made(settings)
    run(scheduler, *(request(name, arrival=float(k)) for k, name in enumerate("abcd")))
    kept = [name for name in "abcd" if scheduler._kv.cached(request(name))]
    assert kept == ["b", "c", "d"]


def test_a_request_waits_until_its_kv_fits() -> None:
    settings = EngineSettings(SMALL, kv_tokens=256, max_model_len=200)
    scheduler = made(settings)
    first, second, third = request("a", prompt=140, output=30), request("b", 120, 30), request("c", 20, 2)
    run(scheduler, first, second, third)
    assert second.started == first.last_token
    assert third.started >= second.started  # nobody overtakes the head of the line


def test_pinned_kv_is_free_again_when_its_lease_ends() -> None:
    settings = EngineSettings(SMALL, kv_tokens=128, max_model_len=128, kv_lease=5.0)
    scheduler = made(settings)
    prefill, local = request("a", output=1, remote_decode=True), request("b", arrival=1.0)
    run(scheduler, prefill, local)
    assert local.started == pytest.approx(prefill.prompt_read + 5.0)


def test_decodes_that_fetched_their_kv_need_no_prefill() -> None:
    scheduler = made(EngineSettings(SMALL))
    reading = request("a", prompt=640)
    fetched = [request(name, arrival=0.001, fetched=True) for name in "bcd"]
    run(scheduler, reading, *fetched)
    first_boundary = 0.02 + 0.064
    assert [each.started for each in fetched[:2]] == [pytest.approx(first_boundary)] * 2
    assert fetched[0].first_token == pytest.approx(first_boundary + 0.084)
    assert fetched[2].started == fetched[0].last_token  # at most three are batched
    assert reading.prompt_read == pytest.approx(10 * 0.084)


def test_an_aborted_request_leaves_at_the_next_boundary() -> None:
    scheduler = made(EngineSettings(SMALL))
    reading, waiting, next_one = request("a", 640), request("b", 64), request("c", 64)
    for each in (reading, waiting, next_one):
        scheduler.add(each)
    scheduler.advance(0.05, 10)
    assert (scheduler.running, scheduler.waiting) == (1, 2)
    scheduler.abort(reading)
    scheduler.abort(waiting)
    assert (scheduler.running, scheduler.waiting) == (1, 1)
    scheduler.advance(FAR, 100)
    assert next_one.started == pytest.approx(0.084)
    assert reading.written == waiting.written == 0
    assert scheduler._kv.usage == 0.0


def test_within_the_grace_a_request_joins_the_iteration_that_has_begun() -> None:
    for grace, joins in ((0.0, 0.084), (0.003, 0.0)):
        scheduler = made(EngineSettings(SMALL, grace=grace))
        late = request("b", arrival=0.002, fetched=True)
        run(scheduler, request("a", 640), late)
        assert late.started == pytest.approx(joins)


def test_slow_iterations() -> None:
    scheduler = made(EngineSettings(SMALL))
    slow, beside = request("a", fetched=True, slow=3.0), request("b", output=3, fetched=True)
    scheduler.slowdown = 2.0
    run(scheduler, slow)
    assert slow.last_token == pytest.approx(2 * 0.03)  # the larger of the two factors
    scheduler.slowdown = 1.0
    run(scheduler, beside)
    assert beside.last_token - beside.started == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"speed": 0.0}, "speed: must be above 0"),
        ({"speed": float("nan")}, "speed: must be above 0"),
        ({"kv_lease": -1.0}, "kv_lease: must be above 0"),
        ({"grace": -1.0}, "grace: must be at least 0"),
        ({"transfer_latency": float("inf")}, "transfer_latency: must be at least 0"),
        ({"transfer_bandwidth": 0.0}, "transfer_bandwidth: must be above 0"),
        ({"output_tokens": 0.5}, "output_tokens: must be at least 1"),
        ({"max_model_len": 1}, "max_model_len: must be at least 2"),
        ({"max_queued": -1}, "max_queued: must be at least 0"),
        ({"kv_tokens": 100, "max_model_len": 200}, "kv_tokens: 100 hold no request of max_model_len=200"),
        ({"max_batched_tokens": 64}, "max_batched_tokens: only with batching='token-budget'"),
        ({"max_batched_tokens": 2, "batching": "token-budget"}, "below the batch size 3"),
    ],
)
def test_bad_settings(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(FluidgateError, match=reason):
        EngineSettings(SMALL, **settings)
