"""`fluidgate optimum`."""

from __future__ import annotations

import click

from fluidgate.cli.console import notices, progress_bar, show, warn
from fluidgate.cli.given import only_with
from fluidgate.cli.options import NUMBER, gpus_option, json_option, plot_option, policies_option, scenario_argument


@click.command(short_help="The most that any policy earns on a small cluster.")
@scenario_argument
@gpus_option
@policies_option(
    "Also simulate these policies or files (.toml, PATH.py:NAME), and show which share of the optimum they earn."
)
@click.option("--queue-limit", type=int, metavar="Q",
              help="Most requests of a class that wait for prefill.  [default: from the rates]")  # fmt: skip
@click.option("--buffer-limit", type=int, metavar="K",
              help="Most requests that wait for decode, in all.  [default: 3, more if needed]")  # fmt: skip
@click.option("--accuracy", type=NUMBER, default=1e-6, show_default=True, metavar="E",
              help="Largest relative distance of the bounds of the revenue.")  # fmt: skip
@click.option("--max-states", type=int, default=2_000_000, show_default=True, metavar="S",
              help="Refuse larger systems.")  # fmt: skip
@click.option("--horizon", type=NUMBER, default=100_000.0, show_default=True, metavar="S",
              help="Simulated time of the policies, s.")  # fmt: skip
@click.option("--replications", type=int, default=5, show_default=True, metavar="K",
              help="Independent replications of each policy.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of all random numbers.")
@click.option("--workers", type=click.IntRange(min=1), metavar="W", help="Worker processes.  [default: one a core]")
@json_option
@plot_option
def optimum(
    scenario: str,
    gpus: int | None,
    policies: tuple[str, ...],
    queue_limit: int | None,
    buffer_limit: int | None,
    accuracy: float,
    max_states: int,
    horizon: float,
    replications: int,
    seed: int,
    workers: int | None,
    as_json: bool,
    plot: str | None,
) -> None:
    """Solve the decision problem of SCENARIO on a few GPUs exactly: the yardstick for every policy.

    The number of states grows fast with GPUs, slots and classes; what is too large is refused with what would fit.
    """
    from fluidgate.model import Scenario
    from fluidgate.optimum import optimum as solve
    from fluidgate.optimum import yardstick
    from fluidgate.policies import find_policy

    only_with(click.get_current_context(), "policies", "horizon", "replications")
    loaded = Scenario.load(scenario)
    for name in policies:
        find_policy(name)
    measured = None
    with notices():
        with progress_bar("solving"):
            best = solve(
                loaded,
                gpus=gpus,
                queue_limit=queue_limit,
                buffer_limit=buffer_limit,
                accuracy=accuracy,
                max_states=max_states,
            )
        if policies:
            run = {"horizon": horizon, "replications": replications, "seed": seed, "workers": workers}
            with progress_bar("simulating") as progress:
                measured = yardstick(best, policies, **run, progress=progress)  # type: ignore[arg-type]
    warn(best.warnings if measured is None else measured.warnings)
    if plot is not None:
        from fluidgate.reports.optimum import draw_optimum

        draw_optimum(best, plot)
    if as_json:
        click.echo(best.to_json() if measured is None else measured.to_json())
    else:
        from fluidgate.reports.optimum import optimum_tables

        show(*optimum_tables(best, measured))
