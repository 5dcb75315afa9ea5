"""A policy: a plan turned into tables, plus at most three small decision functions."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from fluidgate.model import Scenario, Scheme
from fluidgate.planning import Plan
from fluidgate.policies.tables import Tables

Origin = Literal["paper", "baseline", "published", "ours", "user"]


@dataclass(frozen=True)
class Program:
    """Which fluid program feeds a policy.

    Attributes:
        scheme: pricing scheme of the objective; None for the scenario's own.
        allow_decode_buffer: False imposes q_d = 0.
    """

    scheme: Scheme | None = None
    allow_decode_buffer: bool = True

    def key(self, scenario: Scenario) -> tuple[Scheme, bool]:
        """Programs with the same key have the same plan."""
        return self.scheme or scenario.pricing.scheme, self.allow_decode_buffer


@dataclass(frozen=True)
class Policy:
    """A policy by name.

    Attributes:
        name, origin, summary: as `fluidgate policies` lists them.
        program: the fluid program whose plan it reads.
        tabulate: `tabulate(plan, gpus) -> Tables`.
        gate, route, refill: decision functions in the place of the shipped ones (None), with the same arguments: see
            `fluidgate.policies.gate` and `fluidgate.policies.router`. They are compiled, so they use numbers, loops and
            the fields of `View` and `Tables`, and make no arrays.
        key: names the functions across processes, so that each compiles them once; set by `for_worker`.
    """

    name: str
    origin: Origin
    summary: str
    program: Program
    tabulate: Callable[[Plan, int], Tables]
    gate: Callable[..., int] | None = None
    route: Callable[..., int] | None = None
    refill: Callable[..., int] | None = None
    key: str = ""

    @property
    def is_data(self) -> bool:
        """Whether the policy is tables alone, run by the shipped decision functions."""
        return self.gate is None and self.route is None and self.refill is None

    def for_worker(self) -> Policy:
        """What a worker needs of the policy once its tables are made; `key` still names its functions there."""
        return replace(self, tabulate=_tabulated_before, key=self.key or _key(self.gate, self.route, self.refill))

    def with_functions(
        self,
        name: str,
        *,
        gate: Callable[..., int] | None = None,
        route: Callable[..., int] | None = None,
        refill: Callable[..., int] | None = None,
        tabulate: Callable[[Plan, int], Tables] | None = None,
        summary: str = "a user's policy",
    ) -> Policy:
        """This policy under another name with some of its parts replaced."""
        changes: dict[str, Any] = {
            "gate": gate or self.gate,
            "route": route or self.route,
            "refill": refill or self.refill,
            "tabulate": tabulate or self.tabulate,
            "key": "",
        }
        return replace(self, name=name, origin="user", summary=summary, **changes)


_named: dict[str, tuple[Callable[..., int] | None, ...]] = {}
"""Functions that have a key, kept alive so that no other takes their identity."""


def _key(*functions: Callable[..., int] | None) -> str:
    key = "-".join(str(part) for part in (os.getpid(), *map(id, functions)))
    _named[key] = functions
    return key


def _tabulated_before(plan: Plan, gpus: int) -> Tables:
    raise RuntimeError("the tables of this policy were made before it was sent to a worker")
