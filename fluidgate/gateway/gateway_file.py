"""Gateway files (TOML): the engines, the policy, who is of which class, and the limits.

Every error is one line, `FILE: KEY: REASON; MEND`.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fluidgate.errors import FluidgateError, UnitWarning, nearest
from fluidgate.gateway.gateway_tables import (
    GROUPS_OWN,
    AdminTable,
    EnginesTable,
    GatewayTable,
    GroupTable,
    KeyTable,
    LimitsTable,
    PrefixesTable,
    RuleTable,
    ServerTable,
    TokensTable,
    TracingTable,
)
from fluidgate.gateway.quota_table import KeyLimits, QuotaTable, limits_of
from fluidgate.model import Scenario
from fluidgate.policies import PlacedPolicy, Policy, find_any_policy
from fluidgate.replanning.replanner import Replanning
from fluidgate.toml_file import STDIN, check, fail, parse_toml, read_text, shown, source_of
from fluidgate.unit_doubts import milliseconds

LONG_WAIT = 3600.0
"""s; the longest wait from which on its unit is doubted."""
LOOSE = 1e-3
"""By so much may shares come to more than 1, or less: they are written with few digits."""


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
        name: of the group: its own, its model's, or its scenario's.
        shares: of each class that come here, of several groups that serve one model; None where all do.
        stated: the scenario of the file; `scenario`, the same with rates per GPU for the engines of the file.
        policy: whose decisions are taken.
        limits: of the whole gateway; max_wait, max_waiting: by class.
        default_class: index.
        engine_key: what the engines ask for, if anything.
        engines_file: of URLs, watched; slot_dir: of llama.cpp engines.
        prefixes: what is known of the beginnings of prompts; bytes_per_token: of texts, at first.
    """

    source: str
    name: str
    stated: Scenario
    scenario: Scenario = field(compare=False)
    policy: Policy | PlacedPolicy
    model: str | None
    shares: tuple[float, ...] | None
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
    prefixes: PrefixesTable
    bytes_per_token: float

    def differs_lightly(self, other: GroupSettings) -> bool:
        """Whether `other` could take this one's place while its requests run: engines, rules, limits, names."""
        limits = ("limits", "max_wait", "max_waiting")
        light = ("aliases", "shares", "rules", *limits, "default_class", "engines", "source")
        mine = replace(self, **{name: getattr(other, name) for name in light})
        lists = {"urls": [], "pass_headers": [], "ask_usage": True}
        return mine == other and self.engines.model_copy(update=lists) == other.engines.model_copy(update=lists)


