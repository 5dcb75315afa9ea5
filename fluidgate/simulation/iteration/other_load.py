"""Where the requests that are played are not those of the scenario's classes, which the plan, and R*, are for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fluidgate.model import Scenario
from fluidgate.simulation.doubts import FAR
from fluidgate.workloads.streams import ClassTrace, length_traces, matching_scale, starting_span

FEW = 0.02
"""Share of all requests below which the rate of a class says little of the load."""


def other_rates(
    scenario: Scenario, traces: Sequence[ClassTrace], gpus: int, scale: float, sessions_rate: float | None = None
) -> Iterator[str]:
    """Traces that bring more or fewer requests than the plan is for, in all or of some classes, by `FAR` or more."""
    together = [each.trace for each in traces]
    spans = [starting_span(each, together, sessions_rate) for each in together]
    if min(spans) <= 0:
        return
    planned = scenario.rates.arrival * gpus
    rate = float(planned.sum()) * scale / matching_scale(scenario, gpus, traces, sessions_rate)
    if abs(rate / planned.sum() - 1.0) > FAR:
        yield (
            f"the traces bring {rate:.4g} requests/s, the scenario's classes {planned.sum():.4g}; its plan, and R*, "
            "are for the latter (--match-load, or a scenario made by `fluidgate workload`, brings them together)"
        )
    counts = [np.bincount(each.cls, minlength=len(planned)) for each in traces]
    rates = np.sum([count / span for count, span in zip(counts, spans, strict=True)], axis=0)
    found = [
        f"{100 * here:.3g} % '{name}' ({100 * there:.3g} %)"
        for name, here, there in zip(scenario.class_names, rates / rates.sum(), planned / planned.sum(), strict=True)
        if here > 0 and abs(here - there) > FAR * there and max(here, there) > FEW
    ]
    if found:
        yield (
            f"of the traces' requests (of the scenario's) are {', '.join(found)}; its plan, and R*, are for the latter "
            "(a scenario made by `fluidgate workload` has the traces' rates)"
        )


def other_pool(scenario: Scenario) -> Iterator[str]:
    """Classes whose empirical lengths have another mean than the plan is for, by `FAR` or more."""
    if not scenario.lengths.empirical:
        return
    traces = length_traces(scenario)
    cls = np.concatenate([each.cls for each in traces])
    for what in ("prompt", "output"):
        if getattr(scenario.lengths, what) != "empirical":
            continue
        tokens = np.concatenate([getattr(each.trace, f"{what}_tokens") for each in traces])
        for k, each in enumerate(scenario.classes):
            own, mean = tokens[cls == k], getattr(each, f"{what}_tokens")
            if len(own) > 0 and abs(own.mean() / mean - 1.0) > FAR:
                yield (
                    f"class '{each.name}': the mean {what} of [lengths] traces is {own.mean():.4g} tokens, the "
                    f"scenario's {mean:.4g}; its plan, and R*, are for the latter"
                )
