"""What can go wrong between the gateway and an engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

ELSEWHERE = frozenset({429, 502, 503, 504})


class EngineError(Exception):
    """An engine did not do what it was asked to."""


class EngineUnreachable(EngineError):
    """Nothing was answered, or the answer broke off: refused, reset, died.

    Until a byte has gone to the client the request may be sent again, here or elsewhere.

    Attributes:
        url: of the engine.
        taken: whether the engine may have begun with the request; False where no connection came about.
    """

    def __init__(self, url: str, reason: str, *, taken: bool) -> None:
        super().__init__(f"{url}: {reason}")
        self.url = url
        self.taken = taken


class EngineSilent(EngineUnreachable):
    """It took the request and has said nothing for longer than it may: it may be reading still."""


class NoConnection(EngineError):
    """This machine has no file or port left for a connection: no engine is at fault."""


class EngineRefused(EngineError):
    """An HTTP status of 400 or above, or a stream that begins with an error.

    Attributes:
        url: of the engine.
        status: HTTP status.
        headers: to hand to the client with it.
        body: JSON, as the engine wrote it.
    """

    def __init__(self, url: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f"{url}: status {status}: {body[:300].decode(errors='replace')}")
        self.url = url
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def elsewhere(self) -> bool:
        """Whether another engine may take the request: this one is full or down, the request is not at fault."""
        return self.status in ELSEWHERE


class NotThisEngine(EngineError):
    """What answers is no engine of the kind that it is said to be."""


class KvLost(EngineError):
    """The KV that was handed over is no more; the prompt has to be read again."""


@contextmanager
def speaking(url: str, engine: str) -> Iterator[None]:
    """Raise `NotThisEngine` where what `url` has answered cannot be read as an answer of `engine`."""
    try:
        yield
    except (ValueError, LookupError, TypeError) as error:
        raise NotThisEngine(f"{url} answers, but not as {engine} does; check its address and kind") from error
