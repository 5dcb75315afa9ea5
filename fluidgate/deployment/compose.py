"""A composition: the engines with a GPU each, the gateway before them."""

from __future__ import annotations

from typing import Any

import yaml

from fluidgate import __version__
from fluidgate.deployment.fleet import GATEWAY_PORT, SIDE_CHANNEL, Fleet
from fluidgate.deployment.gateway import gateway_text, policy_file
from fluidgate.deployment.vllm import IMAGE, engine_flags, model_variable

ENGINE_PORT = 8000
"""Of an engine in a container of its own."""
HEALTH = f"http://127.0.0.1:{ENGINE_PORT}/health"
FILES = "/etc/fluidgate"
GATEWAY_IMAGE = f"fluidgate:{__version__}"
DRAIN = 75
"""Seconds from SIGTERM on that the gateway gets: its drain_seconds, and some."""
HEAD = f"""\
# The engines and the gateway on one machine: docker compose up --wait
# {GATEWAY_IMAGE}: deploy/docker/Dockerfile of fluidgate. MODEL names other weights; gated ones need HF_TOKEN.
# {{machines}}

"""


def compose_text(fleet: Fleet) -> str:
    """The file, for one machine that has all the GPUs."""
    engines = {f"engine-{k + 1}": _engine(fleet, k) for k in range(fleet.engines)}
    urls = [f"http://{name}:{ENGINE_PORT}" for name in engines]
    made = {
        "name": fleet.name,
        "services": {**engines, "gateway": _gateway(fleet, list(engines))},
        "configs": {"gateway": {"content": gateway_text(fleet, {"urls": urls}).replace("$", "$$")}},
        "volumes": {"weights": {}},
    }
    total = fleet.engines * fleet.gpus
    machines = f"{total} GPUs: where no machine has so many, kubernetes.yaml or vllm.sh spread them over several."
    return HEAD.format(machines=machines) + yaml_text(made)


def yaml_text(made: dict[str, Any]) -> str:
    """A document, in the order of its keys."""
    return str(yaml.safe_dump(made, sort_keys=False, width=1000))  # type: ignore[no-untyped-call]


def _engine(fleet: Fleet, number: int) -> dict[str, Any]:
    ids = [str(number * fleet.gpus + k) for k in range(fleet.gpus)]
    environment = {"HF_TOKEN": "${HF_TOKEN:-}"}
    if fleet.moves_kv:
        environment |= {
            "VLLM_NIXL_SIDE_CHANNEL_HOST": f"engine-{number + 1}",
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
            *(flag.replace("$", "$$") for flag in engine_flags(fleet)),
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
    files = ["scenario.toml"] + ([policy_file(fleet)[0].partition(":")[0]] if policy_file(fleet)[1] else [])
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
