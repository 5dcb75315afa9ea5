"""The iteration time and its closed forms, against sums and searches one iteration at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluidgate.compiled import entry_point
from fluidgate.errors import FluidgateError
from fluidgate.model import IterationTime
from fluidgate.simulation.iteration import law as laws
from fluidgate.simulation.iteration.law import linear_law, paper_law, table_law

_base, _slope, _span, _from, _ended = (
    laws.base_time,
    laws.context_slope,
    laws.span,
    laws.boundary_from,
    laws.ended_by,
)


@entry_point
def seconds(law, chunk, decodes, context):  # type: ignore[no-untyped-def]
    return _base(law, chunk, decodes) + _slope(law, chunk) * context


@entry_point
def closed_forms(origin, first, step, iterations, epoch):  # type: ignore[no-untyped-def]
    return (
        _span(first, step, iterations),
        _from(origin, first, step, epoch),
        _ended(origin, first, step, epoch),
    )


def test_the_papers_law_is_a_special_case() -> None:
    law = paper_law(IterationTime(alpha=0.0174, beta=6.2e-5, gamma=45.45))
    assert seconds(law, 256, 15, 12_000) == pytest.approx(0.0174 + 6.2e-5 * 256)
    assert seconds(law, 0, 16, 12_000) == pytest.approx(1 / 45.45)


def test_every_term_counts() -> None:
    law = linear_law(0.01, 1e-4, delta=2e-4, epsilon=3e-6, solo=(0.008, 1e-4, 2e-6))
    assert seconds(law, 100, 7, 5000) == pytest.approx(0.01 + 0.01 + 0.0014 + 0.015)
    assert seconds(law, 0, 7, 5000) == pytest.approx(0.008 + 0.0007 + 0.01)


def test_a_table_is_read_between_and_beyond_its_nodes() -> None:
    law = table_law([0, 100, 300], [1, 10], [[1.0, 2.0], [3.0, 5.0], [7.0, 11.0]])
    assert seconds(law, 0, 1, 0) == 1.0
    assert seconds(law, 50, 1, 0) == 2.0
    assert seconds(law, 100, 5.5, 0) == 4.0
    assert seconds(law, 200, 10, 0) == 8.0
    assert seconds(law, 400, 10, 0) == 14.0, "carried on in a straight line"
    assert seconds(law, 0, 19, 0) == 3.0, "carried on in a straight line"
    assert seconds(law, 0, 0, 0) == 1.0, "constant below the least batch"


def test_a_table_holds_its_own_context() -> None:
    law = table_law([0, 100], [1, 10], [[1.0, 2.0], [3.0, 5.0]], epsilon=1e-4, context=1000)
    assert seconds(law, 100, 10, 10_000) == pytest.approx(5.0), "at the context of the measurement"
    assert seconds(law, 100, 10, 4_000) == pytest.approx(4.4)


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
        (lambda: table_law([0, 1], [1], [[1.0]]), "2 chunks and 1 batches"),
        (lambda: table_law([1, 0], [1], [[1.0], [1.0]]), "must increase"),
        (lambda: table_law([0, 1], [1], [[1.0], [0.0]]), "above 0 s"),
        (lambda: table_law([0], [10], [[1.0]], epsilon=1e-3, context=1000), "lower epsilon"),
    ],
)
def test_laws_that_cannot_be(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(FluidgateError, match=message):
        make()


@pytest.mark.parametrize(("chunk", "decodes", "context"), [(0, 1, 500), (0, 12, 40_000), (50, 4, 3000), (700, 30, 0)])
def test_outside_compiled_code_the_time_is_the_same(chunk: int, decodes: int, context: int) -> None:
    table = table_law([0, 100, 300], [1, 10], [[1.0, 2.0], [3.0, 5.0], [7.0, 11.0]], epsilon=1e-6, context=1000.0)
    linear = linear_law(0.01, 1e-4, delta=2e-4, epsilon=3e-6, solo=(0.008, 1e-4, 2e-6))
    for law in (table, linear):
        assert laws.seconds(law, chunk, decodes, context) == pytest.approx(seconds(law, chunk, decodes, context))
