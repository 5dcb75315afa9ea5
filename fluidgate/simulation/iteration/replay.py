"""Policies on the requests of traces, side by side."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from fluidgate.arguments import checked, listed
from fluidgate.errors import FluidgateError
from fluidgate.execution import Executor
from fluidgate.model import AnyScenario, Scenario, ThinkLaw
from fluidgate.progress import Progress, reported
from fluidgate.replanning import AnyPolicies, Replanning
from fluidgate.simulation.closed_loop import in_closed_loop, planned_load
from fluidgate.simulation.iteration.logged import LoggedRun
from fluidgate.simulation.iteration.other_load import other_rates
from fluidgate.simulation.iteration.replay_options import ReplayOptions, check_replay
from fluidgate.simulation.iteration.results import ReplayComparison
from fluidgate.simulation.iteration.source import Replayed
from fluidgate.simulation.iteration.study import RequestStudy, TakeRows, behaviours
from fluidgate.simulation.iteration.trace_scenario import ALL, scenario_of_traces
from fluidgate.simulation.options import SAMPLES, gpus_of, loop_of
from fluidgate.time_units import TimeUnit
from fluidgate.workloads.streams import (
    AnyTraces,
    ClassTrace,
    Replay,
    check_played,
    matching_scale,
    notes_on,
    read_class_traces,
    starting_span,
)


@checked
def replay(
    scenario: AnyScenario,
    traces: AnyTraces,
    policies: AnyPolicies,
    *,
    gpus: int | None = None,
    times: Literal["once", "repeat", "resample"] = "once",
    stretch: float = 60.0,
    rate_scale: float = 1.0,
    match_load: bool = False,
    sessions_rate: float | None = None,
    lengths: Literal["trace", "drawn"] = "trace",
    horizon: float | None = None,
    requests: int | None = None,
    warmup: float = 0.0,
    replications: int = 1,
    seed: int = 0,
    samples: int = SAMPLES,
    class_column: str | None = None,
    columns: Mapping[str, str] | None = None,
    unit: TimeUnit | None = None,
    benchmark: int | None = None,
    skip_empty: bool = False,
    sort: bool = False,
    workers: int | None = None,
    executor: Executor | None = None,
    replanning: Replanning | None = None,
    users: int | None = None,
    think: float | None = None,
    think_law: ThinkLaw | None = None,
    take_log: TakeRows | None = None,
    progress: Progress | bool | None = None,
) -> ReplayComparison:
    """Run policies on the requests of traces, iteration by iteration; the first is the reference.

    Args:
        scenario: cluster, classes (the plan is for their rates and lengths) and engine; or the path of its file, which
            may leave out [[classes]]: one class is then made of the traces (`scenario_of_traces`).
        traces: trace files, each as `PATH` or `CLASS=PATH`; or traces whose requests have their classes.
        policies: names of `fluidgate policies`, paths of policy files, or `PATH.py:NAME` of policies in Python files,
            each with `+replan` for a plan that follows the load; or policies.
        gpus: n; the scenario's own number if it has one.
        times, stretch, lengths: how the traces are played; see `Replay`.
        rate_scale: factor on their arrival rates.
        match_load: scale the rates so that they bring as many requests as the scenario's classes do.
        sessions_rate: of traces that do not say when their sessions start: starts a second over the whole cluster; see
            `Replay`. None in a closed loop, whose users start them.
        horizon: end of the run, s; None to go on until the last request has left.
        requests: the most that are played, every turn of a session counted.
        warmup: statistics are taken after it, s.
        replications: more than 1 for what is drawn anew each time.
        seed: of all random numbers.
        samples: how many times occupancies are recorded, evenly while requests arrive.
        class_column, columns, unit, benchmark, skip_empty, sort: as in `read_trace`.
        replanning: the rule of the names with `+replan`; `fluidgate.replanning.Replanning` with its defaults if None.
        users: of a closed loop, each of whom sends the next request of the traces, or starts the next session, when the
            last has left and the think time is over; when they came is not read but for their order. None for the
            scenario's own arrivals, if these are a closed loop.
        think, think_law: that time, s, `fixed` or `exponential`; None for the scenario's own, or 0.
        take_log: takes the requests as they end.

    Raises:
        FluidgateError: an option, a trace or a policy is wrong; the message names it and the mend.
    """
    traces, names = listed(traces), listed(policies, commas=True)
    if not names:
        raise FluidgateError("--policy: none is named; name at least one, e.g. gate-and-route,vllm-round-robin")
    reading: dict[str, Any] = {
        "class_column": class_column,
        "columns": columns,
        "unit": unit,
        "benchmark": benchmark,
        "skip_empty": skip_empty,
        "sort": sort,
    }
    if not isinstance(scenario, Scenario):
        files = [each for each in traces if not isinstance(each, ClassTrace)]
        if len(files) < len(traces):
            raise FluidgateError("scenario: a path goes with traces that are files; give a Scenario")
        file, loops = os.fspath(scenario), users is not None
        scenario, traces = scenario_of_traces(
            file,
            files,
            gpus=gpus,
            rate_scale=rate_scale,
            sessions_rate=sessions_rate,
            closed=loops,
            **reading,
        )
    found = gpus_of(scenario, gpus)
    scenario = in_closed_loop(scenario, users, think, think_law)
    check_replay(
        times=times,
        lengths=lengths,
        rate_scale=rate_scale,
        match_load=match_load,
        horizon=horizon,
        requests=requests,
        warmup=warmup,
        replications=replications,
        seed=seed,
        arrivals=scenario.arrivals,
        starts=sessions_rate is not None,
    )
    scenario = scenario.for_gpus(found)
    load = planned_load(scenario, found)
    chosen = behaviours(load, names, found, replanning)
    paths = [each for each in traces if not isinstance(each, ClassTrace)]
    ready = [each for each in traces if isinstance(each, ClassTrace)]
    if paths or not ready:
        read = read_class_traces(scenario, paths, timeless=scenario.arrivals.closed, **reading)
        ready = [*ready, *read]
    how = Replay(times, stretch, rate_scale, lengths, sessions_rate)
    check_played(scenario, ready, how)
    if match_load:
        rate_scale = matching_scale(scenario, found, ready, sessions_rate)
        how = replace(how, scale=rate_scale)
    end = math.inf if horizon is None else horizon
    loop: dict[str, Any] = loop_of(scenario) if scenario.arrivals.closed else {}
    seconds, most = (
        _extent_of_loop(load, found, ready, how, end, requests) if loop else _extent(ready, how, end, requests)
    )
    options = ReplayOptions(
        gpus=found,
        horizon=end,
        warmup=warmup,
        replications=replications,
        seed=seed,
        samples=samples,
        replanning=replanning,
        traces=tuple(file for each in ready for file in each.trace.files),
        times=times,
        lengths=lengths,
        rate_scale=rate_scale,
        requests=requests,
        sessions_rate=sessions_rate,
        **loop,
    )
    known = {remark for each in ready for remark in each.trace.of_loop} if loop else set()
    notes = [note for note in notes_on(scenario, ready) if note not in known]
    logged = LoggedRun.of([each.trace for each in ready]) if options.as_logged else None
    if logged is not None and logged.clock == "engine" and (load.engine.front_end or load.engine.front_end_first):
        notes.append(
            "the log is by the engine's clock, so that front_end is in what is simulated and not in what was measured; "
            "leave it out to compare the two"
        )
    says_rates = not loop and scenario.class_names != [ALL]
    study = RequestStudy(
        scenario=load,
        policies=chosen,
        options=options,
        source=Replayed(scenario, ready, how, seed, end, requests),
        seconds=seconds,
        most=most,
        remarks=(*notes, *(other_rates(scenario, ready, found, rate_scale, sessions_rate) if says_rates else ())),
        take_log=take_log,
    )
    with reported(progress, "playing") as tell:
        results = study.results(executor=executor, workers=workers, progress=tell)
    return ReplayComparison(scenario.name, options, tuple(results), logged)


def _extent(
    traces: Sequence[ClassTrace], how: Replay, horizon: float, requests: int | None
) -> tuple[float, int | None]:
    """Seconds over which requests arrive, about, and their number where it is known."""
    together = [each.trace for each in traces]
    spans = [starting_span(each, together, how.sessions_rate) / how.scale for each in together]
    rate = sum(len(each) / span for each, span in zip(traces, spans, strict=True) if span > 0)
    if how.times == "once":
        arriving = sum(_arriving(each, span, horizon, how) for each, span in zip(traces, spans, strict=True))
        most = arriving if requests is None else min(arriving, requests)
        seconds = min(horizon, max(spans))
        if most < arriving and rate > 0:
            seconds = min(seconds, most / rate)
        return max(seconds, 1e-9), most
    if requests is None:
        return horizon, None
    seconds = min(horizon, requests / rate if rate > 0 else math.inf)
    return seconds, requests if math.isinf(horizon) else None


def _extent_of_loop(
    load: Scenario, gpus: int, traces: Sequence[ClassTrace], how: Replay, horizon: float, requests: int | None
) -> tuple[float, int | None]:
    """The same of a closed loop, whose users can send no more than `load` says."""
    once = sum(map(len, traces)) if how.times == "once" else None
    most = min((count for count in (once, requests) if count is not None), default=None)
    if most is None:
        return horizon, None
    seconds = most / (gpus * float(load.rates.arrival.sum()))
    return max(min(horizon, seconds), 1e-9), most if math.isinf(horizon) else None


def _arriving(each: ClassTrace, span: float, horizon: float, how: Replay) -> int:
    if each.trace.by_answers:
        return math.ceil(len(each) * min(1.0, horizon / span))
    return int((each.trace.arrival_time <= horizon * how.scale).sum())
