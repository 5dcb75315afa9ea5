"""Runs whose plan follows the load."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fluidgate import find_policy, plan
from fluidgate.batching import Batching
from fluidgate.engine_table import EngineModel
from fluidgate.errors import FluidgateError
from fluidgate.model import Pricing, Scenario
from fluidgate.policies import Policy
from fluidgate.replanning import Replanner, Replanning
from fluidgate.replanning.estimates import ESTIMATE
from fluidgate.simulation.iteration.engine import Engine
from fluidgate.simulation.iteration.kernel.cluster import COMPLETED
from fluidgate.simulation.iteration.kernel.users import PATIENT_LOOKS
from fluidgate.simulation.iteration.law import paper_law
from fluidgate.simulation.iteration.replanned import Replanned, run_replanned
from fluidgate.simulation.iteration.rules import ChangingDecisions, Decisions
from fluidgate.simulation.iteration.run import Run, run_requests
from fluidgate.workloads.streams import drawn_requests
from tests.scenarios import two_class_scenario

GPUS, HALF = 6, 150.0
RULE = Replanning(period=5.0, look=5.0, window=20.0)


def flipped() -> tuple[Scenario, Any]:
    """Decode-heavy at first, prefill-heavy then: the scenario of the first half, and requests."""
    first = scenario = two_class_scenario()
    parts = []
    for k, mix in enumerate(((0.8, 0.2), (0.1, 1.4))):
        classes = zip(scenario.classes, mix, strict=True)
        now = scenario.replace(classes=tuple(c.model_copy(update={"arrival_rate": r}) for c, r in classes))
        part = np.concatenate(list(drawn_requests(now, GPUS, seed=4, replication=k, horizon=HALF)))
        part["arrival"] += k * HALF
        parts.append(part)
        if k == 0:
            first = now
    return first, np.concatenate(parts)


KEYS = EngineModel()


def engine_of(scenario: Scenario, keys: EngineModel = KEYS) -> Engine:
    gpu = scenario.gpu
    return Engine(paper_law(gpu.iteration), gpu.batch_size, gpu.chunk_size, Batching.SINGLE_PREFILL, keys)


def followed(policy: str, *, audited: bool = True, keys: EngineModel = KEYS, **options: Any) -> Replanned:
    scenario, requests = flipped()
    run = Run(GPUS, 2, seed=1, audited=audited)
    blocks = [requests[k : k + 50] for k in range(0, len(requests), 50)]
    return run_replanned(blocks, engine_of(scenario, keys), run, find_policy(policy), scenario, RULE, **options)


@pytest.mark.parametrize("policy", ["gate-and-route", "sli-aware-general", "index-and-pool"])
def test_groups_change_and_every_invariant_holds(policy: str) -> None:
    logs: list[Any] = []
    result = followed(policy, take_log=logs.append)
    measured = result.measurement
    assert result.solved >= 2 * HALF / RULE.period - 1
    assert result.kept == 0
    # nobody is lost, and nobody is preempted
    assert len(np.concatenate(logs)) == measured.arrivals.sum()
    ends = measured.completions + measured.prefill_abandonments + measured.decode_abandonments
    assert ends.tolist() == measured.arrivals.tolist()
    assert measured.preemptions.sum() == 0
    sizes = [look.mixed_target for look in result.looks]
    if policy != "index-and-pool":
        assert min(sizes) < max(sizes)
        assert all(look.mixed_gpus >= look.mixed_target for later, look in zip(sizes, result.looks, strict=True))


def test_groups_change_with_little_memory() -> None:
    result = followed("gate-and-route", keys=EngineModel(kv_tokens=8192))
    assert result.measurement.preemptions.sum() > 0
    assert (np.concatenate([look.counts for look in result.looks]) >= 0).all()


def test_the_mixed_group_and_the_estimates_follow_the_flip() -> None:
    looks = followed("gate-and-route", audited=False).looks
    before = [look for look in looks if 100.0 <= look.at <= HALF]
    after = [look for look in looks if HALF + 50.0 <= look.at <= 2 * HALF]
    assert max(look.mixed_target for look in before) < min(look.mixed_target for look in after)

    def mean(part: list[Any], name: str, cls: int) -> float:
        return float(np.mean([getattr(look.load, name)[cls] for look in part]))

    # 6 GPUs, 8.4/s, half a minute apart: a standard deviation of each estimate of some 5 %
    assert mean(after, "arrival", 1) == pytest.approx(1.4, rel=0.15)
    assert mean(before, "arrival", 0) == pytest.approx(0.8, rel=0.2)
    assert mean(after, "prompt", 1) == pytest.approx(3000.0, rel=0.15)
    assert mean(before, "output", 0) == pytest.approx(1000.0, rel=0.3)
    assert mean(before, "patience", 0) == pytest.approx(0.1, rel=0.4)


def test_following_the_load_earns_more_than_the_first_plan() -> None:
    scenario, requests = flipped()
    policy = find_policy("gate-and-route")
    run = Run(GPUS, 2, 2 * HALF, seed=1)
    tables = policy.tabulate(plan(scenario), GPUS)
    still = run_requests([requests], engine_of(scenario), run, Decisions(policy, tables))
    follows = run_replanned([requests], engine_of(scenario), run, policy, scenario, RULE)
    money = [float(m.revenue(scenario.pricing).sum()) for m in (still, follows.measurement)]
    assert money[1] > 1.2 * money[0]
    last = follows.looks[-1]
    assert 0.9 * money[1] < float(last.revenue(scenario.pricing).sum()) <= money[1]
    apart = Pricing(scheme="separate", prompt=0.1, output=0.2)
    assert last.revenue(apart).sum() > last.revenue(scenario.pricing).sum(), (
        "prompts read count before the answer's end"
    )


def test_the_same_seed_gives_the_same_numbers_however_the_requests_come() -> None:
    scenario, requests = flipped()
    results = [
        run_replanned(blocks, engine_of(scenario), Run(GPUS, 2, seed=1), find_policy("index-and-pool"), scenario, RULE)
        for blocks in ([requests], [requests], [requests[k : k + 7] for k in range(0, len(requests), 7)])
    ]
    for other in results[1:]:
        assert (other.measurement.histograms == results[0].measurement.histograms).all()
        assert [look.mixed_gpus for look in other.looks] == [look.mixed_gpus for look in results[0].looks]
        assert other.looks[-1].load is not None
        assert (other.looks[-1].load.arrival == results[0].looks[-1].load.arrival).all()  # type: ignore[union-attr]


def test_looks_alone_change_nothing() -> None:
    """A rule that never solves again gives the run of the plan, event by event."""
    scenario, requests = flipped()
    policy = find_policy("gate-and-route")
    run = Run(GPUS, 2, seed=1)
    never = Replanning(period=math.inf, look=0.37, moved=1e9)
    follows = run_replanned([requests], engine_of(scenario), run, policy, scenario, never)
    tables = policy.tabulate(plan(scenario), GPUS)
    still = run_requests([requests], engine_of(scenario), run, Decisions(policy, tables))
    assert follows.solved == 0
    assert (follows.measurement.histograms == still.histograms).all()
    assert follows.measurement.events.tolist() == still.events.tolist()
    assert follows.measurement.occupancy == pytest.approx(still.occupancy)


def test_the_kernel_feeds_the_estimates_as_the_log_tells() -> None:
    """The sums that the kernel wrote are those of the run's log, fed to an estimator from Python."""
    scenario, requests = flipped()
    policy = find_policy("gate-and-route")
    rule = Replanning(period=math.inf, moved=1e9, window=40.0, prior=10.0)
    control = Replanner(scenario, policy, GPUS, rule)
    logs: list[Any] = []
    rules = ChangingDecisions(policy, control)
    run_requests([requests], engine_of(scenario), Run(GPUS, 2, seed=1), rules, take_log=logs.append)
    log = np.concatenate(logs)
    again = Replanner(scenario, policy, GPUS, rule)
    for row in np.sort(log, order="arrival"):
        again.estimator.arrived(int(row["cls"]), float(row["arrival"]))
    for row in log:
        if row["outcome"] == COMPLETED:
            again.estimator.completed(int(row["cls"]), float(row["last_token"]), float(row["output"]))
    end = float(log["last_token"].max())
    found, expected = control.estimator.at(end), again.estimator.at(end)
    for name in ("arrival", "arrival_cv", "output"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-9)
    assert control.rows["waiting"].tolist() == [0.0, 0.0], "whoever waited waits no more"
    assert (control.rows["left"] > 0).all()


