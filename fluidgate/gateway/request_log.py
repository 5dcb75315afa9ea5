"""The log of requests: one JSON line for each that has ended, without prompts, answers or keys."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

import orjson

from fluidgate.errors import FluidgateError
from fluidgate.gateway.client.api_error import ApiError

if TYPE_CHECKING:
    from fluidgate.gateway.client.request_handler import Journey


class RequestLog:
    """Writes lines to a file, to standard error ("-") or nowhere ("off")."""

    def __init__(self, where: str) -> None:
        """
        Raises:
            FluidgateError: the file can't be written.
        """
        self._file: IO[bytes] | None = None
        if where == "-":
            self._file = sys.stderr.buffer
        elif where != "off":
            self._file = _opened(Path(where))

    def write(self, journey: Journey) -> None:
        """A line for a request that has ended."""
        if self._file is not None:
            self._line(record(journey))

    def refused(self, error: ApiError, path: str, client_id: str) -> None:
        """A line for a request that was refused on arrival."""
        if self._file is not None:
            known = {"time": round(time.time(), 6), "client_id": client_id, "path": path[:100]}
            self._line({**known, "status": error.status, "outcome": error.reason})

    def _line(self, values: dict[str, object]) -> None:
        assert self._file is not None
        self._file.write(orjson.dumps(values) + b"\n")
        if self._file is sys.stderr.buffer:
            self._file.flush()

    def close(self) -> None:
        if self._file is not None and self._file is not sys.stderr.buffer:
            self._file.close()


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("ab", buffering=0)
    except OSError as error:
        raise FluidgateError(f"server.log: {path}: {error.strerror}; give a file that can be written") from None


def record(journey: Journey) -> dict[str, object]:
    """What the log says of a request; times in s from its arrival, null where it did not come so far."""
    times, gateway, ticket = journey.times, journey.gateway, journey.ticket

    def after(epoch: float) -> float | None:
        return None if math.isnan(epoch) else round(epoch - times.arrived, 6)

    return {
        "time": round(time.time() - (gateway.clock() - times.arrived), 6),
        "id": journey.call.id,
        "client_id": journey.client_id,
        "class": gateway.class_names[ticket.cls],
        "key": journey.key,
        "path": journey.ask.path,
        "stream": journey.ask.stream,
        "status": journey.outlet.status,
        "outcome": journey.outcome,
        "prompt_tokens": journey.prompt_tokens or journey.ask.prompt_tokens,
        "output_tokens": journey.output_tokens,
        "prefill_engine": gateway.url_of(ticket.engine),
        "decode_engine": gateway.url_of(ticket.decode_engine),
        "attempts": ticket.attempts,
        "prefill_start": after(times.prefill),
        "prompt_read": after(times.prompt_read),
        "decode_start": after(times.decode),
        "first_token": after(times.first_token),
        "last_token": after(times.last_token),
        "end": after(gateway.clock()),
    }
