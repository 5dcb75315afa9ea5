"""`fluidgate tune`."""

from __future__ import annotations

from typing import Any

import click

from fluidgate.cli.console import notices, progress_bar, show, told, warn
from fluidgate.cli.options import (
    NUMBER,
    executor_of,
    executor_options,
    gpus_option,
    json_option,
    one_policy,
    plot_option,
    scenario_argument,
)


@click.command(short_help="Tune a policy's free parameters to a cluster's size.")
@scenario_argument
@gpus_option
@click.option("--policy", default="index-and-pool", show_default=True, metavar="NAME",
              callback=one_policy,
              help="A policy with parameters, a policy file (.toml) to start from, or PATH.py:NAME for your "
                   "own.")  # fmt: skip
@click.option("-o", "--output", metavar="FILE",
              help="The policy file to write (.toml); without it the file is shown.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@click.option("--budget", type=NUMBER, metavar="E",
              help="Most events to simulate.  [default: 1e8, more for many GPUs]")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of all random numbers.")
@executor_options
@json_option
@plot_option
def tune(
    scenario: str,
    gpus: int | None,
    policy: str,
    output: str | None,
    force: bool,
    budget: float | None,
    seed: int,
    as_json: bool,
    plot: str | None,
    **options: Any,
) -> None:
    """Search the free parameters of a policy on SCENARIO by simulation, and say how sure the gain is.

    Parameters race on the same arrivals; the best then meets the default on fresh seeds. Where the gain is not beyond
    noise the default is kept.
    """
    from fluidgate.model import Scenario
    from fluidgate.policies import find_policy
    from fluidgate.policies.policy_file import check_fits, check_path, fits
    from fluidgate.tuning import tune as run

    if output is not None:
        check_path(output, force=force)
    loaded = Scenario.load(scenario)
    chosen = find_policy(policy)
    if output is not None:
        check_fits(chosen)
    options["executor"] = executor_of(options)
    with notices(), progress_bar(f"tuning {policy}") as progress:
        found = run(loaded, chosen, gpus=gpus, budget=budget, seed=seed, progress=progress, **options)
    warn(found.warnings)
    command = found.command(scenario)
    if output is not None:
        found.save(output, force=force, command=command)
    if plot is not None:
        from fluidgate.reports.tuning import draw_tuning

        draw_tuning(found, plot)
    if as_json:
        click.echo(found.to_json())
        return
    from fluidgate.reports.tuning import tuning_tables

    show(*tuning_tables(found))
    if not fits(chosen):
        told(f"Parameters to give to {policy}: {found.policy.values}")
    elif output is None:
        told(found.to_toml(command).rstrip("\n"))
    else:
        told(f"Policy written to {output}; next: fluidgate simulate {scenario} --policy {output}")
