"""The scenario as it was sized, and the gateway file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit

from fluidgate.deployment.fleet import GATEWAY_PORT, Fleet
from fluidgate.scenario_file import dump_scenario
from fluidgate.toml_file import SCHEMA

HEADER = "x-class"
"""By which a client says the class of its request, where there are several."""


def scenario_text(fleet: Fleet) -> str:
    """The scenario, with the profile in the place of its times where these are the profile's."""
    scenario, profile = fleet.scenario, fleet.profile
    traces = tuple(_absolute(each) for each in scenario.lengths.traces)
    if traces:
        scenario = scenario.replace(lengths=scenario.lengths.model_copy(update={"traces": traces}))
    text = tomlkit.parse(dump_scenario(scenario, {"": f"{fleet.engines} engines, as `fluidgate size` found them."}))
    if profile is not None and profile.iteration == scenario.gpu.iteration:
        sizes = {"batch_size": scenario.gpu.batch_size, "chunk_size": scenario.gpu.chunk_size}
        gpu = tomlkit.table()
        gpu.update({"profile": profile.name, **sizes})
        text["gpu"] = gpu
        if scenario.engine.kv_tokens is None:  # else it would follow from the profile's card
            text.setdefault("engine", tomlkit.table())["kv_memory"] = "unlimited"
    return text.as_string()


def gateway_text(fleet: Fleet, engines: Mapping[str, Any]) -> str:
    """A gateway file before engines that are found by some keys of [engines]."""
    text = tomlkit.document()
    text.add(tomlkit.comment(f"The gateway before {fleet.engines} engines. Every key: docs/reference/gateway-file.md"))
    text.add("schema", SCHEMA)
    text.add("scenario", "scenario.toml")
    text.add("policy", policy_file(fleet)[0])
    server = tomlkit.table()
    server.update({"port": GATEWAY_PORT, "log": "off"})
    text["server"] = server
    found = tomlkit.table()
    found.add("kind", "vllm" if fleet.moves_kv else "vllm-coupled")
    for key, value in engines.items():
        item = tomlkit.item(value)
        found.add(key, item.multiline(True) if isinstance(item, tomlkit.items.Array) else item)
    text["engines"] = found
    rules = tomlkit.aot()
    for name, said in list(class_headers(fleet).items())[1:]:
        rule, header = tomlkit.table(), tomlkit.inline_table()
        header.add(HEADER, said)
        rule.update({"class": name, "header": header})
        rules.append(rule)
    if rules:
        text["rules"] = rules
    return text.as_string()


def class_headers(fleet: Fleet) -> dict[str, str]:
    """By class, what the header says of a request; requests that say nothing are of the first."""
    return {
        name: name
        if name.isascii() and name.isprintable() and name == name.strip() and ":" not in name
        else f"class-{k}"
        for k, name in enumerate(fleet.scenario.class_names, 1)
    }


def policy_file(fleet: Fleet) -> tuple[str, Path | None]:
    """How a gateway file beside it names the policy, and the file that then must lie there, if any."""
    path, mark, name = fleet.policy_name.partition(".py:")
    if mark:
        path = f"{path}.py"
        return f"{Path(path).name}:{name}", Path(path)
    if fleet.policy_name.endswith(".toml"):
        return Path(fleet.policy_name).name, Path(fleet.policy_name)
    return fleet.policy_name, None


def _absolute(trace: str) -> str:
    """A trace of lengths, which a scenario elsewhere names too."""
    cls, mark, path = trace.rpartition("=")
    return f"{cls}{mark}{Path(path).resolve()}"
