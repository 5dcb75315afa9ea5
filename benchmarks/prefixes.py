"""What prefix caching costs: `python -m benchmarks.prefixes DATA [--before CHECKOUT] [--peer PYTHON]`.

DATA is the folder of the traces. The Mooncake conversation trace, four times as fast, on 8 GPUs of `azure-h100.toml`
under vLLM's token budget of 8,192, with caching and without; with the folder of another checkout also there, without,
and 500,000 requests of the Azure conversation trace, which know no prefixes, on 12 GPUs here and there. Each runs in a
process of its own that stays, in turns; times are of wall clock, what compiles is left out, ratios are medians of those
of the rounds. PYTHON is that of an environment with `ai-dynamo` 1.4.2, whose simulator then replays the same file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import environ
from pathlib import Path
from typing import Any

import numpy as np

from fluidgate import Scenario
from fluidgate.policies.decisions.tables import Placement
from fluidgate.simulation.iteration.engine import Engine
from fluidgate.simulation.iteration.measure import IterationMeasurement
from fluidgate.simulation.iteration.rules import Placements
from fluidgate.simulation.iteration.run import Run, run_requests
from fluidgate.simulation.iteration.scenario_engine import engine_of
from fluidgate.workloads.streams import (
    Replay,
    Requests,
    Script,
    read_class_traces,
    replayed_requests,
    replayed_script,
)

HERE = Path(__file__).parents[1]
SCENARIO = HERE / "examples/azure-h100.toml"
MOONCAKE = "mooncake_conversation_trace.jsonl"
AGENTS = "agentic_sessions.jsonl.gz"
AZURE = "AzureLLMInferenceTrace_conv.csv"
ROUNDS = 15
GPUS, SCALE, BUDGET, BLOCK = 8, 4.0, 8192, 16
AGENT_GPUS, SESSIONS_RATE = 16, 0.02
COPIES = (1, 2, 4, 8)
"""How often a trace is played, for memory, one after the other: each time other texts."""

WORKER = """
import json, sys, time
from dataclasses import replace
import numpy as np
from fluidgate import Scenario
from fluidgate.policies.decisions.tables import Placement
from fluidgate.simulation.iteration.rules import Placements
from fluidgate.simulation.iteration.run import Run, run_requests
from fluidgate.simulation.iteration.scenario_engine import engine_of
from fluidgate.workloads.streams import Replay, read_class_traces, replayed_requests
told = json.loads(sys.argv[1])
scenario = Scenario.load(told["scenario"])
traces, play = read_class_traces(scenario, ["conv=" + told["trace"]]), Replay(**told["replay"])
blocks = list(replayed_requests(scenario, traces, play, most=told["most"]))
for block in blocks:
    block["patience"] = np.inf
run = Run(told["gpus"], 2)
if told["texts"]:
    from fluidgate.workloads.streams import replayed_script
    run = replace(run, script=replayed_script(scenario, traces, play))
keys = {"prefix_caching": True} if told["caching"] else {}
scenario = scenario.model_copy(update={"engine": scenario.engine.model_copy(update=keys)})
engine, count = replace(engine_of(scenario, "token-budget"), tokens=told["budget"]), sum(map(len, blocks))
for _ in sys.stdin:
    began = time.perf_counter()
    measured = run_requests(blocks, engine, run, Placements(Placement[told["rule"]]))
    wall = time.perf_counter() - began
    assert measured.completions.sum() == count
    found = measured.prompt_found.sum() / measured.prompt_admitted.sum() if told["caching"] else 0.0
    print(json.dumps({"us": 1e6 * wall / count, "found": float(found)}), flush=True)
