"""The least number of engines: held against all numbers simulated, against the program, and against itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fluidgate.batching import Batching
from fluidgate.errors import FluidgateError, InfeasiblePlanError
from fluidgate.model import Scenario
from fluidgate.planning import plan
from fluidgate.planning.batches.need import need
from fluidgate.simulation import simulate
from fluidgate.sizing import Answer, size
from fluidgate.sizing.search import Search
from tests.sizing.instances import chat

CASES = {
    "tight TTFT": (chat(targets="ttft_p99 = 0.135"), "index-and-pool"),
    "tight TPOT": (chat(targets="tpot_p95 = 0.014"), "index-and-pool"),
    "latency, token budget": (chat(targets="latency_p90 = 5.0"), "vllm-least-loaded"),
    "bursts": (
        chat(targets="ttft_p90 = 0.25", rate=40.0, more='[arrivals]\nprocess = "gamma"\ncv = 3.0'),
        "index-and-pool",
    ),
    "goodput": (chat(targets="goodput = 0.95\nttft = 0.2\ntpot = 0.02"), "index-and-pool"),
    "tensor parallel": (
        chat(profile="h100/llama-3.1-70b-tp4", targets="ttft_p95 = 1.0\ntpot_mean = 0.03", rate=12.0),
        "index-and-pool",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_least_is_that_of_all_numbers_simulated(case: str) -> None:
    scenario, policy = CASES[case]
    answer = size(scenario, policies=[policy]).answers[0]
    assert answer.status == "met"
    assert answer.engines is not None
    least = _exhaustive(scenario, policy, answer)
    assert abs(answer.engines - least) <= 1


def _exhaustive(scenario: Scenario, policy: str, answer: Answer) -> int:
    """The first number on which the means over replications that it has not met keep all limits."""
    for engines in range(answer.bound_engines, 40):
        result = simulate(scenario, policy, gpus=engines, horizon=400, replications=6, seed=77, workers=1)
        kept = []
        for target in answer.whole.readings if answer.whole else ():
            what = target.target
            if what.measure == "goodput":
                kept.append(result.overall.goodput.mean / result.overall.completion_rate.mean >= what.limit)  # type: ignore[attr-defined]
            else:
                kept.append(getattr(getattr(result.overall, what.measure), what.statistic) <= what.limit)  # type: ignore[attr-defined]
        if all(kept):
            return engines
    raise AssertionError("no number does")


@pytest.mark.parametrize("rate", [7.0, 60.0, 333.0])
@pytest.mark.parametrize("batching", list(Batching))
def test_the_bound_is_where_the_plan_begins_to_be_feasible(rate: float, batching: Batching) -> None:
    scenario = chat(rate=rate)
    least = need(scenario, batching).engines(4)
    plan(scenario, gpus=least, batching=batching, by_iterations=True)
    if least > 1:
        with pytest.raises(InfeasiblePlanError):
            plan(scenario, gpus=least - 1, batching=batching, by_iterations=True)


def test_less_is_asked_more_is_had() -> None:
    limits = [0.13, 0.135, 0.145, 0.2, 1.0]
    found = [size(chat(targets=f"ttft_p99 = {limit}")).answers[0].engines or 99 for limit in limits]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1]
    loads = [size(chat(), rate_scale=scale).answers[0].engines or 99 for scale in (0.5, 1.0, 2.0)]
    assert loads == sorted(loads)
    assert loads[0] < loads[-1]


def test_spare_engines_come_on_top_and_the_targets_hold_without_them() -> None:
    plain, safe = size(chat()).answers[0], size(chat(), spare=2).answers[0]
    assert plain.engines is not None
    assert safe.engines == plain.engines + 2
    assert safe.proof is not None
    assert safe.proof.engines == plain.engines
    assert safe.whole is not None
    assert safe.whole.engines == safe.engines
    assert safe.one_less is not None
    assert safe.one_less.engines == safe.engines - 1


def test_the_same_seed_gives_the_same_numbers_whatever_the_workers() -> None:
    one, two = size(chat(), seed=3, workers=1), size(chat(), seed=3, workers=2)
    assert one.to_dict() | {"wall_seconds": 0} == two.to_dict() | {"wall_seconds": 0}
    other = size(chat(), seed=4, workers=1)
    assert one.to_dict()["answers"] != other.to_dict()["answers"]


def test_choices_come_cheapest_first_and_those_that_can_not_win_are_not_simulated() -> None:
    found = size(chat(), profiles=["h100/llama-3.1-8b", "l40s/llama-3.1-8b"], batch_sizes=[8, 128])
    assert [each.status for each in found.answers] == sorted(
        [each.status for each in found.answers], key=("met", "undecided", "impossible").index
    )
    costs = [each.bill.per_hour for each in found.answers if each.bill]
    assert costs == sorted(costs)
    assert {choice.batch_size for choice in found.pruned} == {8} or any(c.batch_size == 8 for c in found.pruned)


def test_the_bill_is_what_the_tokens_cost() -> None:
    answer = size(chat()).answers[0]
    assert answer.bill is not None
    assert answer.engines is not None
    assert answer.bill.per_hour == pytest.approx(2.5 * answer.engines)
    assert answer.whole is not None
    rates = answer.whole.result.classes[0]
    million = answer.whole.result.run.gpus * 3600 / 1e6
    (price,) = answer.bill.classes
    total = (price.prompt or 0) * (rates.prompt_token_rate.mean or 0) + (price.output or 0) * (
        rates.output_token_rate.mean or 0
    )
    assert total * million == pytest.approx(answer.bill.per_hour)


def test_what_too_few_replications_can_not_tell_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    sure = size(chat(targets="ttft_p99 = 0.135"), workers=1).answers[0]
    assert sure.to_dict()["undecided_between"] is None
    assert sure.one_less is not None
    monkeypatch.setattr("fluidgate.sizing.load.LOOKS", (4,))
    (answer,) = size(chat(targets=f"ttft_p99 = {sure.one_less.value}"), spare=1, workers=1).answers
    assert answer.engines is not None
    assert answer.to_dict()["undecided_between"] == [answer.engines - 1, answer.engines]
    assert answer.reason is not None
    assert f"undecided between {answer.engines - 1} and {answer.engines} engines" in answer.reason


def test_what_no_number_of_engines_keeps_is_impossible() -> None:
    found = size(chat(targets="ttft_p99 = 0.001"), max_gpus=6)
    (answer,) = found.answers
    assert (answer.status, answer.engines, found.best) == ("impossible", None, None)
    assert answer.reason is not None
    assert "ttft p99 is" in answer.reason


def test_too_few_gpus_are_said_before_any_simulation() -> None:
    (answer,) = size(chat(), max_gpus=1).answers
    assert answer.status == "impossible"
    assert answer.reason is not None
    assert "but there are 1" in answer.reason
    assert answer.trials == ()


def test_rates_per_gpu_can_not_be_sized() -> None:
    per_gpu = chat().replace(cluster_gpus=None)
    with pytest.raises(FluidgateError, match=r"its rates are per GPU, .* add \[cluster\]"):
        size(per_gpu)


def test_a_fleet_that_is_larger_than_any_is_refused_at_once() -> None:
    with pytest.raises(FluidgateError, match=r"needs at least [\d,]+ engines, .* size a part of it"):
        size("examples/chat-fleet.toml", rate_scale=1e9)


def test_groups_are_counted_as_gpus_so_that_nothing_warns_of_it_nor_of_a_margin_that_was_simulated() -> None:
    """Of a load on which a plan warns of both."""
    scenario = chat(profile="h100/llama-3.1-70b-tp4", targets="ttft_p99 = 3.0", rate=12.0)
    found = size(scenario, workers=1)
    answer = found.best
    assert answer is not None
    assert answer.engines is not None
    assert answer.gpus == 4 * answer.engines
    planned = simulate(scenario, "index-and-pool", gpus=answer.engines, horizon=10, replications=1, workers=1).warnings
    assert any("times as many" in warning for warning in planned)
    assert any("no margin" in warning for warning in planned)
    assert not any("times as many" in warning or "no margin" in warning for warning in found.warnings)
    assert any("kv_tokens" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("guess", "least", "most"), [(337, 329, 6), (300, 329, 9), (7, 6, 4), (5, 6, 2), (259, 259, 1)]
)
def test_a_search_goes_on_from_its_guess_by_a_share_of_it(guess: int, least: int, most: int) -> None:
    bound = 259 if least > 200 else 3
    search = _Known(None, None, bound, guess, 9999, 0)  # type: ignore[arg-type]
    search.least = least
    assert list(search.steps()) == []
    assert search.found is not None
    assert search.found.engines == least
    assert len(search.trials) <= most


class _Known(Search):
    """A search in which so many engines keep the targets at least."""

    least: int

    def _try(self, engines: int) -> Any:
        self.trials[engines] = SimpleNamespace(  # type: ignore[assignment]
            engines=engines, status="met" if engines >= self.least else "missed"
        )
        return self.trials[engines]
        yield


def test_ranks_in_step_are_bought_in_whole_groups() -> None:
    found = size(chat(more="[engine]\ndata_parallel = 2"), workers=1).best
    alone = size(chat(), workers=1).best
    assert found is not None
    assert alone is not None
    assert found.engines is not None
    assert found.gpus == 2 * found.engines
    assert found.gpus >= (alone.gpus or 0)
