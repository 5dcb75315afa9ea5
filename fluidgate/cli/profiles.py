"""`fluidgate profiles`."""

from __future__ import annotations

import json

import click

from fluidgate.cli.console import show
from fluidgate.cli.options import json_option


@click.command(short_help="List the shipped iteration-time profiles.")
@json_option
def profiles(as_json: bool) -> None:
    """List the iteration-time profiles that `[gpu] profile` of a scenario may name."""
    from fluidgate.profiles import shipped

    if as_json:
        listed = [profile.model_dump(mode="json") for profile in shipped()]
        click.echo(json.dumps({"schema": 1, "profiles": listed}, indent=2))
    else:
        from fluidgate.reports.tables import profile_table

        show(profile_table(shipped()))
