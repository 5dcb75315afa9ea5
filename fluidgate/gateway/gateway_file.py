"""Gateway files (TOML): the engines, the policy, who is of which class, and the limits.

Every error is one line, `FILE: KEY: REASON; MEND`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
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

EngineKind = Literal["vllm", "vllm-coupled", "llamacpp", "sglang", "openai"]
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
    grace_seconds: float = Field(
        2.0, ge=0, description="the seconds after SIGTERM for which /ready says 503 and requests are still taken"
    )
    reuse_port: bool = Field(False, description="whether another gateway may listen on the same port, to take over")
    drain_seconds: float = Field(60.0, ge=0, description="the seconds that requests in flight get after that")
    client_seconds: float = Field(60.0, gt=0, description="the seconds a client may let a full send buffer stand")
    ping_seconds: float = Field(
        15.0, ge=0, description="the seconds between comments on a stream that waits; 0 for none", examples=[15.0]
    )
    cors_origins: list[str] = Field(
        default_factory=list, description="the origins whose web pages may call; '*' for all", examples=[["*"]]
    )


class KubernetesTable(Table):
    """The pods that are engines: those that are ready behind a Service."""

    service: str = Field(min_length=1, description="the name of the Service", examples=["vllm"])
    namespace: str = absent("the namespace of the Service; the gateway's own if absent", min_length=1)
    port: int = absent("the port of the pods; that of the Service's first port if absent", ge=1, le=65535)
    scheme: Literal["http", "https"] = Field("http", description="how the pods are spoken to")


class EnginesTable(Table):
    """The engines behind the gateway, all of one kind and size, from one source or several."""

    kind: EngineKind = Field(description="how the engines are spoken to", examples=["vllm"])
    urls: list[str] = Field(
        default_factory=list, description="the base URL of each engine", examples=[["http://127.0.0.1:8001"]]
    )
    file: str = absent("a file of base URLs, one a line, or Prometheus's file_sd JSON; watched", min_length=1)
    dns: str = absent("a base URL each address of whose host is an engine", min_length=1)
    kubernetes: KubernetesTable | None = Field(None, description="the table [engines.kubernetes]")
    refresh_seconds: float = Field(
        2.0, gt=0, description="the seconds between two readings of file, addresses and pods"
    )
    binding: Binding = Field(
        "late",
        description="when a decode's engine is chosen: after its prefill, or before ('early'); vllm and sglang only",
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
    max_answers: int = Field(256, ge=1, le=LARGEST_WHOLE, description="the most answers of a request: prompts times n")
    max_waiting: int = Field(10_000, ge=0, le=LARGEST_WHOLE, description="the most requests that wait")
    max_wait: float = Field(60.0, gt=0, description="the longest wait for a prefill, and again for a decode, s")
    attempts: int = Field(3, ge=1, le=100, description="how often a prompt is read when engines fail")
    engine_failures: int = Field(
        2, ge=1, le=100, description="how many engines may break off under one request: it may be what kills them"
    )
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
    path: Literal["completions", "chat", "responses", "messages", "embeddings"] = absent("the end point that is called")
    min_prompt_tokens: int = absent("the least prompt, tokens", ge=0, le=LARGEST_WHOLE)
    max_prompt_tokens: int = absent("the longest prompt, tokens", ge=0, le=LARGEST_WHOLE)


class KeyTable(QuotaTable, NamedKeyTable):
    """A key that clients may come with, and what it may use."""


class TokensTable(Table):
    """How prompts are measured before an engine reads them."""

    bytes_per_token: float = Field(4.0, gt=0, description="the bytes of UTF-8 that count as one prompt token")
    tokenizer: str = absent("the path of a tokenizer.json, to count in its place", min_length=1)
    image_tokens: int = Field(1000, ge=0, le=LARGEST_WHOLE, description="the tokens that a picture counts")
    audio_tokens: int = Field(1000, ge=0, le=LARGEST_WHOLE, description="the tokens that a sound counts")
    video_tokens: int = Field(10_000, ge=0, le=LARGEST_WHOLE, description="the tokens that a film counts")
    file_tokens: int = Field(2000, ge=0, le=LARGEST_WHOLE, description="the tokens that a file counts")

    @property
    def media(self) -> dict[str, int]:
        """Tokens of a part of a message that is no text."""
        return {kind: getattr(self, f"{kind}_tokens") for kind in ("image", "audio", "video", "file")}


class TracingTable(Table):
    """Where spans go, by OpenTelemetry's protocol."""

    endpoint: str = Field(
        min_length=1, description="the base URL of an OTLP collector", examples=["http://127.0.0.1:4318"]
    )
    share: float = Field(1.0, ge=0, le=1, description="the share of traces that are kept, where no client decides")
    service: str = Field("fluidgate", min_length=1, description="the name of the service in the spans")


