"""`fluidgate policies`."""

from __future__ import annotations

import json

import click

from fluidgate.cli.console import show
from fluidgate.cli.options import json_option


@click.command(short_help="List the policies.")
@json_option
def policies(as_json: bool) -> None:
    """List the policies that `simulate`, `compare` and `replay` know, with those of other installed packages."""
    from fluidgate.policies import ALIASES, all_policies

    known = list(all_policies().values())

    if as_json:
        listed = [
            {
                "name": p.name,
                "origin": p.origin,
                "summary": p.summary,
                "fidelity": list(p.fidelities),
                "parameters": [parameter.to_dict() for parameter in p.parameters],
                **({"source": p.source} if p.source else {}),
            }
            for p in known
        ]
        click.echo(json.dumps({"schema": 1, "policies": listed, "aliases": ALIASES, "warnings": []}, indent=2))
    else:
        from fluidgate.reports.tables import policy_table

        show(policy_table(known, ALIASES))
