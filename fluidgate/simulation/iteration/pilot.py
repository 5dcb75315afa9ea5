"""The size of a prompt pool, found on the first requests that the policy is to meet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from fluidgate.model import Scenario
from fluidgate.policies import PlacedPolicy
from fluidgate.simulation.iteration.published import best_prompt_gpus
from fluidgate.simulation.iteration.run import Run
from fluidgate.simulation.iteration.scenario_engine import engine_of, targets_of
from fluidgate.simulation.iteration.source import Source
from fluidgate.workloads.streams import until


@dataclass(frozen=True)
class Pilot:
    """The run that found the size of a prompt pool.

    Attributes:
        requests: that it played, the first of the first replication.
        maximised: what the size is the best in.
    """

    requests: int
    maximised: str

    def to_dict(self) -> dict[str, Any]:
        return {"requests": self.requests, "maximised": self.maximised}


def with_prompt_pool(
    policy: PlacedPolicy, scenario: Scenario, source: Source, gpus: int
) -> tuple[PlacedPolicy, Pilot | None]:
    """The policy with a size of its prompt pool where it leaves that open, and the pilot run that found it.

    Args:
        scenario: its load shared by `gpus`.
        source: of the requests; the pilot plays the first of replication 0.

    Raises:
        FluidgateError: a request is wrong.
    """
    if not policy.has_pools or policy.values["prompt_gpus"] > 0:
        return policy, None
    most = 2 * int(policy.values["pilot"]) * gpus  # those that fill the cluster, and those that are counted
    requests = list(until(source.requests(0), math.inf, most))
    run = Run(gpus, len(scenario.classes), users=source.users, script=source.script(0), **targets_of(scenario))
    has_targets = any((*scenario.ttft_targets, *scenario.tpot_targets))
    pricing = None if has_targets else scenario.pricing
    size, _ = best_prompt_gpus(lambda: requests, engine_of(scenario, policy.batching), run, policy, pricing)
    earned = "revenue" if scenario.priced else "tokens"
    maximised = "requests within targets" if has_targets else earned
    pilot = Pilot(sum(map(len, requests)), f"{maximised}, then least mean latency")
    return policy.with_parameters({"prompt_gpus": size}), pilot
