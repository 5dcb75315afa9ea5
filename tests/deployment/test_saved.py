"""What `fluidgate size --save` writes: files that agree with each other and with what reads them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
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
from fluidgate.sizing.choices import choices_of
from tests.deployment.fleets import ENGINE, TWO, answer, fleet, mixed, saved, sizing

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
    made = fleet(**CASES[request.node.callspec.params["folder"]]).load
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
    assert reserved == [str(k) for k in range(fleet_of.gpus)]
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
    words = line.split("$FLUIDGATE engine")[1].split(' --model "$MODEL"')[0].split()
    given = engine.make_context("engine", words).params
    (group,) = GatewaySettings.load(folder / "gateway.toml").groups
    ports = range(given["port"], given["port"] + given["count"])
    assert [urlsplit(url).port for url in group.engines.urls] == list(ports)


def flags(made: Fleet) -> dict[str, str]:
    """By name; empty where a flag has no value."""
    words = engine_flags(made.pools[0])
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
    assert moved.pools[0].moves_kv
    assert "--enable-prefix-caching" in flags(moved)
    assert not fleet().pools[0].moves_kv


def test_weights_that_nobody_named_are_asked_for(tmp_path: Path) -> None:
    known = fleet()
    assert known.model == "meta-llama/Llama-3.1-8B-Instruct"
    unknown = saved(tmp_path / "set", profile="a100-40gb/qwen-8b", batch_size=16, chunk_size=256)
    for name in ("vllm.sh", "check.sh", "emulate.sh", "compose.yaml"):
        assert "${MODEL:?" in (unknown / name).read_text("utf-8")


def test_what_no_gateway_runs_is_refused() -> None:
    with pytest.raises(FluidgateError, match=r"policy 'splitwise' is more than a placement .*another policy"):
        Fleet.of(answer(policy="splitwise"))


def test_a_mix_has_a_group_a_type(tmp_path: Path) -> None:
    save(mixed(), tmp_path)
    fast, cheap = GatewaySettings.load(tmp_path / "gateway.toml").groups
    assert (fast.name, cheap.name) == ("h100", "rtx4090")
    assert (fast.shares, cheap.shares) == ((0.25, 1.0), (0.75, 0.0))
    assert fast.model == cheap.model == "meta-llama/Llama-3.1-8B-Instruct"
    assert fast.engines.urls == ["http://127.0.0.1:8001"]
    assert cheap.engines.urls == ["http://127.0.0.1:8002", "http://127.0.0.1:8003"]
    assert [each.scenario.gpu.batch_size for each in (fast, cheap)] == [128, 64]
    assert cheap.scenario.engine.kv_tokens is not None
    assert [each.cluster_gpus for each in (fast.stated, cheap.stated)] == [1, 2]
    assert [cls.arrival_rate for cls in fast.stated.classes] == pytest.approx([5.0, 2.0])
    assert cheap.stated.classes[0].arrival_rate == pytest.approx(7.5)
    readme = (tmp_path / "README.md").read_text("utf-8")
    assert "| 2 | rtx4090/llama-3.1-8b, batch 64, chunk 1024, index-and-pool, a GPU each | 75.0 % | 0.0 % |" in readme
    assert "`sh vllm.sh 1 1` on h100/llama-3.1-8b, `sh vllm.sh 2 3` on rtx4090/llama-3.1-8b" in readme
    lines = (tmp_path / "vllm.sh").read_text("utf-8").splitlines()
    assert [line.split("--max-num-seqs ")[1].split()[0] for line in lines if line.startswith("engine ")] == [
        "128", "64", "64"
    ]  # fmt: skip


def test_each_type_of_a_mix_goes_to_its_nodes(tmp_path: Path) -> None:
    save(mixed(), tmp_path)
    text = (tmp_path / "kubernetes.yaml").read_text("utf-8")
    objects = list(yaml.safe_load_all(text))
    sets = {each["metadata"]["name"]: each["spec"] for each in objects if each["kind"] == "StatefulSet"}
    assert {name: (spec["replicas"], spec["template"]["spec"]["nodeSelector"]) for name, spec in sets.items()} == {
        "chat-h100-engines": (1, {"fluidgate-gpu": "h100"}),
        "chat-rtx4090-engines": (2, {"fluidgate-gpu": "rtx4090"}),
    }
    assert "kubectl label nodes NODE fluidgate-gpu=rtx4090" in text
    (files,) = (each["data"] for each in objects if each["kind"] == "ConfigMap")
    folder = tmp_path / "mounted"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(content)
    groups = GatewaySettings.load(folder / "gateway.toml").groups
    assert [urlsplit(group.engines.urls[0]).hostname for group in groups] == [
        "chat-h100-engines-0.chat-h100-engines",
        "chat-rtx4090-engines-0.chat-rtx4090-engines",
    ]
    kubernetes = pytest.importorskip("kubernetes_validate")
    for each in objects:
        kubernetes.validate(each, kubernetes.latest_version(), strict=True)


def test_names_of_hosts_are_short_enough() -> None:
    found = mixed().answers[0]
    pools = []
    for pool in found.fleet:
        named = pool.choice.scenario.replace(name="a long name " * 9)
        choice = replace(pool.choice, profile="a-gpu-of-a-very-long-name/model", scenario=named)
        pools.append(replace(pool, choice=choice))
    made = Fleet.of(replace(found, fleet=tuple(pools)))
    hosts = {f"{made.name}-{pool.label}-engines-100" for pool in made.pools}
    assert len(hosts) == 2
    assert max(map(len, hosts)) <= 63


def test_a_composition_of_a_mix_says_which_gpus_are_whose(tmp_path: Path) -> None:
    save(mixed(), tmp_path)
    text = (tmp_path / "compose.yaml").read_text("utf-8")
    assert "# GPU 0 is for h100/llama-3.1-8b, GPUs 1 to 2 are for rtx4090/llama-3.1-8b:" in text
    made = yaml.safe_load(text)
    batches = {
        name: each["command"][each["command"].index("--max-num-seqs") + 1]
        for name, each in made["services"].items()
        if name != "gateway"
    }
    assert batches == {"engine-1": "128", "engine-2": "64", "engine-3": "64"}
    groups = parse_gateway(made["configs"]["gateway"]["content"].replace("$$", "$"), "gateway.toml", tmp_path).groups
    assert [urlsplit(url).hostname for group in groups for url in group.engines.urls] == list(batches)
    mounted = {volume.split(":")[0] for volume in made["services"]["gateway"]["volumes"]}
    assert mounted == {"./scenario-h100.toml", "./scenario-rtx4090.toml"}


def test_a_mix_of_two_models_is_refused() -> None:
    found = mixed().answers[0]
    (other,) = choices_of(found.fleet[1].choice.scenario, profiles=["h100/llama-3.1-70b-tp4"])
    two = (found.fleet[0], replace(found.fleet[1], choice=other))
    with pytest.raises(FluidgateError, match=r"different models, .*70B.* and .*8B-Instruct; give profiles of one"):
        Fleet.of(replace(found, fleet=two))


def test_what_the_check_does_not_send_is_said(tmp_path: Path) -> None:
    save(sizing(more="[failures]\nmtbf = 1e5\nmttr = 600.0"), tmp_path)
    assert "`check.sh` leaves them alone: an easier load" in (tmp_path / "README.md").read_text("utf-8")


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(FluidgateError, match=r"holds files already; give another folder, or force=True"):
        save(sizing(), tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["mine.txt"]
    save(sizing(), tmp_path, force=True)
    assert (tmp_path / "mine.txt").read_text() == "kept"
    assert (tmp_path / "README.md").is_file()
