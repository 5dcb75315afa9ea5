"""How each kind of policy runs: what it needs, what a worker gets, what its results say."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from fluidgate import Scenario, find_policy
from fluidgate.errors import FluidgateError
from fluidgate.model import EngineModel
from fluidgate.policies import PLACED, Policy
from fluidgate.replanning import ReplannedPolicy, Replanning
from fluidgate.simulation.iteration.behaviour import BEHAVIOURS, Following, Planned, Published, behaviour_of
from fluidgate.simulation.iteration.job import IterationJob, counted, placement_seed, prepare, replicate
from fluidgate.simulation.iteration.run import Run
from fluidgate.simulation.iteration.source import Drawn
from fluidgate.simulation.iteration.study import behaviours, drawn_study
from fluidgate.simulation.options import Options
from fluidgate.simulation.plans import Plans
from fluidgate.workloads.streams import REQUEST

GPUS, HORIZON = 4, 40.0
RULE = Replanning(period=5.0, look=5.0, window=20.0)


def source(scenario: Scenario) -> Drawn:
    return Drawn(scenario, GPUS, 0, HORIZON)


def ready(scenario: Scenario, policy: Any) -> Any:
    return behaviour_of(policy).ready(scenario, source(scenario), Plans(scenario, GPUS), GPUS)


def job(scenario: Scenario, policy: Any) -> IterationJob:
    run = Run(GPUS, 2, HORIZON, seed=3)
    return IterationJob(scenario, ready(scenario, policy).for_worker(), source(scenario), run, 0)


def test_each_kind_has_one_entry() -> None:
    policy = find_policy("gate-and-route")
    assert isinstance(behaviour_of(policy), Planned)
    assert isinstance(behaviour_of(ReplannedPolicy(policy)), Following)
    assert isinstance(behaviour_of(PLACED["slai"]), Published)
    assert len(BEHAVIOURS) == 3

    class Special(Policy):
        """Of a user's own making."""

    assert isinstance(behaviour_of(Special("x", "user", "", policy.program, policy.tabulate)), Planned)
    with pytest.raises(FluidgateError, match="must be a policy or a name, but is of type int"):
        behaviour_of(3)  # type: ignore[arg-type]


def test_what_each_kind_says_of_itself(two_class: Scenario) -> None:
    plans = Plans(two_class, GPUS)
    policy = find_policy("gate-and-route")
    planned, following = ready(two_class, policy), ready(two_class, ReplannedPolicy(policy, RULE))
    assert (planned.name, following.name) == ("gate-and-route", "gate-and-route+replan")
    assert planned.batching == following.batching == "single-prefill"
    assert planned.tables.mixed_gpus == following.tables.mixed_gpus
    assert planned.plan(plans) is following.plan(plans) is plans.of(policy)
    assert (planned.follows, following.follows) == (False, True)
    published = ready(two_class, PLACED["prefill-first-round-robin"])
    assert (published.batching, published.tables, published.pilot) == ("prefill-first", None, None)
    assert published.plan(plans) is plans.own(published.batching)
    assert published.plan_path(GPUS, []) is None


def test_a_pilot_finds_the_open_size_of_a_pool(two_class: Scenario) -> None:
    policy = PLACED["distserve"].with_parameters({"pilot": 5})
    found = ready(two_class, policy)
    assert 1 <= found.policy.values["prompt_gpus"] < GPUS
    assert found.pilot.requests == 2 * 5 * GPUS
    assert found.pilot.maximised == "revenue, then least mean latency"
    sized = ready(two_class, policy.with_parameters({"prompt_gpus": 2}))
    assert sized.pilot is None
    assert sized.policy.values["prompt_gpus"] == 2


