"""A composition: the engines with a GPU each, the gateway before them."""

from __future__ import annotations

from typing import Any

import yaml

from fluidgate import __version__
from fluidgate.deployment.fleet import GATEWAY_PORT, SIDE_CHANNEL, Fleet
from fluidgate.deployment.gateway import gateway_text, policy_files
from fluidgate.deployment.pool import EnginePool
from fluidgate.deployment.vllm import IMAGE, engine_flags, model_variable

ENGINE_PORT = 8000
"""Of an engine in a container of its own."""
HEALTH = f"http://127.0.0.1:{ENGINE_PORT}/health"
FILES = "/etc/fluidgate"
GATEWAY_IMAGE = f"fluidgate:{__version__}"
CONTAINER_LOG = "-"
"""The gateway's request log: on standard error, where what runs the container looks for it."""
DRAIN = 75
"""Seconds from SIGTERM on that the gateway gets: its drain_seconds, and some."""
HEAD = f"""\
# The engines and the gateway on one machine: docker compose up --wait
# {GATEWAY_IMAGE}: deploy/docker/Dockerfile of fluidgate. MODEL names other weights; gated ones need HF_TOKEN.
# {{machines}}

"""


def compose_text(fleet: Fleet) -> str:
    """The file, for one machine that has all the GPUs."""
    engines, first = {}, 0
    for number, pool in fleet.each:
        engines[_service(number)] = _engine(fleet, pool, number, first)
        first += pool.gpus
    urls = {pool.label: [f"http://{_service(k)}:{ENGINE_PORT}" for k in pool.numbers] for pool in fleet.pools}
    gateway = gateway_text(fleet, urls, CONTAINER_LOG)
    made = {
        "name": fleet.name,
        "services": {**engines, "gateway": _gateway(fleet, list(engines))},
        "configs": {"gateway": {"content": gateway.replace("$", "$$")}},
        "volumes": {"weights": {}},
    }
    machines = f"{fleet.gpus} GPUs: where no machine has so many, kubernetes.yaml or vllm.sh spread them over several."
    if fleet.mixed:
        machines = f"{_types(fleet)}: where no machine has these, kubernetes.yaml or vllm.sh spread them over several."
    return HEAD.format(machines=machines) + yaml_text(made)


def yaml_text(made: dict[str, Any]) -> str:
    """A document, in the order of its keys."""
    return str(yaml.safe_dump(made, sort_keys=False, width=1000))  # type: ignore[no-untyped-call]


def _types(fleet: Fleet) -> str:
    """Which of the machine's GPUs are of which type."""
    first, said = 0, []
    for pool in fleet.pools:
        last = first + pool.engines * pool.gpus - 1
        said.append(f"GPU {first} is" if first == last else f"GPUs {first} to {last} are")
        said[-1] += f" for {pool.title}"
        first = last + 1
    return ", ".join(said)


def _service(number: int) -> str:
    return f"engine-{number + 1}"


def _engine(fleet: Fleet, pool: EnginePool, number: int, first: int) -> dict[str, Any]:
    ids = [str(first + k) for k in range(pool.gpus)]
    environment = {"HF_TOKEN": "${HF_TOKEN:-}"}
    if pool.moves_kv:
        environment |= {
            "VLLM_NIXL_SIDE_CHANNEL_HOST": _service(number),
            "VLLM_NIXL_SIDE_CHANNEL_PORT": str(SIDE_CHANNEL),
        }
    reserved = {"driver": "nvidia", "device_ids": ids, "capabilities": ["gpu"]}
    return {
        "image": IMAGE,
        "entrypoint": ["vllm", "serve"],
        "command": [
            model_variable(fleet),
            "--port",
            str(ENGINE_PORT),
            *(flag.replace("$", "$$") for flag in engine_flags(pool)),
        ],
        "environment": environment,
        "ipc": "host",
        "restart": "unless-stopped",
        "volumes": ["weights:/root/.cache/huggingface"],
        "deploy": {"resources": {"reservations": {"devices": [reserved]}}},
        "healthcheck": {
            "test": ["CMD", "python3", "-c", f"import urllib.request as r; r.urlopen('{HEALTH}', timeout=4)"],
            "interval": "10s",
            "timeout": "5s",
            "start_period": "1800s",
            "start_interval": "5s",
        },
    }


def _gateway(fleet: Fleet, engines: list[str]) -> dict[str, Any]:
    files = [*(pool.scenario_file for pool in fleet.pools), *policy_files(fleet)]
    return {
        "image": GATEWAY_IMAGE,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
        "depends_on": {name: {"condition": "service_healthy"} for name in engines},
        "command": ["serve", f"{FILES}/gateway.toml", "--host", "0.0.0.0", "--port", str(GATEWAY_PORT)],
        "configs": [{"source": "gateway", "target": f"{FILES}/gateway.toml"}],
        "volumes": [f"./{name}:{FILES}/{name}:ro" for name in files],
        "ports": [f"127.0.0.1:{GATEWAY_PORT}:{GATEWAY_PORT}"],
        "stop_grace_period": f"{DRAIN}s",
    }
