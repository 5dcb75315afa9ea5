"""Simulate policies on a scenario, side by side, at one of the fidelities."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from fluidgate.arguments import checked, listed
from fluidgate.errors import FluidgateError
from fluidgate.execution import Executor
from fluidgate.model import AnyScenario, Scenario, ThinkLaw
from fluidgate.progress import Progress, reported
from fluidgate.replanning import AnyPolicies, AnyPolicy, Replanning
from fluidgate.simulation.closed_loop import in_closed_loop
from fluidgate.simulation.fidelity import Fidelity, default_fidelity
from fluidgate.simulation.iteration.study import drawn_study
from fluidgate.simulation.markov.study import MarkovStudy
from fluidgate.simulation.options import HORIZON, REPLICATIONS, SAMPLES, Options
from fluidgate.simulation.results import Comparison, SimulationResult
from fluidgate.simulation.study import Study

Studies = Callable[[Scenario, Sequence[str | AnyPolicy], Options], Study[Any, Any, Any, SimulationResult]]

STUDIES: dict[str, Studies] = {"markov": MarkovStudy, "iteration": drawn_study}
"""By fidelity, the study of a scenario, policies and options."""


@checked
def simulate(
    scenario: AnyScenario,
    policy: str | os.PathLike[str] | AnyPolicy,
    *,
    gpus: int | None = None,
    horizon: float = HORIZON,
    warmup: float | None = None,
    replications: int = REPLICATIONS,
    seed: int = 0,
    samples: int = SAMPLES,
    workers: int | None = None,
    executor: Executor | None = None,
    audited: bool = False,
    fidelity: Fidelity | None = None,
    replanning: Replanning | None = None,
    users: int | None = None,
    think: float | None = None,
    think_law: ThinkLaw | None = None,
    progress: Progress | bool | None = None,
) -> SimulationResult:
    """Simulate a policy GPU by GPU, from an empty cluster.

    Args:
        scenario: cluster and load, or the path of its file.
        policy: a name of `fluidgate policies`, the path of a policy file, `PATH.py:NAME` of a policy in a Python file,
            or a `Policy` of your own; a name or path with `+replan` for a plan that follows the load, at the fidelity
            of iterations.
        gpus: number of GPUs n; the scenario's own number if it has one.
        horizon: simulated time, s.
        warmup: statistics are taken over (warmup, horizon]; a tenth of the horizon by default.
        replications: independent ones; replication r meets the same arrivals under every policy.
        seed: of all random numbers; the same seed gives the same numbers, whatever the number of workers.
        samples: how many times the occupancies are recorded, evenly over the horizon (`result.trajectory`); more for
            a finer picture.
        workers: processes; one a core by default.
        executor: where replications run, in the place of processes on this machine.
        audited: check every invariant after every event (slow: for tests of policies).
        fidelity: `markov`, the network of [LDHZ] section 2; or `iteration`, each request with its own lengths,
            iteration by iteration. The result of the latter is a `RequestResult`. None for what the scenario asks for,
            see `fluidgate.simulation.fidelity.default_fidelity`.
        replanning: the rule of a name with `+replan`; `fluidgate.replanning.Replanning` with its defaults if None.
        users: of a closed loop, each of whom sends the next request when the last has left and the think time is over;
            the rates of the classes then say their shares alone. None for the scenario's own arrivals.
        think, think_law: that time, s, `fixed` or `exponential`; None for the scenario's own, or 0.
        progress: called with what is done and what there is to do; True for a bar, False for none, None for a bar in
            a notebook.

    Raises:
        FluidgateError: an option or the policy is wrong, or the policy's plan is infeasible.
    """
    scenario = Scenario.of(scenario)
    scenario = in_closed_loop(scenario, users, think, think_law)
    chosen = fidelity or default_fidelity(scenario)
    study = _study(chosen)
    options = Options.checked(
        scenario,
        gpus=gpus,
        horizon=horizon,
        warmup=warmup,
        replications=replications,
        seed=seed,
        fidelity=chosen,
        samples=samples,
        audited=audited,
        replanning=replanning,
    )
    (chosen_policy,) = listed(policy)
    with reported(progress, f"simulating {getattr(chosen_policy, 'name', chosen_policy)}") as tell:
        return study(scenario, [chosen_policy], options).results(executor=executor, workers=workers, progress=tell)[0]


@checked
def compare(
    scenario: AnyScenario,
    policies: AnyPolicies,
    *,
    gpus: int | None = None,
    horizon: float = HORIZON,
    warmup: float | None = None,
    replications: int = REPLICATIONS,
    seed: int = 0,
    workers: int | None = None,
    executor: Executor | None = None,
    fidelity: Fidelity | None = None,
    replanning: Replanning | None = None,
    users: int | None = None,
    think: float | None = None,
    think_law: ThinkLaw | None = None,
    progress: Progress | bool | None = None,
) -> Comparison:
    """Simulate several policies on the same arrivals; the first is the reference of the paired differences.

    Arguments and errors as in `simulate`, whose result for a policy is that of the comparison.
    """
    scenario = Scenario.of(scenario)
    names = listed(policies, commas=True)
    if not names:
        raise FluidgateError("--policy: none is named; name at least one, e.g. gate-and-route,fi-wsp")
    scenario = in_closed_loop(scenario, users, think, think_law)
    chosen = fidelity or default_fidelity(scenario)
    study = _study(chosen)
    options = Options.checked(
        scenario,
        gpus=gpus,
        horizon=horizon,
        warmup=warmup,
        replications=replications,
        seed=seed,
        fidelity=chosen,
        replanning=replanning,
    )
    with reported(progress, "simulating") as tell:
        results = study(scenario, names, options).results(executor=executor, workers=workers, progress=tell)
    return Comparison(scenario.name, options, tuple(results))


def _study(fidelity: str) -> Studies:
    if fidelity not in STUDIES:
        known = " or ".join(f"'{name}'" for name in STUDIES)
        raise FluidgateError(f"--fidelity: must be {known}, but is '{fidelity}'")
    return STUDIES[fidelity]
