"""Simulations of requests as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table

from fluidgate.reports.tables import (
    comparison_tables,
    earned_rows,
    limit_rows,
    loop_words,
    merit,
    number,
    share_of,
    simulation_title,
    state_tables,
    table,
    with_interval,
)
from fluidgate.shown import several
from fluidgate.simulation import Comparison, Statistic
from fluidgate.simulation.iteration.pilot import Pilot
from fluidgate.simulation.iteration.plan_path import PlanPath
from fluidgate.simulation.iteration.replay_options import ReplayOptions
from fluidgate.simulation.iteration.results import QUANTILES, ReplayComparison, RequestResult, TimeStatistic
from fluidgate.simulation.iteration.times import TIMES

COMPARED = ("ttft", "tpot", "stall", "latency")
CLOCKS = {"engine": "the engine's clock", "client": "a client's clock, front end included"}
"""Those that a comparison shows."""


def request_tables(result: RequestResult) -> Iterator[Table]:
    """Revenue, the GPUs, what happened to each class, and the distributions of its times."""
    whole = table(simulation_title(result), "", "")
    earned_rows(whole, result)
    limit_rows(whole, result)
    whole.add_row("goodput per GPU (within the targets)", _goodput(result))
    if result.overall.prefix_hit_rate.mean is not None:
        whole.add_row("prompt tokens found in memory", with_interval(result.overall.prefix_hit_rate))
    whole.add_row("tokens read, written per GPU", f"{_tokens(result)} /s")
    whole.add_row("GPU time", _modes(result.gpu_time))
    whole.add_row("KV tokens on a GPU: mean, most", f"{with_interval(result.kv_tokens)}, {number(result.kv_peak)}")
    whole.add_row("preempted, rejected per GPU", f"{_lost(result)} /s")
    if result.has_fleet:
        whole.add_row("GPU hours", with_interval(result.gpu_hours))
        whole.add_row("available", share_of(result.availability))
        whole.add_row("lost with a GPU, per GPU", f"{number(result.overall.loss_rate.mean)} /s")
    whole.add_row("batching", result.batching)
    if result.parameters:
        whole.add_row("parameters", ", ".join(f"{name} {number(value)}" for name, value in result.parameters.items()))
    if result.pilot is not None:
        whole.add_row("prompt_gpus found by", _pilot(result.pilot))
    whole.add_row("events", f"{result.events:,}")
    yield whole
    yield from plan_path_tables([result])
    yield from state_tables(result)
    times = table("Times", "class", "time", "mean", *QUANTILES, text=2)
    for each in (*result.classes, result.overall):
        for quantity, (_, label, unit) in TIMES.items():
            times.add_row(each.name, label, *_distribution(getattr(each, quantity), unit))
    yield times


def request_comparison_tables(result: Comparison, title: str | None = None) -> Iterator[Table]:
    """One row a policy, the best first; then its GPUs, and the distributions of the times of each class."""
    yield from comparison_tables(result, title)
    found = [each for each in result.policies if isinstance(each, RequestResult)]
    found.sort(key=merit, reverse=True)
    caches = any(each.overall.prefix_hit_rate.mean is not None for each in found)
    gpus = table(
        "GPUs", "policy", "batching", "idle", "solo", "mixed", "prefill", "KV tokens", "most",
        *(["found"] if caches else []), "goodput /s", "tokens read, written /s", "preempted, rejected /s", text=2,
    )  # fmt: skip
    for each in found:
        shares = [share_of(share) for share in each.gpu_time.values()]
        kv = (number(each.kv_tokens.mean), number(each.kv_peak))
        hits = [share_of(each.overall.prefix_hit_rate)] if caches else []
        gpus.add_row(each.policy, each.batching, *shares, *kv, *hits, _goodput(each), _tokens(each), _lost(each))
    yield gpus
    if any(each.has_fleet for each in found):
        yield fleet_table(found)
    if any("prompt_gpus" in each.parameters for each in found):
        yield pool_table(found)
    yield from plan_path_tables(found)
    labels = {quantity: (time.label, time.factor) for quantity, time in TIMES.items()}
    for quantity in COMPARED:
        label, unit = labels[quantity]
        times = table(label[0].upper() + label[1:], "policy", "class", "mean", *QUANTILES, text=2)
        for each in found:
            for cls in _with_all(each):
                times.add_row(each.policy, cls.name, *_distribution(getattr(cls, quantity), unit))
        yield times


def fleet_table(found: Sequence[RequestResult]) -> Table:
    """What the GPUs cost that come and go, and what was lost with them."""
    made = table("GPUs that come and go", "policy", "GPU hours", "available", "lost with a GPU /s")
    for each in found:
        lost = number(each.overall.loss_rate.mean)
        made.add_row(each.policy, with_interval(each.gpu_hours), share_of(each.availability), lost)
    return made


def pool_table(found: Sequence[RequestResult]) -> Table:
    """The pools of those policies that have some."""
    made = table("Pools", "policy", "found by", "prompt GPUs", "token GPUs", text=2)
    for each in found:
        if "prompt_gpus" in each.parameters:
            size = int(each.parameters["prompt_gpus"])
            how = "given" if each.pilot is None else _pilot(each.pilot)
            made.add_row(each.policy, how, str(size), str(each.run.gpus - size))
    return made


def plan_path_tables(results: Sequence[RequestResult]) -> Iterator[Table]:
    """How often each plan that follows the load was solved, and its mixed group over time; none if all stand."""
    following = [each for each in results if each.plan_path is not None]
    if not following:
        return
    made = table(
        "Plans that follow the load", "policy", "solved again", "other tables", "no plan, kept",
        "mixed GPUs, first plan", "least", "mean", "most", "GPUs in the mixed group", "GPUs in prefill",
    )  # fmt: skip
    for each in following:
        path = each.plan_path
        assert path is not None
        counts = map(with_interval, (path.solved, path.changed, path.kept))
        made.add_row(each.policy, *counts, *(number(value, 3) for value in _mixed_group(each, path)))
    yield made


def _mixed_group(result: RequestResult, path: PlanPath) -> tuple[float | None, ...]:
    """By the first plan, and over the looks: the least, mean and most by the plans, and the mean of what there was."""
    first = result.run.gpus * result.plan.mixed_fraction if result.plan is not None else None
    if len(path.time) == 0:
        return (first, *[None] * 5)
    planned = path.mixed_planned
    there = (path.mixed_gpus.mean(), path.reading.mean())
    return (first, *(float(value) for value in (planned.min(), planned.mean(), planned.max(), *there)))


def replay_tables(result: ReplayComparison) -> Iterator[Table]:
    """As a comparison, under the traces' names; then what the traces say of the engine's own times."""
    run = result.run
    assert isinstance(run, ReplayOptions)
    end = "until the last has left" if math.isinf(run.horizon) else f"{number(run.horizon)} s"
    starts = "" if run.sessions_rate is None else f"{number(run.sessions_rate)} sessions/s, "
    how = f"{starts}rates times {number(run.rate_scale)}" if run.users is None else "in their order"
    title = (
        f"{' + '.join(run.traces)} on '{result.scenario}': {several(run.gpus, 'GPU')}, {loop_words(run)}{end}, "
        f"played {run.times}, {how}"
    )
    yield from request_comparison_tables(result, title)
    if not result.agreement or result.logged is None:
        return
    shown = table(
        f"As the trace measured it, by {CLOCKS[result.logged.clock]} (s, tokens/s)",
        "policy",
        "of",
        "statistic",
        "measured",
        "simulated",
        "difference",
        text=3,
    )
    for name, row in result.agreement:
        values = (f"{row.measured:.4g}", f"{row.simulated:.4g}", f"{100 * row.relative:+.1f} %")
        shown.add_row(name, row.quantity, row.statistic, *values)
    yield shown


def _with_all(result: RequestResult) -> Sequence[Any]:
    """The classes, and all together where there are several."""
    return result.classes if len(result.classes) == 1 else (*result.classes, result.overall)


def _distribution(time: TimeStatistic, unit: float) -> tuple[str, ...]:
    quantiles = [getattr(time, name) for name in QUANTILES]
    return (with_interval(time, 4, unit), *(number(None if q is None else q * unit) for q in quantiles))


def _goodput(result: RequestResult) -> str:
    """Goodput, and its share of what arrived."""
    each = result.overall
    if each.goodput.mean is None:
        return "no targets"
    share = f" ({100 * each.goodput.mean / each.arrival_rate.mean:.1f} %)" if each.arrival_rate.mean else ""
    return f"{with_interval(each.goodput)}{share}"


def _tokens(result: RequestResult) -> str:
    each = result.overall
    return f"{number(each.prompt_token_rate.mean)}, {number(each.output_token_rate.mean)}"


def _lost(result: RequestResult) -> str:
    each = result.overall
    return f"{number(each.preemption_rate.mean)}, {number(each.rejection_rate.mean)}"


def _pilot(pilot: Pilot) -> str:
    return f"a pilot run of {pilot.requests:,} requests: most {pilot.maximised}"


def _modes(shares: dict[str, Statistic]) -> str:
    return ", ".join(f"{mode} {share_of(share)}" for mode, share in shares.items())
