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

    def headers(self, origin: Sequence[str]) -> Pairs:
        """Of every answer, given the values of the request's `Origin`."""
        if not self._origins:
            return []
        if self._all:
            return _pairs({"access-control-allow-origin": "*", "access-control-expose-headers": EXPOSED})
        if len(origin) != 1 or origin[0] not in self._origins:
            return _pairs({"vary": "origin"})
        allowed = {"access-control-allow-origin": origin[0], "access-control-expose-headers": EXPOSED}
        return _pairs({"vary": "origin", **allowed})

    def preflight(self, header: Callable[[str], Sequence[str]]) -> dict[str, str]:
        """Further headers of the answer to OPTIONS; none for an origin that may not call."""
        origin, method = header("origin"), header("access-control-request-method")
        if not method or not (self._all or (len(origin) == 1 and origin[0] in self._origins)):
            return {}
        told = {"access-control-allow-methods": METHODS, "access-control-max-age": MAX_AGE}
        if asked := header("access-control-request-headers"):
            told["access-control-allow-headers"] = ", ".join(asked)
        return told


def _pairs(headers: dict[str, str]) -> Pairs:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
