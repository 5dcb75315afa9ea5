"""The Helm chart: what helm makes of it, and what the gateway makes of that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from fluidgate import __version__
from fluidgate.cli.serve import serve
from fluidgate.gateway.client.app import GETS
from fluidgate.gateway.gateway_file import GatewaySettings

FOLDER = Path(__file__).parents[2] / "deploy" / "helm" / "fluidgate"
EXAMPLE: dict[str, Any] = yaml.safe_load((FOLDER / "ci" / "example-values.yaml").read_text("utf-8"))
LEAST = {key: EXAMPLE[key] for key in ("gatewayToml", "scenarioToml")}
SCHEMA = json.loads((FOLDER / "values.schema.json").read_text("utf-8"))


def rendered(values: dict[str, Any], name: str = "gw") -> dict[str, list[dict[str, Any]]]:
    """The objects by kind."""
    helm = pytest.importorskip("helm_python", reason="needs helm (helm-python-sdk)")
    with helm.Chart.load(FOLDER) as chart:
        texts = chart.render(values, name=name, namespace="serving")
    found: dict[str, list[dict[str, Any]]] = {}
    for path, text in texts.items():
        if path.endswith(".yaml"):
            for each in yaml.safe_load_all(text):
                if each is not None:
                    found.setdefault(each["kind"], []).append(each)
    return found


def pod(values: dict[str, Any]) -> dict[str, Any]:
    (deployment,) = rendered(values)["Deployment"]
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("values", [LEAST, EXAMPLE], ids=["least", "example"])
def test_helm_lints_it(values: dict[str, Any]) -> None:
    helm = pytest.importorskip("helm_python", reason="needs helm (helm-python-sdk)")
    report = helm.lint(FOLDER, values, strict=True)
    assert report["errors"] == []
    assert [m["error"] for m in report["messages"] if m["severity"] > 1] == []


def test_what_is_off_is_not_there() -> None:
    assert sorted(rendered(LEAST)) == ["ConfigMap", "Deployment", "Service", "ServiceAccount"]
    on = ["PodDisruptionBudget", "Role", "RoleBinding", "ServiceMonitor"]
    assert sorted(rendered(EXAMPLE)) == sorted([*rendered(LEAST), *on])


@pytest.mark.parametrize("values", [LEAST, EXAMPLE], ids=["least", "example"])
def test_kubernetes_takes_each_object(values: dict[str, Any]) -> None:
    kubernetes = pytest.importorskip("kubernetes_validate")
    for kind, objects in rendered(values).items():
        if kind != "ServiceMonitor":  # of the Prometheus operator
            for each in objects:
                kubernetes.validate(each, kubernetes.latest_version(), strict=True)


def test_the_gateway_reads_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (config,) = rendered(EXAMPLE)["ConfigMap"]
    assert config["data"] == {
        "gateway.toml": EXAMPLE["gatewayToml"],
        "scenario.toml": EXAMPLE["scenarioToml"],
        **EXAMPLE["extraFiles"],
    }
    for name, text in config["data"].items():
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("ENGINE_KEY", "secret")
    monkeypatch.setenv("TEAM_A_KEY", "secret")
    settings = GatewaySettings.load(tmp_path / "gateway.toml")
    spec = pod(EXAMPLE)
    (container,) = spec["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "fluidgate-keys"}}]
    assert spec["terminationGracePeriodSeconds"] == 5 + settings.server.drain_seconds + 10


@pytest.mark.parametrize("text", ["  indented = 1\nnot = 2", "", "a: |\n  b\n\n\n", '{"json": "<&>"}'])
def test_a_file_arrives_as_it_is(text: str) -> None:
    (config,) = rendered({**LEAST, "extraFiles": {"file.txt": text}})["ConfigMap"]
    assert config["data"]["file.txt"] == text


@pytest.mark.parametrize(
    ("line", "values", "seconds"),
    [
        ("", {}, 75),
        ("# drain_seconds = 3", {}, 75),
        ("drain_seconds = 0.5", {}, 16),
        ("drain_seconds=1_000.0", {"preStopSeconds": 0}, 1010),
        ("drain_seconds = 7", {"terminationGracePeriodSeconds": 33}, 33),
    ],
)
def test_a_pod_has_the_time_to_leave(line: str, values: dict[str, Any], seconds: int) -> None:
    text = f"schema = 1\n[server]\n  {line}\n"
    assert pod({**LEAST, "gatewayToml": text, **values})["terminationGracePeriodSeconds"] == seconds


def test_the_command_line_and_the_probes_are_the_gateways() -> None:
    (container,) = pod(LEAST)["containers"]
    command, *arguments = container["args"]
    assert command == serve.name
    given = serve.make_context("serve", arguments).params
    (port,) = container["ports"]
    assert (given["host"], given["port"]) == ("0.0.0.0", port["containerPort"])
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(Path(given["gateway_file"]).parent) == mounted["files"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] in GETS
        assert container[probe]["httpGet"]["port"] == port["name"]
    (service,) = rendered(LEAST)["Service"]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]


def test_one_gateway_at_a_time() -> None:
    """As the page says it for llama.cpp."""
    (deployment,) = rendered({**LEAST, "strategy": {"type": "Recreate", "rollingUpdate": None}})["Deployment"]
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_everyone_selects_the_same_pods() -> None:
    objects = rendered(EXAMPLE)
    labels = objects["Deployment"][0]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        objects["Deployment"][0]["spec"]["selector"]["matchLabels"],
        objects["Service"][0]["spec"]["selector"],
        objects["PodDisruptionBudget"][0]["spec"]["selector"]["matchLabels"],
    ]
    assert all(each == selectors[0] for each in selectors)
    assert selectors[0].items() <= labels.items()
    monitored = objects["ServiceMonitor"][0]["spec"]["selector"]["matchLabels"]
    assert monitored.items() <= objects["Service"][0]["metadata"]["labels"].items()
    assert objects["ServiceMonitor"][0]["metadata"]["labels"]["release"] == "prometheus"


def test_discovery_may_look_and_nothing_more() -> None:
    objects = rendered(EXAMPLE)
    assert [role["metadata"]["namespace"] for role in objects["Role"]] == ["engines", "more-engines"]
    for role in objects["Role"]:
        assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"get", "list", "watch"}
        assert {name for rule in role["rules"] for name in rule["resources"]} == {"pods", "endpointslices"}
    (account,) = objects["ServiceAccount"]
    for binding in objects["RoleBinding"]:
        (subject,) = binding["subjects"]
        assert (subject["name"], subject["namespace"]) == (account["metadata"]["name"], "serving")
    assert pod(EXAMPLE)["automountServiceAccountToken"] is True
    assert pod(LEAST)["automountServiceAccountToken"] is False
    own = rendered({**LEAST, "discovery": {"enabled": True}})
    assert [role["metadata"]["namespace"] for role in own["Role"]] == ["serving"]


def test_pods_are_not_root_and_follow_their_files() -> None:
    spec = pod(LEAST)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    sums = {
        rendered(values)["Deployment"][0]["spec"]["template"]["metadata"]["annotations"]["checksum/files"]
        for values in (LEAST, {**LEAST, "scenarioToml": "another"}, {**LEAST, "replicas": 3})
    }
    assert len(sums) == 2


def test_a_missing_file_is_an_error_that_says_the_mend() -> None:
    helm = pytest.importorskip("helm_python", reason="needs helm (helm-python-sdk)")
    with helm.Chart.load(FOLDER) as chart, pytest.raises(helm.HelmRenderError, match="--set-file scenarioToml"):
        chart.render({"gatewayToml": "schema = 1"}, name="gw")


def test_the_schema_knows_every_value_and_refuses_others() -> None:
    defaults = yaml.safe_load((FOLDER / "values.yaml").read_text("utf-8"))
    jsonschema.validate(defaults, SCHEMA)
    jsonschema.validate({**defaults, **EXAMPLE}, SCHEMA)
    assert set(SCHEMA["properties"]) == {*defaults, "global"}
    for wrong in (
        {"replica": 1},
        {"replicas": "two"},
        {"extraFiles": {"gateway.toml": "x"}},
        {"extraFiles": {"a/b": "x"}},
        {"service": {"port": 0}},
        {"serviceMonitor": {"interval": "often"}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, SCHEMA)


def test_versions_agree() -> None:
    assert yaml.safe_load((FOLDER / "Chart.yaml").read_text("utf-8"))["appVersion"] == __version__
