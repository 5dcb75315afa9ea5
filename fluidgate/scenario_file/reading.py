"""A scenario file read: checked table by table, then as a whole, then made into nouns."""

from __future__ import annotations

from pathlib import Path

from fluidgate.errors import FluidgateError
from fluidgate.model import (
    Arrivals,
    Calibrated,
    EngineModel,
    Gpu,
    Indicators,
    IterationTime,
    Lengths,
    Pricing,
    RequestClass,
    Scenario,
    Targets,
)
from fluidgate.profiles.terms import reason_of
from fluidgate.scenario_file.checks import no_rates, problems_of
from fluidgate.scenario_file.tables.classes import ClassOfCluster, ClassPerGpu
from fluidgate.scenario_file.tables.lengths import LengthsTable
from fluidgate.scenario_file.tables.scenario import AnyTable, ClusterScenarioTable, form_of
from fluidgate.toml_file import check, fail, parse_toml, read_text


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
    file = check(form_of(data), data, source)
    iteration, calibrated = _measured(file, source, Path(base_dir))
    if problems := problems_of(file, data, iteration):
        fail(source, problems)
    scenario = _scenario(file, iteration, calibrated, Path(base_dir))
    for problem in no_rates(scenario, data):
        fail(source, [problem])
    return scenario


def _measured(file: AnyTable, source: str, base_dir: Path) -> tuple[IterationTime, Calibrated]:
    try:
        measured: tuple[IterationTime, Calibrated] = file.gpu.measured(base_dir)
    except FluidgateError as error:
        fail(source, [f"gpu.profile: {error}"])
    except ValueError as error:
        fail(source, [f"gpu: {reason_of(error)}"])
    return measured


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
        engine=EngineModel(**file.engine.model_dump()),
        targets=Targets(**file.targets.model_dump()),
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
