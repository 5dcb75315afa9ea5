"""Gateway files (TOML): the engines, the policy, who is of which class, and the limits.

Every error is one line, `FILE: KEY: REASON; MEND`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field

from fluidgate.engine_table import absent
from fluidgate.errors import FluidgateError, nearest
from fluidgate.gateway.quota_table import KeyLimits, NamedKeyTable, QuotaTable, limits_of
from fluidgate.model import Scenario
from fluidgate.policies import PlacedPolicy, Policy, find_any_policy
from fluidgate.replanning.replanner import Replanning
from fluidgate.toml_file import LARGEST_WHOLE, SCHEMA, SchemaKey, Table, check, fail, parse_toml, read_text, shown

EngineKind = Literal["vllm", "vllm-coupled", "llamacpp"]
Binding = Literal["late", "early"]

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class ServerTable(Table):
    """Where the gateway listens, and what it writes."""

    host: str = Field("127.0.0.1", min_length=1, description="the address to listen on; others than loopback are seen")
    port: int = Field(8080, ge=0, le=65535, description="the port to listen on; 0 for a free one")
    log: str = Field(
        "-",
        min_length=1,
        description="the file of the request log, a JSON line a request; '-' for standard error, 'off' for none",
    )
    drain_seconds: float = Field(60.0, ge=0, description="the seconds that requests in flight get after SIGTERM")
    client_seconds: float = Field(60.0, gt=0, description="the seconds a client may let a full send buffer stand")


class EnginesTable(Table):
    """The engines behind the gateway, all of one kind and size."""

    kind: EngineKind = Field(description="how the engines are spoken to", examples=["vllm"])
    urls: list[str] = Field(
        min_length=1, description="the base URL of each engine", examples=[["http://127.0.0.1:8001"]]
    )
    binding: Binding = Field(
        "late", description="when a decode's engine is chosen: after its prefill, or before ('early'); vllm only"
    )
    api_key_env: str = absent("the environment variable that holds the key the engines ask for", min_length=1)
    kv_lease: float = Field(30.0, gt=0, description="the seconds for which an engine keeps a prompt's KV for another")
    slot_dir: str = absent("the directory where llama.cpp engines save slots (--slot-save-path)", min_length=1)
    ask_usage: bool = Field(
        True, description="whether streams are asked to state their tokens; not passed on if no client asked"
    )
    pass_headers: list[str] = Field(default_factory=list, description="the headers of clients that engines get too")
    check_seconds: float = Field(1.0, gt=0, description="the seconds between two looks at an engine")
    check_transfer: bool = Field(True, description="whether KV is moved between the engines on start-up, as a check")


class LimitsTable(Table):
    """What is refused, and how long anyone waits."""

    max_body_bytes: int = Field(4 << 20, ge=1, le=LARGEST_WHOLE, description="the largest request body, bytes")
    max_prompt_tokens: int = absent("the longest prompt, tokens (estimated)", ge=1, le=LARGEST_WHOLE)
    max_waiting: int = Field(10_000, ge=0, le=LARGEST_WHOLE, description="the most requests that wait")
    max_wait: float = Field(60.0, gt=0, description="the longest wait for a prefill, and again for a decode, s")
    attempts: int = Field(3, ge=1, le=100, description="how often a prompt is read when engines fail")
    token_seconds: float = Field(
        300.0, gt=0, description="the longest silence of an engine, s; a whole answer has a second more for each token"
    )


class GatewayClassTable(Table):
    """Limits of one class, in the place of those of all."""

    name: str = Field(min_length=1, description="the name of a class of the scenario", examples=["chat"])
    max_waiting: int = absent("the most requests of the class that wait", ge=0, le=LARGEST_WHOLE)
    max_wait: float = absent("the longest wait of the class for a prefill, and again for a decode, s", gt=0)


class RuleTable(Table):
    """Which requests are of a class: those that meet every condition given."""

    cls: str = Field(alias="class", min_length=1, description="the name of a class of the scenario", examples=["chat"])
    header: dict[str, str] = absent(
        "header names, each with the value it must have; any client can send them: name a key where a class is earned"
    )
    key: str = absent("the name of an API key ([[keys]])", min_length=1)
    model: str = absent("the model that is asked for", min_length=1)
    path: Literal["completions", "chat"] = absent("the end point that is called")
    min_prompt_tokens: int = absent("the least prompt, tokens", ge=0, le=LARGEST_WHOLE)
    max_prompt_tokens: int = absent("the longest prompt, tokens", ge=0, le=LARGEST_WHOLE)


class KeyTable(QuotaTable, NamedKeyTable):
    """A key that clients may come with, and what it may use."""


class TokensTable(Table):
    """How prompts are measured before an engine reads them."""

    bytes_per_token: float = Field(4.0, gt=0, description="the bytes of UTF-8 that count as one prompt token")
    tokenizer: str = absent("the path of a tokenizer.json, to count in its place", min_length=1)


class ReplanningTable(Table):
    """When the plan is solved again."""

    enabled: bool = Field(True, description="whether the plan follows the load")
    period: float = Field(Replanning.period, gt=0, description="the age at which a plan is solved again, s")
    look: float = Field(Replanning.look, gt=0, description="the seconds between two looks at the estimates")
    window: float = Field(Replanning.window, gt=0, description="the time constant of the estimates, s")
    moved: float = Field(Replanning.moved, ge=0, description="the relative change for which it is solved again")
    deviations: float = Field(Replanning.deviations, ge=0, description="standard deviations that such a change exceeds")


class GatewayTable(Table):
    """The keys of a gateway file."""

    schema_: SchemaKey = Field(SCHEMA, alias="schema")
    scenario: str = Field(min_length=1, description="the scenario file, relative to this file", examples=["azure.toml"])
    policy: str = Field(
        "index-and-pool", min_length=1, description="the name of a policy, of a policy file, or PATH.py:NAME"
    )
    model: str = absent("the model name that clients ask for; the engines' own if absent", min_length=1)
    default_class: str = absent("the class of requests that no rule names; the first of the scenario if absent")
    seed: int = Field(0, ge=0, le=LARGEST_WHOLE, description="the seed of the policy's draws")
    server: ServerTable = Field(default_factory=ServerTable, description="the table [server]")
    engines: EnginesTable = Field(description="the table [engines] with kind and urls")
    limits: LimitsTable = Field(default_factory=LimitsTable, description="the table [limits]")
    classes: list[GatewayClassTable] = Field(default_factory=list, description="tables [[classes]] with limits")
    rules: list[RuleTable] = Field(default_factory=list, description="tables [[rules]], the first that fits counts")
    keys: list[KeyTable] = Field(default_factory=list, description="tables [[keys]]; without one no key is asked for")
    quota: QuotaTable = Field(default_factory=QuotaTable, description="the table [quota], of keys without own values")
    tokens: TokensTable = Field(default_factory=TokensTable, description="the table [tokens]")
    replanning: ReplanningTable = Field(default_factory=ReplanningTable, description="the table [replanning]")


@dataclass(frozen=True)
class Key:
    """An API key as the gateway keeps it: its digest, and what it may use."""

    name: str
    digest: bytes
    limits: KeyLimits = field(default_factory=KeyLimits)


@dataclass(frozen=True)
class GatewaySettings:
    """A gateway file, read and checked.

    Attributes:
        scenario: its classes, with rates per GPU for the engines of the file.
        policy: whose decisions are taken.
        max_wait, max_waiting: by class.
        default_class: index.
        slot_dir: of llama.cpp engines.
        engine_key: what the engines ask for, if anything.
    """

    source: str
    scenario: Scenario
    policy: Policy | PlacedPolicy
    model: str | None
    server: ServerTable
    engines: EnginesTable
    limits: LimitsTable
    rules: tuple[RuleTable, ...]
    keys: tuple[Key, ...]
    tokens: TokensTable
    replanning: Replanning | None
    max_wait: tuple[float, ...]
    max_waiting: tuple[int, ...]
    default_class: int
    engine_key: str | None
    seed: int
    tokenizer: Path | None
    slot_dir: Path | None

    @staticmethod
    def load(
        path: str | Path, *, host: str | None = None, port: int | None = None, policy: str | None = None
    ) -> GatewaySettings:
        """Read a gateway file.

        Args:
            host, port, policy: in the place of the file's.

        Raises:
            FluidgateError: the file, or one that it names, is missing or wrong; the message names file, key and mend.
        """
        settings = parse_gateway(read_text(path, "a gateway file"), str(path), Path(path).parent, policy=policy)
        given = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
        return replace(settings, server=settings.server.model_copy(update=given))


def parse_gateway(text: str, source: str, folder: Path, *, policy: str | None = None) -> GatewaySettings:
    """The settings in a TOML text; `folder` is where relative paths start, `policy` goes before the file's.

    Raises:
        FluidgateError: as `GatewaySettings.load`.
    """
    data = parse_toml(text, source)
    if not data:
        fail(source, ["empty; write a gateway: schema, scenario and [engines]"])
    file = check(GatewayTable, data, source)
    scenario = Scenario.load(folder / file.scenario)
    chosen = _policy(file.policy, source, folder) if policy is None else find_any_policy(policy)
    if found := list(_problems(file, scenario, chosen)):
        fail(source, found)
    scenario = scenario.for_gpus(len(file.engines.urls))
    limits = {each.name: each for each in file.classes}
    names = scenario.class_names

    def of(name: str, key: str) -> Any:
        own = getattr(limits[name], key) if name in limits else None
        return getattr(file.limits, key) if own is None else own

    numbers = file.replanning.model_dump(exclude={"enabled"})
    return GatewaySettings(
        source=source,
        scenario=scenario,
        policy=chosen,
        model=file.model,
        server=file.server,
        engines=file.engines,
        limits=file.limits,
        rules=tuple(file.rules),
        keys=tuple(_key(each, file.quota, source) for each in file.keys),
        tokens=file.tokens,
        replanning=Replanning(**numbers) if file.replanning.enabled else None,
        max_wait=tuple(of(name, "max_wait") for name in names),
        max_waiting=tuple(of(name, "max_waiting") for name in names),
        default_class=names.index(file.default_class) if file.default_class else 0,
        engine_key=_from_environment("engines.api_key_env", file.engines.api_key_env, source),
        seed=file.seed,
        tokenizer=folder / file.tokens.tokenizer if file.tokens.tokenizer else None,
        slot_dir=folder / file.engines.slot_dir if file.engines.slot_dir else None,
    )


def gateway_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a gateway file.

    It cannot say, and `parse_gateway` checks besides, which classes and policies there are, and which keys go together.
    """
    keys = GatewayTable.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **keys, "title": "fluidgate gateway file"}


