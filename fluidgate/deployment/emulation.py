"""The same fleet without a GPU: emulated engines at the addresses of the real ones."""

from __future__ import annotations

import shlex

from fluidgate.batching import DISCIPLINES
from fluidgate.deployment.fleet import Fleet
from fluidgate.deployment.vllm import model_line

SCRIPT = """\
#!/bin/sh
# The whole set without a GPU: emulated engines that take the times of the scenario, then the gateway of gateway.toml.
# FLUIDGATE names another command than `fluidgate`. Ctrl-C ends all of it.
set -eu
cd "$(dirname "$0")"
{model}
FLUIDGATE=${{FLUIDGATE:-fluidgate}}

$FLUIDGATE engine {engine} --model "$MODEL" --log-level warning &
engines=$!
trap 'kill $engines ${{gateway:-}} 2>/dev/null' EXIT
trap 'exit 0' INT TERM
health=http://127.0.0.1:{last}/health
until python3 -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1])' $health 2>/dev/null; do
    kill -0 $engines
    sleep 0.2
done
$FLUIDGATE serve gateway.toml "$@" &
gateway=$!
wait $gateway
"""


def emulation_script(fleet: Fleet) -> str:
    """A shell script that starts the engines, then the gateway; its arguments go to `fluidgate serve`."""
    return SCRIPT.format(model=model_line(fleet), engine=shlex.join(_options(fleet)), last=fleet.ports[-1])


def _options(fleet: Fleet) -> list[str]:
    options = ["scenario.toml", "--count", str(fleet.engines), "--port", str(fleet.ports[0])]
    if not DISCIPLINES[fleet.batching].by_policy:
        budget = max(fleet.batched_tokens, fleet.scenario.gpu.batch_size)
        options += ["--batching", "token-budget", "--max-num-batched-tokens", str(budget)]
    if not fleet.caches_prefixes:
        options.append("--no-prefix-caching")
    return options
