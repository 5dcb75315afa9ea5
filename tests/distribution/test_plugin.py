"""The example of a package that brings a policy, a profile and a reader, installed beside the wheel and used."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.distribution.bare import Bare
from tests.distribution.conftest import Built

SMALL = ("--gpus", "4", "--horizon", "50", "--replications", "2", "--json")
GATEWAY = '''
import asyncio
from pathlib import Path
from fluidgate import plan
from fluidgate.gateway.dispatch.gated import Gated
from fluidgate.gateway.dispatch.ticket import Ticket
from fluidgate.gateway.gateway_file import parse_gateway

(group,) = parse_gateway(Path("examples/plugged.toml").read_text(), "plugged.toml", Path("examples")).groups
print(group.policy.name, group.policy.origin)

async def stages():
    """Of a request of each class, once an engine is up: a token of the second class's answers is dearer."""
    tables = group.policy.tabulate(plan(group.scenario, gpus=1), 1)
    dispatcher = Gated(tables, 1, 4, 2, functions=group.policy.functions, clock=lambda: 0.0)
    tickets = Ticket(0, 10), Ticket(1, 10)
    for ticket in tickets:
        dispatcher.enter(ticket)
    dispatcher.engine_up(0, 0)
    return [ticket.stage.value for ticket in tickets]

print(*asyncio.run(stages()))
'''


@pytest.fixture(scope="module")
def plugged(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Bare:
    """An environment with the wheel, and with the plugin that came with it."""
    made = Bare.made(tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("elsewhere"))
    made.install(built.wheel)
    made.run("fluidgate", "examples", ".")
    made.install(made.place / "examples" / "plugin")
    return made


def read(bare: Bare, *words: str) -> Any:
    return json.loads(bare.run("fluidgate", *words))


def test_lists_say_whose_they_are(plugged: Bare) -> None:
    policies = {each["name"]: each["origin"] for each in read(plugged, "policies", "--json")["policies"]}
    profiles = {each["name"]: each["origin"] for each in read(plugged, "profiles", "--json")["profiles"]}
    formats = {each["name"]: each["origin"] for each in read(plugged, "workload", "--formats", "--json")["formats"]}
    found = (policies["dearest-first"], profiles["example-gpu/example-8b"], formats["example-log"])
    assert found == ("fluidgate-example",) * 3
    assert (policies["gate-and-route"], profiles["h100/llama-3.1-8b"], formats["Azure"]) == (
        "paper",
        "fluidgate",
        "fluidgate",
    )


def test_its_trace_and_its_profile_make_a_plan(plugged: Bare) -> None:
    trace = ("examples/plugin/requests.log", "--gpus", "1", "--profile", "example-gpu/example-8b")
    plugged.run("fluidgate", "workload", *trace, "-o", "logged.toml")
    plan = read(plugged, "plan", "logged.toml", "--json")
    assert {each["name"] for each in plan["classes"]} == {"chat", "code"}


def test_its_policy_is_simulated_here_and_in_workers(plugged: Bare) -> None:
    command = ("compare", "examples/two-class.toml", "--policies", "gate-and-route,dearest-first", *SMALL)
    here, there = (read(plugged, *command, "--workers", workers)["policies"] for workers in ("1", "2"))
    assert [each["policy"] for each in here] == ["gate-and-route", "dearest-first"]
    rates = [each["revenue_rate"] for each in here]
    assert rates == [each["revenue_rate"] for each in there]
    assert rates[0]["mean"] != rates[1]["mean"]


def test_its_policy_decides_in_a_gateway(plugged: Bare) -> None:
    file = plugged.place / "examples" / "gateway.toml"
    text = file.read_text("utf-8")
    changed = text.replace('policy = "gate-and-route"', 'policy = "dearest-first"')
    assert changed != text
    file.with_name("plugged.toml").write_text(changed, "utf-8")
    named, stages = plugged.run("python", "-c", GATEWAY).splitlines()
    assert named.split() == ["dearest-first", "fluidgate-example"]
    assert stages.split() == ["waiting", "prefill"]
