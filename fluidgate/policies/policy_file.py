"""Policy files (TOML): a listed policy with values for its free parameters, and how they were found.

Every error is one line, `FILE: KEY: REASON; MEND`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from fluidgate.arguments import checked
from fluidgate.errors import FluidgateError
from fluidgate.policies.catalogue import LISTED, is_listed, listed_policy
from fluidgate.policies.placed import PlacedPolicy
from fluidgate.policies.policy import BasePolicy, Policy
from fluidgate.policies.tuned import Tuned
from fluidgate.toml_file import (
    SCHEMA,
    SchemaKey,
    Table,
    check,
    fail,
    other_kind,
    parse_toml,
    read_text,
    shown,
    source_of,
    write_whole,
)


class PolicyTable(Table):
    """The keys of a policy file."""

    schema_: SchemaKey = Field(SCHEMA, alias="schema")
    policy: str = Field(
        min_length=1, description="the name of a policy (`fluidgate policies` lists them)", examples=["index-and-pool"]
    )
    parameters: dict[str, float] = Field(
        default_factory=dict, description="the table [parameters]: a value for each parameter that is not the default"
    )
    tuned: Tuned | None = Field(None, description="the table [tuned] with scenario and gpus")


@checked
def load_policy(path: str | Path) -> Policy | PlacedPolicy:
    """Read a policy file; the policy goes by its path.

    Raises:
        FluidgateError: the file is missing or wrong; the message names file, key and mend.
    """
    return parse_policy(read_text(path, "a policy file"), source_of(path))


def parse_policy(text: str, source: str = "<string>") -> Policy | PlacedPolicy:
    """The policy in a TOML text; `source` is its name in errors and results.

    Raises:
        FluidgateError: the text is no policy; the message names source, key and mend.
    """
    data = parse_toml(text, source)
    if not data:
        fail(source, ["empty; write a policy: schema, policy and [parameters]"])
    if kind := other_kind(data, "a policy file"):
        fail(source, [f"{kind}, not a policy file; give a name that `fluidgate policies` lists, or a policy file"])
    file = check(PolicyTable, data, source)
    base = _base(file.policy, source)
    if problems := base.problems(file.parameters):
        fail(source, problems)
    return replace(base.with_parameters(file.parameters), name=source, origin="user", base=base.name, tuned=file.tuned)


def dump_policy(policy: BasePolicy) -> str:
    """The TOML text of a policy, every parameter with its meaning; parsing it gives the same parameters.

    Raises:
        FluidgateError: the policy is Python code, not one of the list with parameters.
    """
    import tomlkit
    from tomlkit import comment, document, table

    check_fits(policy)
    text = document()
    text["schema"] = SCHEMA
    text["policy"] = policy.base or policy.name
    parameters = table()
    for p in policy.parameters:
        parameters.add(comment(f"{p.meaning} ({p.low:g} to {p.high:g}, default {p.default:g})"))
        parameters.add(p.name, policy.values[p.name])
    text["parameters"] = parameters
    if policy.tuned is not None:
        record = table()
        for key, value in policy.tuned.model_dump(exclude_none=True).items():
            record.add(key, value)
        text["tuned"] = record
    return tomlkit.dumps(text)


def fits(policy: BasePolicy) -> bool:
    """Whether a policy file can hold the policy: one of the list with parameters."""
    return policy.is_data and is_listed(policy.base or policy.name)


def check_fits(policy: BasePolicy) -> None:
    """Refuse a policy that no policy file can hold.

    Raises:
        FluidgateError: it is Python code.
    """
    if not fits(policy):
        raise FluidgateError(
            f"policy '{policy.name}': is Python code; only policies that `fluidgate policies` lists go into a file"
        )


def write_policy(policy: BasePolicy, path: str | Path, *, force: bool = False) -> None:
    """Write a policy file, whole or not at all.

    Raises:
        FluidgateError: the path is refused (see `check_path`) or can't be written; the policy is Python code.
    """
    text = dump_policy(policy)
    check_path(path, force=force)
    write_whole(path, text)


def check_path(path: str | Path, *, force: bool = False) -> None:
    """Refuse the path of a policy file that could not be read again, or that may hold changes by hand.

    Raises:
        FluidgateError: it does not end in .toml, its folder is missing, or it is there already (unless `force`).
    """
    path = Path(path)
    if path.suffix != ".toml":
        fail(str(path), ["a policy file ends in .toml; give such a path"])
    if not path.parent.is_dir():
        fail(str(path), [f"no folder {shown(str(path.parent))}; make it, or give another path"])
    if path.exists() and not force:
        fail(str(path), ["is there already; give another path, or --force to replace it"])


def policy_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a policy file.

    It cannot say, and `parse_policy` checks besides, which parameters the policy has, and their ranges.
    """
    keys = PolicyTable.model_json_schema(by_alias=True)
    keys["properties"]["policy"]["examples"] = list(LISTED)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **keys, "title": "fluidgate policy"}


def _base(name: str, source: str) -> Policy | PlacedPolicy:
    try:
        return listed_policy(name)
    except FluidgateError as error:
        fail(source, [f"policy: {error}"])
