"""The page that goes with a saved set."""

from __future__ import annotations

from collections.abc import Iterator

from fluidgate import __version__
from fluidgate.batching import Batching
from fluidgate.deployment.fleet import GATEWAY_PORT, Fleet
from fluidgate.deployment.gateway import SESSION_HEADER
from fluidgate.deployment.load import GUIDELLM, guidellm_line
from fluidgate.deployment.load import VERSION as AIPERF
from fluidgate.deployment.pool import HOST_GPUS, EnginePool
from fluidgate.deployment.sent import Sent
from fluidgate.deployment.vllm import VERSION as VLLM
from fluidgate.gateway.client.completions import WAIT_HEADER
from fluidgate.sizing.answer import Answer, Sizing
from fluidgate.sizing.choices import Choice

PAGE = """\
# {name}: {engines} engines

{answer}
Made by fluidgate {version}{command}, seed {seed}.

| file | what |
|---|---|
{scenarios}
| `gateway.toml` | the gateway before the engines of `vllm.sh` or `emulate.sh`, on this machine |
| `emulate.sh` | the gateway and emulated engines, without a GPU |
| `vllm.sh` | a `vllm serve` line an engine |
| `compose.yaml`, `kubernetes.yaml` | engines and gateway in containers |
| `check.sh` | sends the load by aiperf (the lengths and times in `requests`), and judges by `targets.json` |

## Steps

1. See the numbers again: {simulate}.
2. Try the set without a GPU: `sh emulate.sh`, and beside it `sh check.sh`.
3. Start the engines: {start}
4. Look at them, `fluidgate serve gateway.toml --check`, then serve: `fluidgate serve gateway.toml`. Clients ask
   <http://127.0.0.1:{port}/v1>. Each request leaves a line in `requests.log`.
5. See whether the answer holds: `sh check.sh`. It says of each target what was measured, what was simulated, and
   whether it is kept; exit status 1 if one is missed. If one is, calibrate the iteration time by the engines' own log
   (`fluidgate calibrate --from-log`), and size again.

In the place of 3 and 4: `docker compose up --wait`, or `kubectl apply --filename kubernetes.yaml`, and `sh check.sh
URL` with the gateway's address.

## What to know

{notes}
"""


def readme_text(fleet: Fleet, found: Sizing, sent: Sent, command: str | None) -> str:
    """Markdown: the answer, the files, the steps in order, and what differs from what was simulated."""
    return PAGE.format(
        name=fleet.load.name,
        engines=fleet.engines,
        answer="".join(f"{line}\n" for line in _answer(fleet.answer, found)),
        version=__version__,
        command=f", `{command}`" if command else "",
        seed=found.seed,
        scenarios="\n".join(_scenarios(fleet)),
        simulate=_simulate(fleet),
        start=_start(fleet),
        port=GATEWAY_PORT,
        notes="\n".join(f"- {note}" for note in _notes(fleet, sent)),
    )


def _scenarios(fleet: Fleet) -> Iterator[str]:
    for pool in fleet.pools:
        what = f"the part of the load that goes to {pool.title}" if fleet.mixed else "the load"
        ranks = f"{pool.scenario.cluster_gpus} GPUs as a simulation counts them"
        yield f"| `{pool.scenario_file}` | {what}, the engine and the targets, on {ranks} |"


def _simulate(fleet: Fleet) -> str:
    lines = (
        f"`fluidgate simulate {pool.scenario_file} --fidelity iteration --policy {pool.policy_name}`"
        for pool in fleet.pools
    )
    return ", ".join(lines) + (" (each type's own part)" if fleet.mixed else "")


def _start(fleet: Fleet) -> str:
    ports = f"ports {fleet.port(0)} and the next"
    if fleet.mixed:
        each = ", ".join(f"`sh vllm.sh {p.first + 1} {p.numbers[-1] + 1}` on {p.title}" for p in fleet.pools)
        return f"{each} ({ports}); say in `gateway.toml` where they are."
    spread = f"`sh vllm.sh` ({ports})."
    if fleet.gpus > HOST_GPUS:
        spread += f" They need {fleet.gpus} GPUs: on machines of {HOST_GPUS}, say on each which engines are its own."
    return spread


def _answer(answer: Answer, found: Sizing) -> Iterator[str]:
    choice, whole = answer.choice, answer.whole
    spare = f", {answer.spare} of them spare" if answer.spare else ""
    if answer.fleet:
        yield f"{answer.engines} engines of {len(answer.fleet)} types{spare}."
        yield ""
        classes = list(answer.fleet[0].shares)
        yield f"| engines | type | {' | '.join(classes)} |"
        yield "|---|---|" + "---|" * len(classes)
        for part in answer.fleet:
            shares = " | ".join(f"{100.0 * part.shares[name]:.1f} %" for name in classes)
            yield f"| {part.engines} | {part.choice.name}, {_size(part.choice)} | {shares} |"
        yield ""
    elif isinstance(choice, Choice):
        yield f"{answer.engines} engines of {choice.name}, {_size(choice)}{spare}."
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


