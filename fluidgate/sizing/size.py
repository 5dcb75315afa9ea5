"""The fewest engines of each choice that keep the targets, and what they cost."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fluidgate.arguments import checked, listed
from fluidgate.errors import FluidgateError
from fluidgate.execution import Executor
from fluidgate.model import AnyScenario, Scenario
from fluidgate.planning.advice import of_group, of_margin
from fluidgate.progress import Progress, reported
from fluidgate.simulation.iteration.fleet import named_gpus
from fluidgate.simulation.options import check_draws
from fluidgate.simulation.study import executor_for
from fluidgate.sizing.answer import Answer, OneLess, Sizing, Status
from fluidgate.sizing.bounded import Bounded
from fluidgate.sizing.choices import Choice, choices_of
from fluidgate.sizing.closed_loop import at_pace, sent_by_users
from fluidgate.sizing.cost import Bill, Paid
from fluidgate.sizing.floor import Floor, beyond_reach, requests_of, some_do_not_fit, turns_of
from fluidgate.sizing.guess import guessed
from fluidgate.sizing.load import DrawnLoad, Load, TracedLoad, check_load, check_scale, check_unread, scaled, traced
from fluidgate.sizing.peak import Intervals
from fluidgate.sizing.search import Search, run
from fluidgate.sizing.targets import Target, targets_of, with_served, with_targets
from fluidgate.sizing.together import Together, check_mixed, served_together
from fluidgate.sizing.trial import Trial
from fluidgate.sizing.window import Window
from fluidgate.time_units import TimeUnit
from fluidgate.wording import all_worded
from fluidgate.workloads.streams import AnyTraces, ClassTrace, check_starts

BEYOND = (8, 32)
"""Times the bound, and engines on top, up to which it goes where nothing says how many there are."""
TRIALS = 3
"""Numbers of engines that a search tries, about."""


@checked
def size(
    scenario: AnyScenario,
    *,
    traces: AnyTraces = (),
    sessions_rate: float | None = None,
    profiles: str | Sequence[str] = (),
    batch_sizes: Sequence[int] = (),
    chunk_sizes: Sequence[int] = (),
    policies: str | Sequence[str] = (),
    targets: Sequence[str] | Mapping[str, float] = (),
    gpu_hour: float | None = None,
    spare: int = 0,
    max_gpus: int | None = None,
    mixed: bool = False,
    rate_scale: float = 1.0,
    seed: int = 0,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: Progress | bool | None = None,
    class_column: str | None = None,
    columns: Mapping[str, str] | None = None,
    unit: TimeUnit | None = None,
    benchmark: int | None = None,
    skip_empty: bool = False,
    sort: bool = False,
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
        targets: of all requests, each as `KEY=VALUE`, or by key, on top of the scenario's.
        gpu_hour: price of an hour of a GPU; that of [cost] if None.
        spare: engines that may be gone, the targets still kept.
        max_gpus: the most GPUs there are.
        mixed: whether GPUs of several types may also serve together, each class split among them by fixed shares.
        rate_scale: factor on the rates of arrival, or on the users of a closed loop, for a peak.
        seed: of all random numbers; the same seed gives the same answer, whatever the number of workers.
        workers: processes; one a core by default, or none where the work is small.
        executor: where replications run, in the place of processes on this machine.
        progress: called with the replications of a round that are done and those that there are; True, False and None
            as in `simulate`.
        class_column, columns, unit, benchmark, skip_empty, sort: how traces are read, as in `read_trace`.

    Raises:
        FluidgateError: an option, a target or a choice is wrong; the message names it and the mend.
    """
    started = time.perf_counter()
    reading: dict[str, Any] = {
        "class_column": class_column,
        "columns": columns,
        "unit": unit,
        "benchmark": benchmark,
        "skip_empty": skip_empty,
        "sort": sort,
    }
    check_draws(1, seed)
    if spare < 0:
        raise FluidgateError(f"--spare: must be at least 0, but is {spare}")
    if max_gpus is not None and max_gpus < 1:
        raise FluidgateError(f"--max-gpus: must be at least 1, but is {max_gpus}")
    if gpu_hour is not None and not 0.0 < gpu_hour < math.inf:
        raise FluidgateError(f"--gpu-hour: must be a price above 0, but is {gpu_hour:g}")
    check_scale(rate_scale)
    ready: tuple[ClassTrace, ...] = ()
    if given := listed(traces):
        scenario, ready = traced(scenario, given, rate_scale, sessions_rate, **reading)
    else:
        scenario = scaled(Scenario.of(scenario), rate_scale)
        check_load(scenario)
        check_starts((), sessions_rate, scenario.arrivals.closed)
        check_unread(reading)
    scenario = with_targets(scenario, targets)
    wanted = targets_of(scenario)
    if scenario.arrivals.closed:
        scenario = sent_by_users(scenario, wanted)
    chosen = choices_of(
        scenario,
        profiles=listed(profiles, commas=True),
        batch_sizes=batch_sizes,
        chunk_sizes=chunk_sizes,
        policies=listed(policies, commas=True),
        gpu_hour=gpu_hour,
        max_gpus=max_gpus,
    )
    if mixed:
        check_mixed(scenario, chosen)
    load = load_of(scenario, wanted, seed, ready, rate_scale, sessions_rate)
    bounded = [Bounded.of(choice, load) for choice in chosen]
    sample = list(requests_of(chosen[0], load, bounded[0].least))
    sent = turns_of(chosen[0], load, bounded[0].least) if ready or scenario.has_sessions else sample
    if any(some_do_not_fit(choice.scenario, sent) for choice in chosen):
        wanted = with_served(wanted)
        load = replace(load, targets=wanted)
    bounded = [replace(each, floor=beyond_reach(each.choice, load, sample)) for each in bounded]
    if executor is None:
        events = 3.0 * load.seconds * (scenario.cluster_gpus or 1) * float(scenario.rates.arrival.sum())
        jobs = load.looks[0] * len(chosen)
        executor = executor_for(events * TRIALS * jobs, jobs, workers)
    with reported(progress, "sizing") as tell:
        answers, pruned = _searched(bounded, load, spare, executor, tell)
        together = Together()
        if mixed:
            together = served_together(bounded, answers, load, spare, max_gpus, executor, tell)
            answers += together.answers
    return Sizing(
        scenario=scenario.name,
        targets=wanted,
        answers=tuple(sorted(answers, key=lambda each: each.order)),
        pruned=(*pruned, *together.pruned),
        seed=seed,
        wall_seconds=time.perf_counter() - started,
        currency=scenario.cost.currency,
        warnings=all_worded((*_warnings(answers), *load.doubts(scenario), *_named(bounded), *together.remarks)),
        load=load,
    )


