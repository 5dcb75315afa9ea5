"""Engines from the addresses of a host name, such as a headless Service's."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from fluidgate.gateway.cluster.sources.source import Source, SourceError


class DnsName(Source):
    """Each address of the host of a base URL is an engine."""

    def __init__(self, url: str) -> None:
        self.origin = url
        self._parts = urlsplit(url)

    async def urls(self) -> Sequence[str]:
        parts = self._parts
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise SourceError(f"{host}: {error.strerror or error}") from error
        addresses = sorted({str(address[0]) for _, _, _, _, address in found})
        path = parts.path.rstrip("/")
        return [f"{parts.scheme}://{f'[{each}]' if ':' in each else each}:{port}{path}" for each in addresses]
