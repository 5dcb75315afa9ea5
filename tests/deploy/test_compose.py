"""The composition: files that are there, names and ports that agree, and its load before a gateway."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from fluidgate.cli.engine import engine
from fluidgate.gateway.gateway_file import GatewaySettings
from tests.gateway.served import live_gateway

FOLDER = Path(__file__).parents[2] / "deploy" / "compose"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DASHBOARD = json.loads((FOLDER / "../../docs/grafana-dashboard.json").read_text("utf-8"))


def read(path: str) -> Any:
    return yaml.safe_load((FOLDER / path).read_text("utf-8"))


def mounts(service: str) -> dict[str, Path]:
    """The files of this repository in a container, by their path there."""
    pairs = (each.split(":")[:2] for each in SERVICES[service].get("volumes", []))
    return {inside: (FOLDER / outside).resolve() for outside, inside in pairs if outside.startswith(".")}


def address(url: str) -> tuple[str | None, int | None]:
    return urlsplit(url).hostname, urlsplit(url).port


def engine_addresses() -> set[tuple[str, int]]:
    """Where the service `engines` listens, by its own command line."""
    given = engine.make_context("engine", list(SERVICES["engines"]["command"][1:])).params
    return {("engines", given["port"] + k) for k in range(given["count"])}


def test_every_file_is_there_and_read_only() -> None:
    for service, made in SERVICES.items():
        for inside, path in mounts(service).items():
            assert path.exists(), f"{service}: {path}"
            assert any(v.endswith(f"{inside}:ro") for v in made["volumes"]), inside
        for name in (v.split(":")[0] for v in made.get("volumes", []) if not v.startswith(".")):
            assert name in COMPOSE["volumes"]
    build = SERVICES["gateway"]["build"]
    assert (FOLDER / build["context"] / build["dockerfile"]).exists()


def test_images_are_pinned() -> None:
    for service, made in SERVICES.items():
        tag = made["image"].partition(":")[2]
        assert tag, service
        assert tag != "latest"


def test_whoever_is_waited_for_has_a_health_check() -> None:
    for made in SERVICES.values():
        for name, how in made.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert "healthcheck" in SERVICES[name] or SERVICES[name]["image"].startswith("fluidgate:")


def test_ports_are_open_on_this_machine_alone() -> None:
    ports = [port for made in SERVICES.values() for port in made.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_gateway_knows_the_engines(tmp_path: Path) -> None:
    for inside, path in mounts("gateway").items():
        (tmp_path / Path(inside).name).write_bytes(path.read_bytes())
    settings = GatewaySettings.load(tmp_path / "gateway.toml")
    assert {address(url) for url in settings.groups[0].engines.urls} == engine_addresses()
    assert (
        int(SERVICES["gateway"]["stop_grace_period"].rstrip("s"))
        > settings.server.grace_seconds + settings.server.drain_seconds
    )
    health = address(SERVICES["engines"]["environment"]["FLUIDGATE_HEALTH_URL"])
    assert health == ("127.0.0.1", min(port for _, port in engine_addresses()))
    assert str(len(engine_addresses())) == SERVICES["load"]["command"][2]


def test_prometheus_scrapes_all_of_them() -> None:
    scraped = {job["job_name"]: job["static_configs"][0]["targets"] for job in read("prometheus.yml")["scrape_configs"]}
    assert scraped["gateway"] == [address("http://gateway:8080")[0] + ":8080"]  # type: ignore[operator]
    assert set(scraped["engines"]) == {f"{host}:{port}" for host, port in engine_addresses()}
    config = next(w for w in SERVICES["prometheus"]["command"] if w.startswith("--config.file=")).partition("=")[2]
    assert mounts("prometheus")[config] == FOLDER / "prometheus.yml"


def test_grafana_shows_the_dashboard_of_the_docs() -> None:
    (source,) = read("grafana/datasources/prometheus.yaml")["datasources"]
    assert address(source["url"]) == ("prometheus", 9090)
    listed = next(v for v in DASHBOARD["templating"]["list"] if v["type"] == "datasource")
    assert (source["type"], source["isDefault"], source["uid"]) == (listed["query"], True, "prometheus")
    inside = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert mounts("grafana")[inside].name == "grafana-dashboard.json"
    (provider,) = read("grafana/dashboards/fluidgate.yaml")["providers"]
    assert provider["options"]["path"] == str(Path(inside).parent)
    for kind in ("datasources", "dashboards"):
        assert mounts("grafana")[f"/etc/grafana/provisioning/{kind}"] == FOLDER / "grafana" / kind
    page = (FOLDER / "../README.md").read_text("utf-8")
    assert f"http://127.0.0.1:3000/d/{DASHBOARD['uid']}" in page


def test_the_load_is_answered(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("load", FOLDER / "load.py")
    assert spec is not None
    assert spec.loader is not None
    load = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(load)

    async def run() -> None:
        async with live_gateway(tmp_path, speed=50.0) as live:
            of = live.gateway.settings.scenario
            outcomes = await load.requests(of, live.url, gpus=20, seconds=1.0)
            assert set(outcomes) == {"200"}
            await live.until(lambda: len(live.records()) == outcomes.total())
            assert {record["outcome"] for record in live.records()} == {"completed"}

    asyncio.run(run())


def test_the_schema_of_compose_is_met() -> None:
    pytest.importorskip("check_jsonschema")
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", FOLDER / "compose.yaml"],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stdout
