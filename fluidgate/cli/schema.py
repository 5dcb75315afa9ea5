"""`fluidgate schema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from fluidgate.cli.given import is_given
from fluidgate.errors import FluidgateError

KINDS = ("scenario", "policy", "gateway")


@click.command(short_help="Print the JSON Schema of a scenario, policy or gateway file.")
@click.argument("kind", metavar="[KIND]", type=click.Choice(KINDS), default="scenario")
@click.option("--save", metavar="DIR", help="Write those of all kinds instead, as DIR/KIND.schema.json, for editors.")
def schema(kind: str, save: str | None) -> None:
    """Print the JSON Schema of a file: KIND is scenario, policy or gateway (TOML is checked against it key by key).

    A file that begins with `#:schema ./scenario.schema.json` beside such a schema is checked by editors that know this
    line (Even Better TOML, Taplo) while it is written.
    """
    if save is not None and is_given(click.get_current_context(), "kind"):
        raise FluidgateError("KIND: --save writes the schemas of all kinds; leave one of the two out")
    if save is None:
        click.echo(text_of(kind), nl=False)
        return
    from fluidgate.toml_file import write_whole

    for each in KINDS:
        write_whole(Path(save, f"{each}.schema.json"), text_of(each))
    click.echo(f"{', '.join(f'{each}.schema.json' for each in KINDS)} are in {save}")


def text_of(kind: str) -> str:
    """The JSON Schema of a kind of file."""
    return json.dumps(_schema_of(kind), indent=2) + "\n"


def _schema_of(kind: str) -> dict[str, Any]:
    match kind:
        case "policy":
            from fluidgate.policies.policy_file import policy_schema as schema_of
        case "gateway":
            from fluidgate.gateway.gateway_file import gateway_schema as schema_of
        case _:
            from fluidgate.scenario_file import scenario_schema as schema_of
    return schema_of()
