"""The fewest engines of each choice that keep the targets, and what they cost."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluidgate.batching import Batching
from fluidgate.errors import FluidgateError
from fluidgate.execution import Executor
from fluidgate.model import Scenario
from fluidgate.planning.batches.need import Need, need
from fluidgate.policies import find_any_policy
from fluidgate.simulation.options import check_draws
from fluidgate.simulation.study import Progress, executor_for
from fluidgate.sizing.answer import CAPACITY, Answer, OneLess, Sizing, Status
from fluidgate.sizing.choices import Choice, choices_of
from fluidgate.sizing.cost import Bill
from fluidgate.sizing.guess import guessed
from fluidgate.sizing.load import DrawnLoad, Load, TracedLoad, check_load, check_scale, scaled, traced
from fluidgate.sizing.search import Search, least_engines, run
from fluidgate.sizing.targets import Target, least_served, targets_of, with_targets
from fluidgate.sizing.trial import Trial
from fluidgate.sizing.window import Window
from fluidgate.workloads.streams import ClassTrace

BEYOND = (8, 32)
"""Times the bound, and engines on top, up to which it goes where nothing says how many there are."""
TRIALS = 3
"""Numbers of engines that a search tries, about."""


@dataclass(frozen=True)
class Bounded:
    """A choice, how much of a GPU its load needs at least, and from where its policy runs.

    Attributes:
        ranks: that the load needs in the long run, as a fraction, as a simulation counts GPUs.
        engines: that could serve it at all.
        least: of those on, the first on which the policy runs.
    """

    choice: Choice
    need: Need
    ranks: float
    engines: int
    least: int

    @property
    def hourly(self) -> float:
        return self.choice.hourly(self.least)


def size(
    scenario: Scenario | str | Path,
    *,
    traces: Sequence[str | Path | ClassTrace] = (),
    sessions_rate: float | None = None,
    profiles: Sequence[str] = (),
    batch_sizes: Sequence[int] = (),
    chunk_sizes: Sequence[int] = (),
    policies: Sequence[str] = (),
    targets: Sequence[str] = (),
    gpu_hour: float | None = None,
    spare: int = 0,
    max_gpus: int | None = None,
    rate_scale: float = 1.0,
    seed: int = 0,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
    **reading: Any,
) -> Sizing:
    """The fewest GPUs that keep the scenario's targets, of each kind and setting that is given.

    The program in token rates bounds them from below, and simulation by iterations proves them: the least number of
    engines of which the confidence intervals of all targets lie on the right side, and one less of which does not keep
    them. The same requests come to every fleet.

    Args:
        scenario: cluster (its `gpus` say only how its rates are shared), load and targets; or the path of its file.
        traces: files of requests that are the load, each as `PATH` or `CLASS=PATH`, played once as they are; where the
            scenario's file has no [[classes]] one is made of them.
        sessions_rate: starts of sessions a second over the whole cluster, of traces that do not say when.
        profiles, batch_sizes, chunk_sizes, policies: to try, each with each; where none are given those of [[options]],
            else the scenario's own and index-and-pool.
        targets: of all requests, each as `KEY=VALUE`, on top of the scenario's.
        gpu_hour: price of an hour of a GPU; that of [cost] if None.
        spare: engines that may be gone, the targets still kept.
        max_gpus: the most GPUs there are.
        rate_scale: factor on the rates of arrival, for a peak.
        seed: of all random numbers; the same seed gives the same answer, whatever the number of workers.
        workers: processes; one a core by default, or none where the work is small.
        executor: where replications run, in the place of processes on this machine.
        progress: called with the replications of a round that are done and those that there are.
        reading: how traces are read, as in `read_trace`.

    Raises:
        FluidgateError: an option, a target or a choice is wrong; the message names it and the mend.
    """
    started = time.perf_counter()
    check_draws(1, seed)
    if spare < 0:
        raise FluidgateError(f"--spare: must be at least 0, but is {spare}")
    if max_gpus is not None and max_gpus < 1:
        raise FluidgateError(f"--max-gpus: must be at least 1, but is {max_gpus}")
    if gpu_hour is not None and not 0.0 < gpu_hour < math.inf:
        raise FluidgateError(f"--gpu-hour: must be a price above 0, but is {gpu_hour:g}")
    check_scale(rate_scale)
    ready: tuple[ClassTrace, ...] = ()
    if traces:
        scenario, ready = traced(scenario, traces, rate_scale, sessions_rate, **reading)
    else:
        scenario = scaled(scenario if isinstance(scenario, Scenario) else Scenario.load(scenario), rate_scale)
        check_load(scenario)
    scenario = with_targets(scenario, targets)
    wanted = targets_of(scenario)
    chosen = choices_of(
        scenario,
        profiles=profiles,
        batch_sizes=batch_sizes,
        chunk_sizes=chunk_sizes,
        policies=policies,
        gpu_hour=gpu_hour,
        max_gpus=max_gpus,
    )
    load = load_of(scenario, wanted, seed, ready, rate_scale, sessions_rate)
    bounded = [_bounded(choice, load) for choice in chosen]
    if executor is None:
        events = 3.0 * load.seconds * (scenario.cluster_gpus or 1) * float(scenario.rates.arrival.sum())
        jobs = load.looks[0] * len(chosen)
        executor = executor_for(events * TRIALS * jobs, jobs, workers)
    answers, pruned = _searched(bounded, load, spare, executor, progress)
    return Sizing(
        scenario=scenario.name,
        targets=wanted,
        answers=tuple(sorted(answers, key=lambda each: each.order)),
        pruned=tuple(pruned),
        seed=seed,
        wall_seconds=time.perf_counter() - started,
        currency=scenario.cost.currency,
        warnings=_warnings(answers),
    )


def load_of(
    scenario: Scenario,
    targets: tuple[Target, ...],
    seed: int,
    traces: tuple[ClassTrace, ...],
    scale: float,
    sessions_rate: float | None,
) -> Load:
    """The traces, where there are some, or what the scenario draws."""
    if traces:
        return TracedLoad(targets, seed, traces, scale, sessions_rate)
    return DrawnLoad(targets, seed, Window.of(scenario, scenario.cluster_gpus or 1, targets))


def _bounded(choice: Choice, load: Load) -> Bounded:
    policy = find_any_policy(choice.policy).on(choice.scenario)
    cluster = choice.scenario.cluster_gpus or 1
    found = need(choice.scenario, Batching(policy.batching), least_served(choice.scenario, load.targets))
    ranks = load.bounded(found.gpus * cluster)
    engines = max(1, math.ceil(ranks / choice.ranks * (1.0 - 1e-6)))
    return Bounded(choice, found, found.gpus * cluster, engines, least_engines(choice, load, engines))


def _searched(
    bounded: Sequence[Bounded], load: Load, spare: int, executor: Executor, progress: Progress | None
) -> tuple[list[Answer], list[Choice]]:
    """The answer of each choice but of those whose bound costs more than the best answer of the cheaper ones."""
    answers: list[Answer] = []
    left = sorted(bounded, key=lambda each: each.hourly)
    best = math.inf
    while left and left[0].hourly <= best:
        wave = [each for each in left if each.hourly <= left[0].hourly * (1.0 + 1e-9)]
        left = left[len(wave) :]
        searches = [_search(each, load, spare) for each in wave]
        run([search for search in searches if search is not None], load.work, executor, progress)
        for each, search in zip(wave, searches, strict=True):
            answers.append(_answer(each, search, spare))
            if answers[-1].status == "met":
                best = min(best, answers[-1].order[1])
    return answers, [each.choice for each in left]


def _search(each: Bounded, load: Load, spare: int) -> Search | None:
    choice = each.choice
    most = BEYOND[0] * each.engines + BEYOND[1] if choice.max_engines is None else choice.max_engines - spare
    if most < each.least:
        return None
    return Search(choice, load, each.least, guessed(choice, load, each.least, each.ranks, most), most, spare)


def _answer(each: Bounded, search: Search | None, spare: int) -> Answer:
    choice = each.choice
    found = None if search is None else search.found
    if search is None or found is None:
        trials = () if search is None else tuple(search.trials[n] for n in sorted(search.trials))
        status, reason = _why_not(each, search, spare)
        return Answer(choice, status, None, spare, each.engines, None, None, None, None, None, trials, reason)
    whole = search.trials[found.engines + spare]
    below = search.trials.get(found.engines - 1)
    return Answer(
        choice=choice,
        status="met",
        engines=found.engines + spare,
        spare=spare,
        bound_engines=each.engines,
        proof=found,
        whole=whole,
        one_less=_one_less(each, below, found.engines - 1, spare),
        bill=Bill.of(choice, found.engines + spare, whole, each.need),
        utilisation=each.ranks / (choice.ranks * (found.engines + spare)),
        trials=tuple(search.trials[n] for n in sorted(search.trials)),
        reason=_open(below, found, spare),
    )


def _one_less(each: Bounded, below: Trial | None, engines: int, spare: int) -> OneLess | None:
    if engines < 1:
        return None
    if below is None:
        return OneLess(engines + spare, CAPACITY, None)
    if below.status == "undecided":
        return OneLess(engines + spare, None, below.binding.value)
    if below.grows and below.binding.excess <= 1.0:
        return OneLess(engines + spare, CAPACITY, None)
    missed = [reading for reading in below.readings if reading.status == "missed"] or list(below.readings)
    worst = max(missed, key=lambda reading: reading.excess)
    return OneLess(engines + spare, worst.target.name, worst.value)


def _open(below: Trial | None, found: Trial, spare: int) -> str | None:
    if below is None or below.status != "undecided":
        return None
    return (
        f"undecided between {below.engines + spare} and {found.engines + spare} engines: with one less, "
        f"{below.binding.target.name} is too near to its limit for {below.replications} replications to tell"
    )


def _why_not(each: Bounded, search: Search | None, spare: int) -> tuple[Status, str]:
    gone = f" and {spare} spare ones" if spare else ""
    if search is None:
        return "impossible", (
            f"at least {each.least} engines{gone} are needed, but there are {each.choice.max_engines}; "
            "give more, or less load"
        )
    last = search.trials[max(search.trials)]
    worst = last.binding
    status: Status = "undecided" if any(t.status == "undecided" for t in search.trials.values()) else "impossible"
    return status, (
        f"{worst.target.name} is {worst.value:.4g} with {last.engines} engines, the most that are tried; "
        "give another limit, other sizes, or faster GPUs"
    )


def _warnings(answers: Sequence[Answer]) -> tuple[str, ...]:
    found = (warning for each in answers if each.whole is not None for warning in each.whole.result.warnings)
    return tuple(dict.fromkeys(found))
