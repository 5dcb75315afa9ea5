"""Engines from Kubernetes: the pods that are ready behind a Service, as its EndpointSlices say."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from fluidgate.gateway.cluster.sources.source import Source, SourceError
from fluidgate.gateway.gateway_tables import KubernetesTable

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token, its namespace and the API server's certificate."""

SERVER = "https://kubernetes.default.svc"
SERVICE_LABEL = "kubernetes.io/service-name"
SECONDS = 10.0


class KubernetesService(Source):
    """Reads the EndpointSlices (discovery.k8s.io/v1) of a Service with the pod's own account.

    A pod that is not ready, or is terminating, is not named: engines that were drain then.
    """

    def __init__(self, table: KubernetesTable, *, server: str = SERVER, account: Path = ACCOUNT) -> None:
        """
        Args:
            server: base URL of the API server; `account`, the folder with `token`, `namespace` and `ca.crt`.
        """
        self.origin = f"Service {table.service}"
        self._table = table
        self._server = server.rstrip("/")
        self._account = account
        self._session: aiohttp.ClientSession | None = None

    async def urls(self) -> Sequence[str]:
        try:
            slices = await self._slices()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise SourceError(f"{self.origin}: {error or type(error).__name__}") from error
        return sorted(set(self._ready(slices)))

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _slices(self) -> list[dict[str, Any]]:
        """All of them, page by page."""
        table, account = self._table, self._account
        namespace = table.namespace or (account / "namespace").read_text().strip()
        token = (account / "token").read_text().strip()  # rotated: read each time
        if self._session is None:
            secure = self._server.startswith("https")
            context = ssl.create_default_context(cafile=str(account / "ca.crt")) if secure else True
            connector = aiohttp.TCPConnector(ssl=context)
            self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(SECONDS))
        path = f"{self._server}/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        found: list[dict[str, Any]] = []
        more = ""
        while True:
            query = {"labelSelector": f"{SERVICE_LABEL}={table.service}", "limit": "500"}
            query |= {"continue": more} if more else {}
            headers = {"authorization": f"Bearer {token}"}
            async with self._session.get(path, params=query, headers=headers) as answer:
                if answer.status != 200:
                    raise ValueError(f"the API server says {answer.status}: {(await answer.text())[:200]}")
                page = await answer.json()
            found += page.get("items") or []
            more = (page.get("metadata") or {}).get("continue") or ""
            if not more:
                return found

    def _ready(self, slices: list[dict[str, Any]]) -> Iterator[str]:
        table = self._table
        for each in slices:
            ports = [port["port"] for port in each.get("ports") or [] if port.get("port")]
            port = table.port or (ports[0] if ports else None)
            if port is None:
                continue
            for endpoint in each.get("endpoints") or []:
                conditions = endpoint.get("conditions") or {}
                if conditions.get("ready", True) is False or conditions.get("terminating"):
                    continue
                for address in endpoint.get("addresses") or []:
                    yield f"{table.scheme}://{f'[{address}]' if ':' in address else address}:{port}"