"""
"""A run for each line that comes. It also runs in a checkout that knows no prefixes."""


@dataclass
class Worker:
    """A process that runs one thing again and again."""

    name: str
    process: subprocess.Popen[str]

    @classmethod
    def start(cls, name: str, checkout: Path, **told: Any) -> Worker:
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, json.dumps(told)],
            env={**environ, "PYTHONPATH": str(checkout)},
            cwd=checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        worker = cls(name, process)
        worker.run()
        return worker

    def run(self) -> dict[str, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        found: dict[str, float] = json.loads(self.process.stdout.readline())
        return found

    def end(self) -> None:
        self.process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--peer")
    given = parser.parse_args()
    data = given.data.resolve()
    for rule in (Placement.ROUND_ROBIN, Placement.LMETRIC):
        cost_of_caching(data, rule, given.before)
    if given.before is not None:
        cost_without_caching(data, given.before)
    memory(data)
    if given.peer is not None:
        beside_dynamo(data, given.peer)


def mooncake(data: Path, rule: Placement, *, caching: bool, texts: bool = True) -> dict[str, Any]:
    return {
        "scenario": str(SCENARIO),
        "trace": str(data / MOONCAKE),
        "replay": {"scale": SCALE},
        "most": None,
        "gpus": GPUS,
        "budget": BUDGET,
        "rule": rule.name,
        "caching": caching,
        "texts": texts,
    }


def cost_of_caching(data: Path, rule: Placement, before: Path | None) -> None:
    workers = [
        Worker.start("with caching", HERE, **mooncake(data, rule, caching=True)),
        Worker.start("without", HERE, **mooncake(data, rule, caching=False)),
    ]
    if before is not None:
        told = mooncake(data, rule, caching=False, texts=False)
        workers.append(Worker.start("before", before.resolve(), **told))
    print(f"\nMooncake, {GPUS} GPUs, {rule.name.lower()}")
    in_turns(workers)


def cost_without_caching(data: Path, before: Path) -> None:
    told: dict[str, Any] = {
        "scenario": str(SCENARIO),
        "trace": str(data / AZURE),
        "replay": {"scale": 28.0, "times": "repeat"},
        "most": 500_000,
        "gpus": 12,
        "budget": BUDGET,
        "caching": False,
        "texts": False,
    }
    for rule in (Placement.ROUND_ROBIN, Placement.LMETRIC):
        print(f"\nAzure conversations, 500,000 requests, 12 GPUs, {rule.name.lower()}, no caching")
        checkouts = {"now": HERE, "before": before.resolve()}
        in_turns([Worker.start(name, where, rule=rule.name, **told) for name, where in checkouts.items()])


def in_turns(workers: Sequence[Worker]) -> None:
    """Print us a request of each, and the first one's over the others'."""
    rounds = [[worker.run() for worker in workers] for _ in range(ROUNDS)]
    for k, worker in enumerate(workers):
        times = [each[k]["us"] for each in rounds]
        line = f"  {worker.name:13} {min(times):6.2f} us a request at best, median {statistics.median(times):6.2f}"
        if k > 0:
            ratios = sorted(each[0]["us"] / each[k]["us"] for each in rounds)
            line += f"; ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        elif rounds[0][k]["found"] > 0:
            line += f"; {100 * rounds[0][k]['found']:.2f} % of the prompt tokens found"
        print(line, flush=True)
        worker.end()


def memory(data: Path) -> None:
    """Print bytes of the cache's own records as a run grows longer."""
    scenario = Scenario.load(SCENARIO)
    for name, gpus, play in (
        (MOONCAKE, GPUS, Replay(scale=SCALE)),
        (AGENTS, AGENT_GPUS, Replay(sessions_rate=SESSIONS_RATE)),
    ):
        traces = read_class_traces(scenario, [f"conv={data / name}"])
        block = np.concatenate(list(replayed_requests(scenario, traces, play)))
        script = replayed_script(scenario, traces, play)
        print(f"\n{name}, {gpus} GPUs of {blocks_of(scenario):,} blocks, lmetric, played again and again")
        print(
            f"  {'requests':>10} {'pieces':>10} {'found':>8} {'records, MiB':>13} {'bytes a block':>14} {'us each':>8}"
        )
        for copies in COPIES:
            requests, texts = again(block, script, copies)
            count = sum(map(len, requests)) + len(texts.rows) - 1
            kept = run(scenario, requests, texts, gpus, caching=True)
            plain = run(scenario, requests, texts, gpus, caching=False, horizon=1.0)
            held = records_of(kept, texts, plain)
            line = f"  {count:>10,} {len(texts.pieces):>10,} {100 * hit_rate(kept):>6.2f} % {held / 2**20:>13.2f}"
            line += f" {held / (gpus * blocks_of(scenario)):>14.2f} {1e6 * kept.wall_seconds / count:>8.2f}"
            print(line, flush=True)


