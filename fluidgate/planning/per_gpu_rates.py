"""Arrival rates that are meant per GPU, and may be those of the cluster."""

from __future__ import annotations

from fluidgate.model import Scenario

FLOODED = 5.0
"""Times what a GPU can serve that nobody offers it on purpose."""


def offered_load(scenario: Scenario) -> float:
    """GPUs that the load of one keeps busy, in full batches: by prefills, and by decodes with no room beside them."""
    rates, slots = scenario.rates, scenario.gpu.batch_size
    mixed = float((rates.arrival / rates.prefill).sum())
    decodes = float((rates.arrival / rates.solo_decode).sum())
    beside = mixed * (slots - 1) / scenario.gpu.kappa
    return mixed + max(decodes - beside, 0.0) / slots


def looks_like_a_total(scenario: Scenario, gpus: int) -> tuple[str, ...]:
    """A sentence where a GPU is offered more than `FLOODED` times what it serves, and all together could serve that."""
    if scenario.cluster_gpus is not None or gpus < 2:
        return ()
    load = offered_load(scenario)
    if not (load > FLOODED and load / gpus <= 1.0):
        return ()
    return (
        f"[[classes]] arrival_rate is per GPU: each of the {gpus} GPUs is offered {load:.3g} times what it serves, "
        f"and {gpus} of them could serve that together; if the rates are the cluster's, give [cluster] gpus and "
        "total_arrival_rate",
    )
