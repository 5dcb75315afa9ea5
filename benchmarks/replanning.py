"""Plans that follow the load, beside those that stand: `python -m benchmarks.replanning [CODE.csv CONV.csv]`.

First a step of the mix, and none: under the plan of the first mix, the plan solved again from estimates, and the plans
of the two mixes, the second in force from the step on (which an estimator has to find out). Then the two Azure traces.
The rules have windows from seconds to minutes, each with ten looks a window and a plan at most a window old.
`--plot FILE` draws the step.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.finite import loaded
from fluidgate import Scenario, find_policy, plan
from fluidgate.policies import Policy
from fluidgate.replanning import ReplannedPolicy, Replanning, Timetable
from fluidgate.simulation.iteration.measure import IterationMeasurement
from fluidgate.simulation.iteration.replanned import Look, Watcher, run_replanned
from fluidgate.simulation.iteration.replay import replay
from fluidgate.simulation.iteration.results import RequestResult
from fluidgate.simulation.iteration.rules import ChangingDecisions, Decisions
from fluidgate.simulation.iteration.run import Run, run_requests
from fluidgate.simulation.iteration.scenario_engine import engine_of
from fluidgate.simulation.statistics import Statistic, statistic
from fluidgate.workloads.streams import Requests, drawn_requests

STEP, HORIZON, REPLICATIONS, SEED = 600.0, 1200.0, 6, 5
MIXES = ((0.8, 0.2), (0.1, 1.4))
"""Requests of each class before and after the step, before they are scaled to `LOAD`."""
LOAD = 0.9
TTFT, TPOT = 1.0, 0.04
WITH_GROUPS = ("gate-and-route", "sli-aware")
POLICIES = (*WITH_GROUPS, "index-and-pool")
WINDOWS = (15.0, 60.0, 120.0, 300.0)
RULE = Replanning()

AZURE = Scenario.load(Path(__file__).parent.parent / "examples" / "azure-replay.toml")
AZURE_SCALE = 28.0
"""Factor on the traces' rates that the scenario is for."""
PLACES = ((20, 7.0), (80, 28.0))
"""GPUs, and the factor on the traces' rates."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="*", help="the two Azure traces; without them the step alone")
    parser.add_argument("--gpus", type=int, default=20, help="of the step")
    parser.add_argument("--plot", type=Path, help="where the picture of the step goes")
    options = parser.parse_args()
    tell_drawn(f"Step of the mix at {STEP:g} s", mixes(), options.gpus, POLICIES)
    for mix in mixes():
        rates = ", ".join(f"{c.arrival_rate:.2f} {c.name}" for c in mix.classes)
        tell_drawn(f"No step: {rates} requests/s per GPU throughout", (mix, mix), options.gpus, WITH_GROUPS)
    if options.plot is not None:
        draw_step("gate-and-route", options.gpus, options.plot)
    for gpus, scale in PLACES if options.traces else ():
        tell_azure(options.traces, gpus, scale)


def rule_of(window: float) -> Replanning:
    return Replanning(period=window, look=window / 10, window=window)


RULES: dict[str, Replanning] = {
    f"default rule, window {RULE.window:g} s": RULE,
    **{f"window {window:g} s": rule_of(window) for window in WINDOWS},
    "the default when moved alone": replace(RULE, period=math.inf),
    "the default by age alone": replace(RULE, moved=math.inf),
}


# The step


@dataclass(frozen=True)
class Outcome:
    """A replication under one way to plan."""

    measured: IterationMeasurement
    looks: Sequence[Look] = ()
    solved: int = 0


def mixes() -> list[Scenario]:
    """The scenarios before and after the step, each loaded to `LOAD` times what the GPUs can serve in full."""
    base = Scenario.load(Path(__file__).parent.parent / "examples" / "two-class.toml")
    found = []
    for mix in MIXES:
        pairs = zip(base.classes, mix, strict=True)
        classes = tuple(c.model_copy(update={"arrival_rate": rate}) for c, rate in pairs)
        found.append(loaded(base.replace(classes=classes), LOAD))
    return found


def step_requests(parts: Sequence[Scenario], gpus: int, replication: int) -> Requests:
    blocks = []
    for k, scenario in enumerate(parts):
        options = {"seed": SEED, "replication": 2 * replication + k, "horizon": STEP}
        part = np.concatenate(list(drawn_requests(scenario, gpus, **options)))  # type: ignore[arg-type]
        part["arrival"] += k * STEP
        blocks.append(part)
    return np.concatenate(blocks)


def stepped(parts: Sequence[Scenario], gpus: int, name: str, way: Replanning | str, replication: int) -> Outcome:
    """The step under a rule, under the plan of the first mix ("fixed"), or under both mixes' plans ("known")."""
    scenario, policy = parts[0], find_policy(name)
    engine = engine_of(scenario, "single-prefill")
    run = Run(gpus, 2, HORIZON, seed=replication, ttft_targets=(TTFT,) * 2, tpot_targets=(TPOT,) * 2)
    requests = [step_requests(parts, gpus, replication)]
    if isinstance(way, Replanning):
        found = run_replanned(requests, engine, run, policy, scenario, way)
        return Outcome(found.measurement, found.looks, found.solved)
    if way == "fixed":
        rules = Decisions(policy, first_tables(scenario, policy, gpus))
        return Outcome(run_requests(requests, engine, run, rules))
    looks = [(RULE.look * k, parts[RULE.look * k >= STEP]) for k in range(round(HORIZON / RULE.look))]
    table = Timetable(looks, policy, gpus)
    watcher = Watcher(table)
    measured = run_requests(requests, engine, run, ChangingDecisions(policy, table, watcher))
    return Outcome(measured, watcher.looks, 1)