def _named(bounded: Sequence[Bounded]) -> Iterator[str]:
    """That fewer than the GPUs which the scenario names are not tried, where the load needs fewer."""
    named = named_gpus(bounded[0].choice.scenario)
    if any(each.engines * each.choice.ranks < named for each in bounded):
        yield f"failures.at, schedule: they name {named} GPUs, so that fewer are not tried"


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
        return TracedLoad(targets, seed, traces, scale, sessions_rate, scenario.arrivals.closed)
    window = Window.of(scenario, scenario.cluster_gpus or 1, targets)
    return DrawnLoad(targets, seed, window, Intervals.of_arrivals(scenario.arrivals, window.warmup, window.horizon))


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
    most = _beyond(each) if choice.max_engines is None else choice.max_engines - spare
    if most < each.least or each.floor is not None:
        return None
    return Search(choice, load, each.least, guessed(choice, load, each.least, each.ranks, most), most, spare)


def _beyond(each: Bounded) -> int:
    """Engines up to which it is searched where nothing says how many there are; in a closed loop one a user at most."""
    users = each.choice.scenario.arrivals.users
    if users is None:
        return BEYOND[0] * each.engines + BEYOND[1]
    scenario = each.choice.scenario
    faster = float(at_pace(scenario).rates.arrival.sum() / scenario.rates.arrival.sum())
    engines = math.ceil(each.ranks * faster / each.choice.ranks)
    return max(min(BEYOND[0] * engines + BEYOND[1], users), each.least)


