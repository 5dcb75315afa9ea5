"""A scenario file whose requests come from traces: it may leave its classes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fluidgate.errors import FluidgateError
from fluidgate.model import Scenario
from fluidgate.planning import check_gpus
from fluidgate.scenario_file import load_scenario
from fluidgate.simulation.closed_loop import served_load
from fluidgate.workloads.parts import NamedTrace, joined_parts, split_name
from fluidgate.workloads.streams import ClassTrace, check_starts, starting_span
from fluidgate.workloads.traces import Trace, read_trace

ALL = "all"
"""Name of the class that is made of traces."""


def scenario_of_traces(
    path: str | Path,
    traces: Sequence[str | Path],
    *,
    gpus: int | None = None,
    rate_scale: float = 1.0,
    sessions_rate: float | None = None,
    closed: bool = False,
    **reading: Any,
) -> tuple[Scenario, list[str | Path | ClassTrace]]:
    """The scenario in a file, and the traces; read, with one class made of them all, where the file has no [[classes]].

    That class has the traces' mean lengths, and as much of their rate as can be served; its requests never leave.

    Args:
        path: of the scenario file.
        traces: files, each as `PATH` or, where the file has classes, `CLASS=PATH`.
        gpus: that share the traces' requests; those of the file's [cluster] if None.
        rate_scale: factor on the traces' rates.
        sessions_rate: starts of sessions a second, over all traces, where these do not say when.
        closed: whether they are played in a closed loop, whatever the file says.
        reading: as in `read_trace`.

    Raises:
        FluidgateError: a file is wrong, or there is no number of GPUs.
    """
    read: list[Trace] = []

    def one_class(file: Mapping[str, Any]) -> dict[str, Any]:
        of_cluster = "cluster" in file
        if not of_cluster and gpus is None:
            raise FluidgateError("--gpus: missing, and the scenario names no [cluster] gpus; say how many GPUs")
        if gpus is not None:
            check_gpus(gpus)
        arrivals = file.get("arrivals")
        loops = closed or (isinstance(arrivals, dict) and arrivals.get("process") == "closed")
        for each in traces:
            name, alone = split_name(each)
            if name is not None:
                raise FluidgateError(
                    f"{each}: {path} has no [[classes]], so that no trace is of one; give '{alone}' alone, or add them"
                )
        parts = joined_parts([NamedTrace(read_trace(each, timeless=loops, **reading)) for each in traces])
        read.extend(part.trace for part in parts)
        keys = {"name": ALL, "patience_rate": 0.0, **_mean_lengths(read)}
        check_starts(read, sessions_rate, loops)
        spans = [starting_span(each, read, sessions_rate) for each in read]
        rate = rate_scale * sum(len(each) / (span if span > 0 else 1.0) for each, span in zip(read, spans, strict=True))
        return keys | ({"total_arrival_rate": rate} if of_cluster else {"arrival_rate": rate / (gpus or 1)})

    scenario = load_scenario(path, one_class)
    if not read:
        return scenario, list(traces)
    scenario = served_load(scenario if gpus is None else scenario.for_gpus(gpus))
    return scenario, [ClassTrace(each, np.zeros(len(each), np.int32)) for each in read]


def _mean_lengths(traces: Sequence[Trace]) -> dict[str, float]:
    if not sum(map(len, traces)):
        raise FluidgateError("the traces have no requests to make a class of; give others, or [[classes]]")
    return {
        name: float(np.concatenate([getattr(each, name) for each in traces]).mean())
        for name in ("prompt_tokens", "output_tokens")
    }
