"""The optimum against brute force, closed forms, exact and simulated policies, and what must hold of any optimum."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from fluidgate import FluidgateError, Scenario
from fluidgate.cli.app import app
from fluidgate.model import Pricing
from fluidgate.optimum import Action, GpuState, Optimum, State, optimum, yardstick
from fluidgate.optimum.result import worth_of_all
from fluidgate.optimum.solve import poisson_limit
from fluidgate.optimum.space import Size, Space
from tests.optimum.brute_force import BruteForce
from tests.oracles.closed_forms import erlang_a
from tests.oracles.tiny import TINY_SYSTEMS, TinySystem, scenario
from tests.scenarios import two_class_scenario

TWO = [(1.5, 1.6, 0.35, 1.5), (3.0, 0.8, 0.25, 2.5)]
OVERLOAD = [(1.5, 0.5, 1.8, 0.1), (3.0, 1.0, 1.2, 0.0)]

# The oracle's own limits on the queues, and more decodes waiting than its policies can keep.
LIMITS = {"one-class": (14, 12), "patient": (30, 16), "two-class": (12, 5), "two-class-light": (8, 4)}
EXACT = [s for s in TINY_SYSTEMS if not s.large and s.scenario.name in {*LIMITS, "two-class-heavy", "two-class-wide"}]


@cache
def solved(system: str) -> Optimum:
    found = next(s for s in TINY_SYSTEMS if s.name == system)
    queue, buffer = LIMITS.get(found.scenario.name, (found.queue_limit, 2))
    return optimum(found.scenario, gpus=found.gpus, queue_limit=queue, buffer_limit=buffer, accuracy=1e-8)


def optimum_of(system: TinySystem) -> Optimum:
    same = (s for s in TINY_SYSTEMS if s.scenario == system.scenario and s.gpus == system.gpus)
    return solved(next(same).name)


def small(batch: int = 3, factor: float = 0.5, patience: float = 0.3, **fields: Any) -> Scenario:
    """The two-class instance with a small batch, shorter requests and less patience."""
    base = two_class_scenario()
    classes = tuple(
        c.model_copy(
            update={
                "prompt_tokens": factor * c.prompt_tokens,
                "output_tokens": factor * c.output_tokens,
                "patience_rate": patience,
            }
        )
        for c in base.classes
    )
    return base.replace(gpu=base.gpu.model_copy(update={"batch_size": batch}), classes=classes, **fields)


@pytest.mark.parametrize("scheme", ["bundled", "separate"])
@pytest.mark.parametrize("kappa", [1.0, 2.5])
@pytest.mark.parametrize(
    ("batch", "classes", "gpus", "queue", "buffer"), [(2, TWO, 1, 2, 1), (1, TWO, 2, 1, 1), (2, OVERLOAD, 1, 2, 2)]
)
def test_brute_force_agrees(batch, classes, gpus, queue, buffer, kappa, scheme):
    where = scenario("tiny", batch, classes, kappa=kappa, scheme=scheme)
    best = optimum(where, gpus=gpus, queue_limit=queue, buffer_limit=buffer, accuracy=1e-10)
    exact = BruteForce(where, gpus, queue, buffer).gain()
    assert best.revenue_rate == pytest.approx(exact, rel=1e-8)
    rough = optimum(where, gpus=gpus, queue_limit=queue, buffer_limit=buffer, accuracy=1e-3)
    for found in (rough, best):
        assert found.lower <= exact * (1 + 1e-9)
        assert found.upper >= exact * (1 - 1e-9)


@pytest.mark.parametrize("system", EXACT, ids=lambda s: s.name)
def test_no_policy_earns_more_exactly(system):
    stationary = system.solve()
    bundled = system.scenario.pricing.scheme == "bundled"
    earned = stationary.revenue_bundled if bundled else stationary.revenue_separate
    assert earned <= optimum_of(system).upper * (1 + 1e-6)


def test_no_policy_earns_more_in_simulation():
    best = optimum(small(batch=2, patience=1.0), gpus=2)
    names = ["gate-and-route", "capped-gate-and-route", "fi-wsp", "gi-wsp", "gf-wsp", "sli-aware"]
    measured = yardstick(best, names, horizon=4_000, replications=4, workers=1)
    shares = [measured.share(result) for result in measured.results]
    assert all(interval is not None and interval[0] < 1.0 for _, interval in shares)
    assert max(share or 0.0 for share, _ in shares) > 0.7
    assert json.loads(measured.to_json())["policies"][0]["policy"] == "gate-and-route"


@pytest.mark.parametrize(("gpus", "patience"), [(1, 0.5), (3, 0.5), (3, 2.0)])
def test_prefills_alone_are_erlang_a(gpus, patience):
    # Answers cost nothing and are dropped: every slot is for prefills, and there is no reason to hold one back.
    where = scenario("station", 1, [(1.0, 0.7, 1.4, patience)], scheme="separate")
    where = where.replace(pricing=Pricing(scheme="separate", prompt=0.01, output=0.0))
    exact = erlang_a(gpus * 1.4, 1.0, gpus, patience).throughput * where.rates.prompt_value[0] / gpus
    best = optimum(where, gpus=gpus, queue_limit=30, accuracy=1e-9)
    assert best.revenue_rate == pytest.approx(exact, rel=1e-7)


def test_instant_answers_are_erlang_a():
    where = scenario("instant", 1, [(1.0, 1e4, 1.4, 0.5)])
    exact = erlang_a(2 * 1.4, 1.0, 2, 0.5).throughput * where.rates.bundled_value[0] / 2
    best = optimum(where, gpus=2, accuracy=1e-7)
    assert best.revenue_rate == pytest.approx(exact, rel=3e-4)
    assert best.revenue_rate < exact


def test_more_capacity_never_earns_less():
    shared = small(patience=1.0, batch=1, cluster_gpus=1)
    total = [n * optimum(shared, gpus=n, accuracy=1e-5).revenue_rate for n in (1, 2, 3)]
    assert total[0] < total[1] < total[2]
    slots = [optimum(small(patience=1.0, batch=b), gpus=1).revenue_rate for b in (1, 2, 3)]
    assert slots[0] < slots[1] < slots[2]


@pytest.mark.parametrize("scheme", ["bundled", "separate"])
def test_the_fluid_optimum_is_above(scheme):
    # Means under any policy satisfy the fluid program, whatever the number of GPUs.
    where = small(batch=2, patience=1.0, pricing=Pricing(scheme=scheme, prompt=0.1, output=0.2))
    for gpus in (1, 2):
        best = optimum(where, gpus=gpus, accuracy=1e-4, queue_limit=6, buffer_limit=4)
        assert best.upper <= best.fluid_rate * (1 + 1e-9)
        assert best.optimality_ratio == pytest.approx(best.revenue_rate / best.fluid_rate)


def test_the_buffer_grows_where_decodes_wait():
    where = small(batch=2, patience=1.0, pricing=Pricing(scheme="separate", prompt=0.1, output=0.2))
    best = optimum(where, gpus=1)
    assert best.buffer_limit > 3
    assert best.buffer_limit_chance < 1e-4
    tight = optimum(where, gpus=1, buffer_limit=3)
    assert tight.upper < best.lower
    assert "buffer_limit" in tight.warnings[0]


def test_wider_limits_never_earn_less():
    found = [optimum(small(), gpus=1, queue_limit=q, buffer_limit=2).revenue_rate for q in (1, 2, 4, 8)]
    assert np.all(np.diff(found) > 0)
    assert optimum(small(), gpus=1, queue_limit=2).warnings
    assert not optimum(small(), gpus=1).warnings


def test_the_policy_earns_what_the_bounds_say():
    best = optimum(small(batch=2, patience=0.5), gpus=2)
    assert best.lower * (1 - 1e-6) <= best.revenue_rate <= best.upper * (1 + 1e-9)
    assert best.upper - best.lower <= 1e-6 * best.upper
    assert best.policy.chance.sum() == pytest.approx(1.0)
    assert best.queue_limit_chance < 1e-4


def test_decisions():
    best = optimum(small(), gpus=1)
    idle = [(None, (0, 0))]
    assert best.decision(idle, (0, 0)) == ()
    assert best.decision(idle, (0, 1)) == (Action("prefill", 1, GpuState(None, (0, 0))),)
    assert best.decision(idle, (1, 0)) == ()  # 115 in 11 s of a slot: kept free for 190 in 4.4 s
    assert best.decision([(0, (1, 1))], (3, 3)) == ()  # no free slot
    placed = best.decision(idle, (0, 0), (0, 1))
    assert placed == (Action("decode", 1, GpuState(None, (0, 0))),)
    with pytest.raises(FluidgateError, match="no such state"):
        best.decision(idle, (1000, 0))


def test_states_are_counted_before_they_are_made():
    for gpus, batch, limits, buffer in ((1, 3, (4, 2), 2), (2, 2, (2,), 3), (3, 1, (1, 1, 1), 1)):
        size = Size(gpus, batch, limits, buffer)
        classes = [(1.0, 1.0, 0.1, 1.0)] * len(limits)
        space = Space(scenario("any", batch, classes), size)
        assert space.states == size.states
        for number in range(0, size.states, 7):
            assert space.number(space.state(number)) == number
    assert Space(scenario("any", 2, TWO), Size(2, 2, (1, 1), 1)).state(0) == State(
        (GpuState(None, (0, 0)),) * 2, (0, 0), (0, 0)
    )


def test_too_large_is_refused():
    with pytest.raises(FluidgateError) as refused:
        optimum(two_class_scenario(), gpus=3)
    message = str(refused.value)
    assert message.startswith("3 GPUs of 16 slots with 2 classes have 1.2e+11 states, above the limit of 2,000,000;")
    assert "gpus=1" in message
    assert "\n" not in message
    with pytest.raises(FluidgateError, match="batch_size = 1"):
        optimum(two_class_scenario(), gpus=2, max_states=100_000)


@pytest.mark.parametrize(
    ("options", "message"),
    [({}, "gpus"), ({"gpus": 0}, "gpus"), ({"gpus": 1, "queue_limit": 0}, "queue_limit"),
     ({"gpus": 1, "buffer_limit": 0}, "buffer_limit"), ({"gpus": 1, "accuracy": 0.0}, "accuracy")],
)  # fmt: skip
def test_wrong_options_are_refused(options, message):
    with pytest.raises(FluidgateError, match=message):
        optimum(small(), **options)


def test_queue_limits_bound_the_tail():
    from scipy.stats import poisson

    for mean in (0.01, 1.0, 20.0):
        limit = poisson_limit(mean, 1e-6)
        assert poisson.sf(limit - 1, mean) <= 1e-6 < poisson.sf(limit - 2, mean)


FILE = """
schema = 1
name = "small"
[gpu]
batch_size = {batch}
chunk_size = 256
alpha = 0.0174
beta = 6.2e-5
gamma = 45.45
[pricing]
scheme = "bundled"
prompt = 0.1
output = 0.2
[[classes]]
name = "long"
prompt_tokens = 150
output_tokens = 500
arrival_rate = 0.5
patience_rate = 0.5
[[classes]]
name = "short"
prompt_tokens = 1500
output_tokens = 200
arrival_rate = 0.5
patience_rate = 0.5
"""


def invoke(folder: Path, *arguments: str, batch: int = 2) -> Any:
    path = folder / "s.toml"
    path.write_text(FILE.format(batch=batch), "utf-8")
    return CliRunner().invoke(app, ["optimum", str(path), *arguments])


def test_command_prints_a_table_and_draws(tmp_path):
    picture = tmp_path / "p.svg"
    run = ["--policy", "fi-wsp,gi-wsp", "--horizon", "2000", "--replications", "2"]
    outcome = invoke(tmp_path, "--gpus", "2", *run, "--plot", str(picture))
    assert outcome.exit_code == 0, outcome.output
    for words in ("certified bounds", "optimum / R*", "gi-wsp", "% of the optimum"):
        assert words in outcome.output
    assert picture.stat().st_size > 1000


def test_command_prints_json(tmp_path):
    outcome = invoke(tmp_path, "--gpus", "1", "--json")
    value = json.loads(outcome.stdout)
    assert value["schema"] == 1
    assert value["revenue_rate_bounds"][0] <= value["revenue_rate"] * (1 + 1e-6)
    assert 0 < value["optimality_ratio"] < 1


def test_command_refuses_what_is_too_large(tmp_path):
    outcome = invoke(tmp_path, "--gpus", "3", batch=16)
    assert isinstance(outcome.exception, FluidgateError)
    unknown = invoke(tmp_path, "--gpus", "1", "--policy", "fi-wps")
    assert "fi-wsp" in str(unknown.exception)


def patient(load: float, scheme: str = "bundled") -> Scenario:
    """Requests that never leave and keep the only slot busy this share of the time: a prefill of 1 s and a decode."""
    return scenario("patient", 1, [(1.0, 1.0, load / 2, 0.0)], scheme=scheme)


@pytest.mark.parametrize("scheme", ["bundled", "separate"])
@pytest.mark.parametrize("load", [0.5, 0.9, 0.95])
def test_who_never_leaves_is_served_where_there_is_room(load: float, scheme: str) -> None:
    where = patient(load, scheme)
    assert 1 / where.rates.prefill[0] + 1 / where.rates.solo_decode[0] == pytest.approx(2.0)
    best = optimum(where, gpus=1)
    assert best.settled
    assert best.revenue_rate == pytest.approx(worth_of_all(where), rel=2e-6)
    assert best.lower <= worth_of_all(where) <= best.upper * (1 + 1e-9)
    assert best.warnings == ()
    assert best.queue_limits[0] >= 20
    assert best.queue_limit_chance < 1e-4


def test_a_given_limit_and_any_accuracy_are_kept_to() -> None:
    best = optimum(patient(0.9), gpus=1, queue_limit=10, accuracy=0.05)
    assert best.queue_limits == (10,)
    assert best.upper - best.lower <= 0.05 * best.upper
    assert best.lower <= best.revenue_rate * (1 + 1e-9)
    narrow = optimum(patient(0.9), gpus=1, queue_limit=10, buffer_limit=1, accuracy=1e-7)
    assert narrow.settled
    assert narrow.revenue_rate < worth_of_all(patient(0.9))


def test_more_than_can_be_served_of_those_who_never_leave_is_said_in_a_line() -> None:
    with pytest.raises(FluidgateError, match=r"need 1\.2\d* times the GPUs there are") as told:
        optimum(patient(1.2), gpus=1)
    assert "\n" not in str(told.value)


def test_patient_and_impatient_classes_together() -> None:
    both = scenario("both", 1, [(1.0, 1.0, 0.2, 0.0), (1.0, 1.0, 0.2, 1.0)])
    best = optimum(both, gpus=1, accuracy=1e-4)
    values = both.rates.arrival * both.rates.bundled_value
    assert best.upper - best.lower <= 1e-4 * best.upper or any("apart" in line for line in best.warnings)
    assert float(values.max()) < best.revenue_rate < float(values.sum())


def test_a_patient_class_that_is_not_worth_its_slot_has_a_queue_without_end() -> None:
    """Ten seconds of a slot bring 8; the other class, which is always there, brings 5 a second."""
    both = scenario("both", 1, [(100.0, 0.1, 0.02, 0.0), (1.0, 100.0, 3.0, 3.0)])
    best = optimum(both, gpus=1, accuracy=0.01)
    assert best.endless == ("class-0",)
    assert len(best.warnings) == 1
    assert "class 'class-0': nobody leaves and not all are served" in best.warnings[0]
