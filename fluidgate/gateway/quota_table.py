"""What an API key may use: the keys of [quota], and of each of [[keys]] in its place."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from fluidgate.engine_table import absent
from fluidgate.toml_file import LARGEST_WHOLE, Table

LEAST_WEIGHT, LARGEST_WEIGHT = 1e-3, 1e3


class QuotaTable(Table):
    """What a key may use, where it has no value of its own."""

    requests_per_minute: int = absent("the requests a minute; a minute's may come at once", ge=1, le=LARGEST_WHOLE)
    tokens_per_minute: int = absent(
        "the tokens a minute, of prompts and answers; a minute's may come at once", ge=1, le=LARGEST_WHOLE
    )
    max_concurrent: int = absent("the most requests under way, those that wait among them", ge=1, le=LARGEST_WHOLE)
    max_waiting: int = absent("the most requests that wait for a prefill", ge=0, le=LARGEST_WHOLE)
    weight: float = absent("the share of a class's tokens while others wait too", ge=LEAST_WEIGHT, le=LARGEST_WEIGHT)


class NamedKeyTable(Table):
    """A key that clients may come with."""

    name: str = Field(min_length=1, description="the name of the key in logs and rules", examples=["team-a"])
    env: str = absent("the environment variable that holds the key", min_length=1, examples=["TEAM_A_KEY"])
    sha256: str = absent("the SHA-256 of the key, in hexadecimal", pattern="^[0-9a-fA-F]{64}$")


@dataclass(frozen=True)
class KeyLimits:
    """What a key may use; None for no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrent: int | None = None
    max_waiting: int | None = None
    weight: float = 1.0


def limits_of(own: QuotaTable, usual: QuotaTable) -> KeyLimits:
    """A key's own limits, and the usual ones where it has none."""
    names = set(QuotaTable.model_fields)
    given = [table.model_dump(include=names, exclude_none=True) for table in (usual, own)]
    return KeyLimits(**(given[0] | given[1]))