def _answer(each: Bounded, search: Search | None, spare: int) -> Answer:
    choice = each.choice
    found = None if search is None else search.found
    if search is None or found is None:
        trials = () if search is None else tuple(search.trials[n] for n in sorted(search.trials))
        status, reason = _why_not(each, search, spare)
        return Answer(choice, status, None, spare, each.engines, None, None, None, None, None, trials, reason)
    whole = search.trials[found.engines + spare]
    below = search.trials.get(found.engines - 1)
    less = found.engines - 1
    return Answer(
        choice=choice,
        status="met",
        engines=found.engines + spare,
        spare=spare,
        bound_engines=each.engines,
        proof=found,
        whole=whole,
        one_less=OneLess.of(below, less + spare) if below is not None or 0 < less < each.engines else None,
        bill=Bill.of([Paid(choice.hourly(found.engines + spare), whole.result, each.need)]),
        utilisation=_utilisation(each, whole),
        trials=tuple(search.trials[n] for n in sorted(search.trials)),
        reason=_open(below, found, spare),
    )


def _utilisation(each: Bounded, whole: Trial) -> float:
    """The load, in a closed loop the one that came about, over what the engines can do."""
    scenario, ranks = each.choice.scenario, each.choice.ranks * whole.engines
    if not scenario.arrivals.closed:
        return each.ranks / ranks
    usual = float(scenario.rates.arrival.sum()) * (scenario.cluster_gpus or 1)
    served = (whole.result.overall.completion_rate.mean or 0.0) * whole.result.run.gpus
    return each.ranks * served / usual / ranks


def _open(below: Trial | None, found: Trial, spare: int) -> str | None:
    if below is None or below.status != "undecided":
        return None
    return (
        f"undecided between {below.engines + spare} and {found.engines + spare} engines: with one less, "
        f"{below.binding.target.name} is too near to its limit for {below.replications} replications to tell"
    )


def _why_not(each: Bounded, search: Search | None, spare: int) -> tuple[Status, str]:
    gone = f" and {spare} spare ones" if spare else ""
    if each.floor is not None:
        return "impossible", _beyond_any(each.floor)
    if search is None:
        return "impossible", (
            f"at least {each.least} engine{'' if each.least == 1 else 's'}{gone} are needed, "
            f"but there are {each.choice.max_engines}; "
            "give more, or less load"
        )
    last = search.trials[max(search.trials)]
    worst = last.binding
    status: Status = "undecided" if any(t.status == "undecided" for t in search.trials.values()) else "impossible"
    return status, (
        f"{worst.target.name} is {worst.target.shown(worst.value)} with {last.engines} engines, the most that are "
        "tried; give another limit, other sizes, or faster GPUs"
    )


def _beyond_any(floor: Floor) -> str:
    """Why no number of engines keeps a target, and the mend."""
    target, value = floor.target, floor.value
    if target.measure == "served":
        return (
            f"{target.name} is at most {target.shown(value)} with any number of engines: the KV memory of an engine "
            "holds none of the other requests; give it more, by [engine] kv_tokens or larger GPUs, or a lower served"
        )
    if target.is_share:
        return (
            f"{target.name} is at most {target.shown(value)} with any number of engines: the other requests miss "
            "ttft or tpot by their own tokens alone; give other limits, other sizes, or faster GPUs"
        )
    does = {"ttft": "a prompt alone takes as long to be read", "tpot": "an iteration alone takes as long"}
    return (
        f"{target.name} is at least {target.shown(value)} with any number of engines: "
        f"{does.get(target.measure, 'a request alone takes as long')}; give another limit, other sizes, or faster GPUs"
    )


def _warnings(answers: Sequence[Answer]) -> tuple[str, ...]:
    """Of the runs of all answers, but what a plan alone warns of: here GPUs are counted, and the margin is proven."""
    results = [result for each in answers if each.whole is not None for result in each.whole.results]
    plans = [result.plan for result in results if result.plan is not None]
    beside = {line for plan in plans for line in of_group(plan.scenario.gpu)}
    beside |= {line for plan in plans if plan.partition is not None for line in of_margin(plan.partition)}
    return tuple(dict.fromkeys(line for result in results for line in result.warnings if line not in beside))
