"""The load that was sized for, to be sent by aiperf, and the targets to judge it by."""

from __future__ import annotations

import json
import shlex

import numpy as np

from fluidgate.deployment.fleet import GATEWAY_PORT, Fleet
from fluidgate.deployment.gateway import HEADER, class_headers
from fluidgate.deployment.sent import Part, Sent
from fluidgate.deployment.vllm import model_line
from fluidgate.gateway.client.completions import WAIT_HEADER

VERSION = "0.13"
"""Of aiperf, with which the command was tried."""
GUIDELLM = "0.8"
"""With which its line was tried."""
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

send() {{ # which requests, the class in their header, kind of endpoint, further flags
    part=$1 header=$2 endpoint=$3
    shift 3
    aiperf profile --model "$MODEL" --tokenizer "${{TOKENIZER:-$MODEL}}" --url "$URL" --endpoint-type "$endpoint" \\
        --streaming --use-server-token-count --extra-inputs ignore_eos:true --header "{header}:$header" \\
        --input-file "requests/$part.jsonl" --custom-dataset-type mooncake-trace "$@" --random-seed {seed} \\
        --artifact-dir "measured/$part" --ui-type none > "measured-$part.log" 2>&1
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


def check_script(fleet: Fleet, sent: Sent, seed: int) -> str:
    """A shell script that starts aiperf once for each part of the load, then judges."""
    lines = ["processes="]
    together = concurrency(fleet)
    for k, said in enumerate(class_headers(fleet).values()):
        for part in sent.parts[k]:
            how = " ".join(_flags(part, None if together is None else together[k]))
            lines += [f"send {part.name} {shlex.quote(said)} {how} &", 'processes="$processes $!"']
    return SCRIPT.format(
        minutes=(sent.warmup + sent.seconds) / 60.0,
        version=VERSION,
        port=GATEWAY_PORT,
        model=model_line(fleet),
        header=HEADER,
        seed=seed,
        lines="\n".join(lines),
    )


def _flags(part: Part, together: int | None) -> list[str]:
    flags = ["chat" if part.goes_on else "completions"]
    if together is None:
        flags.append("--fixed-schedule")
    else:
        count = "--conversation-num" if part.goes_on else "--request-count"
        flags += ["--no-fixed-schedule", "--concurrency", str(together), count, str(max(part.starts, together))]
    if part.block is not None:
        flags += ["--isl-block-size", str(part.block)]
    if part.wait is not None:
        flags += ["--header", f"{WAIT_HEADER}:{part.wait:.2e}"]  # of any other form aiperf makes a number, and fails
    return flags


def concurrency(fleet: Fleet) -> list[int] | None:
    """Users of each class of a closed loop, as many as wait on average: those that think send nothing; None else."""
    scenario, whole = fleet.load, fleet.answer.whole
    users, rates = scenario.arrivals.users, scenario.rates.arrival
    if users is None:
        return None
    busy, share = float(users), rates / rates.sum()
    if whole is not None:
        served = (whole.result.overall.completion_rate.mean or 0.0) * whole.result.run.gpus
        sessions = served * float(scenario.session_starts.sum() / rates.sum())
        busy = max(busy - sessions * scenario.arrivals.think, 1.0)
        waits = np.array([each.latency.mean or 0.0 for each in whole.result.classes]) * share
        share = waits / waits.sum() if waits.sum() > 0.0 else share
    return [max(1, round(busy * float(each))) for each in share]


def guidellm_line(fleet: Fleet) -> str | None:
    """A command that sends the first class by guidellm; None where it would not send what was sized for."""
    scenario, (cls, *others) = fleet.load, fleet.load.classes
    if scenario.arrivals.closed or scenario.has_sessions or others or cls.patience_rate > 0.0:
        return None
    model = fleet.model or "MODEL"
    return (
        f"guidellm run --backend kind=openai_http,target=http://127.0.0.1:{GATEWAY_PORT},model={model},"
        "request_format=/v1/completions --profile kind=replay,schedule_turn=timestamp "
        "--data kind=trace_synthetic,source.kind=json_file,source.path=requests/1.jsonl,time_scale=0.001 "
        f"--tokenizer kind=huggingface_auto,model={model} --output kind=json,path=guidellm.json"
    )


def requests_text(fleet: Fleet, sent: Sent) -> dict[str, str]:
    """The requests of each part by file."""
    return {
        f"{part.name}.jsonl": "".join(f"{json.dumps(line)}\n" for line in part.lines)
        for k in range(len(fleet.load.classes))
        for part in sent.parts[k]
    }


def targets_text(fleet: Fleet, sent: Sent) -> str:
    """What `judge.py` reads: the targets, and what they came to in the simulation of the whole fleet."""
    scenario, whole = fleet.load, fleet.answer.whole
    known = zip(scenario.class_names, scenario.ttft_targets, scenario.tpot_targets, strict=True)
    return json.dumps(
        {
            "warmup": sent.warmup,
            "classes": {name: [part.name for part in sent.parts[k]] for k, name in enumerate(scenario.class_names)},
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
