"""The rules for which the gateway looks for beginnings of prompts are those whose choice depends on them."""

from __future__ import annotations

import pytest

from fluidgate.gateway.dispatch.loads import EngineLoads
from fluidgate.gateway.group import READ_REUSE
from fluidgate.policies.decisions.placement import Criteria, Reuse, no_reuse
from fluidgate.policies.decisions.tables import Placement


def at(engine: int) -> Reuse:
    """All but one of a thousand tokens on one engine."""
    reuse = no_reuse()
    reuse.count[0], reuse.gpu[0], reuse.tokens[0] = 1, engine, 999
    return reuse


def chosen(rule: str, engine: int) -> int:
    loads = EngineLoads(rule, 4, 7, Criteria(share=0.5, tolerance=1e6, apart=100.0, ratio=2.0))
    for g in range(4):
        loads.set_up(g, True)
        loads.change(g, 1, 100)
    return loads.place(1_000, at(engine))


@pytest.mark.parametrize("rule", [each for each in Placement if each is not Placement.POOLS])
def test_a_rule_reads_reuse_if_it_goes_where_the_beginning_is(rule: Placement) -> None:
    name = rule.name.lower().replace("_", "-")
    follows = [chosen(name, engine) for engine in (2, 3)] == [2, 3]
    assert follows == (name in READ_REUSE)
