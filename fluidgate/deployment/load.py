"""The load that was sized for, to be sent by aiperf, and the targets to judge it by."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

import numpy as np

from fluidgate.deployment.fleet import GATEWAY_PORT, Fleet
from fluidgate.deployment.gateway import HEADER, class_headers
from fluidgate.deployment.vllm import model_line
from fluidgate.model import Scenario
from fluidgate.session_table import SessionTable
from fluidgate.simulation.doubts import alone_by_class
from fluidgate.workloads.streams import Requests, drawn_requests

VERSION = "0.13"
"""Of aiperf, with which the command was tried."""
REQUESTS = 4_000.0
"""To be measured, where that takes neither less nor more time than"""
SECONDS = (120.0, 1_200.0)
SETTLES = 5.0
"""Times of the longest request alone before that,"""
WARMUP = 30.0
"""s, and at least so long."""
ROUNDS = 20
"""Requests for each user of a closed loop."""
SCRIPT = """\
#!/bin/sh
# Sends {minutes:.0f} minutes of the load that was sized for through the gateway, then says which targets are kept.
#
#   sh check.sh [URL]
#
# Needs aiperf (pip install aiperf; {version} was tried), which takes the tokenizer of MODEL, or that of TOKENIZER.
set -eu
cd "$(dirname "$0")"
URL=${{1:-http://127.0.0.1:{port}}}
{model}
rm -rf measured

send() {{ # number of the class, value of its header, further flags
    number=$1 header=$2
    shift 2
    aiperf profile --model "$MODEL" --tokenizer "${{TOKENIZER:-$MODEL}}" --url "$URL" --endpoint-type completions \\
        --streaming --use-server-token-count --extra-inputs ignore_eos:true --header "{header}:$header" \\
        --input-file "requests/$number.jsonl" --custom-dataset-type mooncake-trace "$@" --random-seed {seed} \\
        --artifact-dir "measured/$number" --ui-type none > "measured-$number.log" 2>&1
}}

{lines}
failed=
for process in $processes; do
    wait "$process" || failed=yes
done
if [ -n "$failed" ]; then
    echo 'check.sh: aiperf failed; measured-*.log say why' >&2
    exit 2
fi
python3 judge.py targets.json measured
"""


def check_script(fleet: Fleet, seed: int) -> str:
    """A shell script that starts aiperf once for each class, then judges."""
    users = fleet.scenario.arrivals.users
    lines = ["processes="]
    shares = fleet.scenario.rates.arrival / fleet.scenario.rates.arrival.sum()
    for k, (said, share) in enumerate(zip(class_headers(fleet).values(), shares, strict=True), 1):
        if users is None:
            how = "--fixed-schedule"
        else:
            how = f"--no-fixed-schedule --concurrency {max(1, round(users * share))}"
        lines += [f"send {k} {shlex.quote(said)} {how} &", 'processes="$processes $!"']
    return SCRIPT.format(
        minutes=sum(_span(fleet.scenario)) / 60.0,
        version=VERSION,
        port=GATEWAY_PORT,
        model=model_line(fleet),
        header=HEADER,
        seed=seed,
        lines="\n".join(lines),
    )


def requests_text(fleet: Fleet, seed: int) -> dict[str, str]:
    """The requests of each class by file, a line each as Mooncake's traces have it: ms, tokens in, tokens out."""
    scenario = _single(fleet.scenario)
    ranks, users = fleet.engines * fleet.engine.data_parallel, scenario.arrivals.users
    if users is None:
        blocks = list(drawn_requests(scenario, ranks, seed=seed, horizon=sum(_span(scenario))))
    else:
        blocks = list(drawn_requests(scenario, ranks, seed=seed, most=ROUNDS * users))
    every = np.concatenate(blocks)
    return {f"{k + 1}.jsonl": "".join(_lines(every[every["cls"] == k])) for k in range(len(scenario.classes))}


def targets_text(fleet: Fleet) -> str:
    """What `judge.py` reads: the targets, and what they came to in the simulation of the whole fleet."""
    scenario, whole = fleet.scenario, fleet.answer.whole
    known = zip(scenario.class_names, scenario.ttft_targets, scenario.tpot_targets, strict=True)
    return json.dumps(
        {
            "warmup": 0.0 if scenario.arrivals.closed else _span(scenario)[0],
            "classes": list(scenario.class_names),
            "targets": [
                {**each.target.to_dict(), "simulated": each.value} for each in (whole.readings if whole else ())
            ],
            "limits": {
                name: {key: value for key, value in (("ttft", ttft), ("tpot", tpot)) if value is not None}
                for name, ttft, tpot in known
            },
        },
        indent=2,
    )


def _span(scenario: Scenario) -> tuple[float, float]:
    """Seconds of warm-up, and seconds that are measured."""
    warmup = max(WARMUP, SETTLES * float(alone_by_class(scenario).max()))
    rate = float(scenario.rates.arrival.sum()) * (scenario.cluster_gpus or 1)
    return float(np.ceil(warmup)), float(np.ceil(np.clip(REQUESTS / rate, *SECONDS)))


def _single(scenario: Scenario) -> Scenario:
    """Each request by itself: no turns, nothing shared."""
    alone = SessionTable().model_dump()
    return scenario.replace(classes=tuple(each.model_copy(update=alone) for each in scenario.classes))


def _lines(requests: Requests) -> Iterator[str]:
    for arrival, prompt, output in zip(requests["arrival"], requests["prompt"], requests["output"], strict=True):
        line = {"timestamp": round(1e3 * float(arrival), 1), "input_length": int(prompt), "output_length": int(output)}
        yield json.dumps(line) + "\n"
