"""Is the least number of engines right, and how soon is it there: `python -m benchmarks.sizing [DATA] [--rounds N]
[--only TEXT] [--workers W] [--executor local|ray|ray://HOST:PORT] [--keep DIR]`.

Thirty loads are sized, then every number of engines from the bound on is simulated, with other seeds and twice the
requests, until one keeps all targets by its means over eight replications. DATA is the folder of the traces; without it
those loads are left out. Before that the case of docs/tutorials/size-a-fleet.md is timed: six settings of H100s under
100 requests/s, proven, in one process with kernels compiled, median of some rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.executors import add_options, executor
from fluidgate.execution import Executor, LocalProcesses
from fluidgate.model import Scenario
from fluidgate.scenario_file import parse_scenario
from fluidgate.sizing import Sizing, size
from fluidgate.sizing.load import DrawnLoad, traced
from fluidgate.sizing.size import load_of
from fluidgate.sizing.targets import targets_of
from fluidgate.sizing.window import Window

HERE = Path(__file__).parents[1]
CASE = HERE / "examples/chat-fleet.toml"
TIMED: dict[str, Any] = {"batch_sizes": (64, 128, 256), "chunk_sizes": (512, 2048)}
OTHER_SEED = 1000
REPLICATIONS = 8
FARTHEST = 60


@dataclass(frozen=True)
class Case:
    """A load to size.

    Attributes:
        text: its scenario file.
        trace: a file of DATA that is the load, and the factor on its rate.
    """

    name: str
    text: str
    policy: str = "index-and-pool"
    trace: tuple[str, float] | None = None


def _file(targets: str, classes: str, more: str = "", gpu: str = "h100/llama-3.1-8b", sizes: str = "256 1024") -> str:
    batch, chunk = sizes.split()
    return (
        f'schema = 1\nname = "case"\n[cluster]\ngpus = 4\n[gpu]\nprofile = "{gpu}"\nbatch_size = {batch}\n'
        f"chunk_size = {chunk}\n[targets]\n{targets}\n{more}\n{classes}"
    )


def _class(prompt: int, output: int, rate: float, more: str = "", name: str = "chat", patience: float = 0.0) -> str:
    return (
        f'[[classes]]\nname = "{name}"\nprompt_tokens = {prompt}\noutput_tokens = {output}\n'
        f"total_arrival_rate = {rate}\npatience_rate = {patience}\n{more}\n"
    )


CHAT, LONG = _class(1155, 211, 90.0), _class(8000, 300, 12.0, name="long")
SHORT, LONGER = _class(150, 40, 160.0), _class(14000, 120, 4.0, name="longer")
OFTEN, RARE = _class(600, 200, 80.0), _class(5000, 200, 4.0, "ttft_p95 = 0.5", "rare")
HASTY, PATIENT = _class(1500, 300, 50.0, patience=0.3), _class(6000, 100, 4.0, "served = 0.995", "patient", 0.05)
LOGNORMAL = '[lengths]\nprompt = "lognormal"\nprompt_cv = 1.5\noutput = "lognormal"\noutput_cv = 1.0'
BURSTS = '[arrivals]\nprocess = "gamma"\ncv = 4.0'
PHASES = '[arrivals]\nprocess = "mmpp"\nlevels = [1.0, 3.0]\nsojourns = [20.0, 10.0]'
HOURS = '[arrivals]\nprocess = "daily"\nperiod = 240.0\nweights = [1.0, 2.0, 4.0, 2.0]'
FIXED = '[lengths]\nprompt = "fixed"\noutput = "fixed"'
TURNS = "turns = 5\nturn_tokens = 400\nthink = 10.0"
CACHE = "[engine]\nprefix_caching = true"
AZURE = "AzureLLMInferenceTrace"
SPREAD = '[lengths]\noutput = "lognormal"\noutput_cv = 2.5'
REGULAR = '[arrivals]\nprocess = "gamma"\ncv = 0.3'
SHORT_PHASES = '[arrivals]\nprocess = "mmpp"\nlevels = [1.0, 6.0, 0.2]\nsojourns = [30.0, 4.0, 10.0]'
RANKS = "[engine]\ndata_parallel = 2"
FAILING = "[failures]\nmtbf = 600.0\nmttr = 60.0"
ONE_FITS = f"[engine]\nkv_tokens = 4096\n{FIXED}"
TP4, TP2 = "h100/llama-3.1-70b-tp4", "h100/qwen3-32b-tp2"

CASES = (
    Case("chat, TTFT", _file("ttft_p99 = 0.16", CHAT)),
    Case("chat, TPOT", _file("tpot_p95 = 0.014", CHAT)),
    Case("chat, latency", _file("latency_p95 = 9.0", CHAT)),
    Case("chat, means", _file("ttft_mean = 0.06\ntpot_mean = 0.012", CHAT)),
    Case("chat, goodput", _file("goodput = 0.98\nttft = 0.15\ntpot = 0.02", CHAT)),
    Case("lognormal", _file("ttft_p95 = 0.25", CHAT, LOGNORMAL)),
    Case("fixed lengths", _file("ttft_p99 = 0.08", CHAT, FIXED)),
    Case("long prompts", _file("ttft_p95 = 2.0", LONG)),
    Case("two classes", _file("ttft_p99 = 3.0", CHAT.replace("90.0", "40.0") + LONG.replace("12.0", "6.0"))),
    Case("a class's target", _file("ttft_p99 = 9.0", _class(1155, 211, 40.0, "ttft_p95 = 0.3") + LONG)),
    Case("impatient", _file("served = 0.995\nttft_p95 = 0.5", _class(1155, 211, 90.0, patience=0.2))),
    Case("bursts", _file("ttft_p99 = 0.5", CHAT, BURSTS)),
    Case("phases", _file("ttft_p95 = 0.5", CHAT, PHASES)),
    Case("periods", _file("ttft_p99 = 0.3", CHAT, HOURS)),
    Case("little memory", _file("latency_p90 = 60.0", _class(2000, 800, 3.0), gpu="rtx4090/llama-3.1-8b")),
    Case("tensor parallel", _file("ttft_p95 = 0.8\ntpot_p95 = 0.04", _class(1155, 211, 20.0), gpu=TP4)),
    Case("two GPUs an engine", _file("ttft_p99 = 1.0", _class(1155, 400, 25.0), gpu=TP2), "vllm-least-loaded"),
    Case("sessions", _file("ttft_p95 = 0.3", _class(2500, 200, 60.0, TURNS), CACHE)),
    Case("answers of all lengths", _file("latency_p95 = 12.0", _class(700, 420, 30.0), SPREAD)),
    Case("very unequal classes", _file("ttft_p90 = 1.5\ntpot_p90 = 0.025", SHORT + LONGER)),
    Case("a rare class", _file("ttft_p95 = 1.0", OFTEN + RARE)),
    Case("served, by class", _file("served = 0.9", HASTY + PATIENT)),
    Case("regular gaps", _file("ttft_p99 = 0.09", _class(600, 300, 70.0), REGULAR)),
    Case("three phases", _file("ttft_p95 = 1.0", _class(900, 250, 50.0), SHORT_PHASES)),
    Case("memory for one", _file("ttft_p95 = 8.0", _class(3000, 600, 2.0), ONE_FITS, "rtx4090/llama-3.1-8b", "32 512")),
    Case("a large fleet", _file("ttft_p99 = 0.5\ntpot_p95 = 0.02", _class(1200, 300, 500.0))),
    Case("ranks in step", _file("ttft_p95 = 0.5\ntpot_p95 = 0.02", _class(900, 250, 60.0), RANKS)),
    Case("failures", _file("ttft_p99 = 1.0\ntpot_p95 = 0.03", _class(1155, 211, 30.0), FAILING)),
    Case("Azure conversations", _file("ttft_p99 = 0.4\ntpot_p95 = 0.03", ""), trace=(f"{AZURE}_conv.csv", 12.0)),
    Case("Azure code", _file("ttft_p99 = 2.0", ""), "vllm-least-loaded", (f"{AZURE}_code.csv", 10.0)),
)  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("data", nargs="?", type=Path)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--workers", type=int)
    add_options(arguments)
    arguments.add_argument("--only", metavar="TEXT", default="", help="of the loads, those whose name has this")
    given = arguments.parse_args()
    timed(given.rounds)
    where = executor(given) or LocalProcesses(given.workers)
    cases = [case for case in CASES if given.only in case.name and (case.trace is None or given.data is not None)]
    right = [report(case, given.data, where) for case in cases]
    found = [each for each in right if each is not None]
    print(f"\n{sum(abs(off) <= 1 for off in found)} of {len(found)} within 1, {found.count(0)} equal")


def timed(rounds: int) -> None:
    scenario = Scenario.load(CASE)
    size(scenario, **TIMED, workers=1)
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        found = size(scenario, **TIMED, workers=1)
        seconds.append(time.perf_counter() - began)
    trials = sum(len(each.trials) for each in found.answers)
    print(f"six settings, {trials} fleets simulated: {statistics.median(seconds):.2f} s (one process)")


def report(case: Case, data: Path | None, where: Executor) -> int | None:
    """Print a line; by how many engines the answer is off."""
    began = time.perf_counter()
    found, scenario, options = sized(case, data, where)
    took = time.perf_counter() - began
    answer = found.answers[0]
    least = exhaustive(case, scenario, options, answer.bound_engines, where)
    tried = [(trial.engines, trial.replications) for trial in answer.trials]
    print(
        f"{case.name:22} size {answer.engines} bound {answer.bound_engines} all {least}  {took:5.1f} s  {tried}",
        flush=True,
    )
    return None if answer.engines is None or least is None else answer.engines - least


def sized(case: Case, data: Path | None, where: Executor) -> tuple[Sizing, Scenario, dict[str, Any]]:
    if case.trace is None:
        scenario = parse_scenario(case.text)
        return size(scenario, policies=[case.policy], executor=where), scenario, {}
    assert data is not None
    path = HERE / "out" / "case.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(case.text.replace("[cluster]\ngpus = 4\n", ""), "utf-8")
    scenario, traces = traced(path, [data / case.trace[0]], case.trace[1], None)
    options = {"traces": traces, "rate_scale": case.trace[1]}
    return size(scenario, policies=[case.policy], executor=where, **options), scenario, options


def exhaustive(case: Case, scenario: Scenario, options: dict[str, Any], bound: int, where: Executor) -> int | None:
    """The first number of engines that keeps all targets by its means."""
    targets = targets_of(scenario)
    if options:
        load: Any = load_of(scenario, targets, 0, options["traces"], options["rate_scale"], None)
        count = 1
    else:
        window = Window.of(scenario, 4, targets)
        load = DrawnLoad(
            targets, OTHER_SEED, Window(window.warmup, window.warmup + 2 * (window.horizon - window.warmup))
        )
        count = REPLICATIONS
    for engines in range(bound, FARTHEST):
        if _keeps(load, scenario, case.policy, engines, count, targets, where):
            return engines
    return None


def _keeps(
    load: Any, scenario: Scenario, policy: str, engines: int, count: int, targets: Sequence[Any], where: Executor
) -> bool:
    from fluidgate.simulation.iteration.job import prepare, replicate
    from fluidgate.simulation.plans import Plans

    gpus = engines * scenario.engine.data_parallel
    study = load.study(scenario, policy, gpus)
    plans = Plans(study.scenario, gpus, by_iterations=True)
    ready = study.ready(study.policies[0], plans)
    jobs = [study.job(ready, k) for k in range(count)]
    prepare(jobs)
    measured = [found.measurement for found in where.map(replicate, jobs)]
    names = scenario.class_names
    values = [sum(t.value(m, None if t.cls is None else names.index(t.cls)) for m in measured) / count for t in targets]
    return all(t.keeps(value) for t, value in zip(targets, values, strict=True))


if __name__ == "__main__":
    main()
