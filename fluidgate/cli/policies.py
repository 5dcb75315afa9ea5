"""`fluidgate policies`."""

from __future__ import annotations

import click

from fluidgate.cli.console import show
from fluidgate.cli.options import json_option


@click.command(short_help="List the policies.")
@json_option
def policies(as_json: bool) -> None:
    """List the policies that `simulate`, `compare` and `replay` know, with those of other installed packages."""
    from fluidgate.policies import ALIASES, list_policies

    known = list_policies()
    if as_json:
        click.echo(known.to_json())
    else:
        from fluidgate.reports.tables import policy_table

        show(policy_table(known, ALIASES))
