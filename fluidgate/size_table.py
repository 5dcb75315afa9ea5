"""[cost] and [[options]]: what a fleet is priced by, and what it may be made of; read by `fluidgate size` alone.

Each key stands here alone. The tables are the forms that a file is checked against; the nouns, which inherit them, are
the ones that a `Scenario` holds.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from fluidgate.noun import Noun
from fluidgate.toml_file import LARGEST_WHOLE, Table, absent

Size = Annotated[int, Field(ge=1, le=LARGEST_WHOLE)]
Name = Annotated[str, Field(min_length=1)]


class CostTable(Table):
    gpu_hour: float | None = absent("the price of an hour of a GPU", gt=0, examples=[2.5])
    currency: str = Field(default="$", min_length=1, description="what prices are in, for tables and reports")


class OptionTable(Table):
    profile: str | None = absent(
        "the profile of the option's GPUs, by name, or the path of a profile file ending in .toml, relative to this "
        "file; that of [gpu] if left out",
        min_length=1,
        examples=["h100/llama-3.1-8b"],
    )
    batch_sizes: list[Size] | None = absent(
        "the batch sizes to try; that of [gpu] if left out", min_length=1, examples=[[128, 256]]
    )
    chunk_sizes: list[Size] | None = absent(
        "the chunk sizes to try, tokens; that of [gpu] if left out", min_length=1, examples=[[1024, 2048]]
    )
    policies: list[Name] | None = absent(
        "the policies to try, as `fluidgate policies` lists them; index-and-pool if left out",
        min_length=1,
        examples=[["index-and-pool", "vllm-least-loaded"]],
    )
    gpu_hour: float | None = absent("the price of an hour of one of its GPUs", gt=0, examples=[2.5])
    max_gpus: int | None = absent("the most GPUs of this kind that there are", ge=1, le=LARGEST_WHOLE, examples=[64])


class Cost(CostTable):
    """The price of a GPU hour; None where cost is counted in GPUs."""

    model_config = ConfigDict(strict=False)


class FleetOption(Noun):
    """What a fleet may be made of: each combination of its profile, batch and chunk sizes and policies.

    Attributes:
        profile: name, or path ending in .toml; None for the scenario's own GPU.
        batch_sizes, chunk_sizes, policies: to try; empty for the scenario's own sizes, and for index-and-pool.
        gpu_hour: price of an hour of one of its GPUs; None for that of [cost].
        max_gpus: the most GPUs of this kind that there are; None for no limit.
    """

    profile: str | None = None
    batch_sizes: tuple[Size, ...] = ()
    chunk_sizes: tuple[Size, ...] = ()
    policies: tuple[Name, ...] = ()
    gpu_hour: float | None = Field(default=None, gt=0)
    max_gpus: int | None = Field(default=None, ge=1)
