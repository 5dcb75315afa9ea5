"""The gateway before emulated engines beside the iteration simulator: the same scenario, requests, policy and plan.

    python -m benchmarks.gateway_agreement [--engines N] [--requests R] [--speed X] [--policy P]

Occupancies come from the gateway's log of requests, by Little's law: seconds in a stage over the seconds of the run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fluidgate.emulator import EngineSettings, serve_engines
from fluidgate.emulator.player import Player, revenue
from fluidgate.gateway.client.running import running_gateway
from fluidgate.gateway.gateway_file import GatewaySettings
from fluidgate.model import Array, Gpu, IterationTime, Pricing, RequestClass, Scenario
from fluidgate.planning import plan
from fluidgate.policies import Policy, find_policy
from fluidgate.policies.decisions.stages import (
    MIXED_DECODE,
    MIXED_QUEUE,
    PREFILL,
    PREFILL_QUEUE,
    SOLO_DECODE,
    SOLO_QUEUE,
)
from fluidgate.scenario_file import write_scenario
from fluidgate.simulation.iteration.rules import Decisions
from fluidgate.simulation.iteration.run import Run, run_requests
from fluidgate.simulation.iteration.scenario_engine import engine_of
from fluidgate.workloads.streams import Requests, drawn_requests

MODEL = "emulated"


def scenario(*, load: float = 1.0, patience: float = 0.1, output: tuple[float, float] = (250.0, 100.0)) -> Scenario:
    """Two classes on small engines."""

    def request_class(name: str, prompt_tokens: float, output_tokens: float) -> RequestClass:
        return RequestClass(
            name=name,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            arrival_rate=0.6 * load,
            patience_rate=patience,
        )

    return Scenario(
        name="agreement",
        gpu=Gpu(batch_size=8, chunk_size=256, iteration=IterationTime(alpha=0.0174, beta=6.2e-5, gamma=45.45)),
        pricing=Pricing(scheme="bundled", prompt=0.1, output=0.2),
        classes=(request_class("decode-heavy", 300, output[0]), request_class("prefill-heavy", 3000, output[1])),
    )


@dataclass(frozen=True)
class Seen:
    """Per GPU, by class; rates in 1/s, times in s.

    Attributes:
        occupancy: in prefill, decode, prefill queue and decode buffer, shape (4, classes).
        completions: completed requests, shape (classes,).
        revenue: money per second and GPU.
        ttft, tpot: mean over completed requests, shape (classes,).
    """

    occupancy: Array
    completions: Array
    revenue: float
    ttft: Array
    tpot: Array


def simulated(of: Scenario, policy: Policy, engines: int, requests: Requests, seed: int) -> Seen:
    """The same requests in the iteration simulator, until the last has left."""
    tables = policy.tabulate(plan(of, gpus=engines), engines)
    rows: list[np.ndarray] = []
    run = Run(gpus=engines, classes=len(of.classes), seed=seed)
    rules = Decisions(policy, tables)
    measured = run_requests(iter([requests]), engine_of(of, "single-prefill"), run, rules, take_log=rows.append)
    log = np.concatenate(rows)
    seconds = float(log["last_token"].max())
    occupancy = measured.occupancy * measured.window / seconds / engines
    stages = ((PREFILL,), (MIXED_DECODE, SOLO_DECODE), (PREFILL_QUEUE,), (MIXED_QUEUE, SOLO_QUEUE))
    done = log[log["outcome"] == 1]
    return Seen(
        occupancy=np.array([occupancy[list(group)].sum(axis=0) for group in stages]),
        completions=np.bincount(done["cls"], minlength=len(of.classes)).astype(float),
        revenue=float(
            (of.pricing.prompt * done["prompt"] + of.pricing.output * done["output"]).sum() / seconds / engines
        ),
        ttft=_means(done["cls"], done["first_token"] - done["arrival"], len(of.classes)),
        tpot=_means(
            done["cls"],
            (done["last_token"] - done["first_token"]) / np.maximum(1, done["output"] - 1),
            len(of.classes),
            done["output"] > 1,
        ),
    )


async def served(
    of: Scenario, policy: str, engines: int, requests: Requests, seed: int, speed: float, grace: float
) -> Seen:
    """The same requests through the gateway and emulated engines, in wall time."""
    fast = faster(of, speed)
    with tempfile.TemporaryDirectory() as folder:
        settings = EngineSettings(of.gpu, model=MODEL, speed=speed, grace=grace)
        async with serve_engines(settings, engines) as servers:
            path = gateway_file(Path(folder), fast, policy, [server.url for server in servers], seed)
            async with running_gateway(GatewaySettings.load(path)) as (_, url):
                player = Player(url, MODEL, tuple(of.class_names), speed, leaves="gateway")
                played = await player.play(requests)
        records = [json.loads(line) for line in (Path(folder) / "requests.log").read_text().splitlines()]
    return seen_live(of, engines, played, records, speed)


def seen_live(of: Scenario, engines: int, played: np.ndarray, records: list[dict[str, float]], speed: float) -> Seen:
    classes = len(of.classes)
    seconds = float(np.nanmax(played["last"]))
    spent = np.zeros((4, classes))
    for record in records:
        i = of.class_names.index(record["class"])
        start, read, decode = record["prefill_start"], record["prompt_read"], record["decode_start"]
        end, last = record["end"], record["last_token"]
        spent[2, i] += end if start is None else start
        if start is not None:
            spent[0, i] += (end if read is None else read) - start
        if read is not None:
            spent[3, i] += (end if decode is None else decode) - read
        if decode is not None:
            spent[1, i] += (end if last is None else last) - decode
    done = played[played["done"]]
    return Seen(
        occupancy=spent * speed / seconds / engines,
        completions=np.bincount(done["cls"], minlength=classes).astype(float),
        revenue=float(revenue(played, of.pricing, classes).sum() / seconds / engines),
        ttft=_means(done["cls"], done["first"] - done["sent"], classes),
        tpot=_means(
            done["cls"], (done["last"] - done["first"]) / np.maximum(1, done["tokens"] - 1), classes, done["tokens"] > 1
        ),
    )


def faster(of: Scenario, speed: float) -> Scenario:
    """The scenario with all its seconds divided by `speed`."""
    law = of.gpu.iteration
    assert law.gamma is not None
    gpu = of.gpu.model_copy(
        update={"iteration": IterationTime(alpha=law.alpha / speed, beta=law.beta / speed, gamma=law.gamma * speed)}
    )
    classes = tuple(
        c.model_copy(update={"arrival_rate": c.arrival_rate * speed, "patience_rate": c.patience_rate * speed})
        for c in of.classes
    )
    return of.replace(gpu=gpu, classes=classes)


def gateway_file(
    folder: Path, of: Scenario, policy: str, urls: list[str], seed: int, *, port: int = 0, kind: str = "vllm"
) -> Path:
    write_scenario(of, folder / "scenario.toml")
    rules = "".join(f'[[rules]]\nclass = "{name}"\nheader = {{ x-class = "{name}" }}\n' for name in of.class_names)
    path = folder / "gateway.toml"
    path.write_text(
        f"""schema = 1
