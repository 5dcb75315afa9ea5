"""Where the simulations of a benchmark run, as the commands say it."""

from __future__ import annotations

import argparse

from fluidgate.execution import Executor, executor_named


def add_options(parser: argparse.ArgumentParser) -> None:
    """`--executor` and `--keep`, beside the benchmark's own `--workers`."""
    parser.add_argument("--executor", default="local", help="local, ray or ray://HOST:PORT; --workers is of the first")
    parser.add_argument("--keep", metavar="DIR", help="keep each result in this folder; what is there is not run again")


def executor(options: argparse.Namespace) -> Executor | None:
    """None where nothing is said but `--workers`."""
    local = options.executor == "local"
    return executor_named(options.executor, workers=options.workers if local else None, keep=options.keep)
