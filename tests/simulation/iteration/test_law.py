"""The iteration time and its closed forms, against sums and searches one iteration at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator

from fluidgate.compiled import entry_point
from fluidgate.errors import FluidgateError
from fluidgate.model import IterationTime, SoloTable, TimeTable
from fluidgate.simulation.iteration import law as laws
from fluidgate.simulation.iteration.law import linear_law, paper_law, table_law

_seconds, _growth, _alike, _span, _from, _ended = (
    laws.seconds,
    laws.growth,
    laws.alike,
    laws.span,
    laws.boundary_from,
    laws.ended_by,
)


@entry_point
def seconds(law, chunk, decodes, context, read=0):  # type: ignore[no-untyped-def]
    return _seconds(law, chunk, decodes, context, read)


@entry_point
def ahead(law, chunk, decodes, context, read):  # type: ignore[no-untyped-def]
    return _growth(law, chunk, decodes, context, read), _alike(law, chunk, decodes, context)


@entry_point
def closed_forms(origin, first, step, iterations, epoch):  # type: ignore[no-untyped-def]
    return (
        _span(first, step, iterations),
        _from(origin, first, step, epoch),
        _ended(origin, first, step, epoch),
    )


def measured(chunks: Any, batches: Any, times: Any, **terms: Any) -> IterationTime:
    """Times of a table, of one context."""
    of_table = {key: terms.pop(key) for key in ("context", "contexts", "read_before", "solo") if key in terms}
    table = TimeTable(chunk_sizes=chunks, batch_sizes=batches, seconds=times, **of_table)
    return IterationTime(alpha=1.0, beta=1.0, table=table, **terms)


def test_the_papers_law_is_a_special_case() -> None:
    law = paper_law(IterationTime(alpha=0.0174, beta=6.2e-5, gamma=45.45))
    assert seconds(law, 256, 15, 12_000) == pytest.approx(0.0174 + 6.2e-5 * 256)
    assert seconds(law, 0, 16, 12_000) == pytest.approx(1 / 45.45)


def test_every_term_counts() -> None:
    law = linear_law(0.01, 1e-4, delta=2e-4, epsilon=3e-6, zeta=1e-7, solo=(0.008, 1e-4, 2e-6))
    assert seconds(law, 100, 7, 5000) == pytest.approx(0.01 + 0.01 + 0.0014 + 0.015)
    assert seconds(law, 100, 7, 5000, 40_000) == pytest.approx(0.01 + 0.01 + 0.0014 + 0.015 + 0.004)
    assert seconds(law, 0, 7, 5000) == pytest.approx(0.008 + 0.0007 + 0.01)


def test_a_table_is_read_between_and_beyond_its_nodes() -> None:
    law = table_law(measured([0, 100, 300], [1, 10], [[1.0, 2.0], [3.0, 5.0], [7.0, 11.0]]))
    assert seconds(law, 0, 1, 0) == 1.0
    assert seconds(law, 50, 1, 0) == 2.0
    assert seconds(law, 100, 5.5, 0) == 4.0
    assert seconds(law, 200, 10, 0) == 8.0
    assert seconds(law, 400, 10, 0) == 14.0, "carried on in a straight line"
    assert seconds(law, 0, 19, 0) == 3.0, "carried on in a straight line"
    assert seconds(law, 0, 0, 0) == 1.0, "constant below the least batch"


def test_a_table_holds_its_own_context() -> None:
    law = table_law(measured([0, 100], [1, 10], [[1.0, 2.0], [3.0, 5.0]], epsilon=1e-4, context=1000))
    assert seconds(law, 100, 10, 10_000) == pytest.approx(5.0), "at the context of the measurement"
    assert seconds(law, 100, 10, 4_000) == pytest.approx(4.4)


def wide() -> IterationTime:
    """A table over all four axes, with solo nodes of its own."""
    c, b, k, r = np.meshgrid([16, 64, 512], [0, 4, 32], [100, 1000, 4000], [0, 2000], indexing="ij")
    bent = 0.01 + 1e-4 * c + 2e-4 * b + 1e-6 * b * k**0.9 + 3e-8 * c * r * (1 + 0.01 * b) + 1e-9 * c * b * k
    solo = SoloTable(
        batch_sizes=[1, 8, 64],
        contexts=[50, 500, 5000],
        seconds=(0.008 + 1e-5 * np.outer([1, 8, 64], [1.0, 3.0, 20.0])).tolist(),
    )
    return measured(
        [16, 64, 512], [0, 4, 32], bent.tolist(), contexts=[100, 1000, 4000], read_before=[0, 2000], solo=solo
    ).with_overhead(1e-3, 1e-5)


def test_a_table_over_four_axes_lies_between_its_nodes_as_an_independent_grid_has_it() -> None:
    time, rng = wide(), np.random.default_rng(3)
    law, table = table_law(time), time.table
    assert table is not None
    grid = RegularGridInterpolator(table.mixed_axes, table.mixed_times)
    alone = RegularGridInterpolator(table.solo_axes, table.solo_times)
    for _ in range(200):
        chunk, decodes = int(rng.integers(16, 512)), int(rng.integers(1, 32))
        context, read = decodes * int(rng.integers(100, 4000)), chunk * int(rng.integers(0, 2000))
        expected = float(grid((chunk, decodes, context / decodes, read / chunk))) + 1e-3 + 1e-5 * decodes
        assert seconds(law, chunk, decodes, context, read) == pytest.approx(expected, rel=1e-12)
        assert time.mixed(chunk, decodes, context, read) == pytest.approx(expected, rel=1e-12)
        decodes = int(rng.integers(1, 64))
        context = decodes * int(rng.integers(50, 5000))
        expected = float(alone((decodes, context / decodes))) + 1e-3 + 1e-5 * decodes
        assert seconds(law, 0, decodes, context) == pytest.approx(expected, rel=1e-12)
        assert time.solo(decodes, context) == pytest.approx(expected, rel=1e-12)


def test_below_the_least_chunk_lies_the_line_to_an_iteration_without_one() -> None:
    time = wide()
    law, halfway = table_law(time), 0.5 * (time.solo(4, 4 * 1000) + time.mixed(16, 4, 4 * 1000))
    assert seconds(law, 8, 4, 4 * 1000) == pytest.approx(halfway)


def test_more_context_never_takes_less_time() -> None:
    noisy = measured([0, 10], [1], [[[1.0, 0.9, 1.2]], [[2.0, 2.5, 2.4]]], contexts=[10, 20, 30])
    law = table_law(noisy)
    assert seconds(law, 0, 1, 20) == 1.0
    assert seconds(law, 10, 1, 30) == 2.5


def falling() -> IterationTime:
    """Beyond both nodes the line along one axis falls, the further along the other the faster."""
    return measured([0, 100], [1, 10], [[1.0, 3.0], [3.0, 3.5]])


def test_beyond_the_nodes_no_line_falls() -> None:
    time = falling()
    law = table_law(time)
    assert seconds(law, 300, 1, 0) == time.mixed(300, 1) == 7.0
    assert seconds(law, 0, 28, 0) == time.mixed(0, 28) == 7.0
    assert seconds(law, 100, 28, 0) == 4.5
    assert seconds(law, 300, 28, 0) == time.mixed(300, 28) == 4.5, "a straight line would come to -0.5"


def test_what_one_context_takes_off_grows_no_further_than_the_table() -> None:
    """8 decodes of 100 tokens take 2 s, 1.6 of them for the context; what more of them take was not measured."""
    time = measured([0], [8], [[2.0]], epsilon=2e-3, context=100)
    law = table_law(time)
    for decodes, context in ((8, 800), (8, 80), (20, 2000), (50, 50)):
        expected = 0.4 + 2e-3 * context
        assert seconds(law, 0, decodes, context) == pytest.approx(expected)
        assert time.solo(decodes, context) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(40))
def test_beyond_the_nodes_nothing_takes_less_than_at_the_nearest(seed: int) -> None:
    """Of times without any order: Python and kernel say the same, and so do the steps of a segment."""
    rng = np.random.default_rng([seed, 11])
    axes = [np.cumsum(rng.integers(1, 40, rng.integers(1, 4))) for _ in range(4)]
    for nodes in axes[2:]:
        nodes -= nodes[0]
    solo = SoloTable(batch_sizes=[1, 7], contexts=[0, 30], seconds=rng.uniform(0.1, 1.0, (2, 2)).tolist())
    shape = [len(nodes) for nodes in axes[:2]] + [len(nodes) for nodes in axes[2:] if len(nodes) > 1]
    chunks, batches, contexts, reads = (nodes.tolist() for nodes in axes)
    times = rng.uniform(0.1, 1.0, shape).tolist()
    time = measured(chunks, batches, times, contexts=contexts, read_before=reads, solo=solo)
    law = table_law(time)
    for _ in range(20):
        chunk, decodes, each, read = (int(nodes[-1] + rng.integers(-5, 400)) for nodes in axes)
        chunk, decodes, each, read = max(chunk, 1), max(decodes, 1), max(each, 0), max(read, 0)
        near = [min(place, int(nodes[-1])) for place, nodes in zip((chunk, decodes, each, read), axes, strict=True)]
        taken = seconds(law, chunk, decodes, decodes * each, chunk * read)
        assert taken == pytest.approx(time.mixed(chunk, decodes, decodes * each, chunk * read), rel=1e-12)
        least = time.mixed(near[0], near[1], near[1] * near[2], near[0] * near[3])
        assert taken >= least * (1.0 - 1e-12)
        assert least > 0.0
        assert time.solo(decodes, decodes * each) >= time.solo(min(decodes, 7), min(decodes, 7) * min(each, 30)) * (
            1.0 - 1e-12
        )
        for size in (chunk, 0):
            step, length = ahead(law, size, decodes, decodes * each, size * read)
            first = seconds(law, size, decodes, decodes * each, size * read)
            for k in range(1, min(length, 40)):
                after = seconds(law, size, decodes, decodes * (each + k), size * (read + k * size))
                assert after == pytest.approx(first + k * step, rel=1e-9)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    chunk=st.sampled_from([0, 0, 5, 16, 200, 900]),
    decodes=st.integers(0, 50),
    each=st.floats(0.0, 7000.0),
    read=st.integers(0, 4000),
    reads=st.booleans(),
)
def test_alike_iterations_grow_by_equal_steps(chunk: int, decodes: int, each: float, read: int, reads: bool) -> None:
    time = wide()
    if not reads:
        table = time.table
        assert table is not None
        one = table.changed(read_before=(0.0,), seconds=table.mixed_times[1:, :, :, 0].tolist())
        time = time.changed(zeta=1e-8, table=one)
    law, context = table_law(time), int(decodes * each)
    step, length = ahead(law, chunk, decodes, context, chunk * read)
    assert (length == 1) == (reads and chunk > 0) or length > 1 or decodes > 0
    for k in range(1, min(length, 40)):
        taken = seconds(law, chunk, decodes, context + k * decodes, chunk * (read + k * chunk))
        assert taken == pytest.approx(seconds(law, chunk, decodes, context, chunk * read) + k * step, rel=1e-9)


def test_the_law_of_a_gpu_is_its_own_time() -> None:
    from fluidgate.model import Gpu

    for time in (
        IterationTime(alpha=0.01, beta=1e-4, gamma=50.0, delta=1e-4, epsilon=1e-7, zeta=1e-9, overhead=2e-3),
        IterationTime(alpha=0.01, beta=1e-4, delta=1e-4, solo_alpha=0.008, solo_epsilon=2e-7, overhead_per_decode=1e-5),
        wide(),
        falling(),
    ):
        gpu = Gpu(batch_size=16, chunk_size=256, iteration=time, context_tokens=700.0)
        law = laws.law_of(gpu)
        for chunk, decodes, context, read in (
            (0, 1, 500, 0),
            (0, 12, 40_000, 0),
            (50, 4, 3000, 900),
            (700, 30, 900, 0),
        ):
            expected = seconds(law, chunk, decodes, context, read)
            assert gpu.seconds(chunk, decodes, context, read) == pytest.approx(expected, rel=1e-12)
        assert gpu.solo == pytest.approx(gpu.seconds(0, 16, 16 * 700.0), rel=1e-12)
        reads = [(256, 0), (256, 256), (88, 512)]
        assert gpu.prefill_seconds(600) == pytest.approx(sum(seconds(law, c, 0, 0, c * before) for c, before in reads))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    origin=st.floats(0, 1e6),
    first=st.floats(1e-4, 1),
    step=st.floats(0, 1e-3),
    iterations=st.integers(1, 400),
    share=st.floats(-0.2, 1.2),
)
def test_consecutive_iterations(origin: float, first: float, step: float, iterations: int, share: float) -> None:
    ends = np.cumsum(first + step * np.arange(iterations + 400))
    total = float(ends[iterations - 1])
    epoch = origin + share * total
    span, boundary, ended = closed_forms(origin, first, step, iterations, epoch)
    assert span == pytest.approx(total, rel=1e-10)
    near = 1e-9 * max(origin, 1.0)
    assert boundary >= 1
    assert origin + ends[boundary - 1] >= epoch - near
    assert boundary == 1 or origin + ends[boundary - 2] < epoch + near
    assert ended == 0 or origin + ends[ended - 1] <= epoch + near
    assert origin + ends[ended] > epoch - near


def test_a_boundary_now_is_now() -> None:
    for k in (1, 2, 3, 17, 1000):
        epoch = 5.0 + closed_forms(5.0, 0.0625, 0.0078125, k, 0.0)[0]
        _, boundary, ended = closed_forms(5.0, 0.0625, 0.0078125, k, epoch)
        assert (boundary, ended) == (k, k)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: linear_law(0.0, 0.0), "must be above 0"),
        (lambda: linear_law(0.1, -1.0), "beta must be finite and at least 0"),
        (lambda: linear_law(0.1, 1.0, epsilon=float("nan")), "epsilon must be finite"),
        (lambda: linear_law(0.1, 1.0, zeta=-1.0), "zeta must be finite"),
        (lambda: table_law(measured([0], [10], [[1.0]], epsilon=1e-3, context=1000)), "lower epsilon"),
        (lambda: table_law(measured([0], [1], [[[1.0, 3.0]]], contexts=[100, 200])), "mend the times of few tokens"),
        (lambda: table_law(measured([0, 9], [1], [[[1.0, 1.0]], [[1.0, 3.0]]], read_before=[100, 200])), "few tokens"),
    ],
)
def test_laws_that_cannot_be(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(FluidgateError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: measured([0, 1], [1], [[1.0]]), "must have 2 x 1 numbers"),
        (lambda: measured([0, 1], [1], [[1.0], [1.0, 2.0]]), "must have 2 x 1 numbers"),
        (lambda: measured([0], [1], [[[1.0]]], contexts=[1, 2]), "must have 1 x 1 x 2 numbers"),
        (lambda: measured([1, 0], [1], [[1.0], [1.0]]), "chunk_sizes of a table must increase"),
        (lambda: measured([0], [1], [[[1.0, 2.0]]], contexts=[2, 1]), "contexts of a table must increase"),
        (lambda: measured([0, 1], [1], [[1.0], [0.0]]), "greater than 0"),
        (lambda: measured([0], [1], [[1.0]], context=1, contexts=[1]), "say the same"),
        (lambda: measured([0], [1], [[1.0]], solo={"batch_sizes": [1], "seconds": [1.0]}), "twice"),
    ],
)
def test_tables_that_cannot_be(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make()
