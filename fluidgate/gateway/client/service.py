"""What every request is served by, gathered once for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fluidgate.gateway.backends import Backends
from fluidgate.gateway.client.admission import Admission
from fluidgate.gateway.dispatch.dispatcher import Clock, Dispatcher
from fluidgate.gateway.monitor import Monitor


@dataclass(frozen=True)
class Service:
    """What the handling of a request asks and tells.

    Attributes:
        dispatcher: says whose turn it is, and where.
        backends: the engines; `monitor`, told of those that fail.
        admission: words the errors of those that wait in vain.
        two_legs: whether a request is read by one call and answered by another, given whether it is streamed.
        prefill_seconds: how long a prompt of so many tokens takes to be read, s.
        attempts: how often a prompt is read when engines fail.
    """

    dispatcher: Dispatcher
    backends: Backends
    monitor: Monitor
    admission: Admission
    two_legs: Callable[[bool], bool]
    prefill_seconds: Callable[[int], float]
    attempts: int
    clock: Clock
