"""What the engines are to serve: requests drawn by the scenario, or those of traces."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fluidgate.errors import FluidgateError
from fluidgate.model import AnyScenario, Lengths, Scenario
from fluidgate.planning.cached import with_hit_rates
from fluidgate.shown import Brief
from fluidgate.simulation.iteration.source import Drawn, Replayed, Source
from fluidgate.simulation.iteration.study import RequestStudy, behaviours, drawn_study
from fluidgate.simulation.iteration.trace_scenario import scenario_of_traces
from fluidgate.simulation.options import Options
from fluidgate.sizing.parts import ByInterval, InParts, Logged, Watched, Whole, Work
from fluidgate.sizing.peak import Intervals
from fluidgate.sizing.targets import Target
from fluidgate.sizing.trial import LOOKS
from fluidgate.sizing.window import Window, unseen, unsettled
from fluidgate.workloads.measured_hits import measured_curves
from fluidgate.workloads.streams import ClassTrace, Replay, check_played, read_class_traces, starting_span

ONCE = (1,)
"""Replications of a trace, which is what it is."""


@dataclass(frozen=True, repr=False)
class Load(Brief, ABC):
    """Requests that fleets are put to.

    Attributes:
        targets: that they must keep.
        seed: of all random numbers; the same requests come to every fleet.
    """

    targets: tuple[Target, ...]
    seed: int

    @property
    @abstractmethod
    def looks(self) -> tuple[int, ...]:
        """Replications after which a trial is looked at."""

    @property
    @abstractmethod
    def work(self) -> Work:
        """Runs a replication."""

    @property
    @abstractmethod
    def over(self) -> Intervals | None:
        """Parts of the period, or of the trace, of which each is looked at; None where there are none."""

    @abstractmethod
    def study(self, scenario: Scenario, policy: str, gpus: int) -> RequestStudy:
        """One policy on so many GPUs under this load.

        Raises:
            FluidgateError: the policy does not run on these GPUs.
        """

    @property
    @abstractmethod
    def logged_work(self) -> Work:
        """Runs a replication of one of several fleets, which are judged together."""

    @abstractmethod
    def source(self, scenario: Scenario) -> Source:
        """All requests of a scenario that has this load."""

    @property
    @abstractmethod
    def seconds(self) -> float:
        """Over which the requests of a replication arrive."""

    def doubts(self, scenario: Scenario) -> Iterator[str]:
        """What its replications do not show of a scenario, a sentence each."""
        return unseen(scenario, self.targets, self.seconds)

    @abstractmethod
    def bounded(self, gpus: float) -> float:
        """The fewest GPUs for this load where its mean rate needs so many in the long run."""


@dataclass(frozen=True, repr=False)
class DrawnLoad(Load):
    """Drawn by the scenario's laws.

    Attributes:
        intervals: of the period after which its rate repeats; None where it does not.
    """

    window: Window
    intervals: Intervals | None = None

    @property
    def looks(self) -> tuple[int, ...]:
        return LOOKS

    @property
    def work(self) -> Work:
        return Whole() if self.intervals is None else ByInterval(self.targets, self.intervals)

    @property
    def over(self) -> Intervals | None:
        return self.intervals

    @property
    def logged_work(self) -> Work:
        return Whole() if self.intervals is None else Watched(self.targets, self.intervals)

    def source(self, scenario: Scenario) -> Source:
        gpus = scenario.cluster_gpus or 1
        return Drawn(scenario, gpus, self.seed, self.window.horizon)

    def study(self, scenario: Scenario, policy: str, gpus: int) -> RequestStudy:
        options = Options.checked(
            scenario,
            gpus=gpus,
            horizon=self.window.horizon,
            warmup=self.window.warmup,
            replications=LOOKS[-1],
            seed=self.seed,
            fidelity="iteration",
        )
        return drawn_study(scenario, [policy], options)

    @property
    def seconds(self) -> float:
        return self.window.horizon

    def doubts(self, scenario: Scenario) -> Iterator[str]:
        yield from unsettled(scenario, self.window)
        yield from super().doubts(scenario)

    def bounded(self, gpus: float) -> float:
        return gpus


@dataclass(frozen=True, repr=False)
class TracedLoad(Load):
    """Traces, played once as they are.

    Attributes:
        traces: with the class of each request.
        scale: factor on their rate.
        sessions_rate: starts of sessions a second, where traces do not say when.
        closed: whether users send the requests, each the next when its last has left.
    """

    traces: tuple[ClassTrace, ...]
    scale: float
    sessions_rate: float | None
    closed: bool = False

    @property
    def looks(self) -> tuple[int, ...]:
        return ONCE

    @property
    def work(self) -> Work:
        return InParts(self.targets, self.over)

    @property
    def over(self) -> Intervals | None:
        count = sum(map(len, self.traces))
        return None if self.closed else Intervals.of_trace(self.seconds, count, self.targets)

    @property
    def logged_work(self) -> Work:
        return Logged()

    def source(self, scenario: Scenario) -> Source:
        how = Replay("once", 60.0, self.scale, "trace", self.sessions_rate)
        return Replayed(scenario, self.traces, how, self.seed, math.inf, None)

    def study(self, scenario: Scenario, policy: str, gpus: int) -> RequestStudy:
        scenario = scenario.for_gpus(gpus)
        options = Options(gpus, math.inf, 0.0, 1, self.seed, "iteration")
        return RequestStudy(
            scenario=scenario,
            policies=behaviours(scenario, [policy], gpus),
            options=options,
            source=self.source(scenario),
            seconds=self.seconds,
            most=sum(map(len, self.traces)),
        )

    @property
    def seconds(self) -> float:
        """Over which the requests arrive."""
        together = [each.trace for each in self.traces]
        return max(max(starting_span(each, together, self.sessions_rate) for each in together) / self.scale, 1e-9)

    def bounded(self, gpus: float) -> float:
        """What has not been served by the end of the trace is served after it, within the longest limit."""
        if self.closed:
            return 0.0
        latest = max((each.limit for each in self.targets if not each.is_share), default=math.inf)
        return gpus * self.seconds / (self.seconds + latest) if math.isfinite(latest) else 0.0


def traced(
    scenario: AnyScenario,
    traces: Sequence[str | Path | ClassTrace],
    scale: float,
    sessions_rate: float | None,
    **reading: Any,
) -> tuple[Scenario, tuple[ClassTrace, ...]]:
    """The scenario with the rates and lengths of the traces, which are those of a whole cluster; and the traces, read.

    Where there are no classes one is made of the traces.

    Raises:
        FluidgateError: a file is wrong, or the traces can't be played.
    """
    if isinstance(scenario, Scenario):
        chosen, given = scenario, list(traces)
    else:
        chosen, given = scenario_of_traces(
            os.fspath(scenario), [t for t in traces if not isinstance(t, ClassTrace)], gpus=1, **reading
        )
    ready = [each for each in given if isinstance(each, ClassTrace)]
    paths = [each for each in given if not isinstance(each, ClassTrace)]
    if paths:
        ready += read_class_traces(chosen, paths, **reading)
    check_played(chosen, ready, Replay("once", 60.0, scale, "trace", sessions_rate))
    made = _as_traced(chosen, ready, scale, sessions_rate)
    if made.engine.prefix_caching and not made.arrivals.closed:
        endless = measured_curves(made, ready, 1, token_seconds=0.0, sessions_rate=sessions_rate).together
        made = with_hit_rates(made, endless.rates(math.inf))
    return made, tuple(ready)


def _as_traced(scenario: Scenario, traces: Sequence[ClassTrace], scale: float, sessions_rate: float | None) -> Scenario:
    """What comes by the traces, per GPU of a cluster of one."""
    together = [each.trace for each in traces]
    spans = [max(starting_span(each, together, sessions_rate), 1e-9) / scale for each in together]
    classes = []
    for k, each in enumerate(scenario.classes):
        own = [trace.cls == k for trace in traces]
        rate = sum(float(mine.sum()) / span for mine, span in zip(own, spans, strict=True))
        if rate == 0.0:
            continue
        prompt, output = (
            np.concatenate([getattr(t.trace, name)[mine] for t, mine in zip(traces, own, strict=True)])
            for name in ("prompt_tokens", "output_tokens")
        )
        lengths = {"prompt_tokens": float(prompt.mean()), "output_tokens": float(output.mean())}
        classes.append(each.model_copy(update={"arrival_rate": rate, **lengths}))
    if len(classes) < len(scenario.classes):
        missing = sorted(set(scenario.class_names) - {c.name for c in classes})
        raise FluidgateError(
            f"--trace: no request is of class '{missing[0]}'; give a trace of it, or leave the class out"
        )
    return scenario.replace(classes=tuple(classes), cluster_gpus=1, lengths=_lengths(traces))


def _lengths(traces: Sequence[ClassTrace]) -> Lengths:
    """Log-normal ones as spread out as those of the traces: for bounds and guesses; they play their own."""
    spreads = []
    for name in ("prompt_tokens", "output_tokens"):
        values = np.concatenate([getattr(each.trace, name) for each in traces]).astype(float)
        spreads.append(float(values.std() / values.mean()))
    laws: dict[str, Any] = {}
    for name, spread in zip(("prompt", "output"), spreads, strict=True):
        laws |= {name: "lognormal", f"{name}_cv": spread} if spread > 0.0 else {name: "fixed"}
    return Lengths(**laws)


def check_scale(factor: float) -> None:
    """Refuse a factor on rates that is no number above 0.

    Raises:
        FluidgateError: naming the option.
    """
    if not 0.0 < factor < math.inf:
        raise FluidgateError(f"--rate-scale: must be a number above 0, but is {factor:g}")


def check_unread(reading: Mapping[str, Any]) -> None:
    """Refuse how traces are to be read where there are none.

    Raises:
        FluidgateError: naming the option.
    """
    for name, value in reading.items():
        if value not in (None, False) and value != {}:
            option = "map" if name == "columns" else name.replace("_", "-")
            raise FluidgateError(f"--{option}: says how a trace is read, and there is none; give --trace FILE too")


def scaled(scenario: Scenario, factor: float) -> Scenario:
    """The scenario at `factor` times its rates, or times its users where the loop is closed."""
    users = scenario.arrivals.users
    if users is not None:
        more = scenario.arrivals.model_copy(update={"users": max(1, round(users * factor))})
        return scenario.replace(arrivals=more)
    classes = tuple(c.model_copy(update={"arrival_rate": c.arrival_rate * factor}) for c in scenario.classes)
    return scenario if factor == 1.0 else scenario.replace(classes=classes)


def check_load(scenario: Scenario) -> None:
    """Refuse a load that does not say how much comes to the whole cluster.

    Raises:
        FluidgateError: naming the mend.
    """
    if scenario.cluster_gpus is None and not scenario.arrivals.closed:
        raise FluidgateError(
            f"scenario '{scenario.name}': its rates are per GPU, so that any number of GPUs serves them alike; add "
            "[cluster] with gpus (any number) and give total_arrival_rate of the whole cluster, or --trace FILE"
        )
