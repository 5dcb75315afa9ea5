"""Scenario files (TOML) to `Scenario` and back.

Every error is one line, `FILE: KEY: REASON; MEND`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter

from fluidgate.engine_table import EngineTable, TargetsTable, absent, without_default
from fluidgate.errors import FluidgateError
from fluidgate.model import (
    Arrivals,
    Calibrated,
    Duration,
    EngineModel,
    Gpu,
    Indicators,
    IterationTime,
    LengthLaw,
    Lengths,
    NonNegative,
    Pricing,
    Process,
    RequestClass,
    Scenario,
    Scheme,
    Targets,
)
from fluidgate.profiles.terms import BATCH_TERMS, BatchTerms, has_batch_terms, reason_of
from fluidgate.toml_file import (
    LARGEST_WHOLE,
    SCHEMA,
    SchemaKey,
    Table,
    check,
    fail,
    key_path,
    parse_toml,
    read_text,
    write_whole,
)

if TYPE_CHECKING:
    from tomlkit import TOMLDocument
    from tomlkit.items import Table as TomlTable

ABSENT: Any = None


class GpuTable(Table):
    batch_size: int = Field(ge=1, le=LARGEST_WHOLE, description="the most requests in a batch, B", examples=[16])
    chunk_size: int = Field(
        ge=1, le=LARGEST_WHOLE, description="the prompt tokens read in one iteration, C", examples=[256]
    )


class MeasuredGpu(GpuTable):
    """The table [gpu] with its iteration time spelt out."""

    alpha: float = Field(
        description="the seconds of a mixed iteration at chunk size 0 "
        "(or give a profile instead of alpha, beta and gamma)",
        examples=[0.0174],
    )
    beta: float = Field(
        gt=0, description="the seconds that a prompt token adds to a mixed iteration", examples=[6.2e-5]
    )
    gamma: float = Field(gt=0, description="the tokens per second of one decode on a solo GPU", examples=[45.45])

    def measured(self, base_dir: Path) -> tuple[IterationTime, Calibrated]:
        return IterationTime(alpha=self.alpha, beta=self.beta, gamma=self.gamma), Calibrated()


class BatchedGpu(GpuTable, BatchTerms):
    """The table [gpu] with an iteration time that depends on the batch: the paper's with more terms."""

    alpha: float = Field(description="the intercept of the mixed iteration time, s", examples=[0.0091])
    beta: float = Field(
        gt=0, description="the seconds that a prompt token adds to a mixed iteration", examples=[9.3e-5]
    )

    def measured(self, base_dir: Path) -> tuple[IterationTime, Calibrated]:
        keys = set(IterationTime.model_fields)
        return IterationTime(**self.model_dump(include=keys)), Calibrated()


_PROFILE_OR_NUMBERS = "not together with 'profile'; remove 'profile', or alpha, beta and gamma"


class ProfiledGpu(GpuTable):
    """The table [gpu] with the iteration time of a profile, at its batch size where the profile holds a law."""

    elsewhere: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("alpha", "beta", "gamma"), _PROFILE_OR_NUMBERS),
        **dict.fromkeys(BATCH_TERMS, "not together with 'profile', whose own it is; remove one of the two"),
    }

    profile: str = Field(
        min_length=1,
        description="the name of a profile ('fluidgate profiles' lists them), or the path of a profile file "
        "ending in .toml, relative to this file",
        examples=["a100-40gb/qwen-8b"],
    )

    def measured(self, base_dir: Path) -> tuple[IterationTime, Calibrated]:
        from fluidgate.profiles import find_profile

        profile = find_profile(self.profile, base_dir)
        return profile.iteration_at(self.batch_size), profile.calibrated


class PricingTable(Table):
    scheme: Scheme = Field(
        description="when tokens are paid: all at the last token ('bundled'), or the prompt after prefill ('separate')",
        examples=["bundled"],
    )
    prompt: float = Field(ge=0, description="the price of a prompt token, c_p", examples=[0.1])
    output: float = Field(ge=0, description="the price of an output token, c_d", examples=[0.2])


