"""A choice under a load, and the least that it needs by the program."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fluidgate.batching import Batching
from fluidgate.errors import FluidgateError
from fluidgate.planning.batches.need import Need, need
from fluidgate.policies import find_any_policy
from fluidgate.sizing.choices import Choice
from fluidgate.sizing.closed_loop import least_share
from fluidgate.sizing.floor import Floor
from fluidgate.sizing.load import Load
from fluidgate.sizing.search import least_engines
from fluidgate.sizing.targets import least_served

LARGEST_FLEET = 100_000
"""Engines of a fleet, at most: what takes more is sized in parts."""


@dataclass(frozen=True)
class Bounded:
    """A choice, how much of a GPU its load needs at least, and from where its policy runs.

    Attributes:
        ranks: that the load needs in the long run, as a fraction, as a simulation counts GPUs.
        engines: that could serve it at all.
        least: of those on, the first on which the policy runs.
        floor: a target that no number of engines keeps; None if that is not known before.
    """

    choice: Choice
    need: Need
    ranks: float
    engines: int
    least: int
    floor: Floor | None = None

    @staticmethod
    def of(choice: Choice, load: Load) -> Bounded:
        """By the program.

        Raises:
            FluidgateError: the policy runs on no number of these engines, or the load needs more than are simulated.
        """
        policy = find_any_policy(choice.policy).on(choice.scenario)
        cluster = choice.scenario.cluster_gpus or 1
        found = need(choice.scenario, Batching(policy.batching), least_served(choice.scenario, load.targets))
        ranks = load.bounded(found.gpus * cluster) * least_share(choice.scenario, load.targets)
        engines = max(1, math.ceil(ranks / choice.ranks * (1.0 - 1e-6)))
        if engines > LARGEST_FLEET:
            raise FluidgateError(
                f"the load needs at least {engines:,} engines, more than the {LARGEST_FLEET:,} that are "
                "simulated; size a part of it, by a smaller --rate-scale or lower rates"
            )
        return Bounded(choice, found, found.gpus * cluster, engines, least_engines(choice, load, engines))

    @property
    def hourly(self) -> float:
        return self.choice.hourly(self.least)

    @property
    def hourly_in_fractions(self) -> float:
        """Of the load in the long run."""
        return self.choice.hourly(self.ranks / self.choice.ranks)
