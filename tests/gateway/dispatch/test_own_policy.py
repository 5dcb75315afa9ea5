"""A policy of a user's own in the gateway: its functions decide, and a bad answer loses no request."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path

import pytest

from fluidgate import find_policy, plan
from fluidgate.gateway.dispatch.fleet import problems
from fluidgate.gateway.dispatch.gated import Gated
from fluidgate.gateway.dispatch.ticket import Stage, Ticket
from fluidgate.gateway.gateway_file import parse_gateway
from fluidgate.policies import Policy
from fluidgate.policies.decisions.view import HOLD
from tests.scenarios import two_class_scenario

SCENARIO = two_class_scenario()


def never(view, tables):  # type: ignore[no-untyped-def]
    return HOLD


def nobody(view, tables):  # type: ignore[no-untyped-def]
    return 7


def nowhere(view, tables, cls, draw):  # type: ignore[no-untyped-def]
    return 99


def gated(policy: Policy) -> Gated:
    tables = policy.tabulate(plan(SCENARIO, gpus=2), 2)
    dispatcher = Gated(tables, 2, 4, 2, functions=policy.functions, clock=lambda: 0.0)
    for g in range(2):
        dispatcher.engine_up(g, 0)
    return dispatcher


def test_its_gate_decides() -> None:
    async def run() -> None:
        holding = gated(find_policy("fg-sp").with_functions("mine", gate=never))
        ticket = Ticket(0, 10)
        holding.enter(ticket)
        assert ticket.stage is Stage.WAITING

    asyncio.run(run())


@pytest.mark.parametrize(
    ("functions", "words"),
    [
        ({"gate": nobody}, r"test_own_policy.py, line \d+: decision function 'nobody': the gate named a class"),
        ({"route": nowhere}, r"test_own_policy.py, line \d+: decision function 'nowhere': the route is none of"),
    ],
)
def test_after_a_bad_answer_the_policy_it_is_made_from_decides(
    functions: dict, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        dispatcher = gated(find_policy("fg-sp").with_functions("mine", **functions))
        tickets = [Ticket(k % 2, 10) for k in range(8)]
        for ticket in tickets:
            dispatcher.enter(ticket)
        while any(ticket.stage is not Stage.DONE for ticket in tickets):
            served = [ticket for ticket in tickets if ticket.stage in (Stage.PREFILL, Stage.DECODE)]
            assert served, "somebody is served as long as somebody is there"
            for ticket in served:
                if ticket.stage is Stage.PREFILL:
                    dispatcher.prompt_read(ticket, 10)
                else:
                    dispatcher.leave(ticket)
            assert problems(dispatcher.fleet) == []

    with caplog.at_level(logging.ERROR, logger="fluidgate.gateway"):
        asyncio.run(run())
    assert len(caplog.records) == 1
    assert re.search(words, caplog.records[0].getMessage())


def test_a_gateway_file_names_it_by_a_path_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from fluidgate import find_policy\n"
        "def gate(view, tables):\n    return -1\n"
        "MINE = find_policy('fg-sp').with_functions('mine', gate=gate)\n"
    )
    (tmp_path / "two.toml").write_text((Path(__file__).parents[3] / "examples/two-class.toml").read_text())
    text = (
        'schema = 1\nscenario = "two.toml"\npolicy = "mine.py:MINE"\n'
        '[engines]\nkind = "vllm"\nurls = ["http://127.0.0.1:1"]\n'
    )
    policy = parse_gateway(text, "g.toml", tmp_path).groups[0].policy
    assert isinstance(policy, Policy)
    assert policy.gate is not None