def again(requests: Requests, script: Script, copies: int) -> tuple[list[Requests], Script]:
    """The same one time after the other, with texts and sessions of their own."""
    span = float(requests["arrival"][-1]) * len(requests) / (len(requests) - 1)
    pieces, sent = [script.pieces], [requests.copy()]
    rows = [script.rows.copy()]
    for k in range(1, copies):
        pieces.append(moved(script.pieces[1:], ["parent"], k * (len(script.pieces) - 1)))
        for parts, part in ((rows, script.rows[1:]), (sent, requests)):
            part = moved(part, ["text", "answer"], k * (len(script.pieces) - 1))
            parts.append(moved(part, ["then", "spawns", "beside"], k * (len(script.rows) - 1)))
        sent[-1]["arrival"] += k * span
    for part in (*rows, *sent):
        part["patience"] = np.inf
    return sent, Script(np.concatenate(pieces), np.concatenate(rows))


def moved(rows: Any, fields: Sequence[str], by: int) -> Any:
    """The same rows, which refer to others so much further on; 0 refers to none."""
    rows = rows.copy()
    for field in fields:
        rows[field][rows[field] > 0] += by
    return rows


def engine(scenario: Scenario, *, caching: bool) -> Engine:
    keys = scenario.engine.model_copy(update={"prefix_caching": caching})
    return replace(engine_of(scenario.model_copy(update={"engine": keys}), "token-budget"), tokens=BUDGET)


def run(
    scenario: Scenario, requests: list[Requests], script: Script, gpus: int, *, caching: bool, horizon: float = np.inf
) -> IterationMeasurement:
    told = Run(gpus, 2, horizon=horizon, script=script)
    return run_requests(requests, engine(scenario, caching=caching), told, Placements(Placement.LMETRIC))


def records_of(kept: IterationMeasurement, texts: Script, plain: IterationMeasurement) -> int:
    """Bytes of a run's records and of their table: its state less that of one without caching and the trace's own."""
    pieces = (len(texts.pieces) - 1) * (texts.pieces.itemsize + 4)
    return kept.bytes_held - plain.bytes_held - pieces


def hit_rate(measured: IterationMeasurement) -> float:
    return float(measured.prompt_found.sum() / measured.prompt_admitted.sum())


def blocks_of(scenario: Scenario) -> int:
    assert scenario.engine.kv_tokens is not None
    return scenario.engine.kv_tokens // BLOCK


def beside_dynamo(data: Path, python: str) -> None:
    """Print wall time and share of tokens found of both simulators, theirs by its own clock and report."""
    scenario = Scenario.load(SCENARIO)
    keys = {
        "num_gpu_blocks": blocks_of(scenario),
        "block_size": BLOCK,
        "max_num_seqs": scenario.gpu.batch_size,
        "max_num_batched_tokens": BUDGET,
        "enable_prefix_caching": True,
    }
    print(f"\nMooncake, {GPUS} GPUs, beside ai-dynamo")
    for rule, mode in ((Placement.ROUND_ROBIN, "round_robin"), (Placement.LMETRIC, "kv_router")):
        worker = Worker.start("ours", HERE, **mooncake(data, rule, caching=True))
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            command = [python, "-m", "dynamo.replay", str(data / MOONCAKE), "--num-workers", str(GPUS)]
            command += ["--replay-mode", "offline", "--router-mode", mode, "--arrival-speedup-ratio", str(SCALE)]
            command += ["--extra-engine-args", json.dumps(keys), "--report-json", str(report)]
            subprocess.run(command, capture_output=True, check=True, cwd=folder)
            told = json.loads(report.read_text())
        ours = statistics.median(worker.run()["us"] for _ in range(ROUNDS))
        found = worker.run()["found"]
        worker.end()
        theirs = 1e3 * told["wall_time_ms"] / told["completed_requests"]
        print(
            f"  {rule.name.lower():12} {ours:6.2f} us a request, {100 * found:5.2f} % found; theirs, {mode}: "
            f"{theirs:8.1f} us, {100 * told['prefix_cache_reused_ratio']:5.2f} %; {theirs / ours:,.0f} times",
            flush=True,
        )


if __name__ == "__main__":
    main()
