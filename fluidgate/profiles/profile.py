"""A profile: the iteration time that was measured for a model on a GPU, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from fluidgate.errors import FluidgateError
from fluidgate.model import Calibrated, IterationTime, Noun
from fluidgate.profiles.law import LawRow, between
from fluidgate.profiles.terms import BATCH_TERMS, BatchTerms, has_batch_terms, reason_of
from fluidgate.toml_file import LARGEST_WHOLE, SCHEMA, SchemaKey, Table, check, fail, parse_toml, shown

Range = tuple[int, int]
R_SQUARED = "R^2 of the line alpha + beta * chunk_size, between 0 and 1"
BATCH_SIZES = "the least and the greatest batch size that the profile holds for"
CHUNK_SIZES = "the least and the greatest chunk size that the profile holds for, tokens"


class Profile(Noun):
    """A named iteration time with its provenance; the ranges are `None` where they are unknown.

    It holds either one `iteration` time, which may depend on its batch by terms of its own, or a `law` over the batch
    size: at least two rows, ascending, whose ends are then its `batch_sizes`. `iteration_at` reads both.
    """

    name: str = Field(min_length=1, description="name, for shipped profiles `GPU/MODEL`")
    iteration: IterationTime | None = Field(None, description="the one iteration time")
    model: str = Field("", description="the language model")
    gpu: str = Field("", description="the GPU or the tensor-parallel group that serves it")
    engine: str = Field("", description="the inference engine and its version")
    source: str = Field("", description="who measured it, and where it is published")
    notes: str = Field("", description="what else a user should know")
    r_squared: float | None = Field(None, le=1, description=R_SQUARED)
    batch_sizes: Range | None = Field(None, description=BATCH_SIZES)
    chunk_sizes: Range | None = Field(None, description=CHUNK_SIZES)
    law: tuple[LawRow, ...] | None = Field(None, min_length=2, description="the iteration time by batch size")

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.iteration is None) == (self.law is None):
            raise ValueError("a profile holds either an iteration time or a law over the batch size")
        if self.law is not None:
            sizes = [row.batch_size for row in self.law]
            if sizes != sorted(set(sizes)):
                raise ValueError("the batch sizes of a law must ascend")
            if self.batch_sizes != (sizes[0], sizes[-1]):
                raise ValueError("batch_sizes must be the ends of the law")
        return self

    def iteration_at(self, batch_size: int) -> IterationTime:
        """The iteration time at a batch size: the one there is, or that of the law, interpolated linearly.

        Raises:
            FluidgateError: the law does not reach that batch size.
        """
        if self.iteration is not None:
            return self.iteration
        rows = self.law or ()
        least, greatest = rows[0].batch_size, rows[-1].batch_size
        if not least <= batch_size <= greatest:
            raise FluidgateError(
                f"profile {shown(self.name)} holds for batch sizes {least} to {greatest}, but batch_size is "
                f"{batch_size}; give one in that range, or calibrate a profile at yours"
            )
        return between(rows, batch_size)

    @property
    def calibrated(self) -> Calibrated:
        """The sizes that the profile holds for."""
        return Calibrated(batch_sizes=self.batch_sizes, chunk_sizes=self.chunk_sizes)

    def to_dict(self) -> dict[str, Any]:
        """The keys of the profile's file, `schema` first; what is unknown is left out."""
        known = self.model_dump(exclude={"iteration", "law"}, exclude_none=True)
        texts = {key: value for key, value in known.items() if isinstance(value, str) and value}
        rest = {key: value for key, value in known.items() if not isinstance(value, str)}
        if self.iteration is not None:
            return {"schema": SCHEMA, **texts, **self.iteration.model_dump(), **rest}
        del rest["batch_sizes"]
        rows = [row.model_dump(exclude_none=True) for row in self.law or ()]
        return {"schema": SCHEMA, **texts, **rest, "law": rows}


Size = Annotated[int, Field(ge=1, le=LARGEST_WHOLE)]
Sizes = Annotated[list[Size], Field(min_length=2, max_length=2)]


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
    """The keys of a profile file but for its iteration time."""

    schema_: SchemaKey = Field(SCHEMA, alias="schema")
    name: str = Field(min_length=1, description="the name of the profile", examples=["my-gpu/my-model"])
    model: str = Field("", description="the language model")
    gpu: str = Field("", description="the GPU")
    engine: str = Field("", description="the inference engine and its version")
    source: str = Field("", description="the source of the figures")
    notes: str = Field("", description="what else a user should know")
    chunk_sizes: Sizes | None = Field(None, description=CHUNK_SIZES, examples=[[64, 2048]])


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
    """The profile in a TOML text; `source` is its name in errors.

    Raises:
        FluidgateError: the text is no profile; the message names source, key and mend.
    """
    data = parse_toml(text, source)
    if not data:
        fail(source, ["empty; write the keys of a profile: name, alpha, beta, gamma"])
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
        iteration=iteration,
        batch_sizes=_range(table, "batch_sizes", source),
        chunk_sizes=_range(table, "chunk_sizes", source),
        **table.model_dump(exclude={"schema_", "batch_sizes", "chunk_sizes"} | keys),
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
    return Profile(
        law=tuple(LawRow(**row.model_dump()) for row in table.law),
        batch_sizes=(sizes[0], sizes[-1]),
        chunk_sizes=_range(table, "chunk_sizes", source),
        **table.model_dump(exclude={"schema_", "law", "chunk_sizes"}),
    )


def _range(table: ProfileTable, key: str, source: str) -> Range | None:
    sizes: list[int] | None = getattr(table, key)
    if sizes is None:
        return None
    if sizes[0] > sizes[1]:
        fail(source, [f"{key}: the least, {sizes[0]}, is above the greatest, {sizes[1]}; exchange them"])
    return sizes[0], sizes[1]
