"""The tables [[classes]], and [cluster] that their rates are shared by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from fluidgate.session_table import SessionTable
from fluidgate.target_table import StatisticTargetTable
from fluidgate.toml_file import LARGEST_WHOLE, Table, absent


class LoadTable(Table):
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
    prefix_hit_rate: float = absent(
        "the share of its prompt tokens that prefix caching finds in memory", ge=0, lt=1, examples=[0.9]
    )


class ClassTable(StatisticTargetTable, SessionTable, LoadTable):
    """What every table [[classes]] may have."""


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


class ClusterTable(Table):
    gpus: int = Field(ge=1, le=LARGEST_WHOLE, description="the GPUs that share total_arrival_rate", examples=[60])
