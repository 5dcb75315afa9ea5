"""A profile as a TOML file, read and written."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import Field

from fluidgate.model import IterationTime
from fluidgate.profiles.law import LawRow, table_of
from fluidgate.profiles.profile import (
    BATCH_SIZES,
    CHUNK_SIZES,
    CONTEXTS,
    DATE,
    GPUS,
    KV_BYTES,
    MEASURED,
    MEMORY,
    R_SQUARED,
    READ_BEFORE,
    WEIGHTS,
    Profile,
    Range,
)
from fluidgate.profiles.terms import BATCH_TERMS, BatchTerms, has_batch_terms, reason_of
from fluidgate.toml_file import LARGEST_WHOLE, SCHEMA, SchemaKey, Table, check, fail, other_kind, parse_toml

Size = Annotated[int, Field(ge=1, le=LARGEST_WHOLE)]
Sizes = Annotated[list[Size], Field(min_length=2, max_length=2)]
Ends = Annotated[list[Annotated[int, Field(ge=0, le=LARGEST_WHOLE)]], Field(min_length=2, max_length=2)]
RANGES = ("batch_sizes", "chunk_sizes", "contexts", "read_before")


class LawTable(Table):
    """The numbers of an iteration time: the keys of a table [[law]] besides its batch size."""

    alpha: float = Field(
        description="the seconds of a mixed iteration at chunk size 0 "
        "(or give tables [[law]], by batch_size, instead of alpha, beta and gamma)",
        examples=[0.0174],
    )
    beta: float = Field(
        gt=0, description="the seconds that a prompt token adds to a mixed iteration", examples=[6.2e-5]
    )
    gamma: float = Field(gt=0, description="the tokens per second of one decode on a solo GPU", examples=[45.45])
    r_squared: float | None = Field(None, le=1, description=R_SQUARED)


class BatchLawTable(BatchTerms):
    """The numbers of an iteration time that depends on its batch."""

    alpha: float = Field(description="the intercept of the mixed iteration time, s", examples=[0.0091])
    beta: float = Field(
        gt=0, description="the seconds that a prompt token adds to a mixed iteration", examples=[9.3e-5]
    )
    r_squared: float | None = Field(None, le=1, description=R_SQUARED)


class LawRowTable(LawTable):
    """The keys of a table [[law]]."""

    batch_size: Size = Field(description="the batch size that this row was measured at", examples=[16])


class ProfileTable(Table):
    """The keys of a profile file but for its iteration time and its batch sizes."""

    schema_: SchemaKey = Field(SCHEMA, alias="schema")
    name: str = Field(min_length=1, description="the name of the profile", examples=["my-gpu/my-model"])
    purpose: str = Field("", description="what the profile is for")
    model: str = Field("", description="the language model")
    dtype: str = Field("", description="the type of weights and KV, such as bf16")
    gpu: str = Field("", description="the GPU")
    gpus: Size | None = Field(None, description=GPUS, examples=[1])
    engine: str = Field("", description="the inference engine")
    engine_version: str = Field("", description="the version of the engine")
    measured: str | None = Field(None, pattern=DATE, description=MEASURED, examples=["2026-02"])
    source: str = Field("", description="the source of the figures")
    notes: str = Field("", description="what else a user should know")
    chunk_sizes: Sizes | None = Field(None, description=CHUNK_SIZES, examples=[[64, 2048]])
    contexts: Sizes | None = Field(None, description=CONTEXTS, examples=[[256, 8192]])
    read_before: Ends | None = Field(None, description=READ_BEFORE, examples=[[0, 8192]])
    kv_bytes_per_token: float | None = Field(None, gt=0, description=KV_BYTES, examples=[131072])
    weights_bytes: float | None = Field(None, gt=0, description=WEIGHTS, examples=[16060522496])
    memory_bytes: float | None = Field(None, gt=0, description=MEMORY, examples=[85029615042])


class SingleProfileTable(ProfileTable, LawTable):
    """A profile file with one iteration time."""

    batch_sizes: Sizes | None = Field(None, description=BATCH_SIZES, examples=[[1, 64]])


class BatchProfileTable(ProfileTable, BatchLawTable):
    """A profile file with one iteration time that depends on its batch."""

    batch_sizes: Sizes | None = Field(None, description=BATCH_SIZES, examples=[[1, 64]])


_LAW_OR_NUMBERS = "not together with [[law]]; remove it here, and give it in each table [[law]]"


class LawProfileTable(ProfileTable):
    """A profile file with a law over the batch size."""

    elsewhere: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("alpha", "beta", "gamma", "r_squared"), _LAW_OR_NUMBERS),
        **dict.fromkeys(BATCH_TERMS, "not together with [[law]], which says it batch size by batch size; remove it"),
        "batch_sizes": "not together with [[law]], whose rows say it; remove it",
    }

    law: list[LawRowTable] = Field(
        min_length=2, description="the tables [[law]], each with batch_size, alpha, beta and gamma"
    )


def parse_profile(text: str, source: str) -> Profile:
    """The profile in a TOML text; `source` is its name in errors. Tables [[law]] become one table of times.

    Raises:
        FluidgateError: the text is no profile; the message names source, key and mend.
    """
    data = parse_toml(text, source)
    if not data:
        fail(source, ["empty; write the keys of a profile: name, alpha, beta, gamma"])
    if kind := other_kind(data, "a profile file"):
        fail(source, [f"{kind}, not a profile file; give a name that `fluidgate profiles` lists, or a profile file"])
    if "law" in data:
        return _law_profile(check(LawProfileTable, data, source), source)
    form: type[SingleProfileTable] | type[BatchProfileTable]
    form = BatchProfileTable if has_batch_terms(data) else SingleProfileTable
    table = check(form, data, source)
    keys = set(IterationTime.model_fields)
    try:
        iteration = IterationTime(**table.model_dump(include=keys))
    except ValueError as error:
        fail(source, [reason_of(error)])
    return Profile(
        iteration=iteration, **_ranges(table, source), **table.model_dump(exclude={"schema_", *RANGES, *keys})
    )


def dump_profile(profile: Profile) -> str:
    """The TOML text of a profile; parsing it gives an equal profile."""
    import tomlkit

    return tomlkit.dumps(profile.to_dict())


def _law_profile(table: LawProfileTable, source: str) -> Profile:
    sizes = [row.batch_size for row in table.law]
    for index, (before, size) in enumerate(pairwise(sizes), start=1):
        if size <= before:
            key = f"law[{index}]: batch_size"
            fail(source, [f"{key}: {size} does not exceed the row before, {before}; put the rows in ascending order"])
    ranges = _ranges(table, source)
    rows = [LawRow(row.batch_size, row.alpha, row.beta, row.gamma) for row in table.law]
    try:
        iteration = table_of(rows, ranges.get("chunk_sizes"))
    except ValueError as error:
        fail(source, [f"law: {reason_of(error)}"])
    return Profile(
        iteration=iteration,
        batch_sizes=(sizes[0], sizes[-1]),
        **ranges,
        **table.model_dump(exclude={"schema_", "law", *RANGES}),
    )


def _ranges(table: ProfileTable, source: str) -> dict[str, Range]:
    """Those that the table gives."""
    found: dict[str, Range] = {}
    for key in RANGES:
        sizes: list[int] | None = getattr(table, key, None)
        if sizes is None:
            continue
        if sizes[0] > sizes[1]:
            fail(source, [f"{key}: the least, {sizes[0]}, is above the greatest, {sizes[1]}; exchange them"])
        found[key] = (sizes[0], sizes[1])
    return found
