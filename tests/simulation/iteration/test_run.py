"""Runs whose outcome is known: worked by hand, by queueing theory, or by the Markov network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fluidgate import Scenario, find_policy, plan, simulate
from fluidgate.batching import Batching
from fluidgate.engine_table import EngineModel
from fluidgate.errors import FluidgateError
from fluidgate.model import Pricing
from fluidgate.policies.decisions.view import HOLD
from fluidgate.simulation.iteration.engine import Engine
from fluidgate.simulation.iteration.kernel.cluster import COMPLETED, LEFT_PREFILL_QUEUE, REJECTED, Placement
from fluidgate.simulation.iteration.law import linear_law, paper_law
from fluidgate.simulation.iteration.measure import IterationMeasurement
from fluidgate.simulation.iteration.rules import Decisions, Placements
from fluidgate.simulation.iteration.run import Run, run_requests
from fluidgate.workloads.streams import REQUEST
from tests.scenarios import two_class_scenario
from tests.simulation.iteration.instances import placed_instance

PLAIN = linear_law(1.0, 0.01)  # 1 s an iteration, and 0.01 s a prompt token
CACHING = EngineModel(kv_tokens=100, kv_caching=True)


def block(*rows: tuple[float, int, int], cls: int = 0, patience: float = math.inf) -> Any:
    """Requests (arrival, prompt, output)."""
    out = np.zeros(len(rows), REQUEST)
    out["arrival"], out["prompt"], out["output"] = zip(*rows, strict=True)
    out["cls"], out["patience"] = cls, patience
    return out


def placed(requests: Any, engine: Engine, run: Run | None = None, **options: Any) -> tuple[IterationMeasurement, Any]:
    logs: list[Any] = []
    run = run or Run(1, 1, audited=True)
    measured = run_requests([requests], engine, run, Placements(**options), take_log=logs.append)
    log = np.concatenate(logs)
    return measured, log[np.argsort(log["number"])]


def times(row: Any) -> list[float]:
    return [float(row[name]) for name in ("scheduled", "first_token", "last_token")]


def test_token_budget_by_hand() -> None:
    engine = Engine(PLAIN, 4, 60)
    # 60 tokens [0.5, 2.1], 40 and 15 [2.1, 3.65], decodes [3.65, 4.65], [4.65, 5.65], [5.65, 6.65]
    _, log = placed(block((0.5, 100, 3), (1.0, 15, 4)), engine)
    assert times(log[0]) == pytest.approx([0.5, 3.65, 5.65])
    assert times(log[1]) == pytest.approx([2.1, 3.65, 6.65])


def test_prefill_first_by_hand() -> None:
    engine = Engine(PLAIN, 4, 60, Batching.PREFILL_FIRST)
    # prompt 0 [0, 1.5], decode [1.5, 2.5], prompts 1 and 2 [2.5, 4.1], decodes [4.1, 5.1], [5.1, 6.1]
    measured, log = placed(block((0.0, 50, 3), (1.6, 40, 3), (1.7, 20, 1)), engine)
    assert times(log[0]) == pytest.approx([0.0, 1.5, 5.1])
    assert times(log[1]) == pytest.approx([2.5, 4.1, 6.1])
    assert times(log[2]) == pytest.approx([2.5, 4.1, 4.1])
    assert measured.distribution("stall").observations == 1
    assert measured.distribution("stall").mean == pytest.approx(2.6)
    assert measured.distribution("gap").mean == pytest.approx((1.0 + 2.6 + 1.0 + 1.0) / 4)


def tables(scenario: Scenario, policy: str, gpus: int) -> Any:
    return find_policy(policy).tabulate(plan(scenario), gpus)


def single_class(batch_size: int, chunk: int) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "one",
            "gpu": {
                "batch_size": batch_size,
                "chunk_size": chunk,
                "iteration": {"alpha": 1.0, "beta": 0.01, "gamma": 1.0},
            },
            "pricing": {"scheme": "bundled", "prompt": 1.0, "output": 1.0},
            "classes": (
                {
                    "name": "only",
                    "prompt_tokens": 100.0,
                    "output_tokens": 3.0,
                    "arrival_rate": 0.01,
                    "patience_rate": 0.0,
                },
            ),
        }
    )


def test_single_prefill_by_hand() -> None:
    logs: list[Any] = []
    engine = Engine(PLAIN, 4, 40, Batching.SINGLE_PREFILL)
    # chunks 40, 40, 20 end at 1.9, 3.3, 4.5; the first token comes at the end of the first decode iteration, 5.5
    run_requests(
        [block((0.5, 100, 3), (5.0, 10, 1))],
        engine,
        Run(1, 1, audited=True),
        Decisions(find_policy("fi-wsp"), tables(single_class(4, 40), "fi-wsp", 1)),
        take_log=logs.append,
    )
    # the second prompt joins at 5.5 and lengthens the second decode iteration to 6.6; the third ends at 7.6
    log = logs[0]
    assert times(log[log["number"] == 0][0]) == pytest.approx([0.5, 5.5, 7.6])
    assert times(log[log["number"] == 1][0]) == pytest.approx([5.5, 7.6, 7.6])


def test_transfer_delays_the_decode() -> None:
    engine = Engine(
        PLAIN, 1, 100, Batching.SINGLE_PREFILL, keys=EngineModel(transfer_latency=0.25, transfer_bandwidth=1000.0)
    )
    scenario = single_class(1, 100)
    chosen = tables(scenario, "gate-and-route", 2)
    assert chosen.mixed_gpus == 1
    logs: list[Any] = []
    run_requests(
        [block((0.0, 100, 2))],
        engine,
        Run(2, 1, audited=True),
        Decisions(find_policy("gate-and-route"), chosen),
        take_log=logs.append,
    )
    assert times(logs[0][0]) == pytest.approx([0.0, 2.0 + 0.35 + 1.0, 2.0 + 0.35 + 2.0])
    assert (logs[0][0]["prefill_gpu"], logs[0][0]["decode_gpu"]) == (0, 1)


def test_memory_preempts_the_last_admitted() -> None:
    engine = Engine(PLAIN, 4, 60, keys=EngineModel(kv_tokens=40, kv_block=1))
    # both read [0, 1.3] (30 tokens held); they grow to 40 in five iterations, to 6.3, then the second gives way;
    # the first, of 12 tokens, needs six more to 12.3, and the second's 15 + 6 tokens fit again at 7.3 (40 - 21 = 19)
    measured, log = placed(block((0.0, 15, 12), (0.0, 15, 12)), engine)
    assert log["preemptions"].tolist() == [0, 1]
    assert measured.preemptions.tolist() == [1]
    assert log["outcome"].tolist() == [COMPLETED] * 2
    assert measured.kv_peak <= 40


def test_a_preempted_request_reads_only_what_was_overwritten() -> None:
    requests = block((0.0, 15, 12), (0.0, 15, 12))
    _, log = placed(requests, Engine(PLAIN, 4, 60, keys=EngineModel(kv_tokens=40, kv_block=1)))
    _, cached = placed(requests, Engine(PLAIN, 4, 60, keys=EngineModel(kv_tokens=40, kv_block=1, kv_caching=True)))
    # at 6.3 s both have 6 tokens and hold 20: the second gives way and holds 15 + 6 tokens again when the first, which
    # grows by one token an iteration into the second's blocks, is complete at 12.3 s: 6 of its 20 blocks are taken
    assert times(log[0])[2] == pytest.approx(times(cached[0])[2]) == pytest.approx(12.3)
    assert times(log[1])[2] == pytest.approx(12.3 + (1 + 0.21) + 5.0)
    assert times(cached[1])[2] == pytest.approx(12.3 + (1 + 0.07) + 5.0)


def test_requests_that_no_memory_holds_are_rejected() -> None:
    engine = Engine(PLAIN, 4, 60, keys=EngineModel(kv_tokens=64, kv_reservation=1000))
    measured, log = placed(block((0.0, 60, 5), (0.0, 60, 4)), engine)
    assert log["outcome"].tolist() == [REJECTED, COMPLETED]
    assert measured.rejections.tolist() == [1]


def test_patience_of_zero_is_served_by_an_idle_gpu_only() -> None:
    engine = Engine(PLAIN, 1, 60)
    _, log = placed(block((0.0, 10, 2), (0.5, 10, 2), (9.0, 10, 1), patience=0.0), engine)
    assert log["outcome"].tolist() == [COMPLETED, LEFT_PREFILL_QUEUE, COMPLETED]


def test_a_deterministic_queue() -> None:
    """One GPU, one slot, one output token: M/D/1. The mean wait is that of Pollaczek and Khinchine."""
    count, service, load = 200_000, 2.0, 0.7
    requests = np.zeros(count, REQUEST)
    requests["arrival"] = np.cumsum(np.random.default_rng(3).exponential(service / load, count))
    requests["prompt"], requests["output"], requests["patience"] = 100, 1, np.inf
    measured = run_requests([requests], Engine(PLAIN, 1, 100), Run(1, 1), Placements())
    wait = measured.distribution("prefill_wait")
    # the autocorrelation time of the wait at this load is some 60 requests: 4 standard errors
    expected = load * service / (2 * (1 - load))
    assert wait.mean == pytest.approx(expected, abs=4 * expected * 1.5 * math.sqrt(60 / count))
    assert measured.gpu_time["prefill"] == pytest.approx(load, abs=0.01)
    assert measured.gpu_time["idle"] == pytest.approx(1 - load, abs=0.01)
    assert measured.distribution("ttft").mean == pytest.approx(wait.mean + service)


def test_blocks_do_not_matter() -> None:
    instance = placed_instance(3, Batching.TOKEN_BUDGET, Placement.POWER_OF_TWO)
    one, logged = instance.by_kernel(block=1)
    other, logged_too = instance.by_kernel(block=10_000)
    assert (one.histograms == other.histograms).all()
    assert {number: str(row) for number, row in logged.items()} == {n: str(row) for n, row in logged_too.items()}


def test_room_is_made_for_a_long_queue() -> None:
    requests = block(*[(0.0, 5, 2)] * 5000)
    measured, log = placed(requests, Engine(PLAIN, 8, 60), Run(2, 1))
    assert measured.most_alive == 5000
    assert (log["outcome"] == COMPLETED).all()
    assert len(log) == 5000


def test_a_log_longer_than_its_room_is_complete() -> None:
    requests = block(*[(0.1 * k, 1, 1) for k in range(150_000)])
    logs: list[Any] = []
    told: list[tuple[int, float]] = []
    run_requests(
        [requests],
        Engine(linear_law(0.01, 0.0), 4, 8),
        Run(1, 1),
        Placements(),
        take_log=logs.append,
        progress=lambda arrived, now: told.append((arrived, now)),
    )
    assert told == sorted(told)
    assert told[-1] == (150_000, pytest.approx(15_000, abs=0.2))
    assert len(logs) > 1
    assert sorted(np.concatenate(logs)["number"].tolist()) == list(range(150_000))


def test_goodput_and_revenue() -> None:
    requests = np.concatenate([block((0.0, 100, 3)), block((10.0, 50, 1), cls=1), block((20.0, 200, 2), cls=1)])
    run = Run(1, 2, ttft_targets=(2.0, 2.5), tpot_targets=(0.9, 5.0), audited=True)
    measured, _ = placed(requests, Engine(PLAIN, 4, 500), run)
    # TTFT 2, 1.5 and 3 s; TPOT 1 s
    assert measured.within_targets.tolist() == [0, 1]
    bundled = Pricing(scheme="bundled", prompt=0.1, output=1.0)
    assert measured.revenue(bundled).tolist() == pytest.approx([13.0, 28.0])
    cut, _ = placed(requests, Engine(PLAIN, 4, 500), Run(1, 2, horizon=23.5))
    assert cut.revenue(bundled).tolist() == pytest.approx([13.0, 6.0])
    separate = Pricing(scheme="separate", prompt=0.1, output=1.0)
    assert cut.revenue(separate).tolist() == pytest.approx([13.0, 26.0])


def test_samples_are_taken_evenly() -> None:
    measured, _ = placed(block((0.5, 100, 3), (0.9, 15, 4)), Engine(PLAIN, 4, 60), Run(1, 1, horizon=8.0, samples=9))
    total = measured.samples.sum(axis=(1, 2)).tolist()
    assert total == [0, 2, 2, 2, 2, 2, 1, 0, 0]
    assert measured.samples[3, 3].tolist() == [2], "both are read at 3 s"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda b: b["arrival"].__setitem__(3, 1e-3), "request 3 arrives before the one ahead"),
        (lambda b: b["arrival"].__setitem__(4, np.nan), "request 4 arrives before|request 4 never"),
        (lambda b: b["arrival"].__setitem__(-1, np.inf), "request 5 never arrives"),
        (lambda b: b["prompt"].__setitem__(2, 0), "request 2 has no prompt"),
        (lambda b: b["output"].__setitem__(2, -1), "request 2 has no output"),
        (lambda b: b["prompt"].__setitem__(2, 2**31 - 1), "request 2 has more than"),
        (lambda b: b["cls"].__setitem__(0, 1), "request 0 is of none of the 1 classes"),
        (lambda b: b["patience"].__setitem__(1, np.nan), "request 1 has a patience"),
    ],
)
def test_requests_that_cannot_be(spoil: Any, message: str) -> None:
    requests = block(*[(float(k), 5, 2) for k in range(6)])
    spoil(requests)
    halves = [requests[:2], requests[2:]]
    with pytest.raises(FluidgateError, match=message):
        run_requests(halves, Engine(PLAIN, 4, 60), Run(1, 1), Placements())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Engine(PLAIN, 0, 10), "at least 1"),
        (lambda: Engine(PLAIN, 20, 10), "raise the budget"),
        (
            lambda: Engine(PLAIN, 2, 10, Batching.SINGLE_PREFILL, EngineModel(kv_tokens=100, kv_caching=True)),
            "leave it off",
        ),
        (lambda: Run(0, 1), "at least one GPU"),
        (lambda: Run(1, 1, horizon=10.0, warmup=10.0), "warm-up"),
        (lambda: Run(1, 1, samples=5), "finite horizon"),
        (lambda: Run(1, 2, ttft_targets=(1.0,)), "one a class"),
        (lambda: run_requests([], Engine(PLAIN, 2, 10, Batching.SINGLE_PREFILL), Run(1, 1), Placements()), "Decisions"),
    ],
)
def test_engines_and_runs_that_cannot_be(make: Any, message: str) -> None:
    with pytest.raises(FluidgateError, match=message):
        make()


def exponential_stream(scenario: Scenario, gpus: int, horizon: float, seed: int) -> Iterator[Any]:
    """The Markov network's own laws."""
    rng = np.random.default_rng(seed)
    rates = scenario.rates
    total = float(rates.arrival.sum()) * gpus
    count = rng.poisson(total * horizon)
    out = np.zeros(count, REQUEST)
    out["arrival"] = np.sort(rng.uniform(0, horizon, count))
    out["cls"] = rng.choice(len(rates.arrival), count, p=rates.arrival / rates.arrival.sum())
    prompt = np.array([c.prompt_tokens for c in scenario.classes])[out["cls"]]
    output = np.array([c.output_tokens for c in scenario.classes])[out["cls"]]
    out["prompt"] = np.ceil(rng.exponential(prompt))
    out["output"] = np.ceil(rng.exponential(output))
    out["patience"] = rng.exponential(1 / rates.patience[out["cls"]])
    yield out


