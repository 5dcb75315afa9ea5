"""A manifest for Kubernetes: the engines, their addresses, the gateway before them and its files."""

from __future__ import annotations

import hashlib
from typing import Any

from fluidgate.deployment.compose import CONTAINER_LOG, DRAIN, ENGINE_PORT, FILES, GATEWAY_IMAGE, yaml_text
from fluidgate.deployment.fleet import GATEWAY_PORT, SIDE_CHANNEL, Fleet
from fluidgate.deployment.gateway import gateway_text, policy_files, scenario_files
from fluidgate.deployment.pool import EnginePool
from fluidgate.deployment.vllm import IMAGE, engine_flags
from fluidgate.toml_file import read_text

PRE_STOP = 5
"""Seconds in which Services forget a gateway that still serves."""
START = 1800
"""Seconds that an engine may take to load its weights, and a gateway to find the first of them."""
SECRET = "hugging-face"
HEAD = f"""\
# The engines and the gateway: kubectl apply --filename kubernetes.yaml
# Needs NVIDIA's device plugin, and {GATEWAY_IMAGE} (deploy/docker/Dockerfile of fluidgate) under a name that nodes can
# pull. Gated weights: kubectl create secret generic {SECRET} --from-literal=token=...
"""
UNKNOWN = "MODEL"
UNKNOWN_HEAD = (
    f"# Put the model that was measured in the place of {UNKNOWN}: its folder, or its name on Hugging Face.\n"
)
NODE_LABEL = "fluidgate-gpu"
MIXED_HEAD = "# Each type of engine goes to nodes of its GPUs. Say which those are, for each node:\n"


def kubernetes_text(fleet: Fleet) -> str:
    """Engines by name, a gateway, their Services and its files, in the namespace that they are applied to."""
    gateway = f"{fleet.name}-gateway"
    names = {pool.label: "-".join(filter(None, (fleet.name, pool.label, "engines"))) for pool in fleet.pools}
    urls = {
        pool.label: [f"http://{names[pool.label]}-{k}.{names[pool.label]}:{ENGINE_PORT}" for k in range(pool.engines)]
        for pool in fleet.pools
    }
    files = {
        "gateway.toml": gateway_text(fleet, urls, CONTAINER_LOG),
        **scenario_files(fleet),
        **{name: read_text(path, "a policy file") for name, path in policy_files(fleet).items()},
    }
    objects = [
        *(_service(name, ENGINE_PORT, ENGINE_PORT, headless=True) for name in names.values()),
        *(_engines(names[pool.label], pool) for pool in fleet.pools),
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _named(gateway), "data": files},
        _service(gateway, 80, GATEWAY_PORT),
        _deployment(gateway, _gateway(gateway), files),
    ]
    head = HEAD + (UNKNOWN_HEAD if fleet.model is None else "")
    if fleet.mixed:
        head += MIXED_HEAD + "".join(
            f"#   kubectl label nodes NODE {NODE_LABEL}={pool.label}\n" for pool in fleet.pools
        )
    return head + "".join("---\n" + yaml_text(each) for each in objects)


def _named(name: str) -> dict[str, Any]:
    return {"name": name, "labels": {"app.kubernetes.io/name": name}}


def _service(name: str, port: int, target: int, *, headless: bool = False) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "selector": {"app.kubernetes.io/name": name},
        "ports": [{"name": "http", "port": port, "targetPort": target}],
    }
    if headless:
        spec = {"clusterIP": "None", **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": _named(name), "spec": spec}


def _engines(name: str, pool: EnginePool) -> dict[str, Any]:
    labels = _named(name)["labels"]
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": _named(name),
        "spec": {
            "replicas": pool.engines,
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": _engine(pool)},
        },
    }


def _deployment(name: str, pod: dict[str, Any], files: dict[str, str]) -> dict[str, Any]:
    labels = _named(name)["labels"]
    digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()  # pods follow their files
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _named(name),
        "spec": {
            "replicas": 1,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels, "annotations": {"checksum/files": digest}}, "spec": pod},
        },
    }


def _engine(pool: EnginePool) -> dict[str, Any]:
    token = {"secretKeyRef": {"name": SECRET, "key": "token", "optional": True}}
    environment: list[dict[str, Any]] = [{"name": "HF_TOKEN", "valueFrom": token}]
    if pool.moves_kv:
        own = {"fieldRef": {"fieldPath": "status.podIP"}}
        environment += [
            {"name": "VLLM_NIXL_SIDE_CHANNEL_HOST", "valueFrom": own},
            {"name": "VLLM_NIXL_SIDE_CHANNEL_PORT", "value": str(SIDE_CHANNEL)},
        ]
    limits = {"nvidia.com/gpu": str(pool.gpus)}
    container = {
        "name": "vllm",
        "image": IMAGE,
        "command": ["vllm", "serve"],
        "args": [pool.model or UNKNOWN, "--port", str(ENGINE_PORT), *engine_flags(pool)],
        "env": environment,
        "ports": [{"name": "http", "containerPort": ENGINE_PORT}],
        "startupProbe": _probe("/health", "http", 5, 5, START // 5),
        "livenessProbe": _probe("/health", "http", 10, 5, 6),
        "readinessProbe": _probe("/health", "http", 5, 5, 2),
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(PRE_STOP)]}}},
        "resources": {"limits": limits, "requests": limits},
        "volumeMounts": [
            {"name": "shared-memory", "mountPath": "/dev/shm"},
            {"name": "weights", "mountPath": "/root/.cache/huggingface"},
        ],
    }
    return {
        **({"nodeSelector": {NODE_LABEL: pool.label}} if pool.label else {}),
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": PRE_STOP + DRAIN,
        "containers": [container],
        "volumes": [
            {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},
            {"name": "weights", "emptyDir": {}},
        ],
    }


def _gateway(name: str) -> dict[str, Any]:
    container = {
        "name": "gateway",
        "image": GATEWAY_IMAGE,
        "args": ["serve", f"{FILES}/gateway.toml", "--host", "0.0.0.0", "--port", str(GATEWAY_PORT)],
        "ports": [{"name": "http", "containerPort": GATEWAY_PORT}],
        "startupProbe": _probe("/health", "http", 2, 2, START // 2),
        "livenessProbe": _probe("/health", "http", 10, 5, 6),
        "readinessProbe": _probe("/ready", "http", 2, 2, 2),
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(PRE_STOP)]}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {"requests": {"cpu": "500m", "memory": "384Mi"}, "limits": {"memory": "1Gi"}},
        "volumeMounts": [
            {"name": "files", "mountPath": FILES, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": PRE_STOP + DRAIN,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "files", "configMap": {"name": name}}, {"name": "tmp", "emptyDir": {}}],
    }


def _probe(path: str, port: str, period: int, timeout: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }
