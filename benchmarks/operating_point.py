"""The TPOT of a plan's operating point beside the one that simulated decodes feel, over the load.

`python -m benchmarks.operating_point` prints a row a load: 12 H100 on the Azure workloads, two replications of 200 s.
"""

from __future__ import annotations

from fluidgate import Scenario, plan, simulate

GPUS, HORIZON, REPLICATIONS = 12, 200.0, 2
LOADS = (0.05, 0.3, 0.6, 0.8, 0.95, 1.0, 1.15)


def at_load(scenario: Scenario, load: float) -> Scenario:
    classes = tuple(c.model_copy(update={"arrival_rate": c.arrival_rate * load}) for c in scenario.classes)
    return scenario.replace(classes=classes)


def felt(scenario: Scenario, policy: str) -> float:
    """Mean TPOT over all completed requests, s."""
    result = simulate(
        scenario, policy, gpus=GPUS, horizon=HORIZON, replications=REPLICATIONS, fidelity="iteration", seed=0
    )
    return float(result.overall.tpot.mean)  # type: ignore[attr-defined]


def main() -> None:
    given = Scenario.load("examples/azure-h100.toml")
    print("| load | tpot, ms | gate-and-route | pooled_tpot, ms | index-and-pool |")
    print("|---|---|---|---|---|")
    for load in LOADS:
        scenario = at_load(given, load)
        point = plan(scenario, gpus=GPUS).operating_point
        assert point is not None
        apart, pooled = (
            felt(scenario, "gate-and-route") / point.tpot,
            felt(scenario, "index-and-pool") / point.pooled_tpot,
        )
        print(
            f"| {load} | {1e3 * point.tpot:.2f} | {100 * (apart - 1):+.1f} % "
            f"| {1e3 * point.pooled_tpot:.2f} | {100 * (pooled - 1):+.1f} % |"
        )


if __name__ == "__main__":
    main()