def test_small_chunks_and_exponential_lengths_are_the_markov_network() -> None:
    """Chunks of 8 tokens against prompts of 300 and 3,000: what is left of the difference is the half chunk."""
    base = two_class_scenario()
    scenario = base.replace(gpu=base.gpu.model_copy(update={"chunk_size": 8}))
    iteration = scenario.gpu.iteration.model_copy(update={"alpha": 0.002})
    scenario = scenario.replace(gpu=scenario.gpu.model_copy(update={"iteration": iteration}))
    gpus, horizon, warmup = 8, 900.0, 200.0
    markov = simulate(scenario, "gate-and-route", gpus=gpus, horizon=horizon, warmup=warmup, replications=6, seed=1)
    policy = find_policy("gate-and-route")
    engine = Engine(paper_law(iteration), scenario.gpu.batch_size, 8, Batching.SINGLE_PREFILL)
    runs = [
        run_requests(
            exponential_stream(scenario, gpus, horizon, seed),
            engine,
            Run(gpus, 2, horizon, warmup, seed),
            Decisions(policy, tables(scenario, "gate-and-route", gpus)),
        )
        for seed in range(6)
    ]
    revenue = np.array([r.revenue(scenario.pricing).sum() / (gpus * r.window) for r in runs])
    assert markov.revenue_rate.mean is not None
    assert markov.revenue_rate.std is not None
    error = 3 * math.hypot(revenue.std(ddof=1), markov.revenue_rate.std) / math.sqrt(6)
    assert revenue.mean() == pytest.approx(markov.revenue_rate.mean, abs=error + 0.01 * revenue.mean())
    occupancy = np.mean([r.occupancy for r in runs], axis=0) / gpus
    for i, cls in enumerate(markov.classes):
        assert occupancy[3, i] == pytest.approx(cls.prefill.mean, rel=0.05, abs=0.01)
        assert occupancy[4:, i].sum() == pytest.approx(cls.mixed_decode.mean + cls.solo_decode.mean, rel=0.05, abs=0.05)


