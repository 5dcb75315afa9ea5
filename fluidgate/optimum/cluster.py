"""What the exact optimum and its bounds ask of a scenario and of the number of GPUs."""

from __future__ import annotations

from fluidgate.errors import FluidgateError
from fluidgate.model import Scenario
from fluidgate.planning import check_gpus


def checked_gpus(scenario: Scenario, gpus: int | None, what: str) -> int:
    """The number of GPUs, the scenario's own if none is given; `what` names what Poisson arrivals are needed for.

    Raises:
        FluidgateError: there is none, or arrivals have a memory.
    """
    gpus = gpus if gpus is not None else scenario.cluster_gpus
    if gpus is None:
        raise FluidgateError("--gpus: missing, and the scenario names no [cluster] gpus; say how many GPUs")
    check_gpus(gpus)
    if scenario.arrivals.process != "poisson":
        raise FluidgateError(
            f"arrivals.process: '{scenario.arrivals.process}' is no Markov decision process; "
            f"remove [arrivals] to see {what} with Poisson arrivals"
        )
    return gpus
