"""Who is let in, and what is said to those who are not."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from fluidgate.gateway.client.api_error import ApiError, busy, invalid, unavailable
from fluidgate.gateway.client.completion_request import CompletionRequest
from fluidgate.gateway.cluster.backends import Backends
from fluidgate.gateway.dispatch.dispatcher import Clock, Dispatcher
from fluidgate.gateway.dispatch.ticket import Ticket
from fluidgate.gateway.gateway_tables import LimitsTable

LONGEST_RETRY_AFTER = 60.0
"""s."""

REMEMBERED = 64
"""So many of the last ends of requests tell how fast a class is served."""


class Admission:
    """The door: knows what engines can serve, how long the queues may be, and how fast they move."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        backends: Backends,
        *,
        class_names: Sequence[str],
        limits: LimitsTable,
        max_waiting: Sequence[int],
        closed: Callable[[], bool],
        clock: Clock,
        max_waiting_of: Callable[[str], int | None] = lambda key: None,
        waiting_of: Callable[[str], int] | None = None,
    ) -> None:
        """
        Args:
            limits: of all classes together; `max_waiting`, of each; `max_waiting_of`, of a key.
            waiting_of: how many requests of a key wait; those of the dispatcher if None.
            closed: says whether new requests are refused.
        """
        self._dispatcher = dispatcher
        self._backends = backends
        self._class_names = class_names
        self._limits = limits
        self._max_waiting = max_waiting
        self._max_waiting_of = max_waiting_of
        self._waiting_of = waiting_of or dispatcher.waiting_of
        self._closed = closed
        self._clock = clock
        self._ended_at: list[deque[float]] = [deque(maxlen=REMEMBERED) for _ in class_names]

    def check(self, request: CompletionRequest) -> None:
        """Refuse what no engine could serve.

        Raises:
            ApiError: too long a prompt.
        """
        tokens, most = request.prompt_tokens, self._limits.max_prompt_tokens
        if most is not None and tokens > most:
            raise invalid(f"the prompt has about {tokens} tokens; {most} are taken", reason="prompt_too_long")
        length = self._backends.context_length
        counted = request.longest_ids
        if length is not None and counted is not None and counted >= length:
            what = f"the prompt has {counted} tokens; the engines take less than {length}"
            raise invalid(what, reason="prompt_too_long")

    def check_open(self) -> None:
        """
        Raises:
            ApiError: nobody is let in any more.
        """
        if self._closed():
            raise unavailable("shutting_down", "the gateway is shutting down")

    def admit(self, ticket: Ticket) -> None:
        """Let a request in, to start or to wait.

        Raises:
            ApiError: it would have to wait, and too many do; or nobody is served.
        """
        self.check_open()
        if not self._backends.any_up:
            raise unavailable("no_engine", "no engine answers")
        self._dispatcher.enter(ticket)
        of_class, of_all = self._dispatcher.queued(ticket)
        cls = ticket.cls
        if of_class > self._max_waiting[cls] or of_all > self._limits.max_waiting:
            self._dispatcher.leave(ticket)
            what = f"{of_class - 1} requests of class '{self._class_names[cls]}' wait already, {of_all - 1} in all"
            raise busy("queue_full", what + _for_key(ticket), self.retry_after(cls))
        most = self._max_waiting_of(ticket.key)
        if most is not None and of_class and (of_key := self._waiting_of(ticket.key)) > most:
            self._dispatcher.leave(ticket)
            what = f"{of_key - 1} requests of key '{ticket.key}' wait already; this one is of class "
            raise busy("quota_waiting", f"{what}'{self._class_names[cls]}'", self.retry_after(cls))

    def waited_too_long(self, ticket: Ticket, seconds: float, what: str) -> ApiError:
        """For a request that has waited so long for `what`."""
        if not self._backends.any_up:
            return unavailable("no_engine", f"no engine answered for {seconds:g} s")
        said = f"waited {seconds:g} s for {what} in class '{self._class_names[ticket.cls]}'{_for_key(ticket)}"
        return busy("wait_limit", said, self.retry_after(ticket.cls))

    def note_end(self, cls: int) -> None:
        """A request of the class has ended."""
        self._ended_at[cls].append(self._clock())

    def retry_after(self, cls: int) -> float:
        """When a request of the class might be served: those that wait over those that ended lately, s."""
        ended = self._ended_at[cls]
        if len(ended) < 2:
            return 1.0
        rate = (len(ended) - 1) / max(1e-3, self._clock() - ended[0])
        return min(LONGEST_RETRY_AFTER, float(self._dispatcher.counts().waiting[cls]) / rate)


def _for_key(ticket: Ticket) -> str:
    return f" (key '{ticket.key}')" if ticket.key else ""
