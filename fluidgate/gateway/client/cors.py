"""Which web pages may read answers: cross-origin resource sharing, as the Fetch standard has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fluidgate.gateway.client.api_error import REASON_HEADER

EXPOSED = f"x-request-id, {REASON_HEADER}, retry-after"
METHODS = "GET, HEAD, POST, OPTIONS"
MAX_AGE = "600"
"""s for which a browser need not ask again."""

Pairs = list[tuple[bytes, bytes]]


class Cors:
    """The origins whose pages may call; without any, no header says anything."""

    def __init__(self, origins: Sequence[str]) -> None:
        """
        Args:
            origins: such as "https://chat.example.org", or "*" for all.
        """
        self._all = "*" in origins
        self._origins = frozenset(origins)

    def headers(self, method: str, header: Callable[[str], Sequence[str]]) -> Pairs:
        """Of the answer to a request; `header` gives the values of one of its headers."""
        if not self._origins:
            return []
        origin = header("origin")
        varies = {} if self._all else {"vary": "origin"}
        if not self._all and (len(origin) != 1 or origin[0] not in self._origins):
            return _pairs(varies)
        told = varies | {"access-control-allow-origin": "*" if self._all else origin[0]}
        if method != "OPTIONS":
            return _pairs(told | {"access-control-expose-headers": EXPOSED})
        told |= {"access-control-allow-methods": METHODS, "access-control-max-age": MAX_AGE}
        if asked := header("access-control-request-headers"):
            told["access-control-allow-headers"] = ", ".join(asked)
        return _pairs(told)


def _pairs(headers: dict[str, str]) -> Pairs:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
