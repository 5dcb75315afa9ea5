"""The `fluidgate` command."""

from fluidgate.cli.app import main

__all__ = ["main"]
