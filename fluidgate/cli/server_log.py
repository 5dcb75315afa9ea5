"""What a server writes on standard error while it runs: a line a notice, for people or for collectors of logs."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import click

from fluidgate.cli.console import BAD_INPUT, notices, warnings_to
from fluidgate.errors import FluidgateError, one_line

TEXT = logging.Formatter("fluidgate: %(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")

log = logging.getLogger("fluidgate")


class JsonLines(logging.Formatter):
    """An object a line: `time`, `level`, `logger`, `message`, and `exception` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        values = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            values["exception"] = self.formatException(record.exc_info)
        return json.dumps(values)


FORMATS = {"text": TEXT, "json": JsonLines()}


@contextmanager
def server_log(level: str, form: str) -> Iterator[None]:
    """Notices of one form while a server is made and runs, those of the libraries it stands on too, and the error that
    ends it."""
    with notices(FORMATS[form], level), warnings_to(log), _others(FORMATS[form]):
        try:
            yield
        except FluidgateError as error:
            if form == "text":
                raise
            log.error("%s", one_line(str(error)))
            sys.exit(BAD_INPUT)
        except (click.Abort, click.ClickException, BrokenPipeError):
            raise
        except Exception as error:
            if form == "text":
                raise
            log.exception("%s", one_line(f"{type(error).__name__}: {error}"))
            sys.exit(1)


@contextmanager
def _others(form: logging.Formatter) -> Iterator[None]:
    """Warnings and errors of uvicorn, asyncio and the like."""
    root, handler = logging.getLogger(), logging.StreamHandler(sys.stderr)
    handler.addFilter(lambda record: not f"{record.name}.".startswith("fluidgate."))
    handler.setLevel("WARNING")
    handler.setFormatter(form)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
