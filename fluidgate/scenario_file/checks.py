"""What the tables of a scenario file can't say key by key: one "KEY: REASON; MEND" for each mistake."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fluidgate.engine_table import EngineTable
from fluidgate.fleet_table import step_problems
from fluidgate.model import NO_EMPIRICAL_PROMPTS, IterationTime, Scenario
from fluidgate.scenario_file.tables.arrivals import DailyArrivals, MmppArrivals
from fluidgate.scenario_file.tables.gpu import ProfiledGpu
from fluidgate.scenario_file.tables.scenario import AnyTable, ClusterScenarioTable
from fluidgate.session_table import ClassOfSessions, subagent_problems
from fluidgate.toml_file import key_path


def problems_of(file: AnyTable, data: Mapping[str, Any], iteration: IterationTime, engine: EngineTable) -> list[str]:
    """The mistakes in a file whose tables are right each by itself.

    Args:
        file: its tables.
        data: its keys and values.
        iteration: the time that its [gpu] gives.
        engine: its [engine] with the KV tokens that follow.
    """
    return [
        *_no_duration(file, iteration),
        *_same_names(file, data),
        *_no_arrivals(file, data),
        *_no_whole_groups(file, engine),
        *_no_caching(file, data),
        *_no_process(file),
        *_no_length_law(file),
        *_no_sessions(file, data),
        *_no_fleet(file, data),
        *(f"engine.{problem}" for problem in engine.problems(file.gpu.batch_size)),
    ]


def _no_fleet(file: AnyTable, data: Mapping[str, Any]) -> Iterator[str]:
    if file.failures is not None:
        yield from (f"failures.{problem}" for problem in file.failures.problems())
    for index, problem in step_problems(file.schedule):
        yield f"{key_path(('schedule', index), data)}: {problem}"


def _no_duration(file: AnyTable, iteration: IterationTime) -> Iterator[str]:
    duration = iteration.mixed(file.gpu.chunk_size)
    key = "gpu.profile" if isinstance(file.gpu, ProfiledGpu) else "gpu.alpha"
    if not 0 < duration < math.inf:
        yield (
            f"{key}: alpha + beta * chunk_size must be greater than 0 s and finite, but is {duration:g} s; "
            "check alpha, beta and chunk_size"
        )
    alone = iteration.solo(1, 0)
    if not 0 < alone < math.inf:
        yield (
            f"{key}: a solo iteration of one decode must take more than 0 s, but takes {alone:g} s; "
            "give solo_alpha and solo_delta, or gamma"
        )


def _same_names(file: AnyTable, data: Mapping[str, Any]) -> Iterator[str]:
    first: dict[str, int] = {}
    for index, request_class in enumerate(file.classes):
        before = first.setdefault(request_class.name, index)
        if before != index:
            key = key_path(("classes", index, "name"), data)
            yield f"{key}: also the name of classes[{before}]; give each class its own name"


def _no_arrivals(file: AnyTable, data: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(file, ClusterScenarioTable):
        for index, request_class in enumerate(file.classes):
            if request_class.total_arrival_rate / file.cluster.gpus == 0:
                key = key_path(("classes", index, "total_arrival_rate"), data)
                yield f"{key}: too small to share among {file.cluster.gpus} GPUs; give a larger rate"


def _no_whole_groups(file: AnyTable, engine: EngineTable) -> Iterator[str]:
    if isinstance(file, ClusterScenarioTable) and file.cluster.gpus % engine.data_parallel != 0:
        yield (
            f"engine.data_parallel: the {file.cluster.gpus} GPUs of [cluster] are no whole number of groups of "
            f"{engine.data_parallel} ranks; give a multiple of {engine.data_parallel} as cluster.gpus"
        )


def _no_caching(file: AnyTable, data: Mapping[str, Any]) -> Iterator[str]:
    for index, request_class in enumerate(file.classes):
        if request_class.prefix_hit_rate and not file.engine.prefix_caching:
            key = key_path(("classes", index, "prefix_hit_rate"), data)
            yield f"{key}: only with prefix caching; remove this key, or give [engine] prefix_caching = true"


def _no_process(file: AnyTable) -> Iterator[str]:
    arrivals = file.arrivals
    if isinstance(arrivals, MmppArrivals):
        if len(arrivals.levels) != len(arrivals.sojourns):
            counts = f"{len(arrivals.levels)} levels, but {len(arrivals.sojourns)} sojourns"
            yield f"arrivals.sojourns: {counts}; give the mean time in each phase, s"
        if not any(arrivals.levels):
            yield "arrivals.levels: all 0; give one phase a rate above 0"
    if isinstance(arrivals, DailyArrivals) and not any(arrivals.weights):
        yield "arrivals.weights: all 0; give one part of the period a rate above 0"


def _no_length_law(file: AnyTable) -> Iterator[str]:
    table = file.lengths
    for name, law, cv in (("prompt", table.prompt, table.prompt_cv), ("output", table.output, table.output_cv)):
        if law == "lognormal" and cv is None:
            yield f"lengths.{name}_cv: missing; add '{name}_cv = 1.5', the CV of the {name} lengths"
        if law != "lognormal" and cv is not None:
            yield f'lengths.{name}_cv: only with {name} = "lognormal"; remove this key, or give that law'
    if table.traces and "empirical" not in (table.prompt, table.output):
        yield 'lengths.traces: only with prompt or output = "empirical"; remove this key, or give that law'


def _no_sessions(file: AnyTable, data: Mapping[str, Any]) -> Iterator[str]:
    def at(index: int) -> str:
        return key_path(("classes", index), data)

    for index, each in enumerate(file.classes):
        for problem in each.session_problems(each.prompt_tokens, each.output_tokens):
            yield f"{at(index)}: {problem}"
    key = "total_arrival_rate" if isinstance(file, ClusterScenarioTable) else "arrival_rate"
    for index, problem in subagent_problems([ClassOfSessions(c.name, getattr(c, key), c) for c in file.classes], key):
        yield f"{at(index)}: {problem}"
    if file.lengths.prompt == "empirical" and any(c.shares_text or c.has_sessions for c in file.classes):
        yield f"lengths.{NO_EMPIRICAL_PROMPTS}"


def no_rates(scenario: Scenario, data: Mapping[str, Any]) -> Iterator[str]:
    """Lengths so extreme that a service rate or a price is no longer a float."""
    with np.errstate(all="ignore"):
        rates = scenario.rates
        service = (rates.prefill, rates.mixed_decode, rates.solo_decode)
        sound = np.all([(rate > 0) & np.isfinite(rate) for rate in service], axis=0)
        sound &= np.isfinite(rates.bundled_value)
    for index in np.flatnonzero(~sound):
        key = key_path(("classes", int(index)), data)
        yield f"{key}: its service rates or prices are no longer numbers; check prompt_tokens, output_tokens"