class ClassTable(Table):
    name: str = Field(min_length=1, description="the name of the class, distinct from the others", examples=["chat"])
    prompt_tokens: float = Field(gt=0, description="the mean prompt length P, tokens", examples=[300])
    output_tokens: float = Field(gt=0, description="the mean output length D, tokens", examples=[1000])
    patience_rate: float = Field(
        ge=0,
        description="the rate theta at which a waiting request leaves, 1/s; 0 for never",
        examples=[0.1],
    )
    ttft_target: float = absent("the largest time to first token that counts as goodput, s", gt=0, examples=[2.0])
    tpot_target: float = absent("the largest time per output token that counts as goodput, s", gt=0, examples=[0.05])


class ClassPerGpu(ClassTable):
    """A table [[classes]] in a file without [cluster]."""

    elsewhere: ClassVar[Mapping[str, str]] = {
        "total_arrival_rate": "only together with [cluster]; add [cluster] with gpus, "
        "or remove this key and give arrival_rate, requests/s per GPU"
    }

    arrival_rate: float = Field(gt=0, description="the arrivals lambda, requests/s per GPU", examples=[0.5])


class ClassOfCluster(ClassTable):
    """A table [[classes]] in a file with [cluster]."""

    elsewhere: ClassVar[Mapping[str, str]] = {
        "arrival_rate": "not together with [cluster]; remove this key and give total_arrival_rate, or remove [cluster]"
    }

    total_arrival_rate: float = Field(
        gt=0, description="the arrivals at the whole cluster, requests/s", examples=[30.0]
    )


class IndicatorsTable(Table):
    max_prefill_gap: float = Field(
        ABSENT, ge=0, description="the largest x_i - x_j, eta_1", json_schema_extra=without_default
    )
    max_solo_gap: float = Field(
        ABSENT, ge=0, description="the largest y_s,i - y_s,j, eta_2", json_schema_extra=without_default
    )
    max_tpot: float = Field(
        ABSENT,
        ge=0,
        description="the largest average time per output token, eta_3, s",
        json_schema_extra=without_default,
    )
    prefill_gap_weight: float = Field(0.0, ge=0, description="the penalty per unit of prefill gap, eta_1'")
    solo_gap_weight: float = Field(0.0, ge=0, description="the penalty per unit of solo gap, eta_2'")
    tpot_weight: float = Field(0.0, ge=0, description="the penalty per second of average TPOT, eta_3'")


class PoissonArrivals(Table):
    """The table [arrivals] without a process, or with the model's own."""

    elsewhere: ClassVar[Mapping[str, str]] = {
        "cv": 'only with process = "gamma" (Poisson gaps have cv 1); remove this key, or give that process',
        **dict.fromkeys(("levels", "sojourns"), 'only with process = "mmpp"; remove this key, or give that process'),
        **dict.fromkeys(("weights", "period"), 'only with process = "daily"; remove this key, or give that process'),
    }

    process: Literal["poisson"] = Field("poisson", description="the law of the gaps between arrivals")


class GammaArrivals(Table):
    process: Literal["gamma"] = Field(description="the law of the gaps between arrivals")
    cv: float = Field(
        ge=0.001,
        le=100,
        description="the coefficient of variation of the gaps between arrivals; above 1 they come in bursts",
        examples=[3.0],
    )


class MmppArrivals(Table):
    process: Literal["mmpp"] = Field(description="the law of the gaps between arrivals")
    levels: list[NonNegative] = Field(
        min_length=2, description="the rate of each phase, in any unit: the mean stays", examples=[[1, 8]]
    )
    sojourns: list[Duration] = Field(min_length=2, description="the mean time in each phase, s", examples=[[50, 5]])


class DailyArrivals(Table):
    process: Literal["daily"] = Field(description="the law of the gaps between arrivals")
    weights: list[NonNegative] = Field(
        min_length=1,
        description="the rate in each of the equal parts of the period, in any unit: the mean stays",
        examples=[[1, 4, 2]],
    )
    period: Duration = Field(86_400.0, description="the time after which the rate repeats, s")


class UnknownArrivals(Table):
    """The table [arrivals] with a process that there is not; its other keys can't be judged."""

    model_config = ConfigDict(extra="ignore")

    process: Process = Field(description="the law of the gaps between arrivals")


