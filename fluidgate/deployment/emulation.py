"""The same fleet without a GPU: emulated engines at the addresses of the real ones."""

from __future__ import annotations

import shlex

from fluidgate.batching import DISCIPLINES
from fluidgate.deployment.fleet import Fleet
from fluidgate.deployment.pool import EnginePool
from fluidgate.deployment.vllm import model_line

SCRIPT = """\
#!/bin/sh
# The whole set without a GPU: emulated engines that take the times of the scenario, then the gateway of gateway.toml.
# FLUIDGATE names another command than `fluidgate`. Ctrl-C ends all of it.
set -eu
cd "$(dirname "$0")"
{model}
FLUIDGATE=${{FLUIDGATE:-fluidgate}}

engines=
trap 'kill $engines ${{gateway:-}} 2>/dev/null' EXIT
trap 'exit 0' INT TERM

{starts}
for port in {ports}; do
    until python3 -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1])' \\
            "http://127.0.0.1:$port/health" 2>/dev/null; do
        kill -0 $engines
        sleep 0.2
    done
done
$FLUIDGATE serve gateway.toml "$@" &
gateway=$!
wait $gateway
"""


def emulation_script(fleet: Fleet) -> str:
    """A shell script that starts the engines, then the gateway; its arguments go to `fluidgate serve`."""
    starts = (
        f'$FLUIDGATE engine {shlex.join(_options(fleet, pool))} --model "$MODEL" --log-level warning &\n'
        'engines="$engines $!"'
        for pool in fleet.pools
    )
    ports = " ".join(str(fleet.port(pool.numbers[-1])) for pool in fleet.pools)
    return SCRIPT.format(model=model_line(fleet), starts="\n".join(starts), ports=ports)


def _options(fleet: Fleet, pool: EnginePool) -> list[str]:
    options = [pool.scenario_file, "--count", str(pool.engines), "--port", str(fleet.port(pool.first))]
    if not DISCIPLINES[pool.batching].by_policy:
        budget = max(pool.batched_tokens, pool.scenario.gpu.batch_size)
        options += ["--batching", "token-budget", "--max-num-batched-tokens", str(budget)]
    if not pool.caches_prefixes:
        options.append("--no-prefix-caching")
    return options
