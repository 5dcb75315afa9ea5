"""The log of requests: one JSON line for each that has ended, without prompts, answers or keys."""

from __future__ import annotations

import logging
import math
import sys
import time
from pathlib import Path
from typing import IO

import orjson

from fluidgate.errors import FluidgateError
from fluidgate.gateway.ended import EndedRequest, RefusedRequest

log = logging.getLogger("fluidgate.gateway")


class RequestLog:
    """Writes lines to a file, to standard error ("-") or nowhere ("off")."""

    def __init__(self, where: str) -> None:
        """
        Raises:
            FluidgateError: the file can't be written.
        """
        self._path = None if where in ("-", "off") else Path(where)
        self._file: IO[bytes] | None = sys.stderr.buffer if where == "-" else None
        self._troubled = False
        if self._path is not None:
            self._file = _opened(self._path)

    def reopen(self) -> None:
        """Write on in a new file of the same name; where none can be opened, in the old one."""
        if self._path is None:
            return
        try:
            opened = _opened(self._path)
        except FluidgateError as error:
            log.warning("%s; the old one is written on", error)
            return
        self.close()
        self._file = opened

    def ended(self, request: EndedRequest) -> None:
        """A line for a request that has ended."""
        if self._file is not None:
            self._line(record(request))

    def refused(self, request: RefusedRequest) -> None:
        """A line for a request that was refused on arrival."""
        if self._file is not None:
            known = {"time": round(time.time(), 6), "client_id": request.client_id, "path": request.path[:100]}
            whose = {"client": request.client, "class": request.class_name, "key": request.key}
            self._line(
                {**known, **whose, "status": request.status, "outcome": request.reason, "error": request.error or None}
            )

    def _line(self, values: dict[str, object]) -> None:
        """A disk that is full costs lines, not requests."""
        assert self._file is not None
        try:
            self._file.write(orjson.dumps(values) + b"\n")
            if self._file is sys.stderr.buffer:
                self._file.flush()
        except OSError as error:
            if not self._troubled:
                log.error("the request log can't be written (%s); lines are lost until it can", error.strerror)
            self._troubled = True
        else:
            self._troubled = False

    def close(self) -> None:
        if self._file is not None and self._file is not sys.stderr.buffer:
            self._file.close()


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("ab", buffering=0)
    except OSError as error:
        raise FluidgateError(f"server.log: {path}: {error.strerror}; give a file that can be written") from None


def record(request: EndedRequest) -> dict[str, object]:
    """What the log says of a request; times in s from its arrival, null where it did not come so far."""
    times = request.times

    def after(epoch: float) -> float | None:
        return None if math.isnan(epoch) else round(epoch - times.arrived, 6)

    return {
        "time": round(time.time() - (times.end - times.arrived), 6),
        "id": request.id,
        "client_id": request.client_id,
        "client": request.client,
        "model": request.model,
        "class": request.class_name,
        "key": request.key,
        "path": request.path,
        "stream": request.stream,
        "status": request.status,
        "outcome": request.outcome,
        "error": request.error or None,
        "prompt_tokens": request.prompt_tokens,
        "output_tokens": request.output_tokens,
        "prefill_engine": request.prefill_engine,
        "decode_engine": request.decode_engine,
        "attempts": request.attempts,
        "prefill_start": after(times.prefill),
        "prompt_read": after(times.prompt_read),
        "decode_start": after(times.decode),
        "first_token": after(times.first_token),
        "last_token": after(times.last_token),
        "end": after(times.end),
    }