class AdminTable(Table):
    """The key of the admin API."""

    env: str = absent("the environment variable that holds the key", min_length=1, examples=["FLUIDGATE_ADMIN_KEY"])
    sha256: str = absent("the SHA-256 of the key, in hexadecimal", pattern="^[0-9a-fA-F]{64}$")


class ReplanningTable(Table):
    """When the plan is solved again."""

    enabled: bool = Field(True, description="whether the plan follows the load")
    period: float = Field(Replanning.period, gt=0, description="the age at which a plan is solved again, s")
    look: float = Field(Replanning.look, gt=0, description="the seconds between two looks at the estimates")
    window: float = Field(Replanning.window, gt=0, description="the time constant of the estimates, s")
    moved: float = Field(Replanning.moved, ge=0, description="the relative change for which it is solved again")
    deviations: float = Field(Replanning.deviations, ge=0, description="standard deviations that such a change exceeds")


class GroupTable(Table):
    """Engines that serve one model, and how their requests are told apart and placed."""

    scenario: str = absent("the scenario file, relative to this file", min_length=1, examples=["azure.toml"])
    policy: str = Field(
        "index-and-pool", min_length=1, description="the name of a policy, of a policy file, or PATH.py:NAME"
    )
    model: str = absent("the model name that clients ask for; the engines' own if absent", min_length=1)
    aliases: list[str] = Field(default_factory=list, description="further names that clients may call the model by")
    default_class: str = absent("the class of requests that no rule names; the first of the scenario if absent")
    seed: int = Field(0, ge=0, le=LARGEST_WHOLE, description="the seed of the policy's draws")
    engines: EnginesTable | None = Field(None, description="the table [engines] with kind and urls")
    classes: list[GatewayClassTable] = Field(default_factory=list, description="tables [[classes]] with limits")
    rules: list[RuleTable] = Field(default_factory=list, description="tables [[rules]], the first that fits counts")


class GatewayTable(GroupTable):
    """The keys of a gateway file: those of its only group of engines, or `groups`, and those of the whole."""

    schema_: SchemaKey = Field(SCHEMA, alias="schema")
    groups: list[GroupTable] = Field(
        default_factory=list, description="tables [[groups]], one for each model, in the place of the keys of one"
    )
    server: ServerTable = Field(default_factory=ServerTable, description="the table [server]")
    tracing: TracingTable | None = Field(None, description="the table [tracing]; without it there are no spans")
    admin: AdminTable | None = Field(None, description="the table [admin]; without it there is no admin API")
    limits: LimitsTable = Field(default_factory=LimitsTable, description="the table [limits]")
    keys: list[KeyTable] = Field(default_factory=list, description="tables [[keys]]; without one no key is asked for")
    quota: QuotaTable = Field(default_factory=QuotaTable, description="the table [quota], of keys without own values")
    tokens: TokensTable = Field(default_factory=TokensTable, description="the table [tokens]")
    replanning: ReplanningTable = Field(default_factory=ReplanningTable, description="the table [replanning]")


GROUPS_OWN = tuple(GroupTable.model_fields)
"""Keys that stand in each of several groups, and not beside them."""


@dataclass(frozen=True)
class Key:
    """An API key as the gateway keeps it: its digest, and what it may use."""

    name: str
    digest: bytes
    limits: KeyLimits = field(default_factory=KeyLimits)


@dataclass(frozen=True)
class GroupSettings:
    """Engines of one model.

    Attributes:
        name: of the group: its model's, or its scenario's.
        stated: the scenario of the file; `scenario`, the same with rates per GPU for the engines of the file.
        policy: whose decisions are taken.
        limits: of the whole gateway; max_wait, max_waiting: by class.
        default_class: index.
        engine_key: what the engines ask for, if anything.
        engines_file: of URLs, watched; slot_dir: of llama.cpp engines.
    """

    source: str
    name: str
    stated: Scenario
    scenario: Scenario = field(compare=False)
    policy: Policy | PlacedPolicy
    model: str | None
    aliases: tuple[str, ...]
    engines: EnginesTable
    limits: LimitsTable
    rules: tuple[RuleTable, ...]
    replanning: Replanning | None
    max_wait: tuple[float, ...]
    max_waiting: tuple[int, ...]
    default_class: int
    engine_key: str | None
    seed: int
    engines_file: Path | None
    slot_dir: Path | None

    def differs_lightly(self, other: GroupSettings) -> bool:
        """Whether `other` could take this one's place while its requests run: engines, rules, limits, names."""
        light = ("aliases", "rules", "limits", "max_wait", "max_waiting", "default_class", "engines", "source")
        mine = replace(self, **{name: getattr(other, name) for name in light})
        lists = {"urls": [], "pass_headers": [], "ask_usage": True}
        return mine == other and self.engines.model_copy(update=lists) == other.engines.model_copy(update=lists)


