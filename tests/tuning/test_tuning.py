"""The search for parameters: that it finds what is there, claims no more, and repeats itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluidgate import FluidgateError, Indicators, Policy, Tuning, find_policy, load_policy, plan, simulate, tune
from fluidgate.execution import InProcess
from fluidgate.policies import Parameter, Tables
from fluidgate.tuning.candidates import Box
from fluidgate.tuning.race import FIRST, behind, race
from tests.scenarios import two_class_scenario

SCENARIO = two_class_scenario()


class Recorder(InProcess):
    """Runs in this process, and remembers the jobs."""

    def __init__(self) -> None:
        self.jobs: list[Any] = []

    def map(self, function: Any, jobs: Sequence[Any]) -> Any:
        self.jobs.extend(jobs)
        return super().map(function, jobs)


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def tuned(recorder: Recorder) -> Tuning:
    """gate-and-route on 50 GPUs: one mixed GPU more than ceil(10.66) = 11 pays."""
    return tune(SCENARIO, "gate-and-route", gpus=50, budget=1.2e8, executor=recorder)


# ---- points and races


def test_points_fill_the_box_and_close_in() -> None:
    box = Box.whole((Parameter("a", 0.0, -1.0, 3.0, ""), Parameter("k", 2, 1, 9, "", whole=True)))
    points = box.fill(seed=1)
    assert len(points) == box.points == 16
    assert points == box.fill(seed=1) != box.fill(seed=2)
    assert all(-1 <= p["a"] <= 3 and p["k"] in range(1, 10) for p in points)
    quarters = {math.floor(p["a"] + 1) for p in points}
    assert quarters == {0, 1, 2, 3}
    closer = box.around({"a": 2.5, "k": 5})
    assert (closer.low, closer.high) == ((1.5, 3.0), (3.0, 7.0))
    assert all(1.5 <= p["a"] <= 3 and p["k"] in range(3, 8) for p in closer.fill(seed=1))


def raced(means: Sequence[float], noise: float, allowance: int = 128) -> tuple[int, list[list[float]]]:
    """A race of candidates whose replications share their arrivals' noise."""
    random = np.random.default_rng(0)
    common = random.normal(0.0, 10.0, 4096)
    own = random.normal(0.0, noise, (len(means), 4096))
    values: list[list[float]] = [[] for _ in means]

    def score(candidates: Sequence[int], replications: int) -> None:
        for c in candidates:
            for r in range(len(values[c]), replications):
                values[c].append(means[c] + common[r] + own[c, r])

    return race(range(len(means)), values, score, 0, allowance), values


def test_race_finds_the_best_below_the_common_noise() -> None:
    """Differences of 1 among noise of 10 that all share, and of 0.5 that they don't."""
    winner, values = raced([0.0, 1.0, 2.0, 5.0, 4.0, 3.0, -1.0, -2.0], noise=0.5)
    assert winner == 3
    met = [len(v) for v in values]
    assert met[3] == met[0] == max(met)  # the reference stays, so that all can be compared with it
    assert met[7] == FIRST


