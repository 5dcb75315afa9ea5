"""`fluidgate examples`."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from fluidgate.cli.console import show
from fluidgate.cli.given import only_with
from fluidgate.cli.options import json_option


@click.command(short_help="List the examples, or copy them.")
@click.argument("folder", metavar="[DIR]", required=False)
@click.argument("names", metavar="[NAME...]", nargs=-1)
@click.option("--force", is_flag=True, help="Replace files that are there and differ.")
@json_option
def examples(folder: str | None, names: tuple[str, ...], force: bool, as_json: bool) -> None:
    """List the examples, or copy them to DIR/examples: all, or those of each NAME with the files that they name.

    With `fluidgate examples .` the commands of the documentation run as they are written.
    """
    from fluidgate.example_files import copy_examples
    from fluidgate.example_files import examples as all_examples

    only_with(click.get_current_context(), "folder", "force")
    if folder is not None:
        copied = [str(path) for path in copy_examples(folder, names, force=force)]
        if as_json:
            click.echo(json.dumps({"schema": 1, "copied": copied}, indent=2))
        else:
            click.echo(f"{len(copied)} files are in {folder.rstrip('/') or '/'}/examples")
        return
    found = all_examples()
    if as_json:
        click.echo(json.dumps({"schema": 1, "examples": [asdict(each) for each in found]}, indent=2))
        return
    from fluidgate.reports.tables import example_table

    show(example_table(found))
