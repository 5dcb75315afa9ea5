"""Where engines are named: a watched file, a DNS name, a Kubernetes API server that a test plays."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from fluidgate.gateway.cluster.sources import DnsName, KubernetesService, SourceError, WatchedFile
from fluidgate.gateway.gateway_tables import KubernetesTable
from tests.gateway.asynchronous import asynchronous


@asynchronous
async def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "engines.txt"
    source = WatchedFile(path)
    with pytest.raises(SourceError, match="No such file"):
        await source.urls()
    path.write_text("# ours\nhttp://a:8000/  # the first\n\nhttp://b:8000\nhttp://a:8000\n")
    assert list(await source.urls()) == ["http://a:8000", "http://b:8000"]
    path.write_text("http://a:8000\nhttp://b:80")
    os.utime(path, ns=(1, 1))
    assert list(await source.urls()) == ["http://a:8000", "http://b:80"]
    path.write_text('[{"targets": ["a:8000", "https://c"], "labels": {"x": "y"}}]')
    assert list(await source.urls()) == ["http://a:8000", "https://c"]
    path.write_text("")
    assert list(await source.urls()) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("http://a:8000\nhttp://b:80 00", "line 2: 'http://b:80 00' is no base URL"),
        ("http://a:8000/v1", "line 1: 'http://a:8000/v1' is no base URL"),
        ('[{"targets": "a"}]', 'has no "targets"'),
        ('[{"targets": ["a:8000"]', "unexpected end"),
    ],
)
@asynchronous
async def test_a_file_that_is_half_written_is_not_believed(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "engines.txt"
    path.write_text(text)
    with pytest.raises(SourceError, match=r"engines\.txt") as raised:
        await WatchedFile(path).urls()
    assert problem in str(raised.value)


@asynchronous
async def test_each_address_of_a_name_is_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "http://127.0.0.1:8000" in await DnsName("http://localhost:8000").urls()

    def addresses(*_: Any, **__: Any) -> list[Any]:
        found = ["10.0.0.2", "10.0.0.1", "10.0.0.1"]
        six = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fd00::1", 443, 0, 0))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in found] + [six]

    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    urls = await DnsName("https://vllm.internal/base").urls()
    assert urls == ["https://10.0.0.1:443/base", "https://10.0.0.2:443/base", "https://[fd00::1]:443/base"]

    def nobody(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    with pytest.raises(SourceError, match="Name or service not known"):
        await DnsName("http://gone:8000").urls()


def endpoint(address: str, **conditions: bool) -> dict[str, Any]:
    return {"addresses": [address], "conditions": conditions}


class ApiServer:
    """A Kubernetes API server that knows one Service, in two slices on two pages."""

    def __init__(self) -> None:
        self.slices = [
            {"ports": [{"port": 8000}], "endpoints": [endpoint("10.1.0.1", ready=True), endpoint("10.1.0.2")]},
            {
                "ports": [{"port": 8000}],
                "endpoints": [
                    endpoint("10.1.0.3", ready=False),
                    endpoint("10.1.0.4", ready=True, terminating=True),
                    endpoint("fd00::5", ready=True),
                ],
            },
        ]
        self.asked: list[web.Request] = []
        self.status = 200

    async def list(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        if self.status != 200:
            return web.Response(status=self.status, text="endpointslices is forbidden")
        page = int(request.query.get("continue", "0"))
        more = str(page + 1) if page + 1 < len(self.slices) else ""
        return web.json_response({"items": self.slices[page : page + 1], "metadata": {"continue": more}})


@asynchronous
async def test_pods_that_are_ready_behind_a_service(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "namespace").write_text("llm")
    server = ApiServer()
    app = web.Application()
    app.router.add_get("/apis/discovery.k8s.io/v1/namespaces/llm/endpointslices", server.list)
    served = TestServer(app)
    await served.start_server()
    source = KubernetesService(KubernetesTable(service="vllm"), server=str(served.make_url("/")), account=tmp_path)
    try:
        urls = await source.urls()
        assert urls == ["http://10.1.0.1:8000", "http://10.1.0.2:8000", "http://[fd00::5]:8000"]
        assert server.asked[0].query["labelSelector"] == "kubernetes.io/service-name=vllm"
        (tmp_path / "token").write_text("second")
        server.slices = [{"ports": [], "endpoints": [endpoint("10.1.0.9")]}]
        assert await source.urls() == [], "no port is known"
        given = KubernetesTable(service="vllm", namespace="llm", port=9000, scheme="https")
        other = KubernetesService(given, server=str(served.make_url("/")), account=tmp_path)
        assert await other.urls() == ["https://10.1.0.9:9000"]
        await other.close()
        assert server.asked[-1].headers["authorization"] == "Bearer second", "tokens are rotated"
        server.status = 403
        with pytest.raises(SourceError, match="says 403: endpointslices is forbidden"):
            await source.urls()
        await served.close()
        with pytest.raises(SourceError, match="Service vllm: Cannot connect"):
            await source.urls()
    finally:
        await source.close()
        await served.close()


def test_the_form_of_a_slice_is_that_of_the_api() -> None:
    """`ready` unset means ready: discovery.k8s.io/v1, EndpointConditions."""
    found = KubernetesService(KubernetesTable(service="s"))._ready(json.loads(
        '[{"ports": [{"name": "http", "port": 8000, "protocol": "TCP"}], "addressType": "IPv4", "endpoints": ['
        '{"addresses": ["10.0.0.1"], "conditions": {"ready": true, "serving": true, "terminating": false}},'
        '{"addresses": ["10.0.0.2"], "conditions": {"ready": null}}, {"addresses": ["10.0.0.3"]}]},'
        '{"ports": null, "endpoints": null}]'
    ))  # fmt: skip
    assert list(found) == [f"http://10.0.0.{k}:8000" for k in (1, 2, 3)]