def _policy(name: str, source: str, folder: Path) -> Policy | PlacedPolicy:
    try:
        return find_any_policy(name, folder)
    except FluidgateError as error:
        fail(source, [f"policy: {error}"])


def _problems(file: GatewayTable, scenario: Scenario, policy: Policy | PlacedPolicy) -> Iterator[str]:
    """One "KEY: REASON; MEND" for each key that does not go with the others."""
    names = scenario.class_names
    for where, name in _class_names(file):
        if name not in names:
            hint = nearest(name, list(names)) or f"; name one of them ({', '.join(names)})"
            yield f"{where}: the scenario has no class {shown(name)}{hint}"
    given = [each.name for each in file.classes]
    for name in {name for name in given if given.count(name) > 1}:
        yield f"classes: {shown(name)} stands twice; put its limits into one table"
    for k, url in enumerate(file.engines.urls):
        if not is_base_url(url):
            yield f"engines.urls[{k}]: {shown(url)} is no base URL; give one such as 'http://127.0.0.1:8001'"
    if len(set(file.engines.urls)) < len(file.engines.urls):
        yield "engines.urls: an engine stands twice; name each once"
    if file.engines.binding == "early" and file.engines.kind != "vllm":
        yield f"engines.binding: decodes of {file.engines.kind} are not bound early; remove this key"
    if (file.engines.kind == "llamacpp") != (file.engines.slot_dir is not None):
        yield "engines.slot_dir: goes with kind 'llamacpp'; give the engines' --slot-save-path, or remove it"
    keys = [each.name for each in file.keys]
    for name in {name for name in keys if keys.count(name) > 1}:
        yield f"keys: {shown(name)} stands twice; name each key once"
    if file.quota.model_dump(exclude_none=True) and not keys:
        yield "quota: there is no key to which it applies; add [[keys]], or remove this table"
    for k, key in enumerate(file.keys):
        if (key.env is None) == (key.sha256 is None):
            yield f"keys[{k}] ({shown(key.name)}): needs env or sha256, and one of them only; give where the key is"
    for k, rule in enumerate(file.rules):
        if rule.key is not None and rule.key not in keys:
            yield f"rules[{k}].key: no key is named {shown(rule.key)}{nearest(rule.key, keys)}; add it as [[keys]]"
        if not rule.model_dump(exclude_none=True, exclude={"cls"}):
            yield f"rules[{k}]: has no condition; add one, or give default_class"
    if isinstance(policy, PlacedPolicy) and policy.parameters:
        yield f"policy: {shown(policy.name)} is more than a placement of requests; name another policy"