@dataclass(frozen=True)
class GatewaySettings:
    """A gateway file, read and checked.

    Attributes:
        groups: one a model, or several that share it.
        session_header: in lower case; None where sessions are not told apart.
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
    session_header: str | None = None
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
        settings = parse_gateway(read_text(path, "a gateway file"), source_of(path), Path(path).parent, policy=policy)
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
    if "gpu" in data and "engines" not in data:
        fail(source, ["a scenario, not a gateway file; write one that names it as scenario, and [engines]"])
    file = check(GatewayTable, data, source)
    for where, limits in (("limits", data.get("limits", {})), *_limits_of_classes(data)):
        if isinstance(limits, dict) and isinstance(wait := limits.get("max_wait"), int | float) and wait >= LONG_WAIT:
            warnings.warn(f"{source}: {milliseconds(f'{where}.max_wait', wait)}", UnitWarning, stacklevel=2)
    if found := list(_problems_of_whole(file)):
        fail(source, found)
    tables = [(f"groups[{k}].", each) for k, each in enumerate(file.groups)] or [("", file)]
    groups = tuple(_group(table, where, file, source, folder, policy) for where, table in tables)
    if found := [*_problems_of_names(groups), *_problems_of_shares(groups)]:
        fail(source, found)
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
        session_header=file.session_header.lower() if file.session_header else None,
    )


def _limits_of_classes(data: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for where, table in [("", data), *((f"groups[{k}].", each) for k, each in enumerate(data.get("groups", [])))]:
        yield from ((f"{where}classes[{k}]", each) for k, each in enumerate(table.get("classes", [])))


def _group(
    table: GroupTable, where: str, file: GatewayTable, source: str, folder: Path, policy: str | None
) -> GroupSettings:
    engines, named = table.engines, table.scenario
    assert engines is not None
    assert named is not None
    if not (folder / named).is_file():
        base = "the working folder" if source == STDIN else "this file"
        fail(source, [f"{where}scenario: no file {shown(str(folder / named))}; paths are relative to {base}"])
    scenario = Scenario.load(folder / named)
    chosen = _policy(table.policy, where, source, folder) if policy is None else find_any_policy(policy)
    keys = [each.name for each in file.keys]
    if found := list(_problems(table, engines, file.prefixes, keys, scenario, chosen)):
        fail(source, [f"{where}{problem}" for problem in found])
    limits = {each.name: each for each in table.classes}
    names = scenario.class_names

    def of(name: str, key: str) -> Any:
        own = getattr(limits[name], key) if name in limits else None
        return getattr(file.limits, key) if own is None else own

    numbers = file.replanning.model_dump(exclude={"enabled"})
    return GroupSettings(
        source=source,
        name=table.name or table.model or scenario.name,
        stated=scenario,
        scenario=scenario.for_gpus(max(1, len(engines.urls))),
        policy=chosen,
        model=table.model,
        shares=None if table.shares is None else tuple(table.shares.get(name, 0.0) for name in names),
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
        prefixes=file.prefixes,
        bytes_per_token=file.tokens.bytes_per_token,
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
    shared = {group.model for group in file.groups if group.shares is not None}
    alone = [group for group in file.groups if group.model not in shared]
    names = [name for group in alone for name in (group.model, *group.aliases)]
    for model in shared:
        names.extend({name for group in file.groups if group.model == model for name in (model, *group.aliases)})
    models = {group.model for group in file.groups}
    if len(file.groups) > 1 and None in models and (len(models) > 1 or None not in shared):
        yield "groups: each of several needs a model; name it"
    for name in sorted({name for name in names if name is not None and names.count(name) > 1}):
        yield f"groups: {shown(name)} stands twice; name each model once, or give groups of one model their shares"
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
    if file.tracing is not None and not is_base_url(file.tracing.endpoint):
        what = shown(file.tracing.endpoint)
        yield f"tracing.endpoint: {what} is no base URL; give one such as 'http://127.0.0.1:4318'"
    if file.admin is not None and (file.admin.env is None) == (file.admin.sha256 is None):
        yield "admin: needs env or sha256, and one of them only; give where the key is"


def _problems(
    file: GroupTable,
    engines: EnginesTable,
    prefixes: PrefixesTable,
    keys: list[str],
    scenario: Scenario,
    policy: Policy | PlacedPolicy,
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
        elif below := re.search(r"/v1(/.*)?$", url.rstrip("/")):
            path = below[0]
            yield f"engines.urls[{k}]: {shown(url)} is where the API lies, not the server; give it without '{path}'"
    places = [_place_of(url) for url in engines.urls]
    for k, place in enumerate(places):
        if (first := places.index(place)) < k:
            yield f"engines.urls[{k}]: {shown(engines.urls[k])} is the engine of engines.urls[{first}]; name it once"
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
        least, most = rule.min_prompt_tokens, rule.max_prompt_tokens
        if least is not None and most is not None and least > most:
            yield f"rules[{k}]: min_prompt_tokens {least} is above max_prompt_tokens {most}; exchange them"
    if prefixes.kv_events_port is not None and engines.kind not in ("vllm", "vllm-coupled"):
        yield f"prefixes.kv_events_port: {engines.kind} tells no KV events; remove this key"
    if isinstance(policy, PlacedPolicy) and not policy.only_places:
        yield f"policy: {shown(policy.name)} is more than a placement of requests; name another policy"


def _place_of(url: str) -> tuple[str, str, int | None, str]:
    """Where a URL leads, however it is written."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return url, "", None, ""
    host = (parts.hostname or "").rstrip(".")
    return parts.scheme, "127.0.0.1" if host == "localhost" else host, port, parts.path.rstrip("/")


def is_base_url(text: str) -> bool:
    """Whether it is the URL of a server: no user, query or fragment, and a port that there is."""
    if not re.fullmatch(r"https?://[^/?#\s@,${}\\<>|*]+(/[^?#\s]*)?", text):
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
    for name in file.shares or ():
        yield f"shares.{name}", name


def _problems_of_names(groups: Sequence[GroupSettings]) -> Iterator[str]:
    """One "KEY: REASON; MEND" for each name that more than one group goes by."""
    names = [group.name for group in groups]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"groups: two are called {shown(name)}; give each of them a name of its own"


def _problems_of_shares(groups: Sequence[GroupSettings]) -> Iterator[str]:
    """One "KEY: REASON; MEND" for what does not go together in groups that serve one model."""
    for model in dict.fromkeys(group.model for group in groups if group.shares is not None):
        (at, first), *others = [(k, group) for k, group in enumerate(groups) if group.model == model]
        if not others:
            yield f"groups[{at}].shares: no other group has its model; remove this key, or add that group"
            continue
        where, names = f"groups[{at}], which serves the same model", first.scenario.class_names
        for k, group in others:
            for key in ("aliases", "rules", "default_class"):
                if getattr(group, key) != getattr(first, key):
                    yield f"groups[{k}].{key}: differs from that of {where}; write the same"
            if group.scenario.class_names != names:
                yield f"groups[{k}].scenario: its classes are not those of {where}; give both the same, in one order"
        sharing = [first, *(group for _, group in others)]
        shares = [group.shares for group in sharing if group.shares is not None and len(group.shares) == len(names)]
        if len(shares) < len(sharing):
            yield f"groups[{at}].shares: all groups of one model need shares; give each of them those of every class"
            continue
        for name, each in zip(names, zip(*shares, strict=True), strict=True):
            if abs(sum(each) - 1.0) > LOOSE:
                yield f"groups: the shares of class {shown(name)} come to {sum(each):g} in all; make them come to 1"


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
