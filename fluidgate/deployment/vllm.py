"""The engines as `vllm serve` command lines."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

from fluidgate.batching import Batching
from fluidgate.deployment.fleet import SIDE_CHANNEL, Fleet
from fluidgate.deployment.pool import HOST_GPUS, EnginePool

VERSION = "0.32.0"
"""Of vLLM, before which the gateway's adapters were run."""
IMAGE = f"vllm/vllm-openai:v{VERSION}"
LENGTH = 131_072
"""Most tokens of a request where nothing says less, as the emulated engines have it."""
SCRIPT = """\
#!/bin/sh
# The engines of '{name}': {engines}.
#
{usage}
#
# MODEL names other weights than those below. Ctrl-C ends all of them.
set -eu
{model}
ADDRESS=${{ADDRESS:-127.0.0.1}}
{range}
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

USAGE = """\
#   sh vllm.sh           all of them on this machine
#   sh vllm.sh 3 5       the third to the fifth; then put this machine's address into ADDRESS and into gateway.toml"""
USAGE_OF_MIX = """\
#   sh vllm.sh 1 {last}       these, where such GPUs are; then put its address into ADDRESS and gateway.toml"""
RANGE_OF_MIX = "first=${1:?say which engines run here, as in: sh vllm.sh 1 2} last=${2:-$1}"


def vllm_script(fleet: Fleet) -> str:
    """A shell script with one command line an engine."""
    return SCRIPT.format(
        name=_one_line(fleet.load.name),
        engines="; ".join(_said(pool, mixed=fleet.mixed) for pool in fleet.pools),
        usage=USAGE_OF_MIX.format(last=fleet.pools[0].engines) if fleet.mixed else USAGE,
        range=RANGE_OF_MIX if fleet.mixed else f"first=${{1:-1}} last=${{2:-{fleet.engines}}}",
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


def engine_flags(pool: EnginePool) -> list[str]:
    """What every engine of a pool is told: batches, memory and GPUs as simulated."""
    engine, batch = pool.engine, pool.scenario.gpu.batch_size
    flags = ["--max-num-seqs", str(batch), "--max-num-batched-tokens", str(max(pool.batched_tokens, batch))]
    if pool.tensor_parallel > 1:
        flags += ["--tensor-parallel-size", str(pool.tensor_parallel)]
    if engine.data_parallel > 1:
        flags += ["--data-parallel-size", str(engine.data_parallel)]
    flags += ["--gpu-memory-utilization", f"{pool.memory_share:.2f}"]
    if engine.kv_tokens is not None and engine.kv_tokens < LENGTH:
        flags += ["--max-model-len", str(engine.kv_tokens)]
    if engine.kv_tokens is not None and engine.kv_block != type(engine)().kv_block:
        flags += ["--block-size", str(engine.kv_block)]
    flags.append("--enable-prefix-caching" if pool.caches_prefixes else "--no-enable-prefix-caching")
    if engine.async_scheduling:
        flags.append("--async-scheduling")
    if pool.batching is Batching.PREFILL_FIRST:
        flags.append("--no-enable-chunked-prefill")
    if pool.moves_kv:
        connector = {"kv_connector": "NixlConnector", "kv_role": "kv_both"}
        flags += ["--kv-transfer-config", json.dumps(connector, separators=(",", ":"))]
    return flags


def side_channel(pool: EnginePool, engine: int) -> int:
    """First port of NIXL on a machine, of which each GPU of an engine may take one."""
    return SIDE_CHANNEL + engine * pool.gpus


def devices(pool: EnginePool, engine: int) -> list[int]:
    """The GPUs of an engine of the pool, counted from 0 on, on its machine; empty for one that is larger than that."""
    if pool.gpus > HOST_GPUS:
        return []
    first = engine % (HOST_GPUS // pool.gpus) * pool.gpus
    return list(range(first, first + pool.gpus))


def _lines(fleet: Fleet) -> Iterator[str]:
    for number, pool in fleet.each:
        place = number - pool.first
        names = ",".join(map(str, devices(pool, place)))
        given = f"CUDA_VISIBLE_DEVICES={names} " if names else ""
        if pool.moves_kv:
            given += f'VLLM_NIXL_SIDE_CHANNEL_HOST="$ADDRESS" VLLM_NIXL_SIDE_CHANNEL_PORT={side_channel(pool, place)} '
        start, flags = f"env {given}" if given else "", shlex.join(engine_flags(pool))
        yield f'engine {number + 1} {start}vllm serve "$MODEL" --host "$ADDRESS" --port {fleet.port(number)} {flags}'


def _said(pool: EnginePool, *, mixed: bool) -> str:
    """What a reader is told of the engines of a pool."""
    gpus = "1 GPU" if pool.gpus == 1 else f"{pool.gpus} GPUs"
    if not mixed:
        return f"{pool.engines} of {gpus}"
    return f"{pool.first + 1} to {pool.numbers[-1] + 1} are of {pool.title}, {gpus} each"


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
