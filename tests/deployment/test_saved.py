"""What `fluidgate size --save` writes: files that agree with each other and with what reads them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from fluidgate.cli.engine import engine
from fluidgate.cli.serve import serve
from fluidgate.deployment import save
from fluidgate.deployment.fleet import Fleet
from fluidgate.deployment.vllm import engine_flags
from fluidgate.errors import FluidgateError
from fluidgate.gateway.client.app import GETS
from fluidgate.gateway.gateway_file import GatewaySettings, parse_gateway
from fluidgate.model import Scenario
from tests.deployment.fleets import ENGINE, TWO, answer, fleet, saved, sizing

CASES: dict[str, dict[str, Any]] = {
    "one class": {},
    "two classes": {"more": TWO},
    "placed": {"policy": "vllm-least-loaded", "more": ENGINE + "prefix_caching = true"},
    "tensor parallel": {"profile": "h100/llama-3.1-70b-tp4", "engines": 5},
    "ranks": {"more": ENGINE + "data_parallel = 2"},
    "own policy file": {"policy": "tuned.toml"},
}
TUNED = 'schema = 1\npolicy = "index-and-pool"\n[parameters]\nreservation = 0.1\n'


@pytest.fixture(params=CASES)
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("tuned.toml").write_text(TUNED)
    return Path(saved(tmp_path / "set", **CASES[request.param]))


def test_the_scenario_comes_back(folder: Path, request: pytest.FixtureRequest) -> None:
    made = fleet(**CASES[request.node.callspec.params["folder"]]).scenario
    read = Scenario.load(folder / "scenario.toml")
    assert read.classes == made.classes
    assert read.engine == made.engine
    assert read.targets == made.targets
    assert (read.gpu.iteration, read.gpu.calibrated.gpus) == (made.gpu.iteration, made.gpu.calibrated.gpus)
    assert (read.cluster_gpus, read.options) == (made.cluster_gpus, ())


def test_the_gateway_takes_its_file(folder: Path, request: pytest.FixtureRequest) -> None:
    given = CASES[request.node.callspec.params["folder"]]
    (group,) = GatewaySettings.load(folder / "gateway.toml").groups
    assert len(group.engines.urls) == given.get("engines", 2)
    assert len(group.rules) == len(group.scenario.classes) - 1


def test_kubernetes_takes_each_object_and_the_gateway_its_files(folder: Path, tmp_path: Path) -> None:
    objects = list(yaml.safe_load_all((folder / "kubernetes.yaml").read_text("utf-8")))
    found = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    files = found["ConfigMap", "chat-gateway"]["data"]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (group,) = GatewaySettings.load(tmp_path / "gateway.toml").groups
    service = found["Service", "chat-engines"]
    engines = found["StatefulSet", "chat-engines"]["spec"]
    assert (engines["serviceName"], engines["replicas"]) == (service["metadata"]["name"], len(group.engines.urls))
    hosts = [f"chat-engines-{k}.chat-engines" for k in range(engines["replicas"])]
    assert [urlsplit(url).hostname for url in group.engines.urls] == hosts
    assert {urlsplit(url).port for url in group.engines.urls} == {service["spec"]["ports"][0]["port"]}
    assert service["spec"]["clusterIP"] == "None"
    gateway = found["Deployment", "chat-gateway"]["spec"]["template"]["spec"]["containers"][0]
    parsed = serve.make_context("serve", gateway["args"][1:]).params
    assert parsed["port"] == found["Service", "chat-gateway"]["spec"]["ports"][0]["targetPort"]
    assert all(gateway[f"{kind}Probe"]["httpGet"]["path"] in GETS for kind in ("startup", "liveness", "readiness"))
    for kind, name in (("StatefulSet", "chat-engines"), ("Deployment", "chat-gateway")):
        labels = found[kind, name]["spec"]["template"]["metadata"]["labels"]
        assert found["Service", name]["spec"]["selector"] == labels
    kubernetes = pytest.importorskip("kubernetes_validate")
    for each in objects:
        kubernetes.validate(each, kubernetes.latest_version(), strict=True)


def test_the_composition_has_a_gpu_for_each_rank(folder: Path, request: pytest.FixtureRequest) -> None:
    made = yaml.safe_load((folder / "compose.yaml").read_text("utf-8"))
    engines = {name: each for name, each in made["services"].items() if name != "gateway"}
    reserved = [
        number
        for each in engines.values()
        for number in each["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]
    ]
    fleet_of = fleet(**CASES[request.node.callspec.params["folder"]])
    assert reserved == [str(k) for k in range(fleet_of.engines * fleet_of.gpus)]
    text = made["configs"]["gateway"]["content"].replace("$$", "$")
    (group,) = parse_gateway(text, "gateway.toml", folder).groups
    assert [urlsplit(url).hostname for url in group.engines.urls] == list(engines)
    for volume in made["services"]["gateway"]["volumes"]:
        assert (folder / volume.split(":")[0]).is_file()


def test_the_schema_of_compose_is_met(folder: Path) -> None:
    pytest.importorskip("check_jsonschema")
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", folder / "compose.yaml"],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stdout


def test_the_emulated_engines_are_where_the_gateway_looks(folder: Path) -> None:
    (line,) = [each for each in (folder / "emulate.sh").read_text("utf-8").splitlines() if "FLUIDGATE engine" in each]
    words = line.split('--model "$MODEL"')[0].split()[2:]
    given = engine.make_context("engine", words).params
    (group,) = GatewaySettings.load(folder / "gateway.toml").groups
    ports = range(given["port"], given["port"] + given["count"])
    assert [urlsplit(url).port for url in group.engines.urls] == list(ports)


def flags(made: Fleet) -> dict[str, str]:
    """By name; empty where a flag has no value."""
    words = engine_flags(made)
    values = [*words[1:], "--"]
    return {word: "" if value.startswith("--") else value for word, value in zip(words, values, strict=True)
            if word.startswith("--")}  # fmt: skip


def test_engines_are_told_what_was_simulated() -> None:
    plain = flags(fleet())
    assert plain == {
        "--max-num-seqs": "128",
        "--max-num-batched-tokens": "1151",
        "--gpu-memory-utilization": "0.90",
        "--no-enable-prefix-caching": "",
    }
    large = flags(fleet(profile="h100/llama-3.1-70b-tp4", more=ENGINE + "data_parallel = 2\nprefix_caching = true"))
    assert (large["--tensor-parallel-size"], large["--data-parallel-size"]) == ("4", "2")
    assert "--enable-prefix-caching" in large
    small = flags(fleet(more=ENGINE + 'kv_memory = "40 GiB"\nkv_block = 32\nasync_scheduling = true'))
    assert float(small["--gpu-memory-utilization"]) == pytest.approx(0.9 * 40 / 79.19, abs=0.01)
    assert (small["--block-size"], "--async-scheduling" in small) == ("32", True)
    budget = flags(fleet(policy="vllm-round-robin", more=ENGINE + "max_batched_tokens = 700"))
    assert budget["--max-num-batched-tokens"] == "700"


def test_decodes_move_where_they_did_in_the_simulation() -> None:
    moved = fleet(more=ENGINE + 'batching = "single-prefill"')
    assert "NixlConnector" in flags(moved)["--kv-transfer-config"]
    assert moved.moves_kv
    assert "--enable-prefix-caching" in flags(moved)
    assert not fleet().moves_kv


def test_weights_that_nobody_named_are_asked_for(tmp_path: Path) -> None:
    known = fleet()
    assert known.model == "meta-llama/Llama-3.1-8B-Instruct"
    unknown = saved(tmp_path / "set", profile="a100-40gb/qwen-8b", batch_size=16, chunk_size=256)
    for name in ("vllm.sh", "check.sh", "emulate.sh", "compose.yaml"):
        assert "${MODEL:?" in (unknown / name).read_text("utf-8")


def test_what_no_gateway_runs_is_refused() -> None:
    with pytest.raises(FluidgateError, match=r"policy 'splitwise' is more than a placement .*another policy"):
        Fleet.of(answer(policy="splitwise"))


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(FluidgateError, match=r"holds files already; give another folder, or force=True"):
        save(sizing(), tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["mine.txt"]
    save(sizing(), tmp_path, force=True)
    assert (tmp_path / "mine.txt").read_text() == "kept"
    assert (tmp_path / "README.md").is_file()