ArrivalsTable = PoissonArrivals | GammaArrivals | MmppArrivals | DailyArrivals
ARRIVALS: dict[str, type[Table]] = {
    "poisson": PoissonArrivals,
    "gamma": GammaArrivals,
    "mmpp": MmppArrivals,
    "daily": DailyArrivals,
}
"""The form of the table [arrivals] for each process."""


class LengthsTable(Table):
    prompt: LengthLaw = Field("exponential", description="the law of the prompt lengths")
    output: LengthLaw = Field("exponential", description="the law of the output lengths")
    prompt_cv: float = Field(
        ABSENT, gt=0, le=100, description="the CV of the prompt lengths", json_schema_extra=without_default
    )
    output_cv: float = Field(
        ABSENT, gt=0, le=100, description="the CV of the output lengths", json_schema_extra=without_default
    )
    traces: list[str] = Field(
        [],
        description="the paths of trace files for empirical lengths, relative to this file",
        json_schema_extra=without_default,
    )


class ClusterTable(Table):
    gpus: int = Field(ge=1, le=LARGEST_WHOLE, description="the GPUs that share total_arrival_rate", examples=[60])


G = TypeVar("G", bound=MeasuredGpu | BatchedGpu | ProfiledGpu)
C = TypeVar("C", bound=ClassTable)
A = TypeVar("A", bound=ArrivalsTable | UnknownArrivals)


class ScenarioTable(Table, Generic[G, C, A]):
    schema_: SchemaKey = Field(SCHEMA, alias="schema")
    name: str = Field(min_length=1, description="the name of the scenario", examples=["two-class"])
    gpu: G = Field(
        description="the table [gpu] with batch_size, chunk_size and either alpha, beta and gamma, or profile"
    )
    pricing: PricingTable = Field(description="the table [pricing] with scheme, prompt and output")
    classes: list[C] = Field(min_length=1, description="the classes of requests, each a table [[classes]]")
    indicators: IndicatorsTable = Field(
        IndicatorsTable(),
        description="the table [indicators]: limits and penalties",
        json_schema_extra=without_default,
    )
    arrivals: A = Field(
        ABSENT,
        description="the table [arrivals]: how requests arrive at these rates",
        json_schema_extra=without_default,
    )
    lengths: LengthsTable = Field(
        LengthsTable(),
        description="the table [lengths]: the laws of prompt and output lengths",
        json_schema_extra=without_default,
    )
    engine: EngineTable = Field(
        EngineTable(),
        description="the table [engine]: batching, KV memory and KV transfer of a GPU",
        json_schema_extra=without_default,
    )
    targets: TargetsTable = Field(
        TargetsTable(),
        description="the table [targets]: TTFT and TPOT that count as goodput",
        json_schema_extra=without_default,
    )


class PerGpuTable(ScenarioTable[G, ClassPerGpu, A], Generic[G, A]):
    """A scenario whose arrival rates are per GPU."""


class ClusterScenarioTable(ScenarioTable[G, ClassOfCluster, A], Generic[G, A]):
    """A scenario whose arrival rates are those of a whole cluster."""

    cluster: ClusterTable = Field(description="the table [cluster] with gpus")


def load_scenario(path: str | Path) -> Scenario:
    """Read a scenario file (TOML); a profile's path in it is relative to the file.

    Raises:
        FluidgateError: the file is missing or wrong; the message names file, key and mend.
    """
    return parse_scenario(read_text(path, "a scenario file"), str(path), Path(path).parent)


def parse_scenario(text: str, source: str = "<string>", base_dir: str | Path = ".") -> Scenario:
    """The scenario in a TOML text.

    `source` is its name in errors; a profile's path in it is relative to `base_dir`.

    Raises:
        FluidgateError: the text is no scenario; the message names source, key and mend.
    """
    data = parse_toml(text, source)
    if not data:
        fail(source, ["empty; write a scenario: name, [gpu], [pricing] and [[classes]]"])
    file = check(_form(data), data, source)
    iteration, calibrated = _measured(file, source, Path(base_dir))
    problems = [
        *_no_duration(file, iteration),
        *_same_names(file, data),
        *_no_arrivals(file, data),
        *_no_process(file),
        *_no_length_law(file),
        *file.engine.problems(file.gpu.batch_size),
    ]
    if problems:
        fail(source, problems)
    scenario = _scenario(file, iteration, calibrated, Path(base_dir))
    _check_rates(scenario, data, source)
    return scenario


