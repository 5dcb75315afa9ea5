"""The scenario as it was sized, and the gateway file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import tomlkit
from tomlkit import TOMLDocument
from tomlkit.items import Table

from fluidgate.deployment.fleet import GATEWAY_PORT, Fleet
from fluidgate.deployment.pool import EnginePool
from fluidgate.errors import FluidgateError
from fluidgate.scenario_file import dump_scenario
from fluidgate.toml_file import SCHEMA

HEADER = "x-class"
"""By which a client says the class of its request, where there are several."""
PLAIN = re.compile(r"[A-Za-z]([ -+\--9;-~]*[!-+\--9;-~])?")
"""A name that every load tool sends as it is: ASCII, no colon, no comma, no blank at its ends."""
WORDS = ("true", "false", "none", "null")
"""Of which aiperf makes something else."""
SESSION_HEADER = "x-correlation-id"
"""By which aiperf says the session of a request."""


def scenario_files(fleet: Fleet) -> dict[str, str]:
    """The scenario of each pool, by the name of its file."""
    return {pool.scenario_file: scenario_text(pool) for pool in fleet.pools}


def scenario_text(pool: EnginePool) -> str:
    """The scenario, with the profile in the place of its times where these are the profile's."""
    scenario, profile = pool.scenario, pool.profile
    traces = tuple(_absolute(each) for each in scenario.lengths.traces)
    if traces:
        scenario = scenario.replace(lengths=scenario.lengths.model_copy(update={"traces": traces}))
    text = tomlkit.parse(dump_scenario(scenario, {"": f"{pool.engines} engines, as `fluidgate size` found them."}))
    if profile is not None and profile.iteration == scenario.gpu.iteration:
        sizes = {"batch_size": scenario.gpu.batch_size, "chunk_size": scenario.gpu.chunk_size}
        gpu = tomlkit.table()
        gpu.update({"profile": profile.name, **sizes})
        text["gpu"] = gpu
        if scenario.engine.kv_tokens is None:  # else it would follow from the profile's card
            text.setdefault("engine", tomlkit.table())["kv_memory"] = "unlimited"
    return text.as_string()


def gateway_text(fleet: Fleet, urls: Mapping[str, Sequence[str]], log: str) -> str:
    """A gateway file before the engines of each pool, by its label; `log` is where its request log goes."""
    text = tomlkit.document()
    text.add(tomlkit.comment(f"The gateway before {fleet.engines} engines. Every key: docs/reference/gateway-file.md"))
    text.add("schema", SCHEMA)
    if not fleet.mixed:
        _write_group(text, fleet, fleet.pools[0], urls[""])
    elif fleet.load.has_sessions:
        text.add("session_header", SESSION_HEADER)
    server = tomlkit.table()
    server.update({"port": GATEWAY_PORT, "log": log})
    text["server"] = server
    if fleet.mixed:
        groups = tomlkit.aot()
        for pool in fleet.pools:
            group = tomlkit.table()
            group.add("name", pool.label)
            if fleet.model is not None:
                group.add("model", fleet.model)
            _write_group(group, fleet, pool, urls[pool.label])
            groups.append(group)
        text["groups"] = groups
    return text.as_string()


def _write_group(group: TOMLDocument | Table, fleet: Fleet, pool: EnginePool, urls: Sequence[str]) -> None:
    """The keys of the engines of one pool."""
    group.add("scenario", pool.scenario_file)
    group.add("policy", policy_file(pool)[0])
    if pool.shares is not None:
        shares = tomlkit.inline_table()
        shares.update(_whole(pool.shares))
        group.add("shares", shares)
    found = tomlkit.table()
    found.add("kind", "vllm" if pool.moves_kv else "vllm-coupled")
    found.add("urls", tomlkit.item(list(urls)).multiline(True))
    group["engines"] = found
    rules = tomlkit.aot()
    for rule in _rules(fleet):
        rules.append(rule)
    if rules:
        group["rules"] = rules


def _rules(fleet: Fleet) -> Iterator[Table]:
    for name, said in list(class_headers(fleet).items())[1:]:
        rule, header = tomlkit.table(), tomlkit.inline_table()
        header.add(HEADER, said)
        rule.update({"class": name, "header": header})
        yield rule


def class_headers(fleet: Fleet) -> dict[str, str]:
    """By class, what the header says of a request; requests that say nothing are of the first."""
    return {
        name: name if PLAIN.fullmatch(name) and name.lower() not in WORDS else f"class-{k}"
        for k, name in enumerate(fleet.load.class_names, 1)
    }


def policy_files(fleet: Fleet) -> dict[str, Path]:
    """The files of policies that must lie beside a gateway file, by name.

    Raises:
        FluidgateError: two files have one name.
    """
    found: dict[str, Path] = {}
    for pool in fleet.pools:
        name, path = policy_file(pool)
        if path is None:
            continue
        name = name.partition(":")[0]
        if found.setdefault(name, path) != path:
            raise FluidgateError(
                f"--save: two policy files are called '{name}', which can't lie in one folder; rename one"
            )
    return found


def policy_file(pool: EnginePool) -> tuple[str, Path | None]:
    """How a gateway file beside it names the policy, and the file that then must lie there, if any."""
    path, mark, name = pool.policy_name.partition(".py:")
    if mark:
        path = f"{path}.py"
        return f"{Path(path).name}:{name}", Path(path)
    if pool.policy_name.endswith(".toml"):
        return Path(pool.policy_name).name, Path(pool.policy_name)
    return pool.policy_name, None


def _absolute(trace: str) -> str:
    """A trace of lengths, which a scenario elsewhere names too."""
    cls, mark, path = trace.rpartition("=")
    return f"{cls}{mark}{Path(path).resolve()}"


def _whole(shares: Mapping[str, float]) -> dict[str, float]:
    """Shares as they are read in a file: six digits do."""
    return {name: round(share, 6) for name, share in shares.items()}
