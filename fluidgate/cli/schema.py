"""`fluidgate schema`."""

from __future__ import annotations

import json

import click


@click.command(short_help="Print the JSON Schema of a scenario file or a policy file.")
@click.argument("kind", metavar="[KIND]", type=click.Choice(["scenario", "policy"]), default="scenario")
def schema(kind: str) -> None:
    """Print the JSON Schema of a scenario file, or of a policy file (TOML is checked against it key by key)."""
    if kind == "policy":
        from fluidgate.policies.policy_file import policy_schema

        click.echo(json.dumps(policy_schema(), indent=2))
    else:
        from fluidgate.scenario_file import scenario_schema

        click.echo(json.dumps(scenario_schema(), indent=2))
