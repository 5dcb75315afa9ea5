"""Jobs on a Ray cluster: this machine, or as many as there are."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from typing import Any

from fluidgate.errors import FluidgateError, one_line
from fluidgate.execution.executor import AsTheyEnd, Ended
from fluidgate.execution.local import interrupts_held
from fluidgate.execution.version import code_version
from fluidgate.plugins import modules
from fluidgate.wording import InSameWords

RETRIES = 5
"""Times that a job runs again whose worker or node was lost."""
AHEAD = 3
"""Jobs handed out for each core of the cluster."""
JOINS = 3
"""Times that a cluster is asked to let this process in: a busy head may be slow to start what serves a client."""
SECONDS = 5.0
"""Within which an address must answer."""


class RayCluster(AsTheyEnd):
    """Jobs on a Ray cluster, a core each; those of a worker or node that is lost run again elsewhere.

    The nodes need this package in the same version; jobs and results travel by value.
    """

    def __init__(self, address: str | None = None) -> None:
        """
        Args:
            address: `ray://HOST:PORT` of a cluster; None for the one that this process belongs to, as in a Ray job, or
                for RAY_ADDRESS, or for one of this machine alone that ends with this process.

        Raises:
            FluidgateError: Ray is not installed, or nothing answers at the address.
        """
        if find_spec("ray") is None:
            raise FluidgateError("--executor ray: Ray is not installed; pip install 'fluidgate[ray]'")
        self.address = address
        if address is not None:
            _check_reached(address)

    def completed(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Ended:
        """
        Raises:
            FluidgateError: the cluster can't be joined, a node has other code, or a job was lost again and again.
        """
        if not jobs:
            return
        ray = _joined(self.address)
        cloudpickle = _by_value()
        run = ray.remote(num_cpus=1, max_retries=RETRIES)(run_job)
        version, ahead = code_version(), AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        following = enumerate(jobs)
        running: dict[Any, int] = {}
        try:
            while True:
                for k, job in islice(following, ahead - len(running)):
                    running[run.remote(version, cloudpickle.dumps((InSameWords(function), job)))] = k
                if not running:
                    return
                [ended], _ = ray.wait(list(running))
                k = running.pop(ended)  # before it is read: Ray aborts if a job is cancelled just as it fails
                yield k, _result(ray, ended)
        finally:
            for job in running:
                ray.cancel(job, force=True)


def run_job(version: str, packed: bytes) -> Any:
    """Run a job in a worker.

    Args:
        version: of the code that the results are for.
        packed: the function and the job.

    Raises:
        FluidgateError: this worker has other code; or as the job does.
    """
    if version != code_version():
        raise FluidgateError(
            f"--executor ray: {socket.gethostname()} has another fluidgate, Python or numerical library than "
            "this process; install the same on every node"
        )
    function, job = pickle.loads(packed)
    return function(job)


def _joined(address: str | None) -> Any:
    """Ray, once this process belongs to a cluster; it stays in the one it belongs to."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns of what it will do some day
    ray: Any = import_module("ray")
    for left in reversed(range(JOINS)):
        if ray.is_initialized():
            break
        try:
            with interrupts_held():  # half a cluster would be left behind
                ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL)
        except Exception as error:
            if left and isinstance(error, ConnectionError):
                continue
            where = address or os.environ.get("RAY_ADDRESS", "this machine")
            raise FluidgateError(f"--executor ray: can't join the cluster at {where}: {_line(error, -1)}") from error
    return ray


def _by_value() -> Any:
    """What packs functions and jobs, with the code of modules that no other machine has."""
    cloudpickle: Any = import_module("ray.cloudpickle")
    only_here = [module for module in list(sys.modules.values()) if getattr(module, "__only_here__", False) is True]
    for module in (*only_here, *modules()):
        cloudpickle.register_pickle_by_value(module)
    return cloudpickle


def _result(ray: Any, ended: Any) -> Any:
    try:
        return ray.get(ended)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise FluidgateError(
            f"--executor ray: a job was lost with its worker {RETRIES + 1} times, perhaps for want of memory "
            f"({_line(error, 0)}); give the nodes more, or a smaller run"
        ) from error


def _line(error: Exception, number: int) -> str:
    """The first line of what Ray says, or the last, where a traceback ends."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return one_line(lines[number]).rstrip(".")[:200]


def _check_reached(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS).close()
    except OSError as error:
        raise FluidgateError(
            f"--executor: nothing answers at {address} ({error.strerror or error}); give the address of a cluster's "
            "head, ray://HOST:10001 where it was started with `ray start --head`"
        ) from None