@dataclass(frozen=True)
class GatewaySettings:
    """A gateway file, read and checked.

    Attributes:
        groups: one a model.
        admin: the key of the admin API; None where there is none, as with `tracing`.
        reload: reads the file anew.
    """

    source: str
    groups: tuple[GroupSettings, ...]
    server: ServerTable
    tracing: TracingTable | None
    admin: Key | None
    limits: LimitsTable
    keys: tuple[Key, ...]
    tokens: TokensTable
    tokenizer: Path | None
    reload: Callable[[], GatewaySettings] | None = field(default=None, compare=False)

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
        return replace(
            settings,
            server=settings.server.model_copy(update=given),
            reload=lambda: GatewaySettings.load(path, host=host, port=port, policy=policy),
        )


def parse_gateway(text: str, source: str, folder: Path, *, policy: str | None = None) -> GatewaySettings:
    """The settings in a TOML text; `folder` is where relative paths start, `policy` goes before the file's.

    Raises:
        FluidgateError: as `GatewaySettings.load`.
    """
    data = parse_toml(text, source)
    if not data:
        fail(source, ["empty; write a gateway: schema, scenario and [engines]"])
    file = check(GatewayTable, data, source)
    if found := list(_problems_of_whole(file)):
        fail(source, found)
    tables = [(f"groups[{k}].", each) for k, each in enumerate(file.groups)] or [("", file)]
    groups = tuple(_group(table, where, file, source, folder, policy) for where, table in tables)
    return GatewaySettings(
        source=source,
        groups=groups,
        server=file.server,
        tracing=file.tracing,
        admin=None if file.admin is None else Key("admin", _digest(file.admin, "admin", source)),
        limits=file.limits,
        keys=tuple(_key(each, file.quota, source) for each in file.keys),
        tokens=file.tokens,
        tokenizer=folder / file.tokens.tokenizer if file.tokens.tokenizer else None,
    )


def _group(
    table: GroupTable, where: str, file: GatewayTable, source: str, folder: Path, policy: str | None
) -> GroupSettings:
    engines, named = table.engines, table.scenario
    assert engines is not None
    assert named is not None
    scenario = Scenario.load(folder / named)
    chosen = _policy(table.policy, where, source, folder) if policy is None else find_any_policy(policy)
    keys = [each.name for each in file.keys]
    if found := list(_problems(table, engines, keys, scenario, chosen)):
        fail(source, [f"{where}{problem}" for problem in found])
    limits = {each.name: each for each in table.classes}
    names = scenario.class_names

    def of(name: str, key: str) -> Any:
        own = getattr(limits[name], key) if name in limits else None
        return getattr(file.limits, key) if own is None else own

    numbers = file.replanning.model_dump(exclude={"enabled"})
    return GroupSettings(
        source=source,
        name=table.model or scenario.name,
        stated=scenario,
        scenario=scenario.for_gpus(max(1, len(engines.urls))),
        policy=chosen,
        model=table.model,
        aliases=tuple(table.aliases),
        engines=engines,
        limits=file.limits,
        rules=tuple(table.rules),
        replanning=Replanning(**numbers) if file.replanning.enabled else None,
        max_wait=tuple(of(name, "max_wait") for name in names),
        max_waiting=tuple(of(name, "max_waiting") for name in names),
        default_class=names.index(table.default_class) if table.default_class else 0,
        engine_key=_from_environment(f"{where}engines.api_key_env", engines.api_key_env, source),
        seed=table.seed,
        engines_file=folder / engines.file if engines.file else None,
        slot_dir=folder / engines.slot_dir if engines.slot_dir else None,
    )


