"""The forms in which clients of the three APIs expect an error."""

from __future__ import annotations

from enum import Enum

import orjson

from fluidgate.gateway.client.api_error import ApiError

ANTHROPIC_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class Dialect(Enum):
    """An API's form of errors."""

    OPENAI = "openai"
    RESPONSES = "responses"
    ANTHROPIC = "anthropic"

    def body(self, error: ApiError) -> bytes:
        """An error as the answer."""
        if self is not Dialect.ANTHROPIC:
            return error.body()
        kind = ANTHROPIC_KINDS.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
        return orjson.dumps({"type": "error", "error": {"type": kind, "message": error.message}})

    def event(self, error: ApiError) -> bytes:
        """An error as the last event of a stream."""
        if self is Dialect.RESPONSES:
            told = {"type": "error", "code": error.reason, "message": error.message, "param": error.param}
            return self.as_event(orjson.dumps(told | {"sequence_number": 0}))
        return self.as_event(self.body(error))

    def as_event(self, error: bytes) -> bytes:
        """The body of an error, in one line, as an event."""
        name = b"" if self is Dialect.OPENAI else b"event: error\n"
        return name + b"data: " + error + b"\n\n"
