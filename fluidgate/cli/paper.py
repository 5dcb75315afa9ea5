"""`fluidgate paper`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import click

from fluidgate.cli.console import notices, output_format, progress_bar, show
from fluidgate.cli.options import executor_of, executor_options, json_option
from fluidgate.extras import EXTRAS, require

if TYPE_CHECKING:
    from rich.table import Table

Announce = Callable[[str, bool], Callable[[int, int], None]]
ANSWER = {True: "holds", False: "does not hold", None: "not judged"}


@click.command(short_help="Reproduce the published evaluation, item by item.")
@click.argument("items", metavar="[ITEM...|all]", nargs=-1)
@click.option("--quick", is_flag=True, help="Small experiments of the same shape, two minutes in all.")
@click.option("--out", metavar="DIR", default="out/paper", show_default=True, help="Where the results go.")
@click.option("--again", is_flag=True, help="Run items that an earlier run has finished, too.")
@click.option("--data", metavar="DIR", type=click.Path(exists=True, file_okay=False),
              help="Folder of files that are not shipped: databricks-dolly-15k.jsonl, traces.")  # fmt: skip
@executor_options
@json_option
def paper(
    items: tuple[str, ...], quick: bool, out: str, again: bool, data: str | None, as_json: bool, **options: Any
) -> None:
    """Run figures and tables of arXiv:2602.02987 and say whether the paper's claims hold.

    Each item writes its picture, its data and its verdict into DIR; `all` (the default) gathers them on one page,
    index.html. An interrupted run goes on where it stopped: simulations are kept in DIR/kept unless --keep says where.
    """
    import json
    from pathlib import Path

    for package in EXTRAS:
        require(package)
    from fluidgate.paper.catalogue import ITEMS
    from fluidgate.paper.item import Setting
    from fluidgate.paper.page import write_page
    from fluidgate.paper.runner import run_items

    every = not items or "all" in items
    names = list(ITEMS) if every else list(dict.fromkeys(items))
    folder = Path(out)
    setting = Setting(quick=quick, data=data, executor=executor_of(options), workers=options["workers"])
    with notices(), item_progress() as announce:
        records = run_items(names, setting, folder, again=again, announce=announce)
    if every:
        write_page(records, folder)
    if as_json:
        click.echo(json.dumps({"schema": 1, "items": records, "warnings": []}, indent=2))
        return
    if output_format() != "table":
        show(_verdicts(records))
        return
    for record in records:
        click.echo(f"{record['item']}: {record['title']} ({record['seconds']:g} s)")
        for verdict in record["verdicts"]:
            click.echo(f"  {ANSWER[verdict['holds']]:>14}: {verdict['claim']}")
            click.echo(f"                  {verdict['measured']}")
    click.echo(f"Results in {folder}" + (f"; open {folder / 'index.html'}" if every else ""))


def _verdicts(records: Sequence[dict[str, Any]]) -> Table:
    """A row a claim."""
    from fluidgate.reports.tables import table

    made = table("Claims of the paper", "item", "claim", "answer", "measured", text=4, names=1)
    for record in records:
        for verdict in record["verdicts"]:
            made.add_row(record["item"], verdict["claim"], ANSWER[verdict["holds"]], verdict["measured"])
    return made


@contextmanager
def item_progress() -> Iterator[Announce]:
    """A bar on standard error for the item at work; silent when that is not a terminal."""
    with ExitStack() as item:

        def announce(name: str, known: bool) -> Callable[[int, int], None]:
            item.close()
            return item.enter_context(progress_bar(f"{name} (known)" if known else name))

        yield announce
