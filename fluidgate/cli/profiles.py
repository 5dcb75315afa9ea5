"""`fluidgate profiles`."""

from __future__ import annotations

import json

import click

from fluidgate.cli.console import show
from fluidgate.cli.options import json_option


@click.command(short_help="List the iteration-time profiles.")
@json_option
def profiles(as_json: bool) -> None:
    """List the iteration-time profiles that `[gpu] profile` may name, with those of other installed packages."""
    from fluidgate.profiles import all_profiles

    known = all_profiles().values()
    if as_json:
        listed = [{**profile.model_dump(mode="json"), "origin": package} for profile, package in known]
        click.echo(json.dumps({"schema": 1, "profiles": listed}, indent=2))
    else:
        from fluidgate.reports.tables import profile_table

        packages = {profile.name: package for profile, package in known if package != "fluidgate"}
        show(profile_table([profile for profile, _ in known], packages))
