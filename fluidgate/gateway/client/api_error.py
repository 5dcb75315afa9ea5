"""Errors as clients of OpenAI's API expect them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import orjson

REASON_HEADER = "x-fluidgate-reason"


class ApiError(Exception):
    """An answer that is no completion.

    Attributes:
        status: of HTTP.
        reason: a short word for logs, metrics and the header `x-fluidgate-reason`.
        param: the key of the body that is wrong, if one is.
        headers: further headers.
        class_name: of the request, where it is known by then.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.param = param
        self.headers = dict(headers or {})
        self.class_name: str | None = None

    @property
    def kind(self) -> str:
        """OpenAI's `type` of the error."""
        match self.status:
            case 401:
                return "authentication_error"
            case 404:
                return "not_found_error"
            case 429:
                return "rate_limit_error"
            case status if status >= 500:
                return "server_error"
            case _:
                return "invalid_request_error"

    def body(self) -> bytes:
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.reason}
        return orjson.dumps({"error": error})


def invalid(message: str, param: str | None = None, *, reason: str = "invalid_request") -> ApiError:
    return ApiError(400, reason, message, param=param)


def busy(reason: str, message: str, seconds: float) -> ApiError:
    """429: come again in so many seconds, which are not rounded down."""
    return ApiError(429, reason, message, headers={"retry-after": str(max(1, math.ceil(seconds - 1e-6)))})


def unavailable(reason: str, message: str, seconds: float = 1.0) -> ApiError:
    return ApiError(503, reason, message, headers={"retry-after": str(max(1, round(seconds)))})
