"""A calibration handed to the user: its profile, its picture, its tables or its JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from fluidgate.cli.console import show, told, warn


def hand_over(
    made: Any,
    tables: Callable[[Any], Any],
    draw: Callable[[Any, str], None],
    *,
    output: str | None,
    plot: str | None,
    as_json: bool,
) -> None:
    """Write the profile and the picture that are wanted, and show the rest.

    Args:
        made: a calibration, with `warnings`, `profile` and `to_json`.
    """
    from fluidgate.profiles import write_profile

    warn(made.warnings)
    if output is not None:
        write_profile(made.profile, output)
    if plot is not None:
        draw(made, plot)
    if as_json:
        click.echo(made.to_json())
        return
    show(*tables(made))
    if output is not None:
        told(f'Profile written to {output}; a scenario takes it as [gpu] profile = "{output}"')
