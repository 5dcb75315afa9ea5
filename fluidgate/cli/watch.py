"""`fluidgate watch`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from fluidgate.cli.console import output
from fluidgate.cli.options import NUMBER
from fluidgate.errors import FluidgateError

if TYPE_CHECKING:
    from rich.console import Console

    from fluidgate.gateway.rates import History
    from fluidgate.reports.watch_reading import GatewayReader


@click.command(short_help="A live view of a gateway.")
@click.argument("url")
@click.option("--interval", type=NUMBER, default=1.0, show_default=True, metavar="S",
              help="Time between two readings, s.")  # fmt: skip
@click.option("--key-env", metavar="NAME", help="Environment variable with the key that the gateway asks for.")
@click.option("--once", is_flag=True, help="Print one frame and leave, as when the output is no terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def watch(url: str, interval: float, key_env: str | None, once: bool, as_json: bool) -> None:
    """Show the gateway at URL: its engines, occupancies and queues against the plan's, rates, revenue and latencies.

    A gateway that is away is asked again until it is there; Ctrl-C ends it.
    """
    import asyncio

    from fluidgate.reports.watch_reading import GatewayReader

    if not 0.1 <= interval <= 3600.0:
        raise click.BadParameter("must be a time from 0.1 to 3600 s", param_hint="--interval")
    reader = GatewayReader(url, _key(key_env))
    if as_json:
        history = asyncio.run(two_readings(reader, interval))
        click.echo(to_json(reader.url, history))
    elif once or not sys.stdout.isatty():
        print_frame(reader.url, asyncio.run(two_readings(reader, interval)))
    else:
        asyncio.run(follow(reader, interval, output()))


async def two_readings(reader: GatewayReader, interval: float) -> History:
    """
    Raises:
        FluidgateError: the gateway is away.
    """
    import asyncio

    from fluidgate.gateway.rates import History
    from fluidgate.reports.watch_reading import Away

    history = History()
    async with reader:
        try:
            history.add(await reader.read())
            await asyncio.sleep(interval)
            history.add(await reader.read())
        except Away as away:
            raise FluidgateError(f"no gateway answers at {reader.url} ({away}); {away.mend}") from None
    return history


async def follow(reader: GatewayReader, interval: float, screen: Console) -> None:
    """Show frame after frame."""
    import asyncio

    from rich.live import Live

    from fluidgate.gateway.rates import History
    from fluidgate.reports.watch_frame import frame
    from fluidgate.reports.watch_reading import Away

    history = History()
    async with reader:
        with Live(console=screen, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                problem = None
                try:
                    history.add(await reader.read())
                except Away as away:
                    problem = str(away)
                live.update(frame(reader.url, history, problem), refresh=True)
                await asyncio.sleep(interval)


def to_json(url: str, history: History) -> str:
    import json

    assert history.last is not None
    rates = history.rates
    found: dict[str, Any] = {"schema": 1, "url": url, "gateway": history.last.state}
    return json.dumps(found | {"rates": None if rates is None else rates.to_dict()})


def print_frame(url: str, history: History) -> None:
    from fluidgate.reports.watch_frame import frame

    output().print(frame(url, history))


def _key(name: str | None) -> str | None:
    if name is None:
        return None
    value = os.environ.get(name, "").strip()
    if not value:
        raise FluidgateError(f"--key-env: the environment has no '{name}'; export it")
    return value
