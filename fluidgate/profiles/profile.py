"""A profile: the iteration time that was measured for a model on a GPU, and where it comes from."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from fluidgate.model import IterationTime, Noun
from fluidgate.toml_file import LARGEST_WHOLE, SCHEMA, SchemaKey, Table, check, fail, parse_toml

Range = tuple[int, int]
R_SQUARED = "R^2 of the line alpha + beta * chunk_size, between 0 and 1"
BATCH_SIZES = "the least and the greatest batch size that the profile holds for"
CHUNK_SIZES = "the least and the greatest chunk size that the profile holds for, tokens"


class Profile(Noun):
    """A named iteration time with its provenance; the ranges are `None` where they are unknown."""

    name: str = Field(min_length=1, description="name, for shipped profiles `GPU/MODEL`")
    iteration: IterationTime
    model: str = Field("", description="the language model")
    gpu: str = Field("", description="the GPU or the tensor-parallel group that serves it")
    engine: str = Field("", description="the inference engine and its version")
    source: str = Field("", description="who measured it, and where it is published")
    notes: str = Field("", description="what else a user should know")
    r_squared: float | None = Field(None, le=1, description=R_SQUARED)
    batch_sizes: Range | None = Field(None, description=BATCH_SIZES)
    chunk_sizes: Range | None = Field(None, description=CHUNK_SIZES)

    def to_dict(self) -> dict[str, Any]:
        """The keys of the profile's file, `schema` first; what is unknown is left out."""
        known = self.model_dump(exclude={"iteration"}, exclude_none=True)
        texts = {key: value for key, value in known.items() if isinstance(value, str) and value}
        rest = {key: value for key, value in known.items() if not isinstance(value, str)}
        return {"schema": SCHEMA, **texts, **self.iteration.model_dump(), **rest}


Size = Annotated[int, Field(ge=1, le=LARGEST_WHOLE)]
Sizes = Annotated[list[Size], Field(min_length=2, max_length=2)]


class ProfileTable(Table):
    """The keys of a profile file."""

    schema_: SchemaKey = Field(SCHEMA, alias="schema")
    name: str = Field(min_length=1, description="the name of the profile", examples=["my-gpu/my-model"])
    model: str = Field("", description="the language model")
    gpu: str = Field("", description="the GPU")
    engine: str = Field("", description="the inference engine and its version")
    source: str = Field("", description="the source of the figures")
    notes: str = Field("", description="what else a user should know")
    alpha: float = Field(description="the seconds of a mixed iteration at chunk size 0", examples=[0.0174])
    beta: float = Field(
        gt=0, description="the seconds that a prompt token adds to a mixed iteration", examples=[6.2e-5]
    )
    gamma: float = Field(gt=0, description="the tokens per second of one decode on a solo GPU", examples=[45.45])
    r_squared: float | None = Field(None, le=1, description=R_SQUARED)
    batch_sizes: Sizes | None = Field(None, description=BATCH_SIZES, examples=[[1, 64]])
    chunk_sizes: Sizes | None = Field(None, description=CHUNK_SIZES, examples=[[64, 2048]])


def parse_profile(text: str, source: str) -> Profile:
    """The profile in a TOML text; `source` is its name in errors.

    Raises:
        FluidgateError: the text is no profile; the message names source, key and mend.
    """
    data = parse_toml(text, source)
    if not data:
        fail(source, ["empty; write the keys of a profile: name, alpha, beta, gamma"])
    table = check(ProfileTable, data, source)
    for key in ("batch_sizes", "chunk_sizes"):
        sizes = getattr(table, key)
        if sizes is not None and sizes[0] > sizes[1]:
            fail(source, [f"{key}: the least, {sizes[0]}, is above the greatest, {sizes[1]}; exchange them"])
    return Profile(
        iteration=IterationTime(alpha=table.alpha, beta=table.beta, gamma=table.gamma),
        batch_sizes=_range(table.batch_sizes),
        chunk_sizes=_range(table.chunk_sizes),
        **table.model_dump(exclude={"schema_", "alpha", "beta", "gamma", "batch_sizes", "chunk_sizes"}),
    )


def dump_profile(profile: Profile) -> str:
    """The TOML text of a profile; parsing it gives an equal profile."""
    import tomlkit

    return tomlkit.dumps(profile.to_dict())


def _range(sizes: list[int] | None) -> Range | None:
    return None if sizes is None else (sizes[0], sizes[1])