def test_a_users_gate_decides() -> None:
    def closed_to_class_one(view, tables):  # type: ignore[no-untyped-def]
        return 0 if view.waiting[0] > 0 else HOLD

    scenario = two_class_scenario()
    policy = find_policy("gate-and-route").with_functions("mine", gate=closed_to_class_one)
    engine = Engine(paper_law(scenario.gpu.iteration), 16, 256, Batching.SINGLE_PREFILL)
    chosen = tables(scenario, "gate-and-route", 2)
    measured = run_requests(
        exponential_stream(scenario, 2, 100.0, 0), engine, Run(2, 2, 100.0), Decisions(policy, chosen)
    )
    assert measured.completions[0] > 0
    assert measured.completions[1] == 0


def test_a_gate_that_cannot_be_compiled_is_explained() -> None:
    def makes_a_list(view, tables):  # type: ignore[no-untyped-def]
        return len([str(k) for k in view.waiting]) - 3

    scenario = two_class_scenario()
    policy = find_policy("gate-and-route").with_functions("mine", gate=makes_a_list)
    engine = Engine(paper_law(scenario.gpu.iteration), 16, 256, Batching.SINGLE_PREFILL)
    with pytest.raises(FluidgateError, match="makes_a_list"):
        run_requests([], engine, Run(2, 2, 100.0), Decisions(policy, tables(scenario, "gate-and-route", 2)))
