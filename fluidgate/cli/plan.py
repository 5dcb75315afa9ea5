"""`fluidgate plan`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from fluidgate.cli.console import progress_bar, show, warn
from fluidgate.cli.given import only_with
from fluidgate.cli.options import (
    ABOVE_0,
    Within,
    each_once,
    gpus_option,
    json_option,
    one_policy,
    plot_option,
    scenario_argument,
)
from fluidgate.errors import FluidgateError

if TYPE_CHECKING:
    from fluidgate.model import Scenario
    from fluidgate.tails import Prediction


@click.command(short_help="The best steady state, and what each constraint costs.")
@scenario_argument
@gpus_option
@click.option("--trace", "traces", multiple=True, metavar="[CLASS=]FILE", callback=each_once,
              help="Measure the hit rates of prefix caching on this trace; repeat it for each.")  # fmt: skip
@click.option("--sessions-rate", type=ABOVE_0, metavar="R",
              help="Starts of sessions a second over the whole cluster, where traces do not say when.")  # fmt: skip
@click.option("--latency", is_flag=True, help="Also predict TTFT, TPOT and latency: means and percentiles.")
@click.option("--policy", metavar="NAME", callback=one_policy,
              help="With --latency: whose queues; default: one line before all GPUs.")  # fmt: skip
@click.option("--prefix-hit-rate", type=Within(0.0, 1.0, max_open=True), metavar="H",
              help="Share of all prompts that is found in memory, whatever SCENARIO says; 0 for none.")  # fmt: skip
@json_option
@plot_option
def plan(
    scenario: str,
    gpus: int | None,
    traces: tuple[str, ...],
    sessions_rate: float | None,
    latency: bool,
    policy: str | None,
    prefix_hit_rate: float | None,
    as_json: bool,
    plot: str | None,
) -> None:
    """Solve the fluid program of SCENARIO and show its optimal steady state, per GPU.

    With --gpus, or [cluster] gpus in the scenario, the split of the GPUs into a mixed and a solo group comes with it.
    With --prefix-hit-rate 0 it says what would be without what is found in memory.
    With --trace the plan is that at the hit rates which the memory it leaves gives, and a table says what more memory
    would bring.

    With --latency come the times of requests on that many GPUs, predicted by queueing theory, without a simulation.
    """
    from fluidgate.model import Scenario
    from fluidgate.planning import check_gpus
    from fluidgate.planning import plan as solve

    only_with(click.get_current_context(), "traces", "sessions_rate")
    loaded = Scenario.load(scenario)
    if prefix_hit_rate is not None:
        loaded = _found(loaded, prefix_hit_rate, traces)
    if gpus is not None:
        check_gpus(gpus)
    _check_latency(loaded, gpus, latency, policy)
    measured = None
    if traces:
        from fluidgate.workloads.measured_hits import measured_hits
        from fluidgate.workloads.streams import read_class_traces

        with progress_bar("measuring what is found of the traces"):
            read = read_class_traces(loaded, traces)
            measured = measured_hits(
                loaded, read, gpus=gpus if gpus is not None else loaded.cluster_gpus, sessions_rate=sessions_rate
            )
        solved = measured.found.plan
    else:
        solved = solve(loaded, gpus=gpus if gpus is not None else loaded.cluster_gpus)
    predicted = _predicted(solved.scenario, gpus, policy) if latency else None
    warn(solved.warnings)
    warn(predicted.doubts if predicted is not None else ())
    if plot is not None:
        from fluidgate.reports.plots import draw_plan

        draw_plan(solved, plot, measured)
    if as_json:
        found = {"cache": measured.to_dict()} if measured is not None else {}
        found |= predicted.to_dict() if predicted is not None else {}
        click.echo(json.dumps(solved.to_dict() | found, indent=2, allow_nan=False) if found else solved.to_json())
    else:
        from fluidgate.reports.latency import latency_table
        from fluidgate.reports.tables import memory_table, plan_tables

        show(
            *plan_tables(solved),
            *([memory_table(measured)] if measured is not None else []),
            *([latency_table(predicted, solved.scenario.name)] if predicted is not None else []),
        )


def _check_latency(scenario: Scenario, gpus: int | None, latency: bool, policy: str | None) -> None:
    """Refuse options that do not go together, before anything is solved.

    Raises:
        FluidgateError: naming the option.
    """
    if policy is not None and not latency:
        raise FluidgateError("--policy: it says whose queues --latency predicts; give --latency too, or leave it out")
    if latency and gpus is None and scenario.cluster_gpus is None:
        raise FluidgateError("--latency: missing --gpus, and the scenario names no [cluster] gpus; say how many GPUs")


def _predicted(scenario: Scenario, gpus: int | None, policy: str | None) -> Prediction:
    """The times of the requests, on the GPUs given or the scenario's own."""
    from fluidgate.tails import predict

    engines = gpus if gpus is not None else scenario.cluster_gpus
    assert engines is not None
    return predict(scenario, engines, policy=policy)


def _found(scenario: Scenario, rate: float, traces: tuple[str, ...]) -> Scenario:
    """The scenario with this hit rate of all its classes."""
    import numpy as np

    from fluidgate.planning.cached import with_hit_rates

    if traces:
        raise click.UsageError("--prefix-hit-rate and --trace: a trace measures that rate; give one of the two.")
    if rate > 0.0 and not scenario.engine.prefix_caching:
        raise FluidgateError(
            f"scenario '{scenario.name}': --prefix-hit-rate {rate:g} belongs to an engine with prefix caching; "
            "give [engine] prefix_caching = true, or leave it out"
        )
    return with_hit_rates(scenario, np.full(len(scenario.classes), rate))
