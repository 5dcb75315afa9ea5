"""What every request for a model is served by, gathered once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fluidgate.gateway.client.admission import Admission
from fluidgate.gateway.client.classifier import Classifier
from fluidgate.gateway.client.completion_request import CompletionRequest
from fluidgate.gateway.cluster.backends import Backends
from fluidgate.gateway.cluster.monitor import Monitor
from fluidgate.gateway.dispatch.dispatcher import Clock, Dispatcher
from fluidgate.gateway.group import ModelGroup

ESTIMATED_BY = 2
"""An estimated prompt may have so many times its tokens."""


@dataclass(frozen=True)
class Service:
    """What the handling of a request asks and tells.

    Attributes:
        group: of the engines; its `dispatcher` says whose turn it is, and where; `backends` are its engines, `monitor`
            is told of those that fail.
        admission: says who is let in, and words the errors of those that wait in vain.
        classifier: says of which class a request is; `class_names`, `max_wait` (s): by class.
        two_legs: whether a request is read by one call and answered by another, given whether it is streamed.
        prefill_seconds: how long a prompt of so many tokens takes to be read, s.
        attempts: how often a prompt is read when engines fail; `engine_failures`, how many may break off under one
            request.
        passes_keys: whether engines get the keys of clients, so that a refused one is the client's affair.
    """

    group: ModelGroup
    dispatcher: Dispatcher
    backends: Backends
    monitor: Monitor
    admission: Admission
    classifier: Classifier
    class_names: Sequence[str]
    max_wait: Sequence[float]
    two_legs: Callable[[bool], bool]
    prefill_seconds: Callable[[int], float]
    attempts: int
    engine_failures: int
    passes_keys: bool
    clock: Clock

    @staticmethod
    def of(
        group: ModelGroup,
        closed: Callable[[], bool],
        max_waiting_of: Callable[[str], int | None],
        waiting_of: Callable[[str], int],
    ) -> Service:
        """That of a group; `closed`, `max_waiting_of` and `waiting_of` as in `Admission`."""
        settings, names = group.settings, group.settings.scenario.class_names
        admission = Admission(
            group.dispatcher,
            group.backends,
            class_names=names,
            limits=settings.limits,
            max_waiting=settings.max_waiting,
            closed=closed,
            clock=group.clock,
            max_waiting_of=max_waiting_of,
            waiting_of=waiting_of,
        )
        return Service(
            group=group,
            dispatcher=group.dispatcher,
            backends=group.backends,
            monitor=group.monitor,
            admission=admission,
            classifier=Classifier(settings.rules, names, settings.default_class),
            class_names=names,
            max_wait=settings.max_wait,
            two_legs=group.two_legs,
            prefill_seconds=settings.scenario.gpu.prefill_seconds,
            attempts=settings.limits.attempts,
            engine_failures=settings.limits.engine_failures,
            passes_keys="authorization" in {name.lower() for name in settings.engines.pass_headers},
            clock=group.clock,
        )

    def may_overflow(self, request: CompletionRequest) -> bool:
        """Whether prompt and answer may be longer than the engines' context: they say so before they read the prompt,
        but only if they are asked for both."""
        length = self.backends.context_length
        if length is None or request.output_limit is None:
            return False
        prompt = request.longest_ids or ESTIMATED_BY * request.prompt_tokens
        return prompt + request.output_limit > length
