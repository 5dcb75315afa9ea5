"""The terms by which an iteration time depends on its batch, as files give them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from fluidgate.errors import ArgumentError
from fluidgate.toml_file import LARGEST_WHOLE, Table, absent, shown

BATCH_TERMS = (
    "delta",
    "epsilon",
    "zeta",
    "solo_alpha",
    "solo_delta",
    "solo_epsilon",
    "overhead",
    "overhead_per_decode",
    "table",
)
"""Keys of an iteration time beside those of the paper's; most make it depend on its batch."""

Node = Annotated[int, Field(ge=0, le=LARGEST_WHOLE)]
NonNegative = Annotated[float, Field(ge=0)]


def _times(rows: Any) -> Any:
    """Refuse what is no time, however deep."""
    if isinstance(rows, list):
        for row in rows:
            _times(row)
    elif isinstance(rows, bool) or not isinstance(rows, int | float):
        raise ValueError(f"must hold numbers, but holds {shown(rows)}")
    elif not 0.0 < rows < math.inf:
        raise ValueError(f"must be greater than 0 and finite, but one is {rows:g}")
    return rows


Rows = Annotated[list[Any], AfterValidator(_times)]
ONE_CONTEXT = "the context of each decode that was measured, tokens"
CONTEXTS = "the contexts of a decode that were measured, tokens, increasing, in the place of context"


class MeasuredSoloTable(Table):
    """Measured times of iterations without a chunk."""

    batch_sizes: list[Node] = Field(
        min_length=1, description="the batch sizes that were measured, increasing", examples=[[16, 64]]
    )
    context: float = absent(ONE_CONTEXT, ge=0)
    contexts: list[NonNegative] = absent(CONTEXTS, min_length=1, examples=[[256, 1024]])
    seconds: Rows = Field(
        description="the seconds of an iteration, one for each batch size, or a row of them, one for each context"
    )


class MeasuredTable(Table):
    """Measured iteration times, in the place of a law."""

    chunk_sizes: list[Node] = Field(
        min_length=1, description="the chunk sizes that were measured, tokens, increasing", examples=[[0, 256, 1024]]
    )
    batch_sizes: list[Node] = Field(
        min_length=1, description="the batch sizes that were measured, increasing", examples=[[16, 64]]
    )
    seconds: Rows = Field(
        description="the seconds of an iteration, a row a chunk size, each with a time a batch size; in its place a "
        "row for each of several contexts, and in it one for each of several read_before"
    )
    context: float = absent(ONE_CONTEXT, ge=0)
    contexts: list[NonNegative] = absent(CONTEXTS, min_length=1, examples=[[256, 1024]])
    read_before: list[NonNegative] = absent(
        "the tokens of its prompt read before the chunk that were measured, increasing",
        min_length=1,
        examples=[[0, 2048]],
    )
    solo: MeasuredSoloTable = absent("the table of times without a chunk, where it has nodes of its own")


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
    solo_epsilon: float = absent(
        "the seconds that each token of context adds to a solo iteration; epsilon if left out",
        ge=0,
        examples=[1.3e-7],
    )
    zeta: float = Field(
        0.0,
        ge=0,
        description="the seconds that each pair of a token of the chunk and one of its prompt read before adds",
        examples=[4e-9],
    )
    overhead: float = Field(0.0, ge=0, description="the seconds that the engine adds to each iteration")
    overhead_per_decode: float = Field(0.0, ge=0, description="the seconds that it adds for each decode of one")
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
    return error.reason if isinstance(error, ArgumentError) else str(error)
