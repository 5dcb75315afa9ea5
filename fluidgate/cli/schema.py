"""`fluidgate schema`."""

from __future__ import annotations

import json

import click


@click.command(short_help="Print the JSON Schema of a scenario file.")
def schema() -> None:
    """Print the JSON Schema of a scenario file (TOML is checked against it key by key)."""
    from fluidgate.scenario_file import scenario_schema

    click.echo(json.dumps(scenario_schema(), indent=2))
