"""Tables that a file may leave out, and what a closed loop takes: read, and written as they were."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from fluidgate import FluidgateError, plan
from fluidgate.model import NO_PRICES, TOKENS, Arrivals
from fluidgate.scenario_file import dump_scenario, parse_scenario
from tests.scenario_file.texts import TWO as GOOD

START, END = GOOD.index("[pricing]"), GOOD.index("[[classes]]")
FREE = GOOD[:START] + GOOD[END:]


def test_a_scenario_without_prices_serves_tokens_and_earns_nothing() -> None:
    scenario = parse_scenario(FREE)
    assert not scenario.priced
    assert (scenario.pricing, scenario.prices) == (TOKENS, NO_PRICES)
    best = plan(scenario)
    lengths = [c.prompt_tokens + c.output_tokens for c in scenario.classes]
    assert best.to_dict()["token_rate"] == pytest.approx(best.completion_rate @ lengths)
    with pytest.raises(FluidgateError, match="pricing: missing, and a frontier weighs what is earned"):
        scenario.need_prices("a frontier")
    parse_scenario(GOOD).need_prices("a frontier")


def test_what_is_left_out_stays_out() -> None:
    text = dump_scenario(parse_scenario(FREE))
    assert "[pricing]" not in text
    assert not parse_scenario(text).for_gpus(3).priced
    assert parse_scenario(dump_scenario(parse_scenario(GOOD))).priced


def test_a_closed_loop_is_read_and_written() -> None:
    table = '[arrivals]\nprocess = "closed"\nusers = 8\nthink = 1.5\nthink_law = "exponential"\n'
    scenario = parse_scenario(GOOD[:START] + table + GOOD[START:])
    assert scenario.arrivals == Arrivals(process="closed", users=8, think=1.5, think_law="exponential")
    assert parse_scenario(dump_scenario(scenario)) == scenario


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ('process = "closed"', "arrivals.users: missing"),
        ('process = "closed"\nusers = 0', "arrivals.users: must be"),
        ('process = "closed"\nusers = 2\nthink = -1', "arrivals.think: must be"),
        ("users = 2", 'arrivals.users: only with process = "closed"'),
    ],
)
def test_mistakes_in_a_closed_loop(keys: str, complaint: str) -> None:
    with pytest.raises(FluidgateError, match=complaint):
        parse_scenario(f"{GOOD[:START]}[arrivals]\n{keys}\n{GOOD[START:]}")


def test_a_class_is_made_only_where_a_file_has_none() -> None:
    def one_class(file: Mapping[str, object]) -> dict[str, object]:
        keys = {"name": "all", "prompt_tokens": 10.0, "output_tokens": 5.0, "patience_rate": 0.0}
        return keys | ({"arrival_rate": 1.0} if "cluster" not in file else {"total_arrival_rate": 4.0})

    whole = GOOD[:END]
    assert parse_scenario(whole, one_class=one_class).class_names == ["all"]
    shared = parse_scenario(f"{whole}\n[cluster]\ngpus = 8\n", one_class=one_class)
    assert shared.classes[0].arrival_rate == 0.5
    assert parse_scenario(GOOD, one_class=one_class).class_names != ["all"]
    with pytest.raises(FluidgateError, match="classes: missing"):
        parse_scenario(whole)
