"""The page that goes with a saved set."""

from __future__ import annotations

from collections.abc import Iterator

from fluidgate import __version__
from fluidgate.batching import Batching
from fluidgate.deployment.fleet import GATEWAY_PORT, HOST_GPUS, Fleet
from fluidgate.deployment.load import GUIDELLM, guidellm_line
from fluidgate.deployment.load import VERSION as AIPERF
from fluidgate.deployment.vllm import VERSION as VLLM
from fluidgate.sizing.answer import Answer, Sizing

PAGE = """\
# {name}: {engines} engines

{answer}
Made by fluidgate {version}{command}, seed {seed}.

| file | what |
|---|---|
| `scenario.toml` | the load, the engine and the targets, on {ranks} GPUs as a simulation counts them |
| `gateway.toml` | the gateway before the engines of `vllm.sh` or `emulate.sh`, on this machine |
| `emulate.sh` | the gateway and emulated engines, without a GPU |
| `vllm.sh` | a `vllm serve` line an engine |
| `compose.yaml`, `kubernetes.yaml` | engines and gateway in containers |
| `check.sh` | sends the load by aiperf (the lengths and times in `requests`), and judges by `targets.json` |

## Steps

1. See the numbers again: `fluidgate simulate scenario.toml --fidelity iteration --policy {policy}`.
2. Try the set without a GPU: `sh emulate.sh`, and beside it `sh check.sh`.
3. Start the engines: `sh vllm.sh`{spread}
4. Look at them, `fluidgate serve gateway.toml --check`, then serve: `fluidgate serve gateway.toml`. Clients ask
   <http://127.0.0.1:{port}/v1>.
5. See whether the answer holds: `sh check.sh`. It says of each target what was measured, what was simulated, and
   whether it is kept; exit status 1 if one is missed. If one is, calibrate the iteration time by the engines' own log
   (`fluidgate calibrate --from-log`), and size again.

In the place of 3 and 4: `docker compose up --wait`, or `kubectl apply --filename kubernetes.yaml`, and `sh check.sh
URL` with the gateway's address.

## What to know

{notes}
"""


def readme_text(fleet: Fleet, found: Sizing, command: str | None) -> str:
    """Markdown: the answer, the files, the steps in order, and what differs from what was simulated."""
    ports = f"{fleet.ports[0]} and the next"
    total = fleet.engines * fleet.gpus
    spread = f" (ports {ports})."
    if total > HOST_GPUS:
        spread += f" They need {total} GPUs: on machines of {HOST_GPUS}, say on each which engines are its own."
    return PAGE.format(
        name=fleet.scenario.name,
        engines=fleet.engines,
        answer="".join(f"{line}\n" for line in _answer(fleet.answer, found)),
        version=__version__,
        command=f", `{command}`" if command else "",
        seed=found.seed,
        ranks=fleet.scenario.cluster_gpus,
        policy=fleet.policy_name,
        spread=spread,
        port=GATEWAY_PORT,
        notes="\n".join(f"- {note}" for note in _notes(fleet)),
    )


def _answer(answer: Answer, found: Sizing) -> Iterator[str]:
    choice, whole = answer.choice, answer.whole
    size = "a GPU each" if choice.gpus_per_engine == 1 else f"{choice.gpus_per_engine} GPUs each"
    spare = f", {answer.spare} of them spare" if answer.spare else ""
    yield f"{answer.engines} engines of {choice.name}, {size}{spare}."
    if answer.bill is not None and choice.priced:
        million = answer.bill.per_million
        each = f", {found.currency} {million:.4g} a million tokens" if million is not None else ""
        yield f"{found.currency} {answer.bill.per_hour:.4g} an hour{each}."
    yield ""
    yield "| target | limit | simulated | 95 % confidence |"
    yield "|---|---|---|---|"
    for reading in whole.readings if whole else ():
        unit = "" if reading.target.is_share else " s"
        low, high = reading.ci95 or (None, None)
        interval = "-" if low is None or high is None else f"{low:.4g} to {high:.4g}{unit}"
        yield f"| {reading.target.name} | {reading.target.limit:g}{unit} | {reading.value:.4g}{unit} | {interval} |"
    yield ""


def _notes(fleet: Fleet) -> Iterator[str]:
    """What is not the same as simulated, and what was not tried."""
    scenario, engine = fleet.scenario, fleet.engine
    yield (
        f"The gateway's adapters were run before vLLM {VLLM}, the check by aiperf {AIPERF} before emulated engines. "
        "These command lines and manifests, on GPUs, were not run."
    )
    if fleet.model is None:
        yield "The profile does not say which weights it is of: MODEL must name them. In `kubernetes.yaml` put them in."
    elif fleet.profile is not None:
        yield f"Weights: {fleet.model}, as the profile is of {fleet.profile.model}. MODEL names others."
    if engine.kv_tokens is not None:
        yield (
            f"vLLM says as it starts how much KV it holds (`GPU KV cache size`); {engine.kv_tokens:,} tokens a rank "
            f"were simulated, for which --gpu-memory-utilization is {fleet.memory_share:.2f}."
        )
    if fleet.moves_kv:
        yield "Decodes go to the engine that the gateway chooses, their KV by NIXL, which the engines' machines need."
    if fleet.reads_several:
        yield (
            "The gateway has one prompt at a time read on an engine; in the simulation an iteration reads as many as "
            "its tokens hold. Where most prompts are shorter than a chunk they wait longer than simulated."
        )
    if fleet.batching is Batching.PREFILL_FIRST:
        yield "prefill-first: today's vLLM has no such batching; --no-enable-chunked-prefill is the nearest it has."
    if engine.preemption == "swap":
        yield "Today's vLLM reads a preempted request again; it does not swap."
    if scenario.has_sessions:
        yield "`check.sh` sends single requests that share nothing: a harder load than that of sessions and prefixes."
    if any(each.patience_rate > 0.0 for each in scenario.classes):
        yield "The clients of `check.sh` wait for ever; those that were simulated leave."
    if scenario.arrivals.closed and scenario.arrivals.think > 0.0:
        yield "`check.sh` has as many users as wait on average; those who think are left out."
    if scenario.has_sessions:
        yield (
            "`check.sh` sends sessions turn by turn as chats, each turn with the answers before it. Prefixes that "
            "several sessions share, and sub-agents, are left out, so that less is found in memory, and less comes."
        )
    if fleet.answer.peak is not None:
        yield "Where the load rises and falls, `check.sh` sends what comes from the peak that binds on."
    line = guidellm_line(fleet)
    if line is not None:
        yield f"The same requests by guidellm {GUIDELLM}, which judges no targets: `{line}`"
    if len(scenario.classes) > 1:
        yield "Clients say the class of a request by the header `x-class`, as `gateway.toml` has it."
