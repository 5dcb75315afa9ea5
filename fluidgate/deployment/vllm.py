"""The engines as `vllm serve` command lines."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

from fluidgate.batching import Batching
from fluidgate.deployment.fleet import HOST_GPUS, SIDE_CHANNEL, Fleet

VERSION = "0.32.0"
"""Of vLLM, before which the gateway's adapters were run."""
IMAGE = f"vllm/vllm-openai:v{VERSION}"
LENGTH = 131_072
"""Most tokens of a request where nothing says less, as the emulated engines have it."""
SCRIPT = """\
#!/bin/sh
# The engines of '{name}': {count} of {gpus}.
#
#   sh vllm.sh           all of them on this machine
#   sh vllm.sh 3 5       the third to the fifth; then put this machine's address into ADDRESS and into gateway.toml
#
# MODEL names other weights than those below. Ctrl-C ends all of them.
set -eu
{model}
ADDRESS=${{ADDRESS:-127.0.0.1}}
first=${{1:-1}} last=${{2:-{count}}}
trap 'trap - TERM; kill 0' INT TERM

engine() {{ # its number, then its command
    if [ "$1" -ge "$first" ] && [ "$1" -le "$last" ]; then
        shift
        "$@" &
    fi
}}

{lines}

wait
"""


def vllm_script(fleet: Fleet) -> str:
    """A shell script with one command line an engine."""
    return SCRIPT.format(
        name=_one_line(fleet.scenario.name),
        count=fleet.engines,
        gpus="1 GPU" if fleet.gpus == 1 else f"{fleet.gpus} GPUs",
        model=model_line(fleet),
        lines="\n".join(_lines(fleet)),
    )


def model_line(fleet: Fleet) -> str:
    """Sets MODEL for a shell: the weights, or a demand for them where the profile does not say which."""
    return f"MODEL={model_variable(fleet)}"


def model_variable(fleet: Fleet) -> str:
    """MODEL of the environment, as shells and Compose read it."""
    if fleet.model is not None:
        return f"${{MODEL:-{fleet.model}}}"
    return "${MODEL:?give the model that was measured, as its folder or its name on Hugging Face}"


def engine_flags(fleet: Fleet) -> list[str]:
    """What every engine is told: batches, memory and GPUs as simulated."""
    engine, batch = fleet.engine, fleet.scenario.gpu.batch_size
    flags = ["--max-num-seqs", str(batch), "--max-num-batched-tokens", str(max(fleet.batched_tokens, batch))]
    if fleet.tensor_parallel > 1:
        flags += ["--tensor-parallel-size", str(fleet.tensor_parallel)]
    if engine.data_parallel > 1:
        flags += ["--data-parallel-size", str(engine.data_parallel)]
    flags += ["--gpu-memory-utilization", f"{fleet.memory_share:.2f}"]
    if engine.kv_tokens is not None and engine.kv_tokens < LENGTH:
        flags += ["--max-model-len", str(engine.kv_tokens)]
    if engine.kv_tokens is not None and engine.kv_block != type(engine)().kv_block:
        flags += ["--block-size", str(engine.kv_block)]
    flags.append("--enable-prefix-caching" if fleet.caches_prefixes else "--no-enable-prefix-caching")
    if engine.async_scheduling:
        flags.append("--async-scheduling")
    if fleet.batching is Batching.PREFILL_FIRST:
        flags.append("--no-enable-chunked-prefill")
    if fleet.moves_kv:
        connector = {"kv_connector": "NixlConnector", "kv_role": "kv_both"}
        flags += ["--kv-transfer-config", json.dumps(connector, separators=(",", ":"))]
    return flags


def side_channel(fleet: Fleet, engine: int) -> int:
    """First port of NIXL on a machine, of which each GPU of an engine may take one."""
    return SIDE_CHANNEL + engine * fleet.gpus


def devices(fleet: Fleet, engine: int) -> list[int]:
    """The GPUs of an engine on its machine; empty for an engine that is larger than one."""
    if fleet.gpus > HOST_GPUS:
        return []
    first = engine % (HOST_GPUS // fleet.gpus) * fleet.gpus
    return list(range(first, first + fleet.gpus))


def _lines(fleet: Fleet) -> Iterator[str]:
    flags = shlex.join(engine_flags(fleet))
    for k, port in enumerate(fleet.ports):
        names = ",".join(map(str, devices(fleet, k)))
        given = f"CUDA_VISIBLE_DEVICES={names} " if names else ""
        if fleet.moves_kv:
            given += f'VLLM_NIXL_SIDE_CHANNEL_HOST="$ADDRESS" VLLM_NIXL_SIDE_CHANNEL_PORT={side_channel(fleet, k)} '
        start = f"env {given}" if given else ""
        yield f'engine {k + 1} {start}vllm serve "$MODEL" --host "$ADDRESS" --port {port} {flags}'


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