def scenario_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a scenario file.

    It cannot say, and `parse_scenario` checks besides, that names are distinct, that a mixed iteration takes
    time, that a profile exists, that phases have a rate and a sojourn each, that log-normal lengths have a CV, and
    that the keys of [engine] go together.
    """
    gpu = MeasuredGpu | BatchedGpu | ProfiledGpu
    forms: TypeAdapter[Any] = TypeAdapter(PerGpuTable[gpu, ArrivalsTable] | ClusterScenarioTable[gpu, ArrivalsTable])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "schema": SCHEMA,
        "title": "fluidgate scenario file",
        **forms.json_schema(),
    }


def dump_scenario(scenario: Scenario, comments: Mapping[str, str] | None = None) -> str:
    """The TOML text of a scenario.

    Each comment goes under the header of the table that is its key (`"gpu"`, `"classes[0]"`), or to the top
    of the file where its key is `""`; it may have several lines.

    Parsing the text gives an equal scenario, float for float. Two exceptions. In a scenario with
    `cluster_gpus` that was not read from a file (after `for_gpus`, say), a class's rate may be no float
    divided by the number of GPUs; it then comes back as a neighbouring float. The ranges of a profile
    (`Gpu.calibrated`) are not written.
    """
    from tomlkit import comment, document, nl

    remarks = comments or {}
    text = document()
    for line in _lines(remarks.get("", "")):
        text.add(comment(line))
    if "" in remarks:
        text.add(nl())
    text["schema"] = SCHEMA
    text["name"] = scenario.name
    if scenario.cluster_gpus is not None:
        _add(text, "cluster", {"gpus": scenario.cluster_gpus}, remarks)
    gpu = scenario.gpu
    sizes = {"batch_size": gpu.batch_size, "chunk_size": gpu.chunk_size}
    _add(text, "gpu", sizes | gpu.iteration.model_dump(), remarks)
    _add(text, "pricing", scenario.pricing.model_dump(), remarks)
    _add_classes(text, scenario, remarks)
    indicators = scenario.indicators.model_dump(exclude_defaults=True)
    if indicators:
        _add(text, "indicators", indicators, remarks)
    if scenario.arrivals != Arrivals():
        keys = set(ARRIVALS[scenario.arrivals.process].model_fields)
        _add(text, "arrivals", _plain(scenario.arrivals.model_dump(include=keys)), remarks)
    if scenario.lengths != Lengths():
        _add(text, "lengths", _plain(scenario.lengths.model_dump(exclude_defaults=True)), remarks)
    if scenario.engine != EngineModel():
        _add(text, "engine", scenario.engine.model_dump(exclude_defaults=True), remarks)
    if scenario.targets != Targets():
        _add(text, "targets", scenario.targets.model_dump(exclude_defaults=True), remarks)
    return text.as_string()


def write_scenario(scenario: Scenario, path: str | Path, comments: Mapping[str, str] | None = None) -> None:
    """Write a scenario file; `comments` as in `dump_scenario`.

    Raises:
        FluidgateError: the file cannot be written.
    """
    write_whole(path, dump_scenario(scenario, comments))


def _plain(keys: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in keys.items()}


AnyTable = ScenarioTable[Any, Any, Any]


def _form(data: Mapping[str, Any]) -> type[Any]:
    """The table for the alternatives that the file has chosen."""
    gpu = _gpu_form(data.get("gpu"))
    whole: Any = ClusterScenarioTable if "cluster" in data else PerGpuTable
    form: type[Any] = whole[gpu, _arrivals_form(data.get("arrivals"))]
    return form


def _gpu_form(data: Any) -> type[GpuTable]:
    if isinstance(data, dict) and "profile" in data:
        return ProfiledGpu
    return BatchedGpu if isinstance(data, dict) and has_batch_terms(data) else MeasuredGpu


def _arrivals_form(data: Any) -> type[Table]:
    process = data.get("process", "poisson") if isinstance(data, dict) else "poisson"
    return ARRIVALS.get(process, UnknownArrivals) if isinstance(process, str) else UnknownArrivals


def _measured(file: AnyTable, source: str, base_dir: Path) -> tuple[IterationTime, Calibrated]:
    try:
        measured: tuple[IterationTime, Calibrated] = file.gpu.measured(base_dir)
    except FluidgateError as error:
        fail(source, [f"gpu.profile: {error}"])
    except ValueError as error:
        fail(source, [f"gpu: {reason_of(error)}"])
    return measured


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


def _scenario(file: AnyTable, iteration: IterationTime, calibrated: Calibrated, base_dir: Path) -> Scenario:
    gpus = file.cluster.gpus if isinstance(file, ClusterScenarioTable) else None
    sizes = {"batch_size": file.gpu.batch_size, "chunk_size": file.gpu.chunk_size}
    return Scenario(
        name=file.name,
        gpu=Gpu(**sizes, iteration=iteration, calibrated=calibrated),
        pricing=Pricing(**file.pricing.model_dump()),
        classes=tuple(_request_class(c, gpus) for c in file.classes),
        indicators=Indicators(**file.indicators.model_dump()),
        arrivals=Arrivals(**file.arrivals.model_dump()) if file.arrivals is not None else Arrivals(),
        lengths=_lengths(file.lengths, base_dir),
        engine=file.engine.noun(),
        targets=file.targets.noun(),
        cluster_gpus=gpus,
    )


def _lengths(table: LengthsTable, base_dir: Path) -> Lengths:
    traces = tuple(str(base_dir / path) for path in table.traces)
    return Lengths(**table.model_dump(exclude={"traces"}), traces=traces)


def _request_class(table: ClassPerGpu | ClassOfCluster, gpus: int | None) -> RequestClass:
    rest = table.model_dump(exclude={"total_arrival_rate", "arrival_rate"})
    if isinstance(table, ClassOfCluster):
        return RequestClass(arrival_rate=table.total_arrival_rate / (gpus or 1), **rest)
    return RequestClass(arrival_rate=table.arrival_rate, **rest)


def _check_rates(scenario: Scenario, data: Mapping[str, Any], source: str) -> None:
    """Refuse lengths so extreme that a service rate or a price is no longer a float."""
    with np.errstate(all="ignore"):
        rates = scenario.rates
        service = (rates.prefill, rates.mixed_decode, rates.solo_decode)
        sound = np.all([(rate > 0) & np.isfinite(rate) for rate in service], axis=0)
        sound &= np.isfinite(rates.bundled_value)
    for index in np.flatnonzero(~sound):
        key = key_path(("classes", int(index)), data)
        fail(
            source,
            [f"{key}: its service rates or prices are no longer numbers; check prompt_tokens, output_tokens"],
        )


def _add_classes(text: TOMLDocument, scenario: Scenario, remarks: Mapping[str, str]) -> None:
    from tomlkit import aot

    tables = aot()
    for index, request_class in enumerate(scenario.classes):
        keys = request_class.model_dump(include={"name", "prompt_tokens", "output_tokens"})
        if scenario.cluster_gpus is None:
            keys["arrival_rate"] = request_class.arrival_rate
        else:
            keys["total_arrival_rate"] = _total(request_class.arrival_rate, scenario.cluster_gpus)
        keys["patience_rate"] = request_class.patience_rate
        keys |= request_class.model_dump(include={"ttft_target", "tpot_target"}, exclude_none=True)
        tables.append(_table(keys, remarks.get(f"classes[{index}]", "")))
    text["classes"] = tables


def _total(arrival_rate: float, gpus: int) -> float:
    """The shortest float that divided by `gpus` gives `arrival_rate`; the product where there is none."""
    product = arrival_rate * gpus
    near = [math.nextafter(product, 0.0), product, math.nextafter(product, math.inf)]
    exact = [total for total in near if total / gpus == arrival_rate]
    return min(exact, key=lambda total: len(repr(total)), default=product)


def _add(text: TOMLDocument, name: str, keys: Mapping[str, Any], remarks: Mapping[str, str]) -> None:
    text[name] = _table(keys, remarks.get(name, ""))


def _table(keys: Mapping[str, Any], remark: str) -> TomlTable:
    from tomlkit import comment, table

    made = table()
    for line in _lines(remark):
        made.add(comment(line))
    for key, value in keys.items():
        made.add(key, value)
    return made


def _lines(remark: str) -> list[str]:
    return ["".join(c if c.isprintable() else "?" for c in line) for line in remark.splitlines()]
