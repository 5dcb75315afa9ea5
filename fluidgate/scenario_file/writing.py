"""A scenario as the text of a file, with comments, and written whole or not at all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluidgate.model import Arrivals, EngineModel, Lengths, Scenario, Targets
from fluidgate.scenario_file.tables.arrivals import ARRIVALS
from fluidgate.session_table import SessionTable
from fluidgate.size_table import Cost
from fluidgate.target_table import TARGET_KEYS
from fluidgate.toml_file import SCHEMA, write_whole

if TYPE_CHECKING:
    from tomlkit import TOMLDocument
    from tomlkit.items import AoT
    from tomlkit.items import Table as TomlTable


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
    if scenario.priced:
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
    if scenario.cost != Cost():
        _add(text, "cost", scenario.cost.model_dump(exclude_defaults=True), remarks)
    if scenario.options:
        _add_options(text, scenario, remarks)
    if scenario.failures is not None:
        _add(text, "failures", _with_rows(scenario.failures.model_dump(exclude_defaults=True)), remarks)
    if scenario.schedule:
        text["schedule"] = _rows(step.model_dump(exclude_defaults=True) for step in scenario.schedule)
    return text.as_string()


def write_scenario(scenario: Scenario, path: str | Path, comments: Mapping[str, str] | None = None) -> None:
    """Write a scenario file; `comments` as in `dump_scenario`.

    Raises:
        FluidgateError: the file cannot be written.
    """
    write_whole(path, dump_scenario(scenario, comments))


def _with_rows(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Tables of a key as an array of tables."""
    return {key: _rows(value) if isinstance(value, tuple) else value for key, value in keys.items()}


def _rows(tables: Iterable[Mapping[str, Any]]) -> AoT:
    from tomlkit import aot

    made = aot()
    for keys in tables:
        made.append(_table(keys, ""))
    return made


def _plain(keys: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in keys.items()}


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
        single = {"ttft_target", "tpot_target", "prefix_hit_rate"}
        keys |= request_class.model_dump(include=single | TARGET_KEYS, exclude_none=True)
        keys |= request_class.model_dump(include=set(SessionTable.model_fields), exclude_defaults=True)
        tables.append(_table(keys, remarks.get(f"classes[{index}]", "")))
    text["classes"] = tables


def _add_options(text: TOMLDocument, scenario: Scenario, remarks: Mapping[str, str]) -> None:
    from tomlkit import aot

    tables = aot()
    for index, option in enumerate(scenario.options):
        keys = _plain(option.model_dump(exclude_defaults=True))
        tables.append(_table(keys, remarks.get(f"options[{index}]", "")))
    text["options"] = tables


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
