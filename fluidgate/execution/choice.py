"""Where jobs run, in a user's words."""

from __future__ import annotations

import re
from pathlib import Path

from fluidgate.errors import FluidgateError
from fluidgate.execution.executor import Executor
from fluidgate.execution.kept import Kept
from fluidgate.execution.local import ThisMachine

LOCAL, RAY = "local", "ray"
ADDRESS = re.compile(r"ray://[^/\s]+:\d{1,5}")


def executor_named(name: str = LOCAL, *, workers: int | None = None, keep: str | Path | None = None) -> Executor | None:
    """What `--executor`, `--workers` and `--keep` say.

    Args:
        name: `local`, `ray`, or `ray://HOST:PORT`.
        workers: processes of this machine; one a core if None.
        keep: folder for results; None to keep none.

    Returns:
        None where nothing is said but `workers`: the caller then starts no processes where they don't pay.

    Raises:
        FluidgateError: the name is none of these, Ray is missing or does not answer, or the folder can't be made.
    """
    executor: Executor | None = None
    if name != LOCAL:
        if name != RAY and not ADDRESS.fullmatch(name):
            raise FluidgateError(
                f"--executor: must be local, ray or ray://HOST:PORT, but is '{name}'; give one of them"
            )
        if workers is not None:
            raise FluidgateError(f"--workers: is of this machine; leave it out with --executor {name}")
        from fluidgate.execution.ray_cluster import RayCluster

        executor = RayCluster(None if name == RAY else name)
    return executor if keep is None else Kept(keep, executor or ThisMachine(workers))
