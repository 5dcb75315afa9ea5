"""The law of an engine comes back out of what its client sees."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from fluidgate.calibration import calibrate_batches, read_measurements
from fluidgate.calibration.live_probe import Settings
from fluidgate.emulator.engine import Engine
from fluidgate.emulator.request import EngineRequest
from fluidgate.errors import FluidgateError
from fluidgate.model import IterationTime, TimeTable
from tests.calibration.live_probe.virtual import Bench, settings_of

LINEAR = IterationTime(alpha=0.3, beta=2e-3, delta=8e-3, epsilon=8e-6, solo_alpha=0.24, solo_delta=7e-3)
TABLE = IterationTime(
    alpha=0.3,
    beta=2e-3,
    table=TimeTable(
        chunk_sizes=(0, 64, 256),
        batch_sizes=(1, 4, 16),
        seconds=((0.2, 0.21, 0.26), (0.25, 0.28, 0.36), (0.5, 0.52, 0.62)),
    ),
)
JITTER = 0.004
"""s that a token is seen late at most; an iteration takes some 300 ms."""


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


@pytest.mark.parametrize("batching", ["token-budget", "single-prefill"])
def test_a_linear_law_comes_back(bench: Bench, tmp_path: Path, batching: str) -> None:
    probed, _ = bench.probe(LINEAR, settings_of(), jitter=JITTER, batching=batching)
    probed.write(tmp_path / "live.csv")
    assert not probed.partial
    fit = calibrate_batches(tmp_path / "live.csv", kv_bytes_per_token=8e-6, memory_bandwidth=1.0).fit
    assert fit.solo_alpha is not None
    assert fit.solo_delta is not None
    found = [fit.alpha, fit.beta, fit.delta, fit.solo_alpha, fit.solo_delta]
    wanted = [0.3, 2e-3, 8e-3, 0.24, 7e-3]
    np.testing.assert_allclose([each.value for each in found], wanted, rtol=0.02)


def test_the_slope_over_context_comes_back(bench: Bench) -> None:
    probed, _ = bench.probe(LINEAR, settings_of(), jitter=JITTER, batching="token-budget")
    for mixed in (False, True):
        rows = [row for row in probed.rows if (row.chunk_size > 0) == mixed]
        columns = [(1.0, row.chunk_size, row.batch_size, row.batch_size * row.mean_context) for row in rows]
        times = np.array([row.seconds for row in rows])
        used = [0, 1, 2, 3] if mixed else [0, 2, 3]
        found = np.linalg.lstsq(np.array(columns)[:, used], times, rcond=None)[0]
        assert found[-1] == pytest.approx(8e-6, rel=0.02)


def test_a_table_comes_back(bench: Bench) -> None:
    probed, _ = bench.probe(TABLE, settings_of(contexts=(192,)), jitter=JITTER, batching="token-budget")
    assert len(probed.rows) == 48
    for row in probed.rows:
        wanted = TABLE.mixed(row.chunk_size, row.batch_size) if row.chunk_size else TABLE.solo(row.batch_size, 0)
        assert row.seconds == pytest.approx(wanted, rel=0.05)
    errors = [row.seconds / TABLE.mixed(row.chunk_size, row.batch_size) - 1 for row in probed.rows if row.chunk_size]
    assert abs(float(np.mean(errors))) < 0.01


def test_rows_say_what_was_read_before(bench: Bench) -> None:
    probed, _ = bench.probe(LINEAR, settings_of(), batching="token-budget", max_batched_tokens=256)
    long = {(row.batch_size, row.chunk_size, row.read_before) for row in probed.rows if row.read_before}
    assert (4, 252, 252) in long
    assert (4, 252, 504) in long
    assert (4, 128, 756) in long


def test_contexts_are_those_aimed_at(bench: Bench) -> None:
    probed, _ = bench.probe(LINEAR, settings_of(), batching="token-budget")
    for (decodes, chunk, context, before), rows in probed.kinds():
        if before == 0 and chunk <= 224:
            mean = np.mean([row.mean_context for row in rows])
            assert mean == pytest.approx(context, abs=16), (decodes, chunk)


@pytest.mark.parametrize(
    ("batching", "budget", "shared", "lag"),
    [("token-budget", 512, True, 0), ("token-budget", 300, True, 0), ("single-prefill", 200, False, 1)],
)
def test_the_budget_is_found(bench: Bench, batching: str, budget: int, shared: bool, lag: int) -> None:
    engine = {"max_batched_tokens": budget} if shared else {"chunk_size": budget}
    few = settings_of(batch_sizes=(1, 6), chunk_sizes=(64,), contexts=(192,), repeats=1, read_before=0)
    probed, _ = bench.probe(LINEAR, few, jitter=JITTER, batching=batching, **engine)
    found = probed.batching
    assert found is not None
    assert (found.budget, found.shared, found.lag, found.apart) == (budget, shared, lag, False)
    assert f"# {'max_num_batched_tokens' if shared else 'chunk_size'}: {budget}\n" in probed.to_csv()


def test_a_prompt_that_is_never_cut_has_no_budget(bench: Bench) -> None:
    few = settings_of(batch_sizes=(1,), chunk_sizes=(64,), contexts=(192,), repeats=1)
    probed, _ = bench.probe(LINEAR, few, batching="token-budget", max_batched_tokens=8192)
    assert probed.batching is not None
    assert probed.batching.budget is None
    assert {row.read_before for row in probed.rows} == {0}


def test_the_front_end_is_the_wait_beyond_the_iterations(bench: Bench) -> None:
    few = settings_of(batch_sizes=(1,), contexts=(192,), repeats=3)
    probed, _ = bench.probe(LINEAR, few, batching="single-prefill")
    assert probed.front_end == pytest.approx(0.0, abs=0.012)  # beside no decode, where the rows have one


def test_first_tokens_may_come_late(bench: Bench) -> None:
    """The answer to a prompt has to be begun, where those of the decodes go on."""
    few = settings_of(batch_sizes=(1, 4), chunk_sizes=(64, 224), repeats=2)
    probed, _ = bench.probe(LINEAR, few, batching="token-budget", max_batched_tokens=256, first_late=0.12)
    assert probed.batching is not None
    assert (probed.batching.budget, probed.batching.lag, probed.batching.apart) == (256, 0, False)
    assert probed.front_end == pytest.approx(0.12, abs=0.02)
    for row in probed.rows:
        context = row.batch_size * row.mean_context
        law = LINEAR.mixed(row.chunk_size, row.batch_size, context) if row.chunk_size else None
        wanted = LINEAR.solo(row.batch_size, context) if law is None else law
        assert row.seconds == pytest.approx(wanted, rel=0.02)


def test_a_batch_that_is_smaller_than_asked_is_noticed(bench: Bench) -> None:
    few = settings_of(batch_sizes=(2, 4, 8), contexts=(192,), repeats=1)
    probed, _ = bench.probe(LINEAR, few, batching="token-budget", batch_size=5)
    assert {row.batch_size for row in probed.rows} == {2, 4}
    assert not any(row.others for row in probed.rows)
    assert "the engine runs 5 requests at once" in " ".join(probed.warnings)


def test_requests_of_others_are_noticed(bench: Bench, tmp_path: Path) -> None:
    async def others(engine: Engine) -> None:
        """A request that comes late, and stays."""
        await asyncio.sleep(120.0)
        now = engine.clock.now()
        engine.submit(EngineRequest("other", b"other", 50, 4000, arrival=now))
        await asyncio.sleep(1e9)

    probed, _ = bench.probe(LINEAR, settings_of(), batching="token-budget", beside=others)
    assert {row.others for row in probed.rows} == {0, 1}
    assert "beside requests of others" in " ".join(probed.warnings)
    probed.write(tmp_path / "busy.csv")
    kept = read_measurements(tmp_path / "busy.csv", where={"others": "0"})
    assert len(kept) == sum(row.others == 0 for row in probed.rows)


def test_an_engine_that_is_busy_is_waited_for(bench: Bench) -> None:
    async def others(engine: Engine) -> None:
        engine.submit(EngineRequest("other", b"other", 50, 40, arrival=engine.clock.now()))

    few = settings_of(batch_sizes=(1,), contexts=(192,), repeats=1)
    probed, _ = bench.probe(LINEAR, few, batching="token-budget", beside=others)
    assert {row.others for row in probed.rows} == {0}
    assert not [warning for warning in probed.warnings if "others" in warning]


@pytest.mark.parametrize("most", [8_000, 40_000])
def test_the_cost_is_bounded(bench: Bench, most: int) -> None:
    free = Settings("http://virtual", batch_size=8, max_tokens=most, max_seconds=1e5)
    probed, client = bench.probe(LINEAR, free, batching="token-budget")
    assert probed.prompt_tokens + probed.output_tokens <= most
    assert sum(client.engine.metrics.prompt_tokens.values()) <= probed.prompt_tokens
    assert client.engine.metrics.generation_tokens <= most - probed.prompt_tokens
    assert probed.rows
    assert client.most <= 9


def test_a_bound_that_holds_nothing_is_refused(bench: Bench) -> None:
    with pytest.raises(FluidgateError, match="max_tokens: "):
        bench.probe(LINEAR, settings_of(max_tokens=1500), batching="token-budget")


def test_seconds_are_bounded(bench: Bench) -> None:
    free = settings_of(batch_sizes=(), chunk_sizes=(), contexts=(), batch_size=8, max_seconds=400.0)
    probed, _ = bench.probe(LINEAR, free, batching="token-budget")
    assert probed.rows
    assert probed.seconds < 420.0


def test_what_is_sent_is_said_first(bench: Bench) -> None:
    said: list[str] = []
    probed, client = bench.probe(LINEAR, settings_of(), batching="token-budget", said=said)
    assert len(said) == 1
    announced = said[0].split("Sending ")[1].split()
    assert int(announced[2]) <= probed.prompt_tokens
    assert client.most == 9
    assert "9 at once" in said[0]


def test_an_interrupt_keeps_what_was_measured(bench: Bench) -> None:
    async def impatient(engine: Engine) -> None:
        await asyncio.sleep(120.0)
        next(task for task in asyncio.all_tasks() if task.get_coro().__name__ == "_of").cancel()  # type: ignore[union-attr]

    probed, client = bench.probe(LINEAR, settings_of(), batching="token-budget", beside=impatient)
    assert probed.partial == "interrupted"
    assert "# partial: interrupted\n" in probed.to_csv()
    assert 0 < len({row.kind for row in probed.rows}) < 40
    assert client.under_way == 0