def first_tables(scenario: Scenario, policy: Policy, gpus: int) -> Any:
    program = policy.program
    found = plan(scenario, gpus=gpus, scheme=program.scheme, allow_decode_buffer=program.allow_decode_buffer)
    return policy.tabulate(found, gpus)


def tell_drawn(title: str, parts: Sequence[Scenario], gpus: int, policies: Sequence[str]) -> None:
    print(f"\n{title}, {gpus} GPUs, {REPLICATIONS} replications of {HORIZON:g} s\n")
    print("| policy | plan | revenue /s | to fixed, % | goodput, % | TTFT mean, p90, p99, s | solved |")
    print("|---|---|---|---|---|---|---|")
    for name in policies:
        ways: dict[str, Replanning | str] = {"fixed": "fixed", **RULES, "both mixes known": "known"}
        base: list[float] = []
        for label, way in ways.items():
            outcomes = [stepped(parts, gpus, name, way, replication) for replication in range(REPLICATIONS)]
            earned = [earnings(parts[0], each.measured) for each in outcomes]
            base = base or earned
            print(f"| {name} | {label} | {told(earned, base)} | {kept_targets(outcomes)} | "
                  f"{times(outcomes)} | {np.mean([each.solved for each in outcomes]):.0f} |", flush=True)  # fmt: skip


def earnings(scenario: Scenario, measured: IterationMeasurement) -> float:
    return float(measured.revenue(scenario.pricing).sum()) / (measured.gpus * measured.window)


def told(earned: Sequence[float], base: Sequence[float]) -> str:
    """The mean, and the paired difference to the fixed plan with its 95 % interval."""
    change = statistic(100 * (np.array(earned) - np.array(base)) / np.mean(base))
    return f"{np.mean(earned):.1f} | {signed(change) if list(earned) != list(base) else 'reference'}"


def signed(value: Statistic) -> str:
    assert value.mean is not None
    half = f" ±{(value.ci95[1] - value.ci95[0]) / 2:.2f}" if value.ci95 is not None else ""
    return f"{value.mean:+.2f}{half}"


def kept_targets(outcomes: Sequence[Outcome]) -> str:
    good = sum(int(each.measured.within_targets.sum()) for each in outcomes)
    return f"{100 * good / sum(int(each.measured.arrivals.sum()) for each in outcomes):.1f}"


def times(outcomes: Sequence[Outcome]) -> str:
    """TTFT over all requests of all replications."""
    parts = [each.measured.distribution("ttft") for each in outcomes]
    whole = replace(parts[0], counts=sum(part.counts for part in parts), total=sum(part.total for part in parts))
    assert whole.mean is not None
    return f"{whole.mean:.2f}, {whole.quantile(0.9):.2f}, {whole.quantile(0.99):.2f}"