def is_base_url(text: str) -> bool:
    """Whether it is the URL of a server: no user, query or fragment, and a port that there is."""
    if not re.fullmatch(r"https?://[^/?#\s@]+(/[^?#\s]*)?", text):
        return False
    try:
        return urlsplit(text).port != 0
    except ValueError:
        return False


def _class_names(file: GatewayTable) -> Iterator[tuple[str, str]]:
    if file.default_class is not None:
        yield "default_class", file.default_class
    for k, each in enumerate(file.classes):
        yield f"classes[{k}].name", each.name
    for k, rule in enumerate(file.rules):
        yield f"rules[{k}].class", rule.cls


def _key(table: KeyTable, usual: QuotaTable, source: str) -> Key:
    import hashlib

    limits = limits_of(table, usual)
    if table.sha256 is not None:
        return Key(table.name, bytes.fromhex(table.sha256), limits)
    value = _from_environment(f"keys ({shown(table.name)}): env", table.env, source)
    assert value is not None
    return Key(table.name, hashlib.sha256(value.encode()).digest(), limits)


def _from_environment(where: str, name: str | None, source: str) -> str | None:
    if name is None:
        return None
    value = os.environ.get(name, "")
    if not value:
        fail(source, [f"{where}: the environment has no {shown(name)}; export it"])
    return value
