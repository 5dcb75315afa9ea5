"""Engines from a file that is read again when it has changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from fluidgate.gateway.cluster.sources.source import Source, SourceError
from fluidgate.gateway.gateway_file import is_base_url


class WatchedFile(Source):
    """A base URL a line, `#` begins a comment; or JSON as Prometheus's file_sd has it, [{"targets": ["host:port"]}].

    A file with one line that is none is not believed at all: it may be half written.
    """

    def __init__(self, path: Path) -> None:
        self.origin = str(path)
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._urls: tuple[str, ...] = ()

    async def urls(self) -> Sequence[str]:
        try:
            stat = self._path.stat()
            stamp = stat.st_mtime_ns, stat.st_size
            if stamp != self._stamp:
                self._urls = tuple(dict.fromkeys(_read(self._path.read_text("utf-8-sig"))))
                self._stamp = stamp
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SourceError(f"{self._path}: {reason}") from error
        return self._urls


def _read(text: str) -> Iterator[str]:
    if text.lstrip().startswith("["):
        yield from _from_json(orjson.loads(text))
        return
    for number, line in enumerate(text.splitlines(), 1):
        if url := line.partition("#")[0].strip():
            yield _checked(url, f"line {number}")


def _from_json(groups: Any) -> Iterator[str]:
    for k, group in enumerate(groups):
        targets = group.get("targets") if isinstance(group, dict) else None
        if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
            raise ValueError(f'[{k}] has no "targets", an array of HOST:PORT; give one')
        for target in targets:
            yield _checked(target if "://" in target else f"http://{target}", f"[{k}].targets")


def _checked(url: str, where: str) -> str:
    if not is_base_url(url) or url.rstrip("/").endswith("/v1"):
        raise ValueError(f"{where}: '{url[:100]}' is no base URL; give one such as http://127.0.0.1:8001")
    return url.rstrip("/")
