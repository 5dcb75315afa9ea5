"""A workload: the scenario that traces make, with its provenance and its distance from the model's laws."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fluidgate.arguments import checked
from fluidgate.batching import BatchingName
from fluidgate.errors import FluidgateError
from fluidgate.model import EngineModel, Gpu, IterationTime, Pricing, RequestClass, Scenario
from fluidgate.profiles import Profile, find_profile
from fluidgate.profiles.kv_memory import kv_memory
from fluidgate.scenario_file import dump_scenario
from fluidgate.shown import Brief, Drawn, several
from fluidgate.time_units import TimeUnit
from fluidgate.toml_file import LARGEST_WHOLE, SCHEMA, write_whole
from fluidgate.wording import all_worded
from fluidgate.workloads.classes import TraceClass, classes_of
from fluidgate.workloads.engine_log import EngineSettings, read_engine_log
from fluidgate.workloads.exponentiality import exponentiality
from fluidgate.workloads.names import shared_name
from fluidgate.workloads.parts import NamedTrace, joined_parts, split_name
from fluidgate.workloads.session_summary import SessionSummary, summary_of
from fluidgate.workloads.streams import check_starts
from fluidgate.workloads.traces import Trace, read_trace

if TYPE_CHECKING:
    import pandas as pd

Quantity = Literal["prompt_tokens", "output_tokens", "gap"]
UNITS: dict[Quantity, str] = {"prompt_tokens": "tokens", "output_tokens": "tokens", "gap": "s"}
PRICING = Pricing(scheme="bundled", prompt=0.1, output=0.2)
BATCH_SIZE, CHUNK_SIZE = 16, 256
DIGITS = 6
SESSIONS_RATE = 1.0
"""Starts of sessions a second where neither the traces nor the user say."""


@dataclass(frozen=True, repr=False)
class Statistic(Brief):
    """One quantity of one class against the exponential distribution of its mean (see `exponentiality`).

    `mean` is over requests, as they stand in the traces; the unit is `unit`.
    """

    class_name: str
    quantity: Quantity
    unit: str
    count: int
    mean: float | None
    cv: float | None
    kl: float | None

    def to_dict(self) -> dict[str, Any]:
        row = asdict(self)
        return {"class": row.pop("class_name"), **row}


@dataclass(frozen=True, repr=False)
class Workload(Drawn):
    """Request classes measured from traces, as a scenario for a cluster.

    Attributes:
        scenario: with `cluster_gpus`; lengths and total arrival rates are rounded to 6 significant digits.
        traces: what was read.
        classes: the requests of each class of the scenario, before scaling.
        scale: factor between the traces' arrival rates and the scenario's.
        profile: name of the profile that the iteration time is from, or None.
        kv_memory: how the KV tokens follow from the profile; empty where it does not say.
        command: the command line that makes this workload, without its output file; None where there is none.
        warnings: what a reader should know of how the traces were read.
        sessions: those of all requests; None where no trace says.
        joined: the traces, files that are parts of one put together; `sessions_rate` at which their sessions start,
            where they do not say when.
    """

    scenario: Scenario
    traces: tuple[Trace, ...]
    classes: tuple[TraceClass, ...]
    scale: float
    profile: str | None
    kv_memory: str
    command: str | None
    warnings: tuple[str, ...] = ()
    sessions: SessionSummary | None = None
    joined: tuple[Trace, ...] = ()
    sessions_rate: float | None = None

    def headline(self) -> str:
        requests = sum(map(len, self.classes))
        return f"'{self.scenario.name}': {several(len(self.classes), 'class')}, {several(requests, 'request')}"

    @cached_property
    def prefix_share(self) -> float | None:
        """Share of the prompt tokens of all requests, as they stand in the traces, that an endless memory would hold.

        None where no trace says what prompts have in common; those of which nothing is said are left out.
        """
        found, prompt = 0.0, 0.0
        for each in self.classes:
            if each.found is not None:
                known = np.isfinite(each.found)
                found, prompt = found + each.found[known].sum(), prompt + each.prompt_tokens[known].sum()
        return float(found / prompt) if prompt > 0 else None

    @cached_property
    def statistics(self) -> tuple[Statistic, ...]:
        """Prompt lengths, output lengths and inter-arrival gaps of each class."""
        return tuple(
            Statistic(c.name, quantity, UNITS[quantity], **asdict(exponentiality(sample)))
            for c in self.classes
            for quantity, sample in _samples(c).items()
        )

    def to_dict(self) -> dict[str, Any]:
        """Scenario, provenance and statistics, fit for JSON."""
        gpus = self.scenario.cluster_gpus or 1
        return {
            "schema": SCHEMA,
            "scenario": self.scenario.name,
            "gpus": gpus,
            "scale": self.scale,
            "profile": self.profile,
            "prefix_share": self.prefix_share,
            "sessions": None if self.sessions is None else self.sessions.to_dict(),
            "traces": [{"file": t.source, "requests": len(t), "span": t.span, "empty": t.empty} for t in self.traces],
            "classes": [
                {
                    "name": c.name,
                    "requests": len(found),
                    "prompt_tokens": c.prompt_tokens,
                    "output_tokens": c.output_tokens,
                    "total_arrival_rate": _rounded(c.arrival_rate * gpus),
                    "patience_rate": c.patience_rate,
                    "prefix_hit_rate": found.prefix_hit_rate,
                    "sessions": None if found.sessions is None else found.sessions.to_dict(),
                }
                for c, found in zip(self.scenario.classes, self.classes, strict=True)
            ],
            "statistics": [statistic.to_dict() for statistic in self.statistics],
            "warnings": list(self.warnings),
        }

    def to_dataframe(self) -> pd.DataFrame:
        """The statistics, one row for each class and quantity."""
        import pandas as pd

        return pd.DataFrame([statistic.to_dict() for statistic in self.statistics])

    @checked
    def to_toml(self, output: str | None = None) -> str:
        """The text of the scenario file; `output` is its name in the command at its top."""
        return dump_scenario(self.scenario, self._comments(output))

    @checked
    def write(self, path: str | Path) -> None:
        """Write the scenario file; it names the traces without their folders.

        Raises:
            FluidgateError: the file cannot be written.
        """
        path = Path(path)
        write_whole(path, self.to_toml(path.name if path.is_absolute() else path.as_posix()))

    def _comments(self, output: str | None) -> dict[str, str]:
        if self.command is not None:
            target = "" if output is None else f" -o {shlex.quote(output)}"
            top = ["Made from traces with", f"  {self.command}{target}"]
        else:
            top = ["Made from traces with fluidgate.workloads.workload"]
        for trace in self.traces:
            left_out = f", {trace.empty} empty ones left out" if trace.empty else ""
            if trace.sessions is not None and trace.by_answers:
                extent = f"of {trace.sessions.count} sessions, without times of their starts"
            else:
                extent = f"in {_rounded(trace.span):.10g} s"
            top.append(f"{trace.source}: {len(trace)} requests {extent}{left_out}")
        if self.scale != 1:
            top.append(f"Arrival rates are those of the traces times {_short(self.scale)}.")
        comments = {"": "\n".join(top)}
        if self.profile is not None:
            comments["gpu"] = f"profile {self.profile}"
        if self.kv_memory:
            comments["engine"] = f"kv_tokens: {self.kv_memory}"
        caches = self.scenario.engine.prefix_caching
        for index, found in enumerate(self.classes):
            rate = found.prefix_hit_rate
            shared = "" if rate is None else f"; an endless memory would hold {100 * rate:.4g} % of their prompts"
            less = "\nprefix_hit_rate is that; `fluidgate plan FILE --trace TRACE` measures what this memory holds"
            comments[f"classes[{index}]"] = f"{len(found)} requests{shared}{less if caches and rate else ''}"
        return comments


@checked
def workload(
    paths: str | Path | Sequence[str | Path],
    *,
    gpus: int,
    profile: str | Path | Profile | IterationTime,
    batch_size: int | None = None,
    chunk_size: int | None = None,
    engine_log: str | Path | None = None,
    batching: BatchingName | None = None,
    pricing: Pricing = PRICING,
    patience_rate: float = 0.1,
    scale: float = 1.0,
    sessions_rate: float | None = None,
    clusters: int | None = None,
    class_column: str | None = None,
    columns: Mapping[str, str] | None = None,
    unit: TimeUnit | None = None,
    benchmark: int | None = None,
    name: str | None = None,
    seed: int = 0,
    skip_empty: bool = False,
    sort: bool = False,
) -> Workload:
    """Request classes from traces, overlaid: one class a file, or files that are parts of one, unless told otherwise.

    Args:
        paths: trace files (see `fluidgate.workloads.traces`), each as `PATH` or `CLASS=PATH`.
        gpus: the GPUs that share the load.
        profile: a shipped profile's name, the path of a profile file, or an iteration time.
        batch_size: B, requests; by default what `engine_log` states, or 16.
        chunk_size: C, tokens; by default the tokens of an iteration that `engine_log` states, or 256.
        engine_log: a log of vLLM that states the engine's settings.
        batching: how the engines form a batch; None leaves it to the policy.
        pricing: prices per token.
        patience_rate: theta of every class, 1/s; traces do not show it.
        scale: multiplies the traces' arrival rates.
        sessions_rate: of traces that do not say when their sessions start: starts a second over the whole cluster, 1 if
            None.
        clusters: split all requests by their lengths into that many classes instead; of prompts by what is still to be
            read, where traces say what they share.
        class_column: split them by this column instead.
        columns: the files' own names of columns, as in `read_trace`.
        unit: of times that are numbers, as in `read_trace`.
        benchmark: which one of a report that holds several, as in `read_trace`.
        name: of the scenario; by default from the files' names.
        seed: of the clusters.
        skip_empty: leave out requests without tokens.
        sort: sort the requests by arrival.

    Raises:
        FluidgateError: a file or an argument is wrong; the message names it and the mend.
    """
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    log = None if engine_log is None else read_engine_log(engine_log)
    stated = log.settings if log is not None else EngineSettings()
    sizes = (batch_size, chunk_size)
    batch_size = _first(batch_size, stated.max_num_seqs, BATCH_SIZE)
    chunk_size = _first(chunk_size, stated.max_num_batched_tokens, CHUNK_SIZE)
    _check_arguments(files, gpus, batch_size, chunk_size, patience_rate, scale, clusters, class_column, seed)
    found, profile_name, profile_option = _profile(profile)
    memory = kv_memory(found, None, block=EngineModel().kv_block)
    if not 0 < found.iteration.mixed(chunk_size) < math.inf:
        raise FluidgateError("--chunk-size: alpha + beta * chunk_size must be greater than 0; give a larger one")
    reading: dict[str, Any] = {
        "columns": columns,
        "unit": unit,
        "benchmark": benchmark,
        "skip_empty": skip_empty,
        "sort": sort,
    }
    named = [split_name(file) for file in files]
    read = [NamedTrace(read_trace(path, class_column, **reading), name) for name, path in named]
    whole = joined_parts(read)
    traces = [each.trace for each in whole]
    waiting = [trace for trace in traces if trace.by_answers]
    rate = SESSIONS_RATE if sessions_rate is None and waiting else sessions_rate
    check_starts(traces, rate, closed=False)
    classes = tuple(classes_of(traces, clusters, seed, [each.name for each in whole], rate))
    sources = [each.trace.source for each in read]
    engine = _engine(stated, _first(stated.kv_tokens, memory.tokens), batching, classes)
    scenario = Scenario(
        name=name or shared_name(sources),
        gpu=Gpu(batch_size=batch_size, chunk_size=chunk_size, iteration=found.iteration),
        pricing=pricing,
        classes=tuple(_request_class(c, scale, gpus, patience_rate, engine.prefix_caching) for c in classes),
        engine=engine,
        cluster_gpus=gpus,
    )
    options: dict[str, tuple[Any, Any]] = {
        "--gpus": (gpus, None),
        "--scale": (scale, 1.0),
        "--sessions-rate": (sessions_rate, None),
        "--profile": (profile_option, None),
        "--batch-size": (sizes[0], None),
        "--chunk-size": (sizes[1], None),
        "--batching": (batching, None),
        "--engine-log": (None if log is None else log.source, None),
        "--patience-rate": (patience_rate, 0.1),
        "--classes": (clusters, None),
        "--class-column": (class_column, None),
        "--map": ([f"{standard}={column}" for standard, column in (columns or {}).items()], []),
        "--unit": (unit, None),
        "--benchmark": (benchmark, None),
        "--name": (name, None),
        "--seed": (seed if clusters is not None else 0, 0),
        "--skip-empty": (skip_empty, False),
        "--sort": (sort, False),
    }
    reproducible = profile_option is not None and pricing == PRICING
    given = [each.trace.source if each.name is None else f"{each.name}={each.trace.source}" for each in read]
    command = _command(given, options) if reproducible else None
    warnings = [remark for each in whole for remark in each.trace.remarks]
    if waiting and sessions_rate is None:
        warnings.append(
            f"{waiting[0].source}: it does not say when its sessions start; {SESSIONS_RATE:g} a second over the whole "
            "cluster is taken, --sessions-rate R says another"
        )
    if log is not None:
        warnings += [f"{log.source}: {key} is not in it; the scenario has a default" for key in stated.unsaid]
    sessions = summary_of([(t.sessions, np.ones(len(t), bool)) for t in traces if t.sessions is not None])
    reason = memory.reason if log is None or stated.kv_tokens is None else f"as {log.source} states them"
    return Workload(
        scenario,
        tuple(each.trace for each in read),
        classes,
        float(scale),
        profile_name,
        reason,
        command,
        all_worded(warnings),
        sessions,
        tuple(traces),
        rate,
    )


def _check_arguments(
    files: Sequence[str | Path],
    gpus: int,
    batch_size: int,
    chunk_size: int,
    patience_rate: float,
    scale: float,
    clusters: int | None,
    class_column: str | None,
    seed: int,
) -> None:
    if not files:
        raise FluidgateError("no trace files; give at least one")
    for key, size in {"gpus": gpus, "batch-size": batch_size, "chunk-size": chunk_size}.items():
        if not 1 <= size <= LARGEST_WHOLE:
            raise FluidgateError(f"--{key}: must be from 1 to {LARGEST_WHOLE}, but is {size}; give another number")
    if not 0 <= patience_rate < math.inf:
        raise FluidgateError(f"--patience-rate: must be at least 0 and finite, but is {patience_rate:g}; give 1/s")
    if not 0 < scale < math.inf:
        raise FluidgateError(f"--scale: must be greater than 0 and finite, but is {scale:g}; give a factor")
    if seed < 0:
        raise FluidgateError(f"--seed: must be at least 0, but is {seed}; give another number")
    if clusters is not None and class_column is not None:
        raise FluidgateError("--classes: not together with --class-column; give one of the two")


def _profile(profile: str | Path | Profile | IterationTime) -> tuple[Profile, str | None, str | None]:
    """The profile, its name if it has one, and how the command line takes it."""
    if isinstance(profile, IterationTime):
        return Profile(name="unnamed", iteration=profile), None, None
    if isinstance(profile, Profile):
        return profile, profile.name, None
    found = find_profile(profile)
    is_file = str(profile).endswith(".toml")
    return found, found.name, Path(profile).name if is_file else str(profile)


def _engine(
    stated: EngineSettings, kv_tokens: int | None, batching: str | None, classes: Sequence[TraceClass]
) -> EngineModel:
    """As stated; where prompts share something, with prefix caching unless it is stated to be off."""
    shares = any(found.found_share for found in classes)
    caches = (shares or None) if stated.enable_prefix_caching is None else stated.enable_prefix_caching
    engine = replace(stated, kv_tokens=kv_tokens, enable_prefix_caching=caches).engine
    if batching is None:
        return engine
    for problem in engine.model_copy(update={"batching": batching}).problems():
        raise FluidgateError(f"--batching {batching}: {problem}")
    return EngineModel(**engine.model_dump(exclude_unset=True), batching=batching)


def _request_class(
    found: TraceClass, scale: float, gpus: int, patience_rate: float, prefix_caching: bool
) -> RequestClass:
    rate = _rounded(found.arrival_rate * scale)
    if not 0 < rate / gpus < math.inf:
        raise FluidgateError(f"--scale: the arrival rate of '{found.name}' becomes {rate}; give another factor")
    return RequestClass(
        name=found.name,
        prompt_tokens=_rounded(found.mean_prompt),
        output_tokens=_rounded(found.mean_output),
        arrival_rate=rate / gpus,
        patience_rate=patience_rate,
        prefix_hit_rate=_hit_rate(found.found_share) if prefix_caching else None,
    )


def _hit_rate(share: float | None) -> float | None:
    """Rounded, and below 1: a token at least of each prompt is read."""
    return None if share is None else min(_rounded(share), 1.0 - 10.0**-DIGITS)


def _first(*values: int | None) -> Any:
    """The first that is not None."""
    return next((value for value in values if value is not None), None)


def _rounded(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")


def _short(value: object) -> str:
    return str(value).removesuffix(".0")


def _samples(found: TraceClass) -> dict[Quantity, Any]:
    return {"prompt_tokens": found.prompt_tokens, "output_tokens": found.output_tokens, "gap": found.gaps}


def _command(files: Sequence[str], options: dict[str, tuple[Any, Any]]) -> str:
    words = ["fluidgate", "workload", *files]
    for option, (value, default) in options.items():
        if value is True:
            words.append(option)
        elif isinstance(value, list):
            words += [word for each in value for word in (option, each)]
        elif value != default:
            words += [option, _short(value)]
    return shlex.join(words)
