"""The terms by which an iteration time depends on its batch, as files give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from fluidgate.toml_file import LARGEST_WHOLE, Table, absent

BATCH_TERMS = ("delta", "epsilon", "solo_alpha", "solo_delta", "table")
"""Keys of which any makes an iteration time depend on its batch, so that gamma may be left out."""

Node = Annotated[int, Field(ge=0, le=LARGEST_WHOLE)]
Seconds = Annotated[float, Field(gt=0)]


class MeasuredTable(Table):
    """Measured iteration times, in the place of a law."""

    chunk_sizes: list[Node] = Field(
        min_length=1, description="the chunk sizes that were measured, tokens, increasing", examples=[[0, 256, 1024]]
    )
    batch_sizes: list[Node] = Field(
        min_length=1, description="the batch sizes that were measured, increasing", examples=[[16, 64]]
    )
    seconds: list[list[Seconds]] = Field(
        description="the seconds of an iteration, a row a chunk size, each with a time a batch size"
    )
    context: float = Field(0.0, ge=0, description="the context of each decode that was measured, tokens")


class BatchTerms(Table):
    """The keys beside alpha and beta."""

    delta: float = Field(0.0, ge=0, description="the seconds that each decode adds to an iteration", examples=[2.4e-4])
    epsilon: float = Field(
        0.0, ge=0, description="the seconds that each token of context adds to an iteration", examples=[1.3e-7]
    )
    solo_alpha: float = absent(
        "the intercept of the solo iteration time, s; alpha if left out", ge=0, examples=[0.0172]
    )
    solo_delta: float = absent(
        "the seconds that each decode adds to a solo iteration; delta if left out", ge=0, examples=[5.9e-5]
    )
    gamma: float = absent(
        "the tokens per second of one decode on a solo GPU with a full batch, "
        "in the place of solo_alpha and solo_delta",
        gt=0,
        examples=[45.45],
    )
    table: MeasuredTable = absent("the table of measured times, with chunk_sizes, batch_sizes and seconds")


def has_batch_terms(data: Mapping[str, Any]) -> bool:
    """Whether a table gives an iteration time that depends on its batch."""
    return any(key in data for key in BATCH_TERMS)


def reason_of(error: ValueError) -> str:
    """The first reason of a noun that was refused."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        return error.errors()[0]["msg"].removeprefix("Value error, ")
    return str(error)
