"""Which request of a trace belongs to which class of a scenario."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluidgate.errors import FluidgateError, nearest
from fluidgate.model import Array, Scenario
from fluidgate.time_units import TimeUnit
from fluidgate.workloads.names import short_names
from fluidgate.workloads.parts import NamedTrace, joined_parts
from fluidgate.workloads.streams.lengths import Classes, Pool
from fluidgate.workloads.streams.texts import Texts, texts_of
from fluidgate.workloads.traces import Trace, read_trace


@dataclass(frozen=True)
class ClassTrace:
    """A trace and the class of each of its requests, shape (requests,)."""

    trace: Trace
    cls: Classes

    @property
    def source(self) -> str:
        return self.trace.source

    def __len__(self) -> int:
        return len(self.trace)

    @cached_property
    def texts(self) -> Texts:
        """The texts of its prompts."""
        return texts_of(self.trace)


AnyTraces = str | os.PathLike[str] | ClassTrace | Sequence[str | os.PathLike[str] | ClassTrace]
"""Traces, or paths of their files, or one."""


def read_class_traces(
    scenario: Scenario,
    paths: Sequence[str | Path],
    *,
    class_column: str | None = None,
    columns: Mapping[str, str] | None = None,
    unit: TimeUnit | None = None,
    benchmark: int | None = None,
    skip_empty: bool = False,
    sort: bool = False,
    timeless: bool = False,
) -> list[ClassTrace]:
    """Read trace files, join those that are parts of one (`joined_parts`), and give each request its class.

    Args:
        scenario: whose classes they are.
        paths: trace files, each as `PATH` or `CLASS=PATH`.
        class_column, columns, unit, benchmark, skip_empty, sort, timeless: as in `read_trace`.

    Raises:
        FluidgateError: a file is wrong, or its class is unclear; the message names the file and the mend.
    """
    if not paths:
        raise FluidgateError("no trace files; give at least one")
    reading: dict[str, Any] = {
        "columns": columns,
        "unit": unit,
        "benchmark": benchmark,
        "skip_empty": skip_empty,
        "sort": sort,
        "timeless": timeless,
    }
    named = [_named(scenario, path) for path in paths]
    read = joined_parts([NamedTrace(read_trace(path, class_column, **reading), name) for name, path in named])
    return assign_traces(scenario, [each.trace for each in read], [each.name for each in read])


def assign_traces(
    scenario: Scenario, traces: Sequence[Trace], names: Sequence[str | None] | None = None
) -> list[ClassTrace]:
    """Give each request of each trace its class.

    The class is, the first that applies:

    1. the one that `names` has for the trace, where that is not None;
    2. the request's label, where the trace has labels: each must be a class of the scenario;
    3. the class with the trace's short name, that is, what tells the names of the files apart (`code` and `conv` for
       the two Azure traces), where every remaining trace has such a class;
    4. the class at the same place among those that `names` leaves, where there are as many as such traces;
    5. the only class there is.

    Raises:
        FluidgateError: none applies, or a label is no class.
    """
    known = scenario.class_names
    given = list(names) if names is not None else [None] * len(traces)
    unlabelled = [k for k, trace in enumerate(traces) if given[k] is None and trace.labels is None]
    left = [name for name in known if name not in given]
    guessed = dict(zip(unlabelled, _guessed(known, left, [traces[k].source for k in unlabelled]), strict=True))
    assigned = []
    for k, trace in enumerate(traces):
        name = given[k] or guessed.get(k)
        if name is not None:
            cls = np.full(len(trace), _number(known, name, trace.source), np.int32)
        else:
            cls = _by_label(known, trace)
        assigned.append(ClassTrace(trace, cls))
    return assigned


def notes_on(scenario: Scenario, traces: Sequence[ClassTrace]) -> tuple[str, ...]:
    """What a reader should know of the assignment: left-out requests, shared times, empty classes, other means."""
    notes: list[str] = []
    for each in traces:
        trace = each.trace
        notes += trace.remarks
        together = len(trace) - len(np.unique(trace.arrival_time))
        if 2 * together > len(trace) and not trace.by_answers:
            notes.append(f"{trace.source}: {together:,} of {len(trace):,} requests arrive together with another")
    for k, request_class in enumerate(scenario.classes):
        prompt = np.concatenate([each.trace.prompt_tokens[each.cls == k] for each in traces])
        output = np.concatenate([each.trace.output_tokens[each.cls == k] for each in traces])
        if len(prompt) == 0:
            notes.append(f"class '{request_class.name}': no request in the traces")
            continue
        for what, sample, mean in (
            ("prompt", prompt, request_class.prompt_tokens),
            ("output", output, request_class.output_tokens),
        ):
            if abs(sample.mean() / mean - 1) > 0.1:
                notes.append(
                    f"class '{request_class.name}': the traces' mean {what} is {sample.mean():.4g} tokens, "
                    f"the scenario's {mean:.4g}; its plan is for the latter"
                )
    return tuple(notes)


def pool_of(scenario: Scenario, traces: Sequence[ClassTrace]) -> Pool:
    """The lengths of each class over all traces."""

    def of_class(column: Sequence[NDArray[np.int64]], k: int) -> NDArray[np.int64]:
        return np.concatenate([values[each.cls == k] for values, each in zip(column, traces, strict=True)])

    classes = range(len(scenario.classes))
    prompt = [each.trace.prompt_tokens for each in traces]
    output = [each.trace.output_tokens for each in traces]
    return Pool.of([of_class(prompt, k) for k in classes], [of_class(output, k) for k in classes])


def length_traces(scenario: Scenario) -> list[ClassTrace]:
    """The traces of `[lengths]`.

    Raises:
        FluidgateError: a file is wrong, or its class is unclear.
    """
    try:
        return read_class_traces(scenario, scenario.lengths.traces)
    except FluidgateError as error:
        raise FluidgateError(f"scenario '{scenario.name}': lengths.traces: {error}") from None


def trace_lengths(scenario: Scenario) -> list[tuple[Array, Array]]:
    """Prompt and output lengths of the requests of each class in the traces of `[lengths]`, shape (requests,) each.

    Raises:
        FluidgateError: a file is wrong, or its class is unclear.
    """
    paths = scenario.lengths.traces
    changed = tuple(Path(path).stat().st_mtime_ns if Path(path).exists() else 0 for path in paths)
    key = (tuple(scenario.class_names), paths, changed)
    if key not in _read_before:
        _read_before.clear()
        _read_before[key] = pool_of(scenario, length_traces(scenario))
    pool = _read_before[key]
    return [
        (pool.prompt[start : start + count].astype(float), pool.output[start : start + count].astype(float))
        for start, count in zip(pool.start, pool.count, strict=True)
    ]


_read_before: dict[tuple[object, ...], Pool] = {}
"""The lengths read last, by classes, files and their times: plans of one scenario are solved many times."""


def _named(scenario: Scenario, path: str | Path) -> tuple[str | None, str | Path]:
    """`CLASS=PATH` apart; a path with an equals sign stays whole unless a class stands before it."""
    name, equals, rest = str(path).partition("=")
    if equals and name in scenario.class_names:
        return name, rest
    if equals and name and "/" not in name and not Path(path).exists() and (rest == "-" or Path(rest).is_file()):
        known = list(scenario.class_names)
        hint = nearest(name, known) or f"; name one of them ({', '.join(known)})"
        raise FluidgateError(f"{path}: the scenario has no class '{name}'{hint}")
    return None, path


def _guessed(known: list[str], left: list[str], sources: list[str]) -> list[str]:
    """The classes of traces by their names or places; `left` are those that no trace was given."""
    if not sources:
        return []
    short = short_names(sources)
    if set(short) <= set(known):
        return short
    if len(left) == len(sources):
        return left
    if len(known) == 1:
        return known * len(sources)
    raise FluidgateError(
        f"{sources[0]}: its class is unclear ({len(sources)} traces, {len(known)} classes: {', '.join(known)}); "
        f"give it as {known[0]}=FILE, or one trace a class in their order"
    )


def _by_label(known: list[str], trace: Trace) -> Classes:
    labels = trace.labels if trace.labels is not None else np.empty(0, object)
    names, places = np.unique(labels.astype(str), return_inverse=True)
    numbers = np.array([_number(known, str(name), trace.source) for name in names], np.int32)
    return numbers[places]


def _number(known: list[str], name: str, source: str) -> int:
    if name not in known:
        hint = nearest(name, known) or f"; the classes are {', '.join(known)}"
        raise FluidgateError(f"{source}: '{name}' is no class of the scenario{hint}")
    return known.index(name)
