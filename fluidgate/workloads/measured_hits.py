"""What the prompts of traces find in the memories of a cluster, and what a plan makes of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fluidgate.errors import FluidgateError, InfeasiblePlanError
from fluidgate.model import Scenario
from fluidgate.planning import plan
from fluidgate.planning.cached import CachedPlan, at_memories, plan_with_cache
from fluidgate.shown import Brief
from fluidgate.workloads.build import Workload
from fluidgate.workloads.hit_curve import HitCurve, hit_curve
from fluidgate.workloads.sending import in_order_of_sending
from fluidgate.workloads.streams import ClassTrace, Replay, replayed_requests, replayed_script

MULTIPLES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Of the scenario's KV memory, at which is said what memory buys; and one without end."""


@dataclass(frozen=True, eq=False, repr=False)
class Curves(Brief):
    """The hit rate of traces against the memory of a GPU.

    Attributes:
        gpus: that share the requests.
        together: where each session stays with one.
        spread: where each request goes to the next GPU.
    """

    gpus: int
    together: HitCurve
    spread: HitCurve


@dataclass(frozen=True, eq=False, repr=False)
class MeasuredHits(Curves):
    """Hit rates of traces on the GPUs of a cluster, and the plans that go with them.

    Attributes:
        found: the plan at the scenario's own memory, sessions together.
        memories: KV tokens of a GPU, inf for no end; none but that where the scenario's has no end.
        steps: the plan at each of them; None where there is none.
    """

    found: CachedPlan
    memories: tuple[float, ...]
    steps: tuple[CachedPlan | None, ...]

    def records(self) -> list[dict[str, Any]]:
        """One for each memory, as in the JSON object; null for one without end, and for what there is no plan for."""
        return [self._record(memory, step) for memory, step in zip(self.memories, self.steps, strict=True)]

    @property
    def money(self) -> str:
        """The key of what plans bring: tokens/s without prices."""
        return "objective" if self.found.plan.scenario.priced else "token_rate"

    def _record(self, memory: float, step: CachedPlan | None) -> dict[str, Any]:
        left = step.memory if step is not None else 0.0
        return {
            "kv_tokens": int(memory) if math.isfinite(memory) else None,
            "planned": step is not None,
            "cache_tokens": left if step is not None and math.isfinite(left) else None,
            "prefix_hit_rate": self.together.rate(left) if step is not None else None,
            "spread_hit_rate": self.spread.rate(left) if step is not None else None,
            "mixed_fraction": step.plan.mixed_fraction if step is not None else None,
            self.money: step.plan.objective if step is not None else None,
            "converged": step is not None and step.converged,
        }

    def to_dict(self) -> dict[str, Any]:
        """As in the JSON object of `plan`."""
        finite = math.isfinite(self.found.memory)
        return {
            "gpus": self.gpus,
            "cache_tokens": self.found.memory if finite else None,
            "converged": self.found.converged,
            "memories": self.records(),
        }


def measured_hits(
    scenario: Scenario,
    traces: Sequence[ClassTrace],
    *,
    gpus: int | None = None,
    sessions_rate: float | None = None,
    seed: int = 0,
) -> MeasuredHits:
    """Measure what the prompts of traces find on each GPU, and plan with it.

    Answers of sessions take as long as the TPOT of a plan to which all is found; prompts take no time.

    Args:
        scenario: with prefix caching.
        traces: of its classes.
        gpus: that share the requests; None for one, or those of [cluster].
        sessions_rate: starts of sessions a second, where traces do not say when.
        seed: of these starts.

    Raises:
        FluidgateError: the scenario has no prefix caching, its users form a closed loop, or a trace is wrong.
        InfeasiblePlanError: as in `plan`.
    """
    if scenario.arrivals.closed:
        raise FluidgateError(
            f"scenario '{scenario.name}': arrivals.process: in a closed loop nobody knows when requests are sent, nor "
            "what is in memory then; give another process, or run `fluidgate replay`"
        )
    count = gpus or scenario.cluster_gpus or 1
    tpot = plan(scenario, gpus=gpus).tpot if any(each.trace.by_answers for each in traces) else 0.0
    curves = measured_curves(scenario, traces, count, token_seconds=tpot, sessions_rate=sessions_rate, seed=seed)
    together = curves.together
    whole = scenario.engine.kv_tokens
    memories = (*(whole * k for k in MULTIPLES), math.inf) if whole is not None else (math.inf,)
    return MeasuredHits(
        gpus=count,
        together=together,
        spread=curves.spread,
        found=plan_with_cache(scenario, together.rates, gpus=gpus),
        memories=memories,
        steps=tuple(at_memories(scenario, together.rates, memories, gpus=gpus)),
    )


def measured_curves(
    scenario: Scenario,
    traces: Sequence[ClassTrace],
    gpus: int,
    *,
    token_seconds: float,
    sessions_rate: float | None = None,
    seed: int = 0,
) -> Curves:
    """Measure what the prompts of traces find on each GPU, whatever its memory.

    Args:
        scenario, traces, sessions_rate, seed: as of `measured_hits`.
        gpus: that share the requests.
        token_seconds: that a token of an answer takes, where requests wait for answers, s.

    Raises:
        FluidgateError: a trace is wrong.
    """
    replay = Replay(sessions_rate=sessions_rate)
    first = np.concatenate(list(replayed_requests(scenario, traces, replay, seed=seed)))
    script = replayed_script(scenario, traces, replay, seed=seed)
    requests, sessions = in_order_of_sending(first, script, token_seconds)
    known = sessions if len(script.rows) > 1 else None

    def curve(*, stay: bool) -> HitCurve:
        block, classes = scenario.engine.kv_block, len(scenario.classes)
        return hit_curve(
            script.pieces, requests, block=block, gpus=gpus, together=stay, sessions=known, classes=classes
        )

    together = curve(stay=True)
    return Curves(gpus, together, curve(stay=False) if gpus > 1 else together)


def curves_of(made: Workload) -> Curves:
    """What the prompts of a workload's traces find on each of its GPUs, whatever their memory.

    A token of an answer takes the TPOT of the scenario's plan; no time where there is no plan.

    Raises:
        FluidgateError: the traces do not say what prompts have in common.
    """
    if made.prefix_share is None:
        raise FluidgateError(
            "--plot: the traces do not say what prompts have in common, and there is no hit rate to draw; leave it out"
        )
    traces = [ClassTrace(trace, np.zeros(len(trace), np.int32)) for trace in made.joined]
    scenario = made.scenario.replace(classes=made.scenario.classes[:1])
    try:
        tpot = plan(made.scenario).tpot
    except InfeasiblePlanError:
        tpot = 0.0
    rate = made.sessions_rate
    return measured_curves(scenario, traces, made.scenario.cluster_gpus or 1, token_seconds=tpot, sessions_rate=rate)