class Opening:
    """Looked at every second: nothing starts until `opens`."""

    rows = np.zeros(0, ESTIMATE)

    def __init__(self, policy: Policy, scenario: Scenario, opens: float) -> None:
        self._open = policy.tabulate(plan(scenario), GPUS)
        self.tables = self._open._replace(mixed_gpus=0)
        self.opens, self.looks = opens, 0

    @property
    def next_look(self) -> float:
        return self.looks + 1.0

    def look(self, now: float) -> None:
        self.looks += 1
        if now >= self.opens:
            self.tables = self._open


@pytest.mark.parametrize(("opens", "horizon", "served"), [(9, math.inf, 5), (50, 200.0, 5), (math.inf, math.inf, 0)])
def test_who_waits_for_other_tables_is_served_by_them(opens: float, horizon: float, served: int) -> None:
    """Nothing else is left to happen; without a horizon a run does not wait for ever."""
    scenario = two_class_scenario()
    requests = next(iter(drawn_requests(scenario, GPUS, seed=4, replication=0, horizon=HALF)))[:5].copy()
    requests["arrival"] = 0.25
    requests["patience"] = math.inf
    policy = find_policy("gate-and-route")
    control = Opening(policy, scenario, opens)
    rules = ChangingDecisions(policy, control)
    measured = run_requests([requests], engine_of(scenario), Run(GPUS, 2, horizon, audited=True), rules)
    assert measured.arrivals.sum() == 5
    assert measured.completions.sum() == served
    if served == 0:
        assert control.looks == PATIENT_LOOKS


def test_batching_without_a_policy_has_no_plan_to_follow() -> None:
    scenario = two_class_scenario()
    engine = Engine(paper_law(scenario.gpu.iteration), 16, 256)
    with pytest.raises(FluidgateError, match="Placements"):
        run_replanned([], engine, Run(2, 2), find_policy("gate-and-route"), scenario, RULE)
