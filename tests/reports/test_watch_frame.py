"""The frame of `fluidgate watch`, from readings made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from fluidgate.gateway.rates import History
from fluidgate.reports.watch_frame import bar, frame
from tests.reports.gateway import engine, metrics, reading
from tests.reports.seen import shown

URL = "http://host:8080"


def framed(*readings: Any, away: str | None = None) -> str:
    history = History()
    for each in readings:
        history.add(each)
    return shown(frame(URL, history, away))


def row(text: str, first: str, number: int = 0) -> list[str]:
    """The cells of the row of a table, by its first cell."""
    return [line.split() for line in text.splitlines() if line.split()[:1] == [first]][number]


def test_the_first_reading_shows_what_is_there_and_what_the_plan_wants() -> None:
    text = framed(reading())
    assert f"live · gate-and-route · decodes placed after their prefill · {URL}" in text
    assert "2 of 2 engines up, 1 mixed (plan: 1) · plan 30 s old, solved again 3 times · up for 100 s" in text
    assert "Requests now / as the plan wants them" in text
    assert " ".join(row(text, "chat")) == "chat 1 / 1.25 2 / 1.25 3 / 1.25 4 / 1.25 5 / 1.25"
    assert "Rates come with the second reading" in text
    assert row(text, "chat", 1) == ["chat", "0.75"]
    assert "Times of those that ended" not in text


def test_the_second_reading_brings_rates_times_and_refusals() -> None:
    old = reading(0.0, metrics())
    new = reading(4.0, metrics(chat={"completed": 8.0, "cancelled": 3.0}, refused={"queue_full": 2.0}))
    text = framed(old, new)
    assert "revenue 5/s of 123.4 planned" in text
    assert "Over the last 4 s" in text
    assert row(text, "chat", 1) == ["chat", "0.75", "2", "5", "20", "3", "cancelled"]
    assert row(text, "code", 1) == ["code", "0.75", "0", "0", "0", "-"]
    assert row(text, "chat", 2) == ["chat", "0.15", "0.19", "-", "-"]
    assert "refused on arrival: 2 queue_full" in text


def test_without_a_plan_nothing_is_said_of_one() -> None:
    text = framed(reading(plan=None, binding="stay"))
    assert "decodes stay where they are read" in text
    assert row(text, "code") == ["code", "1", "2", "3", "4", "5"]
    assert row(text, "code", 1) == ["code", "-"]
    assert "plan" not in text


@pytest.mark.parametrize(("seconds", "written"), [(119.0, "119 s"), (120.0, "2 min"), (7_200.0, "2 h"), (2e5, "2 d")])
def test_spans_are_in_the_unit_of_which_there_are_two(seconds: float, written: str) -> None:
    assert f"up for {written}" in framed(reading(uptime=seconds))


def test_engines_show_who_holds_their_slots_and_those_that_are_down_nothing() -> None:
    engines = [engine(kv_usage=0.257, foreign=1), engine("down", url="http://host:2")]
    text = framed(reading(engines=engines))
    assert "host:1 mixed  █▆▆▒···· 4/8  KV 26 %" in text
    (down,) = (line for line in text.splitlines() if "host:2" in line)
    assert down.rstrip().endswith("host:2 down")
    assert "1 of 2 engines up" in text


def test_a_gateway_that_drains_says_so() -> None:
    assert "DRAINING" in framed(reading(draining=True))
    assert "DRAINING" not in framed(reading())


def test_a_gateway_that_is_away_keeps_its_last_frame() -> None:
    there, away = framed(reading()), framed(reading(), away="no answer within 5 s")
    assert away == f"{URL} is away (no answer within 5 s); trying again\n" + there
    assert framed(away="connection refused").splitlines() == [f"{URL} is away (connection refused); trying again"]


@pytest.mark.parametrize(
    ("held", "slots", "cells"),
    [
        ([1, 5, 0], 8, [1, 5, 0, 2]),
        ([1, 100, 0], 256, [1, 6, 0, 9]),
        ([1, 250, 5], 256, [1, 14, 1, 0]),
        ([3, 40, 0], 16, [3, 13, 0, 0]),
        ([0, 0, 0], 4, [0, 0, 0, 4]),
    ],
)
def test_bars_show_who_holds_the_slots(held: list[int], slots: int, cells: list[int]) -> None:
    assert bar(held, slots) == cells
