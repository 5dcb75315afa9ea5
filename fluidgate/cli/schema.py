"""`fluidgate schema`."""

from __future__ import annotations

import json

import click


@click.command(short_help="Print the JSON Schema of a scenario, policy or gateway file.")
@click.argument("kind", metavar="[KIND]", type=click.Choice(["scenario", "policy", "gateway"]), default="scenario")
def schema(kind: str) -> None:
    """Print the JSON Schema of a file: KIND is scenario, policy or gateway (TOML is checked against it key by key)."""
    match kind:
        case "policy":
            from fluidgate.policies.policy_file import policy_schema as schema_of
        case "gateway":
            from fluidgate.gateway.gateway_file import gateway_schema as schema_of
        case _:
            from fluidgate.scenario_file import scenario_schema as schema_of
    click.echo(json.dumps(schema_of(), indent=2))