@pytest.mark.parametrize(("candidates", "allowance"), [(2, 128), (3, 128), (10, 128), (18, 256), (34, 512)])
def test_race_keeps_to_its_allowance(candidates: int, allowance: int) -> None:
    """Half are left after each round, and the fewer there are, the more replications each meets."""
    _, values = raced([0.0] * candidates, noise=1.0, allowance=allowance)
    met = sorted((len(v) for v in values[1:]), reverse=True)
    assert 0.5 * allowance < sum(met) + len(values[0]) <= allowance
    assert met[0] >= 12
    for rank in (1, 2, 4, 8, 16):
        assert met[min(rank, len(met) - 1)] >= met[-1] >= FIRST
    assert candidates < 4 or met[len(met) // 2 + 1] < met[0]


def test_behind_errs_as_seldom_as_it_says() -> None:
    """Equal candidates are called behind in at most 5 % of all comparisons of ten."""
    random = np.random.default_rng(1)
    wrong = 0
    for _ in range(1000):
        best = random.normal(size=8)
        wrong += any(behind(list(random.normal(size=8)), list(best), 8, comparisons=10) for _ in range(10))
    assert 15 <= wrong <= 50 + 3 * math.sqrt(1000 * 0.05 * 0.95)
    assert behind([1.0, 1.1, 0.9], [2.0, 2.1, 2.0], 3, comparisons=1)


# ---- the whole


def test_margin_pays_on_fifty_gpus(tuned: Tuning) -> None:
    """The tuned margin gives 12 mixed GPUs; independent replications of `simulate` confirm the gain."""
    assert tuned.improves
    assert tuned.gain.ci95 is not None
    assert tuned.gain.ci95[0] > 0.5
    assert tuned.policy.values == tuned.proposed
    assert tuned.policy.tabulate(plan(SCENARIO), 50).mixed_gpus == 12
    options: dict[str, Any] = {"gpus": 50, "horizon": 3000.0, "replications": 20, "seed": 99}
    before, after = (np.array(simulate(SCENARIO, p, **options).revenue_rate.values)
                     for p in ("gate-and-route", tuned.policy))  # fmt: skip
    gain = after - before
    error = gain.std(ddof=1) / math.sqrt(20)
    assert gain.mean() == pytest.approx(tuned.gain.mean, abs=4 * error + 0.2)
    assert gain.mean() > 2 * error


def test_default_takes_part(tuned: Tuning) -> None:
    first = tuned.trials[0]
    assert (first.stage, first.values) == (0, {"margin": 0.0}) == (0, tuned.default)
    assert set(first.difference.values) == {0.0}
    assert len(first.objective.values) == max(len(t.objective.values) for t in tuned.trials)
    tables = [
        find_policy("gate-and-route").with_parameters(t.values).tabulate(plan(SCENARIO), 50) for t in tuned.trials
    ]
    assert len({t.mixed_gpus for t in tables}) == len(tables)  # none twice


def test_confirmation_meets_fresh_arrivals(tuned: Tuning, recorder: Recorder) -> None:
    searched = max(len(t.objective.values) for t in tuned.trials)
    (*search,) = (j.replication for j in recorder.jobs[: -2 * tuned.replications])
    confirmed = recorder.jobs[-2 * tuned.replications :]
    assert max(search) == searched - 1
    assert min(j.replication for j in confirmed) == searched
    assert {(j.replication, j.tables.mixed_gpus) for j in confirmed} == {
        (r, m) for r in range(searched, searched + tuned.replications) for m in (11, 12)
    }
    assert {j.seed for j in recorder.jobs} == {tuned.seed}


def test_budget_is_kept(tuned: Tuning, recorder: Recorder) -> None:
    assert tuned.events < tuned.budget
    assert {j.horizon for j in recorder.jobs} == {tuned.horizon}


def test_gain_of_a_parameter_that_does_nothing_is_not_claimed() -> None:
    """A parameter without effect, in tables that differ: whatever the race proposes, the default is kept."""

    def tabulate(plan: Any, gpus: int, *, idle: float = 0.0) -> Tables:
        return base.tabulate(plan, gpus)._replace(weights=np.full((2, 2), idle))  # type: ignore[no-any-return]

    base = find_policy("fi-wsp")
    mine = base.with_functions("mine", tabulate=tabulate, parameters=(Parameter("idle", 0.0, 0.0, 1.0, "nothing"),))
    found = tune(SCENARIO, mine, gpus=1, budget=3e6, workers=1)
    assert not found.improves
    assert found.policy.values == {"idle": 0.0}
    assert len(found.trials) > 10
    assert {t.difference.mean for t in found.trials} == {0.0}
    with pytest.raises(FluidgateError, match="Python code"):
        found.to_toml()


def test_luck_in_the_race_is_not_a_gain() -> None:
    """Two classes of the same law: whose turn it is moves no mean, yet the best of a race looks better.

    With this seed even beyond its 95 % interval; fresh seeds refute it.
    """

    def tabulate(plan: Any, gpus: int, *, tilt: float = 0.0) -> Tables:
        return base.tabulate(plan, gpus)._replace(target_prefill=np.array([1.0, 1.0 + tilt]))

    twin = SCENARIO.classes[1]
    twins = SCENARIO.replace(classes=(twin, twin.model_copy(update={"name": "twin"})))
    base = find_policy("gi-wsp-uncapped")
    mine = base.with_functions("mine", tabulate=tabulate, parameters=(Parameter("tilt", 0.0, 0.0, 3.0, "bias"),))
    found = tune(twins, mine, gpus=5, budget=8e6, seed=3, workers=1)
    lucky = next(t for t in found.trials if t.values == found.proposed)
    assert lucky.difference.ci95 is not None
    assert lucky.difference.ci95[0] > 0.0
    assert found.gain.ci95 is not None
    assert found.gain.ci95[0] < 0.0 < found.gain.ci95[1]
    assert not found.improves
    assert found.policy.values == {"tilt": 0.0}


def test_nothing_to_race_on_one_gpu() -> None:
    """One GPU is mixed whatever the margin: all candidates have the same tables."""
    found = tune(SCENARIO, "gate-and-route", gpus=1, budget=3e6, workers=1)
    assert len(found.trials) == 1
    assert (found.improves, found.proposed, found.gain.mean) == (False, {"margin": 0.0}, 0.0)
    assert load(found).values == {"margin": 0.0}


def load(found: Tuning) -> Policy:
    from fluidgate.policies.policy_file import parse_policy

    return parse_policy(found.to_toml())


def test_same_numbers_whatever_the_workers() -> None:
    one, two = (tune(SCENARIO, gpus=4, budget=7e6, seed=5, workers=w) for w in (1, 2))
    assert one.to_dict() == two.to_dict()
    other = tune(SCENARIO, gpus=4, budget=7e6, seed=6, workers=1)
    assert other.objective_default != one.objective_default


def test_penalties_count() -> None:
    """Where the gap between the prefills of the classes costs, the objective is below the revenue by that much."""
    costly = SCENARIO.replace(indicators=Indicators(prefill_gap_weight=300.0))
    found = tune(costly, "gate-and-route", gpus=4, budget=7e6, workers=1)
    result = simulate(costly, "gate-and-route", gpus=4, horizon=4000.0, replications=20)
    assert result.objective_ratio.mean is not None
    assert result.revenue_rate.mean is not None
    expected = result.objective_ratio.mean * result.plan.objective
    assert result.revenue_rate.mean - expected > 5.0
    assert found.objective_default.mean == pytest.approx(expected, rel=0.01)
    assert found.plan_objective == pytest.approx(plan(costly).objective)


def test_file_of_a_tuning_is_a_policy(tuned: Tuning, tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    tuned.save(path, command=tuned.command("two class.toml"))
    policy = load_policy(path)
    assert policy.values == tuned.proposed
    assert policy.tuned is not None
    record = policy.tuned.model_dump()
    assert (record["scenario"], record["gpus"], record["seed"]) == ("two-class", 50, 0)
    assert record["gain"] == pytest.approx(tuned.gain.mean)
    assert record["gain_ci95"] == pytest.approx(list(tuned.gain.ci95 or ()))
    assert record["objective_tuned"] - record["objective_default"] == pytest.approx(record["gain"], abs=1e-3)
    assert record["command"] == (
        "fluidgate tune 'two class.toml' --gpus 50 --policy gate-and-route --budget 1.2e+08 --seed 0"
    )
    with pytest.raises(FluidgateError, match="is there already"):
        tuned.save(path)


def test_tuning_from_a_file_starts_at_its_values(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('policy = "gate-and-route"\n[parameters]\nmargin = 0.9\n', "utf-8")
    found = tune(SCENARIO, str(path), gpus=4, budget=7e6, workers=1)
    assert found.default == {"margin": 0.9}
    assert found.name == "gate-and-route"
    assert load(found).values == found.policy.values


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"policy": "fi-wsp"}, "'fi-wsp' has no parameters to tune; choose one of gate-and-route, "),
        ({"policy": "gate"}, "unknown policy 'gate'"),
        ({"gpus": None}, "gpus: missing"),
        ({"gpus": 0}, "gpus: must be at least 1"),
        ({"seed": -1}, "seed: must be at least 0"),
        ({"budget": 1e5}, "budget: must be a number of events from 7.2e+06 for 5 GPUs of 'two-class', but is 100000"),
        ({"budget": math.nan}, "but is nan"),
        ({"budget": math.inf}, "but is inf"),
    ],
)
def test_mistakes(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(FluidgateError) as caught:
        tune(SCENARIO, **{"gpus": 5, **arguments})
    assert message in str(caught.value)