def gateway_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a gateway file.

    It cannot say, and `parse_gateway` checks besides, which classes and policies there are, and which keys go together.
    """
    keys = GatewayTable.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **keys, "title": "fluidgate gateway file"}


def _policy(name: str, where: str, source: str, folder: Path) -> Policy | PlacedPolicy:
    try:
        return find_any_policy(name, folder)
    except FluidgateError as error:
        fail(source, [f"{where}policy: {error}"])


def _problems_of_whole(file: GatewayTable) -> Iterator[str]:
    """One "KEY: REASON; MEND" for each key that does not go with the others, whatever the scenarios say."""
    if file.groups:
        for key in GROUPS_OWN:
            if key in file.model_fields_set:
                yield f"{key}: stands beside [[groups]]; move it into each of them"
    for where, group in [(f"groups[{k}].", each) for k, each in enumerate(file.groups)] or [("", file)]:
        if group.scenario is None:
            yield f"{where}scenario: missing; name the scenario file"
        if group.engines is None:
            yield f"{where}engines: missing; write the table with kind and urls"
    names = [name for group in file.groups for name in (group.model, *group.aliases)]
    if len(file.groups) > 1 and None in names:
        yield "groups: each of several needs a model; name it"
    for name in sorted({name for name in names if name is not None and names.count(name) > 1}):
        yield f"groups: {shown(name)} stands twice; name each model once"
    for k, origin in enumerate(file.server.cors_origins):
        if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#\s@]+", origin):
            yield f"server.cors_origins[{k}]: {shown(origin)} is no origin; give one such as 'https://chat.example.org'"
    keys = [each.name for each in file.keys]
    for name in {name for name in keys if keys.count(name) > 1}:
        yield f"keys: {shown(name)} stands twice; name each key once"
    if file.quota.model_dump(exclude_none=True) and not keys:
        yield "quota: there is no key to which it applies; add [[keys]], or remove this table"
    for k, each in enumerate(file.keys):
        if (each.env is None) == (each.sha256 is None):
            yield f"keys[{k}] ({shown(each.name)}): needs env or sha256, and one of them only; give where the key is"
    if file.admin is not None and (file.admin.env is None) == (file.admin.sha256 is None):
        yield "admin: needs env or sha256, and one of them only; give where the key is"


def _problems(
    file: GroupTable, engines: EnginesTable, keys: list[str], scenario: Scenario, policy: Policy | PlacedPolicy
) -> Iterator[str]:
    """One "KEY: REASON; MEND" for each key of a group that does not go with the others."""
    names = scenario.class_names
    for where, name in _class_names(file):
        if name not in names:
            hint = nearest(name, list(names)) or f"; name one of them ({', '.join(names)})"
            yield f"{where}: the scenario has no class {shown(name)}{hint}"
    given = [each.name for each in file.classes]
    for name in {name for name in given if given.count(name) > 1}:
        yield f"classes: {shown(name)} stands twice; put its limits into one table"
    if not engines.urls and engines.file is None and engines.dns is None and engines.kubernetes is None:
        yield "engines.urls: no engine is named; give urls, or a file, dns or kubernetes to find them by"
    if engines.dns is not None and not is_base_url(engines.dns):
        yield f"engines.dns: {shown(engines.dns)} is no base URL; give one such as 'http://vllm.internal:8000'"
    for k, url in enumerate(engines.urls):
        if not is_base_url(url):
            yield f"engines.urls[{k}]: {shown(url)} is no base URL; give one such as 'http://127.0.0.1:8001'"
        elif url.rstrip("/").endswith("/v1"):
            yield f"engines.urls[{k}]: {shown(url)} is where the API lies, not the server; give it without '/v1'"
    if len({url.rstrip("/") for url in engines.urls}) < len(engines.urls):
        yield "engines.urls: an engine stands twice; name each once"
    if engines.binding == "early" and engines.kind not in ("vllm", "sglang"):
        yield f"engines.binding: decodes of {engines.kind} are not bound early; remove this key"
    if engines.binding == "early" and engines.kind == "sglang" and isinstance(policy, PlacedPolicy):
        yield f"policy: {shown(policy.name)} places a request on one engine, pairs need two; name one that has a gate"
    if (engines.kind == "llamacpp") != (engines.slot_dir is not None):
        yield "engines.slot_dir: goes with kind 'llamacpp'; give the engines' --slot-save-path, or remove it"
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


def _class_names(file: GroupTable) -> Iterator[tuple[str, str]]:
    if file.default_class is not None:
        yield "default_class", file.default_class
    for k, each in enumerate(file.classes):
        yield f"classes[{k}].name", each.name
    for k, rule in enumerate(file.rules):
        yield f"rules[{k}].class", rule.cls


def _key(table: KeyTable, usual: QuotaTable, source: str) -> Key:
    digest = _digest(table, f"keys ({shown(table.name)})", source)
    return Key(table.name, digest, limits_of(table, usual))


def _digest(table: KeyTable | AdminTable, where: str, source: str) -> bytes:
    import hashlib

    if table.sha256 is not None:
        return bytes.fromhex(table.sha256)
    value = _from_environment(f"{where}: env", table.env, source)
    assert value is not None
    return hashlib.sha256(value.encode()).digest()


def _from_environment(where: str, name: str | None, source: str) -> str | None:
    if name is None:
        return None
    value = os.environ.get(name, "")
    if not value:
        fail(source, [f"{where}: the environment has no {shown(name)}; export it"])
    return value
