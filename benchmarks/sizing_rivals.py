"""How many GPUs, and how soon: `python -m benchmarks.sizing_rivals [--dynamo PYTHON] [--aiconfigurator PYTHON]`.

One case for all, in one run: Llama 3.1 8B on H100s, 1,155 prompt and 211 output tokens on average, 100 requests/s, TTFT
within 500 ms for 99 of 100 requests, 30 ms a token for 95 of 100, three batch sizes by two chunks.

- `fluidgate size` as a command, from the start of its process to its end, kernels compiled. It finds the least number
  of GPUs of each setting and proves it by replications of the same requests.
- AIConfigurator, `aiconfigurator cli recommend`: the fewest GPUs for a rate, by means at one prompt and one output
  length, nothing arriving: it takes no percentile, no law of lengths or arrivals, and chooses the batch by itself.
- ai-dynamo's replay has no search: it is handed each fleet that `size` put to the test, with the same requests, as
  traces, and the same times of an iteration, as its table of a profile. It has one seed and no confidence, so it runs
  as many replications as `size` needed; nothing is left out at the start of a run.

PYTHON is that of an environment with `ai-dynamo` 1.4.2, or `aiconfigurator` 0.12; one that is not given, or has not got
it, is said to be absent.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.dynamo import has_dynamo, replay, write_trace
from benchmarks.sizing import CASE, TIMED
from fluidgate.model import Scenario, mean_context
from fluidgate.sizing import Choice, Sizing, size
from fluidgate.sizing.size import load_of
from fluidgate.sizing.targets import targets_of
from fluidgate.workloads.streams import Requests

ROUNDS = 3
MODEL, SYSTEM = "meta-llama/Meta-Llama-3.1-8B", "h100_sxm"
BLOCK = 16
NODES = 64


@dataclass(frozen=True)
class Fleet:
    """That `size` has put to the test.

    Attributes:
        kept: whether it kept the targets.
    """

    choice: Choice
    engines: int
    replications: int
    kept: bool

    @property
    def name(self) -> str:
        return f"batch {self.choice.batch_size:>3}, chunk {self.choice.chunk_size:>4}, {self.engines} GPUs"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--dynamo", metavar="PYTHON", default=sys.executable)
    arguments.add_argument("--aiconfigurator", metavar="PYTHON", default=sys.executable)
    arguments.add_argument("--rounds", type=int, default=ROUNDS)
    given = arguments.parse_args()
    scenario = Scenario.load(CASE)
    ours, found = sized(given.rounds)
    with_configurator(given.aiconfigurator, scenario, given.rounds, ours)
    with_dynamo(given.dynamo, scenario, found, ours)


def sized(rounds: int) -> tuple[float, Sizing]:
    """Seconds of the command, the median of some, and what it finds."""
    found = size(CASE, **TIMED)
    command = [sys.executable, "-m", "fluidgate", "size", str(CASE), "--json"]
    for option, key in (("--batch-size", "batch_sizes"), ("--chunk-size", "chunk_sizes")):
        command += [option, ",".join(map(str, TIMED[key]))]
    seconds = statistics.median(_timed(command)[0] for _ in range(rounds))
    best, fleets = found.best, list(fleets_of(found))
    assert best is not None
    runs = sum(each.replications for each in fleets)
    print(
        f"fluidgate size   {seconds:8.1f} s   {best.gpus} GPUs, proven: {len(found.answers) + len(found.pruned)} "
        f"settings, {len(found.pruned)} ruled out by the bound, {len(fleets)} fleets simulated, {runs} runs",
        flush=True,
    )
    return seconds, found


def fleets_of(found: Sizing) -> Iterator[Fleet]:
    for answer in found.answers:
        for trial in answer.trials:
            yield Fleet(answer.choice, trial.engines, trial.replications, trial.status == "met")


def with_configurator(python: str, scenario: Scenario, rounds: int, ours: float) -> None:
    """Its own answer to the question, by means."""
    script = Path(python).parent / "aiconfigurator"
    if not script.exists():
        print(f"aiconfigurator   absent: not installed beside {python}")
        return
    only = scenario.classes[0]
    command = [str(script), "cli", "recommend", "--model-path", MODEL, "--system", SYSTEM, "--backend", "vllm"]
    command += ["--target-request-rate", "100", "--isl", f"{only.prompt_tokens:.0f}"]
    command += ["--osl", f"{only.output_tokens:.0f}", "--ttft", "500", "--tpot", "30", "--no-color"]
    told = [_timed(command) for _ in range(rounds)]
    seconds, text = statistics.median(each[0] for each in told), told[-1][1]
    gpus, *means = (_number(text, of) for of in ("agg GPUs needed: ", "- TTFT: ", "- TPOT: "))
    print(
        f"aiconfigurator   {seconds:8.1f} s   {gpus:.0f} GPUs by means: TTFT {means[0]:.0f} ms, TPOT {means[1]:.1f} ms "
        f"at a batch of its own choice; {seconds / ours:.1f} times as long",
        flush=True,
    )


def with_dynamo(python: str, scenario: Scenario, found: Sizing, ours: float) -> None:
    """Each fleet of our search, each of its replications."""
    if not has_dynamo(python):
        print(f"ai-dynamo        absent: not installed in {python}")
        return
    commands = clocks = 0.0
    lines, sent = [], 0
    for fleet in fleets_of(found):
        ttft, tpot = [], []
        for requests in requests_of(scenario, found, fleet):
            with tempfile.TemporaryDirectory() as folder:
                trace, times = Path(folder) / "trace.jsonl", Path(folder) / "times.npz"
                write_trace(trace, requests)
                write_times(times, fleet.choice.scenario)
                began = time.perf_counter()
                told = replay(python, trace, fleet.engines, engine_of(fleet.choice.scenario, times))
                commands += time.perf_counter() - began
            clocks += float(told["wall_time_ms"]) / 1000.0
            ttft.append(told["p99_ttft_ms"])
            tpot.append(told["p95_tpot_ms"])
            sent += len(requests)
        means = statistics.fmean(ttft), statistics.fmean(tpot)
        lines.append(
            f"  {fleet.name}: TTFT p99 {means[0]:7.0f} ms, TPOT p95 {means[1]:5.1f} ms; here "
            f"{'kept' if fleet.kept else 'not kept'}"
        )
    print(
        f"ai-dynamo replay {commands:8.1f} s   the same {len(lines)} fleets and {sent:,} requests, {clocks:.1f} s "
        f"of it by its own clock; no search, no confidence; {commands / ours:.0f} ({clocks / ours:.0f}) times as long"
    )
    print("\n".join(lines))


def requests_of(scenario: Scenario, found: Sizing, fleet: Fleet) -> Iterator[Requests]:
    """Those that came to a fleet, a replication at a time."""
    load = load_of(scenario, targets_of(scenario), found.seed, (), 1.0, None)
    source = load.study(fleet.choice.scenario, fleet.choice.policy, fleet.engines).source
    for replication in range(fleet.replications):
        yield np.concatenate(list(source.requests(replication)))


def engine_of(scenario: Scenario, times: Path) -> dict[str, object]:
    gpu, memory = scenario.gpu, scenario.engine.kv_tokens
    assert memory is not None
    return {
        "engine_type": "vllm",
        "max_num_seqs": gpu.batch_size,
        "max_num_batched_tokens": gpu.chunk_size + gpu.batch_size - 1,
        "num_gpu_blocks": memory // BLOCK,
        "block_size": BLOCK,
        "enable_prefix_caching": False,
        "planner_profile_data": str(times),
    }


def write_times(path: Path, scenario: Scenario) -> None:
    """Iteration times of the GPU as its table of a profile, which adds a prefill's time to a decode's: so a prefill has
    what it adds to an iteration of half a batch."""
    gpu, decodes = scenario.gpu, scenario.gpu.batch_size / 2
    context = mean_context(scenario.classes, scenario.lengths)
    chunks = np.linspace(1.0, gpu.chunk_size + gpu.batch_size, NODES)
    alone = gpu.seconds(0.0, decodes, context)
    held, contexts = np.linspace(0.0, float(scenario.engine.kv_tokens or 0), NODES), np.geomspace(16.0, 32_768.0, NODES)
    decode = [[gpu.seconds(0.0, min(max(kv / each, 1.0), gpu.batch_size), each) for each in contexts] for kv in held]
    np.savez(
        path,
        prefill_isl=chunks,
        prefill_ttft_ms=[1000.0 * (gpu.seconds(chunk, decodes, context) - alone) for chunk in chunks],
        decode_active_kv_tokens=held,
        decode_context_length=contexts,
        decode_itl=1000.0 * np.array(decode),
    )


def _timed(command: list[str]) -> tuple[float, str]:
    """Seconds that a command takes, and what it prints."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
        return time.perf_counter() - began, told.stdout + told.stderr


def _number(text: str, after: str) -> float:
    found = re.search(re.escape(after) + r"([\d.,]+)", text)
    assert found is not None, f"no '{after}' in what it prints"
    return float(found.group(1).replace(",", ""))


if __name__ == "__main__":
    main()