def _size(choice: Choice) -> str:
    return "a GPU each" if choice.gpus_per_engine == 1 else f"{choice.gpus_per_engine} GPUs each"


def _notes_of_load(fleet: Fleet, sent: Sent) -> Iterator[str]:
    """In what the load of the check differs from what was simulated, and which way it errs."""
    scenario = fleet.load
    parts = [part for each in sent.parts for part in each]
    waits = [part for part in parts if part.wait is not None]
    if any("-" in part.name for part in waits):
        yield (
            f"Clients of `check.sh` leave the gateway's queue after a time, by the header `{WAIT_HEADER}`: those of a "
            "class in groups from the least patient to the most, all of a group after its mean."
        )
    if any("-" not in part.name for part in waits):
        yield (
            f"Clients of `check.sh` leave the gateway's queue after a time, by the header `{WAIT_HEADER}`: all of a "
            "class that shares prefixes, or of a closed loop, after its mean. While waits are shorter than that, fewer "
            "leave than in the simulation: a harder load."
        )
    if scenario.arrivals.closed and scenario.arrivals.think > 0.0:
        yield (
            "`check.sh` has as many users as wait on average; those who think are left out. In the simulation the "
            "number of those who wait varies: an easier load, by its percentiles."
        )
    if scenario.has_fleet:
        yield "Engines fail, or start and drain, in the simulation; `check.sh` leaves them alone: an easier load."
    if any(part.goes_on for part in parts):
        yield "`check.sh` sends sessions as chats, each turn with the answers before it, when its think time is over."
    if any(part.block is not None for part in parts):
        yield (
            "Prefixes that several prompts of a class share are sent alike, in whole blocks (`--isl-block-size`); what "
            "classes share with each other is not: less is found in memory, a harder load. aiperf then takes the "
            "tokenizer by its name on Hugging Face only, not from a folder."
        )
    if any(each.subagents > 0.0 for each in scenario.classes):
        yield (
            "Sub-agents come when they would if each answer took as long as in the simulation on average, however long "
            "the one took that sets them off."
        )


def _notes_of(pool: EnginePool) -> Iterator[str]:
    """What is not the same as simulated with the engines of a pool."""
    engine = pool.engine
    if engine.kv_tokens is not None:
        yield (
            f"vLLM says as it starts how much KV it holds (`GPU KV cache size`); {engine.kv_tokens:,} tokens a rank "
            f"were simulated, for which --gpu-memory-utilization is {pool.memory_share:.2f}."
        )
    if pool.moves_kv:
        yield "Decodes go to the engine that the gateway chooses, their KV by NIXL, which the engines' machines need."
    if pool.reads_several:
        yield (
            "The gateway has one prompt at a time read on an engine; in the simulation an iteration reads as many as "
            "its tokens hold. Where most prompts are shorter than a chunk they wait longer than simulated."
        )
    if pool.batching is Batching.PREFILL_FIRST:
        yield "prefill-first: today's vLLM has no such batching; --no-enable-chunked-prefill is the nearest it has."
    if engine.preemption == "swap":
        yield "Today's vLLM reads a preempted request again; it does not swap."


def _notes(fleet: Fleet, sent: Sent) -> Iterator[str]:
    """What is not the same as simulated, and what was not tried."""
    scenario = fleet.load
    yield (
        f"The gateway's adapters were run before vLLM {VLLM}, the check by aiperf {AIPERF} before emulated engines. "
        "These command lines and manifests, on GPUs, were not run."
    )
    first = fleet.pools[0]
    if fleet.model is None:
        yield "The profile does not say which weights it is of: MODEL must name them. In `kubernetes.yaml` put them in."
    elif first.profile is not None:
        yield f"Weights: {fleet.model}, as the profile is of {first.profile.model}. MODEL names others."
    if fleet.mixed:
        yield (
            "The gateway draws for each request which type it goes to, by the shares above, as it was simulated. Where "
            "engines of a type are down, its shares fall with them; where all are, the other types take its requests."
        )
        if scenario.has_sessions:
            yield f"Clients say a request's session by the header `{SESSION_HEADER}`, so that it stays with a type."
    for pool in fleet.pools:
        yield from (f"{pool.title}: {note}" if fleet.mixed else note for note in _notes_of(pool))
    yield from _notes_of_load(fleet, sent)
    if fleet.answer.peak is not None:
        yield "Where the load rises and falls, `check.sh` sends what comes from the peak that binds on."
    line = guidellm_line(fleet)
    if line is not None:
        yield f"The same requests by guidellm {GUIDELLM}, which judges no targets: `{line}`"
    if len(scenario.classes) > 1:
        yield "Clients say the class of a request by the header `x-class`, as `gateway.toml` has it."
