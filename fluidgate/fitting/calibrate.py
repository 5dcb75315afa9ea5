"""From a log, a scenario and perhaps known iteration times to a profile."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fluidgate.arguments import checked
from fluidgate.batching import DISCIPLINES, Batching
from fluidgate.errors import FluidgateError
from fluidgate.fitting.coefficients import LIKELY, Coefficients, Overhead, WholeLaw
from fluidgate.fitting.fit import fit
from fluidgate.fitting.result import LogCalibration, Z
from fluidgate.model import AnyScenario, Scenario
from fluidgate.profiles import Profile, find_profile
from fluidgate.scenario_file import load_scenario
from fluidgate.simulation.iteration.engine import Engine
from fluidgate.simulation.iteration.logged import LoggedRun
from fluidgate.simulation.iteration.scenario_engine import engine_of
from fluidgate.simulation.iteration.what_ran import WhatRan
from fluidgate.toml_file import fail
from fluidgate.workloads.traces import MEASURED, Trace, read_trace

What = Literal["overhead", "law"]
FEWEST = 20
"""Requests that a fit needs."""
HOLD_OUT = 0.5


@checked
def calibrate_from_log(
    log: Trace | str | Path,
    scenario: AnyScenario,
    *,
    known: Profile | str | Path | None = None,
    what: What | None = None,
    hold_out: float = HOLD_OUT,
    name: str | None = None,
    model: str | None = None,
    gpu: str | None = None,
    engine: str | None = None,
    source: str | None = None,
    notes: str | None = None,
    seed: int = 0,
) -> LogCalibration:
    """Fit an iteration time to what became of the requests of a log.

    All of them are replayed on the scenario's engine; those that arrived first are fitted.

    Args:
        log: with the times of first and last tokens; or its path, as `read_trace` reads it.
        scenario: its [engine] and its batch size say how the logged engine was set; its load has no part, and its file
            need not have any.
        known: iteration times upon which the overhead is fitted, such as those of a table; or the name of a profile.
        what: `overhead` on known times, which are the scenario's own if there are no others; `law` for all
            coefficients. By default the overhead where times are known.
        hold_out: share of the requests that are not fitted but predicted, those that arrived last.
        name: of the profile; by default the log's name without its ending.
        model, gpu, engine, source, notes: texts of the profile; those of what is known if None.
        seed: of the draws for the intervals.

    Raises:
        FluidgateError: the log has no times of tokens or too few requests, or the scenario contradicts it.
    """
    if not (math.isfinite(hold_out) and 0.0 <= hold_out < 1.0):
        raise FluidgateError(
            f"--hold-out: must be at least 0 and below 1, but is {hold_out:g}; give a share, such as 0.5"
        )
    if not isinstance(log, Trace):
        log = read_trace(log, sort=True)
    scenario = _scenario_of(scenario)
    known = known if known is None or isinstance(known, Profile) else find_profile(known)
    run = _run_of(log)
    count = len(run.arrival) - int(hold_out * len(run.arrival))
    if count < FEWEST:
        reason = f"{count} requests to fit, but a fit needs {FEWEST}"
        fail(log.source, [f"{reason}; give a longer log, or hold out less of it"])
    chosen = np.arange(len(run.arrival)) < count
    chosen_what: What = what or ("law" if known is None else "overhead")
    first = scenario.gpu.iteration if known is None else known.iteration
    here = _engine(scenario)
    coefficients: Coefficients = Overhead(first) if chosen_what == "overhead" else WholeLaw(first)
    found = fit(run, here, coefficients, chosen, seed)
    if isinstance(coefficients, Overhead) and found.values[1] <= Z * found.sd[1]:
        coefficients = replace(coefficients, per_decode=False)
        found = fit(run, here, coefficients, chosen, seed)
    base = known or Profile(name="measured", iteration=first)
    texts = {"model": model, "gpu": gpu, "engine": engine, "notes": notes}
    profile = base.changed(
        **{key: text for key, text in texts.items() if text},
        name=name or Path(log.source).name.partition(".")[0] or "measured",
        iteration=coefficients.iteration(found.values[:-1]),
        measured=_day(log) or base.measured,
        source=source or _source(log, chosen_what, count, base),
        **(_ranges(found.replay.what_ran, base) if chosen_what == "law" or known is None else {}),
    )
    remarks = tuple(_remarks(log, coefficients))
    return LogCalibration(profile, chosen_what, found, coefficients.names, run, chosen, remarks)


def _scenario_of(scenario: AnyScenario) -> Scenario:
    """What a file lacks of load and times has no part in a calibration."""
    if isinstance(scenario, Scenario):
        return scenario
    some = {"prompt_tokens": 1.0, "output_tokens": 1.0, "patience_rate": 0.0}

    def one_class(data: Mapping[str, Any]) -> dict[str, Any]:
        return {"name": "all", **some, "total_arrival_rate" if "cluster" in data else "arrival_rate": 1.0}

    return load_scenario(os.fspath(scenario), one_class, LIKELY)


def _run_of(log: Trace) -> LoggedRun:
    run = LoggedRun.of([log])
    if run is None:
        keys = " and ".join(MEASURED)
        fail(log.source, [f"no times of tokens; give a log with the keys {keys}, or name them with --map"])
    return run


def _engine(scenario: Scenario) -> Engine:
    """Without the way to the client, which is fitted where the log's clock is the client's."""
    batching = scenario.engine.batching or Batching.TOKEN_BUDGET.value
    if DISCIPLINES[Batching(batching)].by_policy:
        raise FluidgateError(
            f"engine.batching: a log is replayed on an engine that forms its own batches, not with {batching}; "
            "leave it out, or give that of the logged engine"
        )
    at_the_engine = scenario.engine.model_copy(update={"front_end": 0.0, "front_end_first": 0.0})
    return engine_of(scenario.replace(engine=at_the_engine), batching)


def _day(log: Trace) -> str | None:
    """When the log began, where its clock is the world's."""
    return datetime.fromtimestamp(log.start, UTC).date().isoformat() if log.absolute else None


def _source(log: Trace, what: What, count: int, base: Profile) -> str:
    fitted = f"{what} fitted to the first {count:,} of {len(log):,} requests of {log.source}"
    return f"{base.source}; {fitted}" if base.source and what == "overhead" else fitted


def _ranges(what: WhatRan, base: Profile) -> dict[str, tuple[int, int] | None]:
    """Batches, chunks and contexts that the replay has met."""
    rows = what.segments
    decodes, chunks = rows["decodes"][rows["decodes"] > 0], rows["chunk"][rows["chunk"] > 0]
    several = rows[rows["decodes"] > 0]
    contexts = several["context"] / several["decodes"]
    return {
        "batch_sizes": _range(decodes) or base.batch_sizes,
        "chunk_sizes": _range(chunks) or base.chunk_sizes,
        "contexts": _range(contexts[contexts >= 1.0]) or base.contexts,
    }


def _range(values: np.ndarray) -> tuple[int, int] | None:
    return (int(values.min()), int(values.max())) if len(values) else None


def _remarks(log: Trace, coefficients: Coefficients) -> Iterator[str]:
    yield from log.remarks
    if isinstance(coefficients, Overhead) and not coefficients.per_decode:
        yield "the log does not tell an overhead_per_decode from 0: the overhead is fitted alone"
