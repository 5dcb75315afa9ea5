"""The parts of the live probe: events counted, tokens laid side by side, sizes that fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fluidgate.calibration.live_probe import Settings
from fluidgate.calibration.live_probe.batching import Batching, reading
from fluidgate.calibration.live_probe.client import server_of
from fluidgate.calibration.live_probe.events import TokenEvents
from fluidgate.calibration.live_probe.facts import Facts
from fluidgate.calibration.live_probe.grid import fitting_grid, make_grid, wanted_sizes
from fluidgate.calibration.live_probe.held import Injection
from fluidgate.calibration.live_probe.measurements import Row, without_outliers
from fluidgate.calibration.live_probe.timeline import Track, timeline, trimmed_mean
from fluidgate.errors import FluidgateError

VLLM = (
    b'data: {"choices":[{"index":0,"text":"a","finish_reason":null}],"usage":{"prompt_tokens":7,"completion_tokens":1}}'
    b'\n\ndata: {"choices":[{"index":0,"text":"","finish_reason":null}],'
    b'"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\ndata: [DONE]\n\n'
)
LLAMA = (
    b'data: {"choices":[{"text":"a","index":0,"finish_reason":null}],"timings":{"prompt_n":8,"predicted_n":1}}\r\n\r\n'
    b'data: {"choices":[{"text":"b","index":0,"finish_reason":null}],"timings":{"prompt_n":8,"predicted_n":2}}\r\n\r\n'
    b'data: {"choices":[{"text":"","index":0,"finish_reason":"length"}],'
    b'"usage":{"completion_tokens":2,"prompt_tokens":8}}\r\n\r\ndata: [DONE]\r\n\r\n'
)
PLAIN = (
    b'data: {"choices":[{"text":"a","index":0,"finish_reason":null}]}\n\n'
    b'data: {"choices":[{"text":"","index":0,"finish_reason":null}]}\n\n'
    b'data: {"choices":[{"text":"","index":0,"finish_reason":"length"}]}\n\ndata: [DONE]\n\n'
)


@pytest.mark.parametrize(
    ("stream", "tokens", "prompt"), [(VLLM, 3, 7), (LLAMA, 2, 8), (PLAIN, 2, None)], ids=["vllm", "llama.cpp", "plain"]
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_tokens_of_a_stream(stream: bytes, tokens: int, prompt: int | None, size: int) -> None:
    events = TokenEvents()
    for start in range(0, len(stream), size):
        events.feed(stream[start : start + size])
    assert (events.tokens, events.prompt, events.done, events.error) == (tokens, prompt, True, None)


def test_an_error_in_a_stream() -> None:
    events = TokenEvents()
    events.feed(b'data: {"error": {"message": "no"}}\n\n')
    assert events.error == b'{"error": {"message": "no"}}'


@pytest.mark.parametrize(
    "url", ["http://host:8000", "http://host:8000/", "http://host:8000/v1", "http://host:8000/v1/"]
)
def test_addresses_with_and_without_v1(url: str) -> None:
    assert server_of(url) == "http://host:8000"


@pytest.mark.parametrize("url", ["host:8000", "ftp://host", "http://", "http://host:port"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(FluidgateError, match=r"^url: .* is no address"):
        server_of(url)


def tracks(ends: np.ndarray, begins: list[int], late: float = 0.0, seed: int = 0) -> list[Track]:
    """Decodes that begin in some iterations and see all later ones end, each some time late."""
    random = np.random.default_rng(seed)
    return [
        Track(100 + k, [float(e + late * random.random()) for e in ends[begin:]], range(1, len(ends) - begin + 1))
        for k, begin in enumerate(begins)
    ]


def test_decodes_are_laid_side_by_side() -> None:
    lasted = np.array([1.0, 1.0, 3.0, 1.0, 1.0, 5.0, 1.0, 1.0])
    seen = timeline(tracks(np.cumsum(lasted), [0, 2, 3], late=0.2))
    assert seen.in_step == 1.0
    np.testing.assert_allclose(seen.seconds[1:], lasted[1:], atol=0.3)
    assert seen.decodes.tolist() == [0, 1, 1, 2, 3, 3, 3, 3]
    assert seen.context[4] == pytest.approx((104 + 103 + 103) / 3)


def test_tokens_that_come_together_are_not_timed_but_counted() -> None:
    ends = np.arange(1.0, 9.0)
    one, two = tracks(ends, [0, 0])
    together = replace(one, times=[1.0, 3.0, *one.times[3:]], counts=[1, 3, *list(one.counts)[3:]])
    alone = timeline([together])
    assert np.isnan(alone.seconds[1:3]).all()
    np.testing.assert_allclose(alone.seconds[3:], 1.0)
    np.testing.assert_allclose(timeline([together, two]).seconds[1:], 1.0)


def test_decodes_that_run_on_their_own_are_out_of_step() -> None:
    slow, fast = np.cumsum(np.full(40, 1.0)), np.cumsum(np.full(90, 0.43))
    seen = timeline([*tracks(slow, [0]), *tracks(fast, [0])])
    assert seen.in_step < 0.5


def test_one_late_end_does_not_move_what_lies_between() -> None:
    lasted = np.array([1.0] * 10 + [4.0] + [1.0] * 10)
    ends = np.cumsum(lasted)
    ends[10] += 0.5
    seen = timeline(tracks(ends, [0]))
    alone = np.ones(21, bool)
    alone[10] = False
    assert seen.seconds[10] == pytest.approx(4.5)
    assert seen.between(10, 10, 1.0, alone) == pytest.approx(4.0)


def test_where_a_prompt_was_read() -> None:
    """In the iteration that takes longest, though its first token comes some time after those of the decodes."""
    lasted = np.array([1.0] * 10 + [4.0, 4.0, 2.0] + [1.0] * 10)
    seen = timeline(tracks(np.cumsum(lasted), [0]))
    found = reading(seen, Injection(500, 9, 9.1, float(seen.ends[12]) + 0.4), 1.0)
    assert (found.first, found.last, found.token) == (10, 11, 12)
    assert found.excess == pytest.approx(3.0)
    small = reading(seen, Injection(5, 16, 15.1, float(seen.ends[17]) - 0.1), 1.0)
    assert (small.first, small.token) == (None, 17)


def test_a_mean_without_the_extremes() -> None:
    assert trimmed_mean(np.array([9.0, 1.0, 1.1, 1.2, 0.0])) == pytest.approx(1.1)


def test_times_far_from_their_kind_are_left_out() -> None:
    rows = [Row(1, 0, seconds, 64) for seconds in (0.1, 0.101, 0.099, 0.2)] + [Row(2, 0, 0.5, 64)]
    assert [row.seconds for row in without_outliers(rows)] == [0.1, 0.101, 0.099, 0.5]


def test_times_that_the_client_spoilt_are_left_out_where_there_are_others() -> None:
    late = Row(1, 0, 0.1005, 64, late=0.02)
    good = [Row(1, 0, seconds, 64) for seconds in (0.1, 0.101, 0.099)]
    assert without_outliers([late, *good]) == good
    assert without_outliers([late, *good[:2]]) == [late, *good[:2]]


FACTS = Facts(model="m", max_model_len=8192, kv_tokens=100_000)
BATCHING = Batching(512, True, 8191, 0, False, 0.01, 5e-5)


def test_the_grid_of_an_engine() -> None:
    wanted = wanted_sizes(Settings("http://x", batch_size=16), FACTS, BATCHING, 16)
    assert wanted.batch_sizes == (1, 2, 4, 8, 16)
    assert wanted.chunk_sizes == (16, 32, 64, 128, 256, 496)
    assert wanted.contexts == (192, 4096)


def test_a_case_ends_in_the_middle_of_its_context() -> None:
    """What each decode has read and will have written half way through is its context, in the mean."""
    wanted = wanted_sizes(Settings("http://x", batch_size=16, contexts=(2048,)), FACTS, BATCHING, 16)
    for case in make_grid(wanted, FACTS, BATCHING).cases:
        unread = np.cumsum([tokens / BATCHING.limit(case.decodes) for tokens in case.lengths])
        written = unread[-1] - unread
        half = case.iterations / 2
        assert np.mean(np.array(case.lengths) + written + half) == pytest.approx(2048, abs=2)


def test_what_the_memory_does_not_hold_is_left_out() -> None:
    settings = Settings("http://x", batch_size=32, contexts=(192, 4096), max_tokens=10**7)
    grid = fitting_grid(settings, FACTS, BATCHING, tokens=1e7, seconds=1e6, decodes=32)
    assert max(case.decodes for case in grid.cases if case.context == 4096) == 16
    assert [text for text in grid.left_out if "32 decodes at 4096 tokens" in text]
    assert all(case.kv_tokens < 100_000 for case in grid.cases)


@pytest.mark.parametrize("tokens", [20_000, 100_000, 1_000_000])
def test_a_grid_fits_its_tokens(tokens: int) -> None:
    grid = fitting_grid(Settings("http://x"), FACTS, BATCHING, tokens=tokens, seconds=1e6, decodes=32)
    assert grid.tokens <= tokens


def test_a_grid_fits_its_seconds() -> None:
    grid = fitting_grid(Settings("http://x"), FACTS, BATCHING, tokens=1e9, seconds=20.0, decodes=32)
    assert grid.seconds(BATCHING) <= 20.0


def test_what_was_asked_for_by_name_is_not_thinned_out() -> None:
    asked = Settings("http://x", batch_sizes=(1, 32), chunk_sizes=(64,), contexts=(4096,), read_before=0)
    with pytest.raises(FluidgateError, match=r"^max_tokens: 50000 tokens are left, and the least probe takes \d+"):
        fitting_grid(asked, replace(FACTS, kv_tokens=None), BATCHING, tokens=50_000, seconds=1e6, decodes=32)


@pytest.mark.parametrize(
    ("key", "value"),
    [("batch_size", 0), ("contexts", (0,)), ("max_tokens", 0), ("max_seconds", 0.0), ("seed", -1), ("repeats", 0)],
)
def test_bad_settings(key: str, value: object) -> None:
    with pytest.raises(FluidgateError, match=rf"^{key}: is "):
        Settings("http://x", **{key: value}).check()  # type: ignore[arg-type]
