"""Compile every kernel that is shipped, on all cores at once: `python -m tests.warm_kernels`.

Tests that run side by side then find them on disk, and none compiles what another has.
"""

from __future__ import annotations

import sys

from fluidgate import Scenario, fluid_trajectory, plan, simulate
from fluidgate.execution import default_executor
from fluidgate.gateway.dispatch.compilation import compile_decisions
from fluidgate.model import EngineModel, Targets
from fluidgate.optimum import bound, optimum
from tests.scenarios import two_class_scenario

SIMULATED = {
    "single-prefill": ("gate-and-route", "iteration"),
    "token-budget": ("vllm-round-robin", "iteration"),
    "gated": ("index-and-pool", "iteration"),
    "last-schedulable": ("slai", "iteration"),
    "prefill-first": ("prefill-first", "iteration"),
    "markov": ("gate-and-route", "markov"),
}
KERNELS = (
    *SIMULATED,
    "optimum",
    "gateway",
    "fluid",
)
"""The slowest first."""


def warm(name: str) -> None:
    """Have one of KERNELS compiled, or do nothing if it is on disk."""
    scenario = two_class_scenario().replace(targets=Targets(tpot=0.05))
    if name == "optimum":
        optimum(Scenario.load("examples/tiny.toml"), gpus=1)
        bound(Scenario.load("examples/tiny.toml"), gpus=1)
    elif name == "gateway":
        compile_decisions()
    elif name == "fluid":
        fluid_trajectory(scenario, plan(scenario), horizon=1.0)
    else:
        policy, fidelity = SIMULATED[name]
        if name == "gated":  # before GPUs that form their own batches
            scenario = scenario.replace(engine=EngineModel(kv_tokens=20_000))
        simulate(
            scenario,
            policy,
            gpus=2,
            horizon=1.0,
            replications=1,
            audited=True,
            fidelity=fidelity,  # type: ignore[arg-type]
        )


def main() -> None:
    for name, _ in zip(KERNELS, default_executor(None, len(KERNELS)).map(warm, KERNELS), strict=True):
        print(f"kernel ready: {name}", file=sys.stderr)


if __name__ == "__main__":
    main()
