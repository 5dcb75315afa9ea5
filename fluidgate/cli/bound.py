"""`fluidgate bound`."""

from __future__ import annotations

import click

from fluidgate.cli.console import notices, progress_bar, show, warn
from fluidgate.cli.given import only_with
from fluidgate.cli.options import NUMBER, gpus_option, json_option, policies_option, scenario_argument


@click.command(short_help="More than any policy earns, on any number of GPUs.")
@scenario_argument
@gpus_option
@click.option("--scheme", type=click.Choice(["bundled", "separate"]),
              help="Pricing scheme.  [default: the scenario's]")  # fmt: skip
@policies_option(
    "Also simulate these policies or files (.toml, PATH.py:NAME), and show what they earn at least of what any "
    "policy can."
)
@click.option("--max-stages", type=int, default=60_000, show_default=True, metavar="S",
              help="Largest lattice of three or four numbers of requests, in states: nearer, but slow.")  # fmt: skip
@click.option("--horizon", type=NUMBER, default=20_000.0, show_default=True, metavar="S",
              help="Simulated time of the policies, s.")  # fmt: skip
@click.option("--replications", type=int, default=5, show_default=True, metavar="K",
              help="Independent replications of each policy.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of all random numbers.")
@click.option("--workers", type=click.IntRange(min=1), metavar="W", help="Worker processes.  [default: one a core]")
@json_option
def bound(
    scenario: str,
    gpus: int | None,
    scheme: str | None,
    policies: tuple[str, ...],
    max_stages: int,
    horizon: float,
    replications: int,
    seed: int,
    workers: int | None,
    as_json: bool,
) -> None:
    """Bound what any policy can earn of SCENARIO on N GPUs: nearer than the fluid R*, and proven.

    Where the cluster is small enough, `fluidgate optimum` is exact.
    """
    from fluidgate.model import Scenario
    from fluidgate.optimum import bound as solve
    from fluidgate.optimum import measured_bound
    from fluidgate.policies import find_policy

    only_with(click.get_current_context(), "policies", "horizon", "replications")
    loaded = Scenario.load(scenario)
    for name in policies:
        find_policy(name)
    measured = None
    with notices():
        with progress_bar("bounding"):
            found = solve(loaded, gpus=gpus, scheme=scheme, max_stages=max_stages)  # type: ignore[arg-type]
        if policies:
            run = {"horizon": horizon, "replications": replications, "seed": seed, "workers": workers}
            with progress_bar("simulating") as progress:
                measured = measured_bound(found, policies, **run, progress=progress)  # type: ignore[arg-type]
    warn(found.warnings if measured is None else measured.warnings)
    if as_json:
        click.echo(found.to_json() if measured is None else measured.to_json())
    else:
        from fluidgate.reports.bound import bound_tables

        show(*bound_tables(found, measured))
