"""A whole scenario file, in the forms that its alternatives give it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from pydantic import Field

from fluidgate.engine_table import EngineFileTable, TargetsTable
from fluidgate.fleet_table import FailuresTable, StepTable
from fluidgate.scenario_file.tables.arrivals import ArrivalsTable, UnknownArrivals, arrivals_form
from fluidgate.scenario_file.tables.classes import ClassOfCluster, ClassPerGpu, ClassTable, ClusterTable
from fluidgate.scenario_file.tables.gpu import BatchedGpu, MeasuredGpu, ProfiledGpu, gpu_form
from fluidgate.scenario_file.tables.indicators import IndicatorsTable
from fluidgate.scenario_file.tables.lengths import LengthsTable
from fluidgate.scenario_file.tables.pricing import PricingTable
from fluidgate.size_table import CostTable, OptionTable
from fluidgate.toml_file import SCHEMA, SchemaKey, Table, absent, without_default

G = TypeVar("G", bound=MeasuredGpu | BatchedGpu | ProfiledGpu)
C = TypeVar("C", bound=ClassTable)
A = TypeVar("A", bound=ArrivalsTable | UnknownArrivals)


class ScenarioTable(Table, Generic[G, C, A]):
    schema_: SchemaKey = Field(SCHEMA, alias="schema")
    name: str = Field(min_length=1, description="the name of the scenario", examples=["two-class"])
    gpu: G = Field(
        description="the table [gpu] with batch_size, chunk_size and either alpha, beta and gamma, or profile"
    )
    pricing: PricingTable | None = absent("the table [pricing] with scheme, prompt and output")
    classes: list[C] = Field(min_length=1, description="the classes of requests, each a table [[classes]]")
    indicators: IndicatorsTable = Field(
        IndicatorsTable(),
        description="the table [indicators]: limits and penalties",
        json_schema_extra=without_default,
    )
    arrivals: A = absent("the table [arrivals]: how requests arrive at these rates")
    lengths: LengthsTable = Field(
        LengthsTable(),
        description="the table [lengths]: the laws of prompt and output lengths",
        json_schema_extra=without_default,
    )
    engine: EngineFileTable = Field(
        EngineFileTable(),
        description="the table [engine]: batching, KV memory and KV transfer of a GPU",
        json_schema_extra=without_default,
    )
    targets: TargetsTable = Field(
        TargetsTable(),
        description="the table [targets]: TTFT and TPOT that count as goodput",
        json_schema_extra=without_default,
    )
    cost: CostTable = Field(
        CostTable(), description="the table [cost]: the price of a GPU hour", json_schema_extra=without_default
    )
    options: list[OptionTable] = Field(
        [],
        description="what a fleet may be made of, each a table [[options]]",
        json_schema_extra=without_default,
    )
    failures: FailuresTable | None = absent("the table [failures]: how GPUs fail")
    schedule: list[StepTable] = Field(
        [],
        description="how many GPUs are up from when on, each a table [[schedule]]",
        json_schema_extra=without_default,
    )


class PerGpuTable(ScenarioTable[G, ClassPerGpu, A], Generic[G, A]):
    """A scenario whose arrival rates are per GPU."""


class ClusterScenarioTable(ScenarioTable[G, ClassOfCluster, A], Generic[G, A]):
    """A scenario whose arrival rates are those of a whole cluster."""

    cluster: ClusterTable = Field(description="the table [cluster] with gpus")


AnyTable = ScenarioTable[Any, Any, Any]


def form_of(data: Mapping[str, Any]) -> type[Any]:
    """The table for the alternatives that the file has chosen."""
    gpu = gpu_form(data.get("gpu"))
    whole: Any = ClusterScenarioTable if "cluster" in data else PerGpuTable
    form: type[Any] = whole[gpu, arrivals_form(data.get("arrivals"))]
    return form
