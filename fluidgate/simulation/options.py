"""What is asked of a simulation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from fluidgate.errors import FluidgateError
from fluidgate.model import Scenario
from fluidgate.planning import check_gpus
from fluidgate.replanning import Replanning
from fluidgate.shown import Brief, rate, several

HORIZON = 10_000.0
REPLICATIONS = 5
MOST_REPLICATIONS = 1_000_000
SAMPLES = 65
"""Points of the path that every simulation records anyhow, to see queues grow."""


@dataclass(frozen=True, repr=False)
class Options(Brief):
    """The options of a simulation, the same for every policy of a comparison; results are shown with them.

    Attributes:
        gpus: n.
        horizon: s; inf to go on until the last request has left.
        warmup: s; statistics are taken over (warmup, horizon].
        replications: independent ones.
        seed: of all random numbers.
        fidelity: of the simulation, by name.
        samples: how many times the occupancies are recorded, evenly.
        audited: whether every invariant is checked after every event.
        users, think, think_law: of a closed loop; None, 0 and fixed where requests come by themselves.
        replanning: the rule of names with `+replan`; None for the default one.
    """

    gpus: int
    horizon: float
    warmup: float
    replications: int
    seed: int
    fidelity: str = "markov"
    samples: int = field(default=0, repr=False, compare=False)
    audited: bool = field(default=False, repr=False, compare=False)
    replanning: Replanning | None = field(default=None, repr=False, compare=False)
    users: int | None = None
    think: float = 0.0
    think_law: str = "fixed"

    def headline(self) -> str:
        until = "to the end" if math.isinf(self.horizon) else f"{rate(self.horizon)} s"
        runs = f"{several(self.replications, 'replication')}, seed {self.seed}, fidelity {self.fidelity}"
        users = "" if self.users is None else f", {several(self.users, 'user')}"
        return f"{several(self.gpus, 'GPU')}, {until}, {runs}{users}"

    @staticmethod
    def checked(
        scenario: Scenario,
        *,
        gpus: int | None = None,
        horizon: float = HORIZON,
        warmup: float | None = None,
        replications: int = REPLICATIONS,
        seed: int = 0,
        **others: Any,
    ) -> Options:
        """The options of a simulation of `scenario`, with their defaults.

        Args:
            gpus: None for the scenario's own.
            warmup: None for a tenth of the horizon.
            others: the other attributes.

        Raises:
            FluidgateError: naming the option and the mend.
        """
        gpus = gpus_of(scenario, gpus)
        if not (math.isfinite(horizon) and horizon > 0):
            raise FluidgateError(f"--horizon: must be a time above 0 s, but is {horizon:g}")
        warmup = horizon / 10 if warmup is None else warmup
        if not 0 <= warmup < horizon:
            raise FluidgateError(
                f"--warmup: must be at least 0 and below the horizon ({horizon:g} s), but is {warmup:g}"
            )
        check_draws(replications, seed)
        if others.get("samples", 0) < 0:
            raise FluidgateError(f"samples: must be at least 0, but is {others['samples']}")
        return Options(gpus, float(horizon), float(warmup), replications, seed, **others, **loop_of(scenario))

    def to_dict(self) -> dict[str, Any]:
        return {
            "gpus": self.gpus,
            "horizon": None if math.isinf(self.horizon) else self.horizon,
            "warmup": self.warmup,
            "replications": self.replications,
            "seed": self.seed,
            "fidelity": self.fidelity,
            **({name: getattr(self, name) for name in LOOP} if self.users is not None else {}),
        }


LOOP = ("users", "think", "think_law")
"""Options of a closed loop."""


def loop_of(scenario: Scenario) -> dict[str, Any]:
    """Those of a scenario."""
    return {name: getattr(scenario.arrivals, name) for name in LOOP}


def gpus_of(scenario: Scenario, gpus: int | None) -> int:
    """The number of GPUs asked for, or the scenario's own.

    Raises:
        FluidgateError: there is none, or it is out of range.
    """
    found = gpus if gpus is not None else scenario.cluster_gpus
    if found is None:
        raise FluidgateError("--gpus: missing, and the scenario names no [cluster] gpus; say how many GPUs")
    check_gpus(found)
    return found


def check_draws(replications: int, seed: int) -> None:
    """Refuse a number of replications or a seed that there can't be.

    Raises:
        FluidgateError: naming the option.
    """
    if replications < 1:
        raise FluidgateError(f"--replications: must be at least 1, but is {replications}")
    if replications > MOST_REPLICATIONS:
        raise FluidgateError(f"--replications: must be at most {MOST_REPLICATIONS:,}, but is {replications}")
    if seed < 0:
        raise FluidgateError(f"--seed: must be at least 0, but is {seed}")
