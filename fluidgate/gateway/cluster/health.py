"""Whether an engine can be trusted, judged by what became of the requests that it was given: a circuit breaker."""

from __future__ import annotations

from collections import deque

WINDOW = 30.0
"""s for which what became of a request tells of its engine."""

LEAST_FAILURES = 3
"""So many different requests must have failed before an engine is thought to have."""

SHARE = 0.5
"""Of the requests of the window, the share that must have failed."""

REMEMBERED = 256


class Health:
    """What became of an engine's last requests. Epochs are of the gateway's clock, s."""

    def __init__(self) -> None:
        self._served: deque[float] = deque(maxlen=REMEMBERED)
        self._failed: deque[tuple[float, str]] = deque(maxlen=REMEMBERED)

    def served(self, now: float) -> None:
        """It has served a request."""
        self._served.append(now)

    def failed(self, now: float, request: str) -> None:
        """It has failed a request that was not at fault itself."""
        self._failed.append((now, request))

    def counts(self, now: float) -> tuple[int, int]:
        """Requests of the window that it has failed, each once, and all of them."""
        since = now - WINDOW
        failed = len({request for epoch, request in self._failed if epoch > since})
        return failed, failed + sum(epoch > since for epoch in self._served)

    def is_bad(self, now: float) -> bool:
        """Whether so many have failed that the engine has."""
        failed, seen = self.counts(now)
        return failed >= LEAST_FAILURES and failed >= SHARE * seen

    def forget(self) -> None:
        """It begins anew."""
        self._served.clear()
        self._failed.clear()
