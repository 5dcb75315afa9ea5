"""The load that was sized for, to be sent by aiperf, and the targets to judge it by."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fluidgate.deployment.fleet import GATEWAY_PORT, Fleet
from fluidgate.deployment.gateway import HEADER, class_headers
from fluidgate.deployment.vllm import model_line
from fluidgate.model import Scenario
from fluidgate.simulation.doubts import alone_by_class
from fluidgate.sizing.load import Load, TracedLoad
from fluidgate.workloads.streams import NO_SCRIPT, NOTHING, Requests, Script, drawn_requests, drawn_sessions

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
"""Requests, or sessions, for each user of a closed loop."""
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

send() {{ # number of the class, value of its header, kind of endpoint, further flags
    number=$1 header=$2 endpoint=$3
    shift 3
    aiperf profile --model "$MODEL" --tokenizer "${{TOKENIZER:-$MODEL}}" --url "$URL" --endpoint-type "$endpoint" \\
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


@dataclass(frozen=True)
class Sent:
    """The requests of a check.

    Attributes:
        first: those that come by themselves, in order of arrival, from 0 s on.
        script: the further turns of their sessions.
        warmup, seconds: s that are not measured, and that are.
    """

    first: Requests
    script: Script
    warmup: float
    seconds: float

    @staticmethod
    def of(fleet: Fleet, load: Load | None, seed: int) -> Sent:
        """Of traces their own; else drawn. Where the load rises and falls, those of the peak that binds."""
        scenario = fleet.scenario
        warmup, seconds = _span(scenario)
        ranks, users = fleet.engines * fleet.engine.data_parallel, scenario.arrivals.users
        traced = isinstance(load, TracedLoad)
        peak, begins, script = fleet.answer.peak, 0.0, NO_SCRIPT
        if traced and users is None and load is not None and load.seconds <= warmup + seconds:
            warmup, seconds = 0.0, load.seconds
        elif peak is not None:
            begins = max(0.0, min(peak.begins, peak.period - warmup - seconds) if traced else peak.begins)
        ends = begins + warmup + seconds
        if traced and load is not None:
            source = load.study(scenario, fleet.policy_name, ranks).source
            first, script = _joined(source.requests(0), begins), source.script(0)
        elif scenario.has_sessions:
            most = None if users is None else ROUNDS * users
            drawn = drawn_sessions(scenario, ranks, seed=seed, horizon=ends, most=most)
            first, script = drawn.first, drawn.script
        elif users is None:
            first = _joined(drawn_requests(scenario, ranks, seed=seed, horizon=ends), begins)
        else:
            first = _joined(drawn_requests(scenario, ranks, seed=seed, most=ROUNDS * users))
        if users is not None:
            return Sent(first, script, 0.0, seconds)
        first = first[(first["arrival"] >= begins) & (first["arrival"] <= ends)].copy()
        first["arrival"] -= begins
        return Sent(first, script, warmup, seconds)

    def of_class(self, cls: int) -> Requests:
        """Those that come by themselves."""
        return np.asarray(self.first[self.first["cls"] == cls])

    def goes_on(self, cls: int) -> bool:
        """Whether sessions of the class have a second turn."""
        return bool((self.of_class(cls)["then"] != NOTHING).any())


def check_script(fleet: Fleet, sent: Sent, seed: int) -> str:
    """A shell script that starts aiperf once for each class, then judges."""
    lines = ["processes="]
    together = concurrency(fleet)
    for k, said in enumerate(class_headers(fleet).values()):
        sessions = sent.goes_on(k)
        how = "chat " if sessions else "completions "
        if together is None:
            how += "--fixed-schedule"
        else:
            count = "--conversation-num" if sessions else "--request-count"
            how += f"--no-fixed-schedule --concurrency {together[k]} {count} {max(len(sent.of_class(k)), together[k])}"
        lines += [f"send {k + 1} {shlex.quote(said)} {how} &", 'processes="$processes $!"']
    return SCRIPT.format(
        minutes=(sent.warmup + sent.seconds) / 60.0,
        version=VERSION,
        port=GATEWAY_PORT,
        model=model_line(fleet),
        header=HEADER,
        seed=seed,
        lines="\n".join(lines),
    )


def concurrency(fleet: Fleet) -> list[int] | None:
    """Users of each class of a closed loop, as many as wait on average: those that think send nothing; None else."""
    scenario, whole = fleet.scenario, fleet.answer.whole
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
    if fleet.scenario.arrivals.closed or fleet.scenario.has_sessions or len(fleet.scenario.classes) > 1:
        return None
    model = fleet.model or "MODEL"
    return (
        f"guidellm run --backend kind=openai_http,target=http://127.0.0.1:{GATEWAY_PORT},model={model},"
        "request_format=/v1/completions --profile kind=replay,schedule_turn=timestamp "
        "--data kind=trace_synthetic,source.kind=json_file,source.path=requests/1.jsonl,time_scale=0.001 "
        f"--tokenizer kind=huggingface_auto,model={model} --output kind=json,path=guidellm.json"
    )


def requests_text(fleet: Fleet, sent: Sent) -> dict[str, str]:
    """The requests of each class by file, a line each as Mooncake's traces have it: ms, tokens in, tokens out."""
    return {
        f"{k + 1}.jsonl": "".join(f"{json.dumps(line)}\n" for line in _lines(sent.of_class(k), sent.script))
        for k in range(len(fleet.scenario.classes))
    }


def targets_text(fleet: Fleet, sent: Sent) -> str:
    """What `judge.py` reads: the targets, and what they came to in the simulation of the whole fleet."""
    scenario, whole = fleet.scenario, fleet.answer.whole
    known = zip(scenario.class_names, scenario.ttft_targets, scenario.tpot_targets, strict=True)
    return json.dumps(
        {
            "warmup": sent.warmup,
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


def _joined(blocks: Iterator[Requests], begins: float = 0.0) -> Requests:
    """Those that come from `begins` on, s."""
    return np.concatenate([block[block["arrival"] >= begins] for block in blocks])


def _lines(first: Requests, script: Script) -> Iterator[dict[str, object]]:
    """A line a request; of a session one a turn, with what is new of its prompt, ms after the answer before it."""
    for number, request in enumerate(first, 1):
        line: dict[str, object] = {
            "timestamp": round(1e3 * float(request["arrival"]), 1),
            "input_length": int(request["prompt"]),
            "output_length": int(request["output"]),
        }
        if request["then"] == NOTHING:
            yield line
            continue
        yield {"session_id": str(number), **line}
        while request["then"] != NOTHING:
            before, request = request, script.rows[request["then"]]
            new = int(request["prompt"]) - int(before["prompt"]) - int(before["output"])
            yield {
                "session_id": str(number),
                "delay": round(1e3 * float(before["think"]), 1),
                "input_length": max(new, 1),
                "output_length": int(request["output"]),
            }
