"""The part of a period in which the target that binds is worst."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fluidgate.model import Arrivals
from fluidgate.reports.sizing import peak as shown
from fluidgate.reports.sizing_page import sizing_page
from fluidgate.simulation.iteration.kernel.cluster import COMPLETED, LOG, REJECTED
from fluidgate.sizing import size
from fluidgate.sizing.peak import Course, Intervals, Peak, Seen
from fluidgate.sizing.targets import Target
from tests.sizing.instances import chat

HOURS = '[arrivals]\nprocess = "daily"\nperiod = 240.0\nweights = [1.0, 2.0, 4.0, 2.0]'
TTFT, SERVED = Target(None, "ttft", "p90", 1.0), Target(None, "served", "share", 0.9)


def _log(arrival: list[float], ttft: list[float]) -> np.ndarray:
    """One rejected for each whose first token never comes."""
    log = np.zeros(len(arrival), LOG)
    log["arrival"], log["first_token"] = arrival, np.add(arrival, ttft)
    log["last_token"], log["output"] = log["first_token"] + 1.0, 11
    log["outcome"] = np.where(np.isnan(ttft), REJECTED, COMPLETED)
    return log


def test_each_part_is_read_over_all_periods_and_the_warm_up_is_left_out() -> None:
    intervals = Intervals(period=10.0, count=2, repeats=True, since=10.0, periods=2.0)
    seen = Seen((TTFT, SERVED), chat(), intervals)
    seen.take(_log([1.0, 12.0, 17.0], [9.0, 0.2, 0.6]))
    seen.take(_log([23.0, 28.0, 29.0], [0.4, 0.8, float("nan")]))
    course = seen.course()
    assert course.values[0] == pytest.approx([np.quantile([0.2, 0.4], 0.9), np.quantile([0.6, 0.8], 0.9)], rel=1e-6)
    assert course.values[1] == pytest.approx([1.0, 2 / 3])
    assert course.rates == pytest.approx([0.2, 0.3])
    assert course.peak(TTFT, 0) == Peak(TTFT, 5.0, 10.0, 10.0, float(course.values[0][1]), float(course.rates[1]))
    worst = course.peak(SERVED, 1)
    assert worst is not None
    assert worst.begins == 5.0


def test_replications_are_averaged_where_they_saw_anything() -> None:
    intervals = Intervals(10.0, 2, repeats=True)
    one = Course(intervals, np.array([[0.2, np.nan]]), np.array([1.0, 0.0]))
    two = Course(intervals, np.array([[0.4, 0.1]]), np.array([3.0, 2.0]))
    both = Course.of([one, two])
    assert both.values[0] == pytest.approx([0.3, 0.1])
    assert both.rates == pytest.approx([2.0, 1.0])
    assert Course.of([one, one]).peak(TTFT, 0) == Peak(TTFT, 0.0, 5.0, 10.0, 0.2, 1.0)


def test_only_a_rate_that_rises_and_falls_has_a_peak() -> None:
    assert Intervals.of_arrivals(Arrivals(), 0.0, 100.0) is None
    assert Intervals.of_arrivals(Arrivals(process="daily", weights=(1.0, 1.0)), 0.0, 100.0) is None
    minutes = Arrivals(process="daily", weights=tuple(range(1, 1441)))
    found = Intervals.of_arrivals(minutes, 0.0, 86_400.0)
    assert found is not None
    assert found.seconds == 3600.0
    assert Intervals.of_trace(60.0, 100, [TTFT]) is None


def test_a_day_s_peak_is_named_and_the_target_is_worse_there_than_over_the_day() -> None:
    found = size(chat(targets="ttft_p99 = 0.3", more=HOURS))
    best = found.best
    assert best is not None
    assert best.peak is not None
    assert best.binding is not None
    assert 120.0 <= best.peak.begins < best.peak.ends <= 240.0
    assert best.peak.value > best.binding.value
    assert best.to_dict()["peak"] == {
        "target": "ttft p99",
        "begins": best.peak.begins,
        "ends": best.peak.ends,
        "period": 240.0,
        "value": best.peak.value,
        "rate": best.peak.rate,
    }
    busiest = best.proof.course.rates  # type: ignore[union-attr]
    assert busiest[:3] == pytest.approx(60.0 * np.array([1.0, 2.0, 4.0]) / 2.25, rel=0.05)
    assert "The peak that binds" in sizing_page(found)
    assert size(chat()).best.peak is None  # type: ignore[union-attr]


def test_the_burst_of_a_trace_is_named(tmp_path: Path) -> None:
    times = np.sort(np.concatenate([np.linspace(0.0, 240.0, 4_000), np.linspace(100.0, 110.0, 2_000)]))
    path = tmp_path / "trace.csv"
    rows = (f"{t:.4f},1000,100" for t in times)
    path.write_text("arrival_time,prompt_tokens,output_tokens\n" + "\n".join(rows), "utf-8")
    best = size(chat(targets="ttft_p95 = 1.0"), traces=[path], max_gpus=60).answers[0]
    assert best.peak is not None
    assert best.peak.begins <= 110.0
    assert best.peak.ends >= 100.0


def test_a_day_is_shown_by_its_clock() -> None:
    day = Peak(TTFT, 46_800.0, 50_400.0, 86_400.0, 0.8123, 120.0)
    assert shown(day) == "13:00-14:00: ttft p90 0.8123 s at 120 requests/s"
    short = Peak(Target(None, "ttft", "p90", 0.5), 120.0, 180.0, 240.0, 0.25, 80.0)
    assert shown(short) == "120-180 s of 240 s: ttft p90 250 ms at 80 requests/s"
