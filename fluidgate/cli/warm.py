"""`fluidgate warm`."""

from __future__ import annotations

import click


@click.command(short_help="Compile what `serve` needs, before it is needed.")
def warm() -> None:
    """Compile the decisions of the shipped policies that `serve` takes, and keep them for the processes to come.

    They are kept in the user's cache, or below XDG_CACHE_HOME where that is set. The code is this processor's own;
    with NUMBA_CPU_NAME=generic, here and for `serve`, it is that of every processor of the architecture.
    """
    from fluidgate.cli.console import notices
    from fluidgate.gateway.dispatch.compilation import kept_decisions

    with notices():
        folder = kept_decisions()
    click.echo(f"the gateway's code is ready in {folder}")