scenario = "scenario.toml"
policy = "{policy}"
seed = {seed}
[server]
port = {port}
log = "{folder / "requests.log"}"
[engines]
kind = "{kind}"
urls = {json.dumps(urls)}
check_transfer = false
[limits]
max_wait = 3600.0
[replanning]
enabled = false
{rules}"""
    )
    return path


def _means(cls: np.ndarray, values: np.ndarray, classes: int, where: np.ndarray | None = None) -> Array:
    kept = np.ones(len(cls), bool) if where is None else where
    return np.array([values[kept & (cls == i)].mean() if (kept & (cls == i)).any() else np.nan for i in range(classes)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", type=int, default=4)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--grace", type=float, default=0.0)
    parser.add_argument("--load", type=float, default=1.0)
    parser.add_argument("--policy", default="index-and-pool")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    of = scenario(load=given.load)
    requests = np.concatenate(list(drawn_requests(of, given.engines, seed=given.seed, most=given.requests)))
    policy = find_policy(given.policy)
    sim = simulated(of, policy, given.engines, requests, given.seed)
    live = asyncio.run(served(of, given.policy, given.engines, requests, given.seed, given.speed, given.grace))
    print(f"{given.policy}, {given.engines} engines, {len(requests)} requests, speed {given.speed:g}")
    print("| quantity | class | simulated | gateway |")
    print("|---|---|---|---|")
    rows = [*zip(("prefill", "decode", "prefill queue", "decode buffer"), sim.occupancy, live.occupancy, strict=True)]
    rows += [("completed", sim.completions, live.completions), ("TTFT, s", sim.ttft, live.ttft)]
    rows += [("TPOT, s", sim.tpot, live.tpot)]
    for name, one, other in rows:
        for i, label in enumerate(of.class_names):
            print(f"| {name} | {label} | {one[i]:.4g} | {other[i]:.4g} |")
    print(f"| revenue /s per GPU | all | {sim.revenue:.4g} | {live.revenue:.4g} |")


if __name__ == "__main__":
    main()