@pytest.mark.parametrize(
    "policy",
    [find_policy("sli-aware"), ReplannedPolicy(find_policy("sli-aware"), RULE), PLACED["vllm-power-of-two"]],
    ids=lambda policy: str(policy.name),
)
def test_a_job_gives_the_same_wherever_it_runs(two_class: Scenario, policy: Any) -> None:
    wanted = job(two_class, policy)
    told: list[tuple[int, float]] = []
    logs: list[Any] = []
    here = replicate(wanted, lambda count, epoch: told.append((count, epoch)), logs.append)
    sent = replicate(pickle.loads(pickle.dumps(wanted)))
    assert (here.measurement.histograms == sent.measurement.histograms).all()
    assert here.measurement.arrivals.sum() == told[-1][0]
    assert (np.concatenate(logs)["arrival"] <= HORIZON).all()
    path = wanted.behaviour.plan_path(GPUS, [here, sent])
    assert (path is not None) == wanted.behaviour.follows
    if path is not None:
        assert path.time.tolist() == [5.0 * k for k in range(1, 8)]


def test_each_kernel_and_each_own_function_is_prepared_once(
    two_class: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm: list[str] = []
    monkeypatch.setattr(Planned, "warm_up", lambda self, *others: warm.append(self.name))
    monkeypatch.setattr(Published, "warm_up", lambda self, *others: warm.append(self.name))
    mine = find_policy("sli-aware").with_functions("mine", gate=lambda view, tables: -1)
    policies = [find_policy("sli-aware"), find_policy("fi-wsp"), mine, PLACED["wait"], PLACED["vllm-round-robin"]]
    prepare([job(two_class, policy) for policy in policies for _ in range(2)])
    assert warm == ["sli-aware", "mine", "wait"]


def test_blocks_are_counted_when_they_are_used_up() -> None:
    blocks = [np.zeros(3, REQUEST), np.zeros(2, REQUEST)]
    blocks[0]["arrival"], blocks[1]["arrival"] = [0.0, 1.0, 2.0], [3.0, 4.0]
    told: list[tuple[int, float]] = []
    stream = counted(iter(blocks), lambda count, epoch: told.append((count, epoch)))
    next(stream)
    assert told == []
    assert list(map(len, stream)) == [2]
    assert told == [(3, 2.0), (5, 4.0)]


def test_placements_are_drawn_apart_in_each_replication() -> None:
    assert len({placement_seed(seed, replication) for seed in range(3) for replication in range(3)}) == 9


def test_policies_that_cannot_run_are_refused_before_any_does(two_class: Scenario) -> None:
    fixed = two_class.replace(engine=EngineModel(batching="prefill-first"))
    for scenario, names, gpus, rule, words in (
        (fixed, ["gate-and-route"], 4, None, "needs single-prefill batching"),
        (fixed, ["gate-and-route+replan"], 4, None, "policy 'gate-and-route' needs single-prefill batching"),
        (two_class, ["slai"], 4, None, "targets.tpot"),
        (two_class, ["distserve"], 1, None, "at least 2 GPUs"),
        (two_class, ["fi-wsp", "fi-wsp"], 4, None, "named twice"),
        (two_class, ["fi-wsp"], 4, Replanning(), "no policy follows the load"),
        (two_class, ["fi-wsp", "nobody"], 4, None, "unknown policy 'nobody'"),
        (two_class, ["distserve+replan"], 4, None, "reads no plan that could follow the load"),
    ):
        with pytest.raises(FluidgateError, match=words):
            behaviours(scenario, names, gpus, rule)
    assert [each.name for each in behaviours(two_class, ["fi-wsp", "fi-wsp+replan"], 4)] == ["fi-wsp", "fi-wsp+replan"]
    given = behaviours(two_class, ["fi-wsp+replan"], 4, RULE)[0]
    assert given.policy.replanning == RULE


def test_results_are_those_of_the_jobs(two_class: Scenario) -> None:
    options = Options(GPUS, HORIZON, 4.0, 2, 7, "iteration", samples=5)
    study = drawn_study(two_class, ["fi-wsp", "vllm-round-robin", "fi-wsp+replan"], options)
    told: list[tuple[int, int]] = []
    results = study.results(workers=1, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (6 * 40, 6 * 40)
    assert told == sorted(told)
    assert [each.policy for each in results] == ["fi-wsp", "vllm-round-robin", "fi-wsp+replan"]
    assert len({each.classes[0].arrival_rate.values for each in results}) == 1, "all meet the same requests"
    assert [each.plan_path is not None for each in results] == [False, False, True]
    assert all(each.trajectory is not None and len(each.trajectory.time) == 5 for each in results)
