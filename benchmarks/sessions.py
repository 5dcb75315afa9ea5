"""`index-and-pool` beside published rules where prompts find what was read before: `python -m benchmarks.sessions`.

    python -m benchmarks.sessions deep|mooncake|agents [--gpus N] [--loads L,...] [--at L] [--replications K]
    python -m benchmarks.sessions deep|mooncake|agents --need [--gpus N] [--at L] [--replications K]

At each of the loads every policy meets the same requests, K times: sessions drawn by K seeds (`deep`: requests/s and
GPU of `examples/deep-sessions.toml`), a trace at K speeds around the load (`mooncake`: its rate is multiplied) or
sessions of a trace that users hold, of whom there are up to K / 2 more or fewer (`agents`: users). The first table has
the largest load up to which, from the least on, TTFT p99 and TPOT p95 keep their limits, in the mean over the K; the
second what was measured at `--at`; the third what ours has more than each other policy there, paired, with the 95 %
confidence interval of Student's t. EDPP reads and decodes on all GPUs but the first, which reads only; its KV moves at
no cost. With `--need` a table has the fewest GPUs by bisection that keep the limits under the load that N GPUs have at
`--at`, in the mean over the K: EDPP with one GPU that reads only, and with a quarter of them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fluidgate import InfeasiblePlanError, Scenario, compare
from fluidgate.policies import PLACED, PlacedPolicy
from fluidgate.simulation.iteration.replay import replay
from fluidgate.simulation.iteration.results import RequestClassResult, RequestResult
from fluidgate.simulation.results import Comparison
from fluidgate.simulation.statistics import statistic

HERE = Path(__file__).parents[1]
DEEP = HERE / "examples/deep-sessions.toml"
OURS = "index-and-pool"
RIVALS = (
    "vllm-lmetric",
    "vllm-sticky",
    "vllm-precise",
    "vllm-cache-aware",
    "vllm-least-prefill",
    "vllm-least-loaded",
    "vllm-round-robin",
)
TTFT, TPOT = 2.0, 0.03  # limits; of the targets too
TRACE = f"""
schema = 1
name = "trace"
[gpu]
profile = "h100/llama-3.1-8b"
batch_size = 256
chunk_size = 2048
[engine]
prefix_caching = true
batching = "token-budget"
kv_memory = "h100"
[targets]
ttft = {TTFT}
tpot = {TPOT}
[pricing]
scheme = "bundled"
prompt = 0.1
output = 0.4
"""
SPREAD = 0.01
"""Of the speeds at which a trace is replayed."""


@dataclass(frozen=True)
class Case:
    """What is played: `play(load, k, gpus, policies, data)` is its k-th run, `ttft` the limit of TTFT p99, s."""

    gpus: int
    loads: tuple[float, ...]
    at: float
    ttft: float
    play: Callable[[float, int, int, Sequence[str | PlacedPolicy], Path], Comparison]


@dataclass(frozen=True)
class Figures:
    """Of one run of a policy; times in s, goodput in requests per s and GPU."""

    ttft: float
    ttft_p50: float
    ttft_p99: float
    tpot: float
    tpot_p95: float
    latency: float
    goodput: float
    hit_rate: float

    @staticmethod
    def of(overall: RequestClassResult) -> Figures:
        def number(value: float | None) -> float:
            return float("nan") if value is None else value

        return Figures(
            number(overall.ttft.mean),
            number(overall.ttft.p50),
            number(overall.ttft.p99),
            number(overall.tpot.mean),
            number(overall.tpot.p95),
            number(overall.latency.mean),
            number(overall.goodput.mean),
            number(overall.prefix_hit_rate.mean),
        )


def play_deep(load: float, k: int, gpus: int, policies: Sequence[str | PlacedPolicy], data: Path) -> Comparison:
    scenario = Scenario.load(DEEP)
    classes = tuple(each.changed(arrival_rate=each.arrival_rate * load) for each in scenario.classes)
    scenario = scenario.changed(classes=classes)
    return compare(scenario, policies, gpus=gpus, horizon=1500, warmup=500, replications=1, seed=k, workers=1)


def play_mooncake(load: float, k: int, gpus: int, policies: Sequence[str | PlacedPolicy], data: Path) -> Comparison:
    scale = load * (1.0 + SPREAD * step(k))
    path = data / "mooncake_conversation_trace.jsonl"
    return replay(trace_file(), [path], policies, gpus=gpus, rate_scale=scale, workers=1)


def play_agents(load: float, k: int, gpus: int, policies: Sequence[str | PlacedPolicy], data: Path) -> Comparison:
    path = data / "agentic_sessions.jsonl.gz"
    users = max(1, int(load) + step(k))
    return replay(trace_file(), [path], policies, gpus=gpus, users=users, horizon=7200, warmup=1800, workers=1)


def step(k: int) -> int:
    """0, 1, -1, 2, -2, ..."""
    return (k + 1) // 2 if k % 2 else -(k // 2)


def trace_file() -> Path:
    """A scenario without classes, which are made of the trace."""
    path = Path(tempfile.gettempdir()) / "fluidgate-benchmark-sessions.toml"
    path.write_text(TRACE)
    return path


CASES = {
    "deep": Case(4, (0.9, 1.0, 1.05, 1.1, 1.15, 1.2, 1.3), 1.15, TTFT, play_deep),
    "mooncake": Case(12, (2, 4, 5, 6, 7, 8), 6, TTFT, play_mooncake),
    "agents": Case(8, (16, 24, 32, 40), 24, 10.0, play_agents),
}


def main() -> None:
    arguments = parsed()
    case = CASES[arguments.case]
    gpus = arguments.gpus or case.gpus
    loads = numbers(arguments.loads) if arguments.loads else case.loads
    at = arguments.at or case.at
    if arguments.need:
        print_need(case, arguments.case, gpus, at, arguments.replications, arguments.data)
        return
    pools = PLACED["edpp"].with_parameters({"prompt_gpus": 1})
    policies: list[str | PlacedPolicy] = [OURS, *RIVALS, pools]
    names = [OURS, *RIVALS, f"edpp, 1 + {gpus - 1}"]
    found = {
        load: measured(case, load, gpus, policies, names, arguments.replications, arguments.data)
        for load in sorted({*loads, at})
    }
    print(f"\n{arguments.case}, {gpus} GPUs: TTFT p99 <= {case.ttft:g} s and TPOT p95 <= {1e3 * TPOT:g} ms\n")
    print("| policy | up to | " + " | ".join(f"{load:g}" for load in sorted(found)) + " |")
    print("|---" * (len(found) + 2) + "|")
    for name in names:
        cells = [
            f"{mean(found[x][name], 'ttft_p99'):.2f} s, {1e3 * mean(found[x][name], 'tpot_p95'):.1f} ms"
            for x in sorted(found)
        ]
        print(f"| `{name}` | {carried(found, name, case.ttft)} | " + " | ".join(cells) + " |")
    print(f"\nAt {at:g}, {arguments.replications} runs\n")
    print_means(found[at])
    print()
    print_differences(found[at])


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=tuple(CASES))
    parser.add_argument("--gpus", type=int)
    parser.add_argument("--loads", help="of the first table")
    parser.add_argument("--at", type=float, help="the load of the second and the third")
    parser.add_argument("--need", action="store_true", help="the fewest GPUs that keep the limits")
    parser.add_argument("--replications", type=int, default=5)
    parser.add_argument("--data", type=Path, default=HERE.parent / "shared/data")
    return parser.parse_args()


def numbers(text: str) -> tuple[float, ...]:
    return tuple(float(each) for each in text.split(","))


Found = dict[str, list[Figures]]


def measured(
    case: Case,
    load: float,
    gpus: int,
    policies: Sequence[str | PlacedPolicy],
    names: Sequence[str],
    runs: int,
    data: Path,
) -> Found:
    """By policy its figures in every run."""
    found: Found = {name: [] for name in names}
    for k in range(runs):
        result = case.play(load, k, gpus, policies, data)
        for name, each in zip(names, result.policies, strict=True):
            assert isinstance(each, RequestResult)
            found[name].append(Figures.of(each.overall))
    return found


def mean(runs: Sequence[Figures], figure: str) -> float:
    return float(np.mean([getattr(each, figure) for each in runs]))


def carried(found: dict[float, Found], name: str, ttft: float) -> str:
    """The largest load up to which the limits are kept."""
    largest = "none"
    for load in sorted(found):
        runs = found[load][name]
        if not (mean(runs, "ttft_p99") <= ttft and mean(runs, "tpot_p95") <= TPOT):
            break
        largest = f"{load:g}"
    return largest


def print_need(case: Case, name: str, gpus: int, at: float, runs: int, data: Path) -> None:
    print(f"{name}, the load of {gpus} GPUs at {at:g}, {runs} runs: TTFT p99 <= {case.ttft:g} s, TPOT p95 <= 30 ms\n")
    print("| policy | GPUs | TTFT p99, s | TPOT p95, ms |\n|---|---|---|---|")
    for label in (OURS, *RIVALS, "edpp, 1 reads", "edpp, a quarter reads"):
        found: dict[int, list[Figures]] = {}

        def keeps(n: int, label: str = label, found: dict[int, list[Figures]] = found) -> bool:
            policy: str | PlacedPolicy = label
            if label.startswith("edpp"):
                reads = 1 if "1" in label else max(1, n // 4)
                policy = PLACED["edpp"].with_parameters({"prompt_gpus": reads})
            load = at * gpus / n if name == "deep" else at
            try:
                found[n] = [Figures.of(only(case.play(load, k, n, [policy], data))) for k in range(runs)]
            except InfeasiblePlanError:
                return False
            return mean(found[n], "ttft_p99") <= case.ttft and mean(found[n], "tpot_p95") <= TPOT

        low, high = 1, 2 * gpus  # of two, EDPP needs one that decodes
        if not keeps(high):
            print(f"| `{label}` | more than {high} | | |")
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if keeps(middle) else (middle, high)
        kept = found[high]
        print(f"| `{label}` | {high} | {mean(kept, 'ttft_p99'):.2f} | {1e3 * mean(kept, 'tpot_p95'):.1f} |", flush=True)


def only(result: Comparison) -> RequestClassResult:
    each = result.policies[0]
    assert isinstance(each, RequestResult)
    return each.overall


def print_means(found: Found) -> None:
    print("| policy | TTFT mean, s | p50 | p99 | TPOT mean, ms | p95 | latency mean, s | goodput, 1/s/GPU | hit rate |")
    print("|---" * 9 + "|")
    for name, runs in found.items():
        times = [mean(runs, each) for each in ("ttft", "ttft_p50", "ttft_p99")]
        tokens = [1e3 * mean(runs, each) for each in ("tpot", "tpot_p95")]
        cells = [*(f"{x:.3f}" for x in times), *(f"{x:.1f}" for x in tokens), f"{mean(runs, 'latency'):.3f}"]
        print(f"| `{name}` | {' | '.join(cells)} | {mean(runs, 'goodput'):.4f} | {mean(runs, 'hit_rate'):.3f} |")


def print_differences(found: Found) -> None:
    print("| ours minus | TTFT mean, s | TTFT p99, s | TPOT p95, ms | latency mean, s | goodput, % of the other's |")
    print("|---" * 6 + "|")
    for name, runs in found.items():
        if name == OURS:
            continue
        cells = []
        for figure, unit in (("ttft", 1.0), ("ttft_p99", 1.0), ("tpot_p95", 1e3), ("latency", 1.0)):
            cells.append(
                interval(
                    [unit * (getattr(a, figure) - getattr(b, figure)) for a, b in zip(found[OURS], runs, strict=True)],
                    3 if unit == 1.0 else 1,
                )
            )
        base = mean(runs, "goodput")
        cells.append(
            interval([100 * (a.goodput - b.goodput) / base for a, b in zip(found[OURS], runs, strict=True)], 1)
        )
        print(f"| `{name}` | {' | '.join(cells)} |")


def interval(values: Sequence[float], digits: int) -> str:
    found = statistic(list(values))
    if found.mean is None or found.ci95 is None:
        return "-"
    return f"{found.mean:+.{digits}f} ±{(found.ci95[1] - found.ci95[0]) / 2:.{digits}f}"


if __name__ == "__main__":
    main()
