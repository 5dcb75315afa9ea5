"""The compiled code of dispatchers, made before a gateway needs it."""

from __future__ import annotations

from pathlib import Path

from fluidgate.compiled import is_on_disk
from fluidgate.compiled.disk import folder
from fluidgate.errors import FluidgateError
from fluidgate.gateway.dispatch.decisions import moves
from fluidgate.gateway.dispatch.gated import Gated
from fluidgate.gateway.dispatch.homes import Homes, ask_homes
from fluidgate.gateway.dispatch.loads import ask
from fluidgate.gateway.dispatch.placed import Placed
from fluidgate.gateway.prefixes import kernels
from fluidgate.model import Gpu, IterationTime, Pricing, RequestClass, Scenario
from fluidgate.planning import plan
from fluidgate.policies import find_policy
from fluidgate.replanning import Estimator
from fluidgate.replanning.estimator import note_event

SCENARIO = Scenario(
    name="any",
    gpu=Gpu(batch_size=2, chunk_size=64, iteration=IterationTime(alpha=0.02, beta=1e-4, gamma=50.0)),
    pricing=Pricing(scheme="bundled", prompt=1.0, output=1.0),
    classes=(RequestClass(name="any", prompt_tokens=64, output_tokens=64, arrival_rate=0.1, patience_rate=0.1),),
)
"""Any will do: the code is the same for all."""


def compile_decisions() -> None:
    """Have the decisions of every shipped policy compiled, and kept for later processes where that can be."""
    tables = find_policy("gate-and-route").tabulate(plan(SCENARIO, gpus=1), 1)
    Gated(tables, 1, 2, 1, estimator=Estimator(SCENARIO, 1, window=60.0), clock=lambda: 0.0)
    Homes(tables, 1, 1, None)
    Placed("lmetric", 1, 1, clock=lambda: 0.0)
    kernels.compile_all()


def kept_decisions() -> Path:
    """Compile them and say in which folder they are kept.

    Raises:
        FluidgateError: they are not.
    """
    compile_decisions()
    here = folder()
    if here is None or not all(is_on_disk(kernel) for kernel in (moves, ask, ask_homes, note_event, *kernels.ALL)):
        raise FluidgateError(f"nothing could be kept in {here or 'any folder'}; give XDG_CACHE_HOME one to write to")
    return here
