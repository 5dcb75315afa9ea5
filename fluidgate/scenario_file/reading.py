"""A scenario file read: checked table by table, then as a whole, then made into nouns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from fluidgate.engine_table import EngineFileTable, EngineTable
from fluidgate.errors import FluidgateError
from fluidgate.model import (
    Arrivals,
    Calibrated,
    EngineModel,
    Failures,
    Gpu,
    Indicators,
    Lengths,
    Pricing,
    RequestClass,
    Scenario,
    Step,
    Targets,
)
from fluidgate.profiles import Profile
from fluidgate.profiles.kv_memory import UTILIZATION, KvMemory, kv_memory
from fluidgate.profiles.terms import reason_of
from fluidgate.scenario_file.checks import no_rates, problems_of
from fluidgate.scenario_file.tables.classes import ClassOfCluster, ClassPerGpu
from fluidgate.scenario_file.tables.gpu import NAMELESS
from fluidgate.scenario_file.tables.lengths import LengthsTable
from fluidgate.scenario_file.tables.scenario import AnyTable, ClusterScenarioTable, form_of
from fluidgate.scenario_file.unit_doubts import doubt_units
from fluidgate.size_table import Cost, FleetOption, OptionTable
from fluidgate.toml_file import check, fail, other_kind, parse_toml, read_text, source_of

ClassMaker = Callable[[Mapping[str, Any]], dict[str, Any]]
"""The keys of the one class of a file that has none, from what it has."""


OTHER_FILES = {
    "a gateway file": "give the file that its key scenario names",
    "a policy file": "give it as --policy, and the path of a scenario here",
    "a profile file": "name it as [gpu] profile of a scenario",
}
"""By what a file is: the mend where a scenario is wanted."""


def load_scenario(
    path: str | Path, one_class: ClassMaker | None = None, times: Mapping[str, float] | None = None
) -> Scenario:
    """Read a scenario file (TOML); a profile's path in it is relative to the file.

    Args:
        one_class: makes the class of a file without [[classes]]; None to refuse such a file.
        times: keys of [gpu] for a file that has no iteration time there; None to refuse such a file.

    Raises:
        FluidgateError: the file is missing or wrong; the message names file, key and mend.
    """
    return parse_scenario(read_text(path, "a scenario file"), source_of(path), Path(path).parent, one_class, times)


def parse_scenario(
    text: str,
    source: str = "<string>",
    base_dir: str | Path = ".",
    one_class: ClassMaker | None = None,
    times: Mapping[str, float] | None = None,
) -> Scenario:
    """The scenario in a TOML text.

    `source` is its name in errors; a profile's path in it is relative to `base_dir`; `one_class` and `times` as in
    `load_scenario`.

    Raises:
        FluidgateError: the text is no scenario; the message names source, key and mend.
    """
    data = parse_toml(text, source)
    if not data:
        fail(source, ["empty; write a scenario: name, [gpu], [[classes]], and [pricing] where something is earned"])
    if (kind := other_kind(data, "a scenario")) in OTHER_FILES and not isinstance(data.get("gpu"), dict):
        fail(source, [f"{kind}, not a scenario; {OTHER_FILES[kind]}"])
    if one_class is not None and "classes" not in data:
        data["classes"] = [one_class(data)]
    gpu = data.get("gpu")
    if times is not None and isinstance(gpu, dict) and not gpu.keys() & {"alpha", "profile"}:
        data["gpu"] = {**times, **gpu}
    file = check(form_of(data), data, source)
    profile = _measured(file, source, Path(base_dir))
    memory = _kv_memory(file.engine, profile, source)
    engine = file.engine.resolved(memory.tokens)
    if problems := problems_of(file, data, profile.iteration, engine):
        fail(source, problems)
    scenario = _scenario(file, profile, memory.reason, engine, Path(base_dir))
    for problem in no_rates(scenario, data):
        fail(source, [problem])
    doubt_units(data, scenario, source)
    return scenario


def _measured(file: AnyTable, source: str, base_dir: Path) -> Profile:
    try:
        profile: Profile = file.gpu.measured(base_dir)
    except ValueError as error:
        fail(source, [f"gpu: {reason_of(error)}"])
    except FluidgateError as error:
        fail(source, [f"gpu.profile: {error}"])
    added = (file.engine.overhead, file.engine.overhead_per_decode)
    return profile.model_copy(update={"iteration": profile.iteration.with_overhead(*added)})


def _kv_memory(table: EngineFileTable, profile: Profile, source: str) -> KvMemory:
    """What the file says of the KV memory, or what follows where it says nothing."""
    if problems := [f"engine.{problem}" for problem in table.problems()]:
        fail(source, problems)
    if table.kv_tokens is not None:
        return KvMemory(table.kv_tokens)
    utilization = table.gpu_memory_utilization
    try:
        found = kv_memory(profile, table.kv_memory, utilization or UTILIZATION, table.kv_block)
    except FluidgateError as error:
        fail(source, [f"engine.kv_memory: {error}"])
    if utilization is not None and not found.reason:
        mend = "remove it, or give a profile that says weights and KV bytes, or a card as kv_memory"
        fail(source, [f"engine.gpu_memory_utilization: no kv_tokens follows from it here; {mend}"])
    return found


def _scenario(file: AnyTable, profile: Profile, reason: str, engine: EngineTable, base_dir: Path) -> Scenario:
    gpus = file.cluster.gpus if isinstance(file, ClusterScenarioTable) else None
    of_iterations = {
        "lengths": _lengths(file.lengths, base_dir),
        "engine": EngineModel(**engine.model_dump()),
        "targets": Targets(**file.targets.model_dump()),
    }
    sizes = {"batch_size": file.gpu.batch_size, "chunk_size": file.gpu.chunk_size}
    named = profile.calibrated if profile.name != NAMELESS else Calibrated()
    calibrated = named.model_copy(update={"kv_memory": reason})
    return Scenario(
        name=file.name,
        gpu=Gpu(**sizes, iteration=profile.iteration, calibrated=calibrated),
        classes=tuple(_request_class(c, gpus) for c in file.classes),
        indicators=Indicators(**file.indicators.model_dump()),
        arrivals=Arrivals(**file.arrivals.model_dump()) if file.arrivals is not None else Arrivals(),
        cluster_gpus=gpus,
        cost=Cost(**file.cost.model_dump()),
        options=tuple(_option(table, base_dir) for table in file.options),
        failures=Failures(**file.failures.model_dump()) if file.failures is not None else None,
        schedule=tuple(Step(**step.model_dump()) for step in file.schedule),
        **({"pricing": Pricing(**file.pricing.model_dump())} if file.pricing is not None else {}),
        **{table: noun for table, noun in of_iterations.items() if _said(file, table, noun)},
    )


def _said(file: AnyTable, table: str, noun: BaseModel) -> bool:
    """Whether the file has the table, or what it would hold follows from others."""
    return table in file.model_fields_set or noun != type(noun)()


def _option(table: OptionTable, base_dir: Path) -> FleetOption:
    """An option, its profile checked; a path is made relative to where we are."""
    keys = {key: value for key, value in table.model_dump().items() if value is not None}
    if table.profile is not None and table.profile.endswith(".toml"):
        keys["profile"] = str(base_dir / table.profile)
    return FleetOption(**keys)


def _lengths(table: LengthsTable, base_dir: Path) -> Lengths:
    traces = tuple(str(base_dir / path) for path in table.traces)
    return Lengths(**table.model_dump(exclude={"traces"}), traces=traces)


def _request_class(table: ClassPerGpu | ClassOfCluster, gpus: int | None) -> RequestClass:
    rest = table.model_dump(exclude={"total_arrival_rate", "arrival_rate"})
    if isinstance(table, ClassOfCluster):
        return RequestClass(arrival_rate=table.total_arrival_rate / (gpus or 1), **rest)
    return RequestClass(arrival_rate=table.arrival_rate, **rest)