def draw_step(name: str, gpus: int, path: Path) -> None:
    """The mixed group, the estimates, and what was earned, over time."""
    from fluidgate.reports.looks import line
    from fluidgate.reports.plots import picture, save, style

    parts = mixes()
    fixed = int(first_tables(parts[0], find_policy(name), gpus).mixed_gpus)
    still = stepped(parts, gpus, name, replace(RULE, period=math.inf, moved=math.inf), 0)
    ways = {
        "fixed": still,
        "replanned": stepped(parts, gpus, name, RULE, 0),
        "both mixes known": stepped(parts, gpus, name, "known", 0),
    }
    with style():
        figure = picture(figsize=(9.5, 7.5), layout="constrained")
        group, load_axes, money = figure.subplots(3, 1, sharex=True)
        for k, (label, outcome) in enumerate(ways.items()):
            at = [look.at for look in outcome.looks]
            there = [look.mixed_gpus for look in outcome.looks]
            group.step([0.0, *at], [fixed, *there], where="pre", lw=1.8, label=label, **line(k))
            minute = round(60.0 / RULE.look)
            earned = [0.0, *(float(look.revenue(parts[0].pricing).sum()) for look in outcome.looks)][::minute]
            rate = np.diff(earned) / (gpus * 60.0)
            money.step([0.0, *at][::minute], [rate[0], *rate], where="pre", lw=1.8, label=label, **line(k))
        for k, each in enumerate(parts[0].classes):
            seen = [look.load.arrival[k] for look in ways["replanned"].looks if look.load is not None]
            load_axes.plot([look.at for look in ways["replanned"].looks], seen, color=f"C{k + 3}", label=each.name)
            rates = [float(part.rates.arrival[k]) for part in parts]
            load_axes.step([0.0, STEP, HORIZON], [*rates, rates[-1]], where="post", color=f"C{k + 3}", ls=":", lw=1)
        for axes in (group, load_axes, money):
            axes.set_ylim(bottom=0)
            axes.legend(loc="upper left", fontsize=8)
        group.set_ylabel("GPUs in the mixed group")
        load_axes.set_ylabel("arrivals/s per GPU,\nestimated (dotted: true)")
        money.set_ylabel("revenue /s per GPU,\nover a minute")
        money.set_xlabel("time, s")
        figure.suptitle(f"{name}, {gpus} GPUs, load {LOAD:g}: the mix steps at {STEP:g} s", x=0.01, ha="left")
        save(figure, path)


# The traces


def tell_azure(traces: Sequence[str], gpus: int, scale: float) -> None:
    print(f"\nAzure traces, rates times {scale:g}, {gpus} GPUs, played once\n")
    print("| policy | plan | revenue /s | to fixed, % | goodput, % | TTFT mean, p90, p99, s | solved |")
    print("|---|---|---|---|---|---|---|")
    scenario = azure_at(scale)
    for name in POLICIES:
        fixed = 0.0
        for label, policy in azure_ways(name):
            found = replay(scenario, traces, [policy], gpus=gpus, rate_scale=scale).policies[0]
            assert isinstance(found, RequestResult)
            earned = found.revenue_rate.mean
            assert earned is not None
            fixed = fixed or earned
            solved = 0.0 if found.plan_path is None else found.plan_path.solved.mean
            print(f"| {name} | {label} | {earned:.1f} | {100 * (earned / fixed - 1):+.2f} | "
                  f"{good(found)} | {ttft(found)} | {solved:.0f} |", flush=True)  # fmt: skip


def azure_at(scale: float) -> Scenario:
    """The scenario whose classes bring what the traces do at that scale."""
    factor = scale / AZURE_SCALE
    classes = tuple(c.model_copy(update={"arrival_rate": c.arrival_rate * factor}) for c in AZURE.classes)
    return AZURE.replace(classes=classes)


def azure_ways(name: str) -> Iterator[tuple[str, str | ReplannedPolicy]]:
    yield "fixed", name
    for label, rule in RULES.items():
        yield label, ReplannedPolicy(find_policy(name), rule)


def good(found: RequestResult) -> str:
    goodput, arrivals = found.overall.goodput.mean, found.overall.arrival_rate.mean
    assert goodput is not None
    assert arrivals is not None
    return f"{100 * goodput / arrivals:.1f}"


def ttft(found: RequestResult) -> str:
    each = found.overall.ttft
    return f"{each.mean:.2f}, {each.p90:.2f}, {each.p99:.2f}"


if __name__ == "__main__":
    main()
