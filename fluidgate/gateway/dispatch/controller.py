"""The plan in force: solved again as the load moves or engines come and go, and handed to the dispatcher."""

from __future__ import annotations

import asyncio
import logging
from threading import Lock
from typing import Any

from fluidgate.gateway.dispatch.dispatcher import Clock, Dispatcher
from fluidgate.model import Scenario
from fluidgate.planning import Plan
from fluidgate.policies import Policy
from fluidgate.policies.decisions.tables import Tables, coupled, paired
from fluidgate.replanning import Estimator, Replanner, Replanning, Solved

log = logging.getLogger("fluidgate.gateway")

NEVER = Replanning(period=float("inf"), moved=float("inf"))
"""The rule of a plan that follows no load."""


class Controller:
    """Keeps a policy's tables up to date.

    Attributes:
        replanner: holds the estimates and the plan; the rule is that of the simulators.
        engines: for how many the tables are made.
    """

    def __init__(
        self,
        scenario: Scenario,
        policy: Policy,
        engines: int,
        rule: Replanning | None,
        *,
        stays: bool,
        pairs: bool = False,
        group: str = "",
        now: float,
    ) -> None:
        """
        Args:
            rule: when the plan is solved again; None for a plan that stands.
            stays: whether decodes stay on the engine of their prefill.
            pairs: whether engines either read prompts or write answers.
            group: whose plan it is, for the log.

        Raises:
            InfeasiblePlanError: the scenario has no plan.
        """
        self._ranks = scenario.engine.data_parallel
        self.replanner = Replanner(scenario, policy, engines * self._ranks, rule or NEVER, start=now)
        self._stays = stays
        self._pairs = pairs
        self._whose = f" for {group}" if group else ""
        self._solved_at = now
        self._happened = -1
        self._one_at_a_time = Lock()
        self._dispatcher: Dispatcher | None = None

    @property
    def estimator(self) -> Estimator:
        return self.replanner.estimator

    @property
    def plan(self) -> Plan:
        return self.replanner.plan

    @property
    def engines(self) -> int:
        """So many, each of as many GPUs as step together in it."""
        return self.replanner.gpus // self._ranks

    @property
    def tables(self) -> Tables:
        """In force, in the form that the engines can follow."""
        tables = self.replanner.tables
        if self._ranks > 1:  # each engine is mixed or solo as a whole
            tables = tables._replace(mixed_gpus=-(-int(tables.mixed_gpus) // self._ranks), homing=False)
        if self._pairs:
            return paired(tables)
        return coupled(tables, self.engines) if self._stays else tables

    def steer(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def follow(self, clock: Clock) -> None:
        """Look at the estimates whenever a look is due, until cancelled."""
        while True:
            await asyncio.sleep(max(0.0, self.replanner.next_look - clock()))
            try:
                await self.look(clock())
            except Exception:
                log.exception("the plan could not be solved again; the one in force stays")

    async def look(self, now: float) -> None:
        """Look at the estimates, unless nothing has happened since. A plan is solved beside the event loop."""
        happened = 0 if self._dispatcher is None else self._dispatcher.happened
        if self._dispatcher is not None and happened == self._happened:
            self.replanner.skip(now)
            return
        self._happened = happened
        solved = await asyncio.to_thread(self._look, now)
        if solved is None:
            return
        self._solved_at = now
        if solved.changed:
            self._hand_on("the load has moved")

    def resize(self, engines: int, now: float) -> None:
        """So many engines are up."""
        if engines > 0 and engines != self.engines:
            solved_before = self.replanner.solved
            with self._one_at_a_time:
                self.replanner.resize(engines * self._ranks, now)
            if self.replanner.solved > solved_before:
                self._solved_at = now
            self._hand_on("1 engine is up" if engines == 1 else f"{engines} engines are up")

    def _look(self, now: float) -> Solved | None:
        with self._one_at_a_time:
            return self.replanner.look(now)

    def _hand_on(self, why: str) -> None:
        if self._dispatcher is not None:
            self._dispatcher.adopt(self.tables)
        log.info("new plan%s: %s", self._whose, why)

    def to_dict(self, now: float) -> dict[str, Any]:
        """The plan and the load it is for."""
        plan, load, n = self.plan, self.estimator.at(now), self.replanner.gpus
        names = plan.scenario.class_names
        return {
            "engines": self.engines,
            "age": now - self._solved_at,
            "solved": self.replanner.solved,
            "kept": self.replanner.kept,
            "revenue_rate": plan.revenue_rate * n if plan.scenario.priced else 0.0,
            "mixed_engines": int(self.tables.mixed_gpus),
            "targets": {
                name: {
                    "prefill": n * float(plan.prefill[i]),
                    "prefill_queue": n * float(plan.prefill_queue[i]),
                    "mixed_decode": n * float(plan.mixed_decode[i]),
                    "solo_decode": n * float(plan.solo_decode[i]),
                    "decode_queue": n * float(plan.decode_queue[i]),
                }
                for i, name in enumerate(names)
            },
            "estimates": {
                name: {
                    "arrival_rate": n * float(load.arrival[i]),
                    "prompt_tokens": float(load.prompt[i]),
                    "output_tokens": float(load.output[i]),
                    "patience_rate": float(load.patience[i]),
                }
                for i, name in enumerate(names)
            },
        }
