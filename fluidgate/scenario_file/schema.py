"""The JSON Schema of a scenario file."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from fluidgate.scenario_file.tables.arrivals import ArrivalsTable
from fluidgate.scenario_file.tables.gpu import BatchedGpu, MeasuredGpu, ProfiledGpu
from fluidgate.scenario_file.tables.scenario import ClusterScenarioTable, PerGpuTable
from fluidgate.toml_file import SCHEMA


def scenario_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a scenario file.

    It cannot say, and `parse_scenario` checks besides, that names are distinct, that a mixed iteration takes
    time, that a profile exists, that phases have a rate and a sojourn each, that log-normal lengths have a CV, that
    there are classes unless requests come from a trace, that hit rates come with prefix caching, that the steps
    of [[schedule]] are in order, and that the keys of [engine], those of [failures], and those of sessions in
    [[classes]], go together.
    """
    gpu = MeasuredGpu | BatchedGpu | ProfiledGpu
    forms: TypeAdapter[Any] = TypeAdapter(PerGpuTable[gpu, ArrivalsTable] | ClusterScenarioTable[gpu, ArrivalsTable])
    schema = forms.json_schema()
    for form in schema["$defs"].values():
        if "classes" in form.get("required", ()):
            form["required"].remove("classes")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "schema": SCHEMA,
        "title": "fluidgate scenario file",
        **schema,
    }
