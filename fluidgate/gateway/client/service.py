"""What every request is served by, gathered once for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fluidgate.gateway.client.admission import Admission
from fluidgate.gateway.client.completion_request import CompletionRequest
from fluidgate.gateway.cluster.backends import Backends
from fluidgate.gateway.cluster.monitor import Monitor
from fluidgate.gateway.dispatch.dispatcher import Clock, Dispatcher

ESTIMATED_BY = 2
"""An estimated prompt may have so many times its tokens."""


@dataclass(frozen=True)
class Service:
    """What the handling of a request asks and tells.

    Attributes:
        dispatcher: says whose turn it is, and where.
        backends: the engines; `monitor`, told of those that fail.
        admission: words the errors of those that wait in vain.
        two_legs: whether a request is read by one call and answered by another, given whether it is streamed.
        prefill_seconds: how long a prompt of so many tokens takes to be read, s.
        attempts: how often a prompt is read when engines fail; `engine_failures`, how many may break off under one
            request.
        passes_keys: whether engines get the keys of clients, so that a refused one is the client's affair.
    """

    dispatcher: Dispatcher
    backends: Backends
    monitor: Monitor
    admission: Admission
    two_legs: Callable[[bool], bool]
    prefill_seconds: Callable[[int], float]
    attempts: int
    engine_failures: int
    passes_keys: bool
    clock: Clock

    def may_overflow(self, request: CompletionRequest) -> bool:
        """Whether prompt and answer may be longer than the engines' context: they say so before they read the prompt,
        but only if they are asked for both."""
        length = self.backends.context_length
        if length is None or request.output_limit is None:
            return False
        prompt = request.prompt_tokens if request.counted else ESTIMATED_BY * request.prompt_tokens
        return prompt + request.output_limit > length
