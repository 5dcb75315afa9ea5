"""Why a server does not answer, and what mends it: each cause of its own."""

from __future__ import annotations

import errno
from dataclasses import dataclass

import aiohttp

from fluidgate.errors import one_line


@dataclass(frozen=True)
class NoAnswer:
    """Why, and what mends it; both follow "a server does not answer: "."""

    reason: str
    mend: str

    def __str__(self) -> str:
        return f"{self.reason}; {self.mend}"


CLOSED = NoAnswer("it closed the connection without an answer", "see its log; where it speaks TLS write https://")
CUT_OFF = (errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE)
NO_ROUTE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN)


def no_answer(error: BaseException) -> NoAnswer:
    """What an error of aiohttp's client, or of the network, means to its user."""
    number = getattr(error, "errno", None)
    match error:
        case aiohttp.ClientConnectorDNSError():
            return NoAnswer("no host has this name", "correct the name, or give the address")
        case aiohttp.ClientConnectorCertificateError():
            why = getattr(error.certificate_error, "verify_message", "") or "it cannot be verified"
            return NoAnswer(
                f"its certificate is not trusted ({why})", "name the file of its authority in SSL_CERT_FILE"
            )
        case aiohttp.ClientSSLError():
            return NoAnswer("it does not speak TLS", "write http:// in the place of https://")
        case aiohttp.ServerTimeoutError() | TimeoutError():
            return NoAnswer("no answer in time", "see whether it is up, and no firewall between")
        case aiohttp.ClientConnectorError() if number == errno.ECONNREFUSED:
            return NoAnswer("connection refused, nothing listens there", "start it, or correct host and port")
        case aiohttp.ClientConnectorError() if number in NO_ROUTE:
            return NoAnswer("no route leads to it", "correct the address, or mend the network")
        case aiohttp.ServerDisconnectedError() | ConnectionResetError():
            return CLOSED
        case OSError() if number in CUT_OFF:
            return CLOSED
        case aiohttp.ClientPayloadError():
            return NoAnswer("it broke off within its answer", "see its log")
        case aiohttp.ClientResponseError():
            return NoAnswer("its answer is no HTTP", "correct the port")
        case _:
            reason = one_line(str(error)) or type(error).__name__
            return NoAnswer(reason, "start it, or correct the address")


def refusal(status: int, key: str) -> NoAnswer:
    """What an HTTP status of 400 or above means, of a server that is asked what it is.

    Args:
        key: how a key is given to who asks.
    """
    if status in (401, 403):
        return NoAnswer(f"it asks for a key ({status})", f"give it by {key}")
    if status in (404, 405):
        return NoAnswer(f"it has no such API ({status})", "correct its address, and its kind")
    if status in (429, 503):
        return NoAnswer(f"it takes nothing now ({status})", "wait until it is ready")
    return NoAnswer(f"it answers with status {status}", "see its log")
