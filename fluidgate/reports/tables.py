"""Results as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from fluidgate.example_files import Example
from fluidgate.planning import OperatingPoint, Plan
from fluidgate.policies import ALIASES, PlacedPolicy, Policy
from fluidgate.profiles import Profile
from fluidgate.reports.figures import Figure, Named, Several, Shown
from fluidgate.shown import several
from fluidgate.simulation import Comparison, SimulationResult, Statistic
from fluidgate.simulation.options import Options
from fluidgate.trajectory import STAGES, Trajectory
from fluidgate.workloads import Workload
from fluidgate.workloads.formats.known import KnownFormat
from fluidgate.workloads.measured_hits import MeasuredHits
from fluidgate.workloads.session_summary import Spread


def table(title: str, *columns: str, text: int = 1, names: int | None = None) -> Table:
    """An empty table.

    Args:
        text: so many first columns are words, the others numbers.
        names: so many first columns are names, which are never folded; all of words if None.
    """
    made = Table(title=title, box=SIMPLE_HEAD, header_style="bold", show_header=any(columns))
    for k, column in enumerate(columns):
        name = k < (text if names is None else names)
        made.add_column(column, justify="left" if k < text else "right", overflow="fold", no_wrap=name)
    return made


def number(value: float | None, digits: int = 4) -> Shown:
    """A number with `digits` significant digits, or a dash."""
    return Shown(_digits(value, digits), Figure(None if value is None else float(value)))


def _digits(value: float | None, digits: int) -> str:
    if value is None:
        return "-"
    if value == 0:
        return "0"
    return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"


def with_interval(value: Statistic, digits: int = 4, unit: float = 1.0) -> Shown:
    """A mean with half the width of its 95 % confidence interval, both times `unit`."""
    if value.mean is None:
        return Shown("-", Figure(None, interval=True))
    mean = unit * value.mean
    if value.ci95 is None:
        return Shown(_digits(mean, digits), Figure(mean, interval=True))
    low, high = (unit * end for end in value.ci95)
    return Shown(f"{_digits(mean, digits)} ±{_digits((high - low) / 2, 2)}", Figure(mean, low, high, interval=True))


def in_unit(value: float | None, unit: str, digits: int = 4) -> Shown:
    """A number and its unit, or a dash."""
    figure = Figure(None if value is None else float(value), unit=unit)
    return Shown("-" if value is None else f"{_digits(value, digits)} {unit}", figure)


def percent(share: float | None) -> Shown:
    """A share as a percentage."""
    if share is None:
        return Shown("-", Figure(None, unit="%"))
    return Shown(f"{100 * share:.1f} %", Figure(100 * share, unit="%"))


def plan_tables(plan: Plan) -> Iterator[Table]:
    """The plan as a whole, its prices, and its classes."""
    priced = plan.scenario.priced
    pricing = f"{plan.scheme} pricing" if priced else "no prices: most tokens"
    whole = table(f"Plan of '{plan.scenario.name}' ({pricing}), per GPU", "", "", text=1)
    constrained = plan.scenario.indicators.any
    revenue = "revenue rate" if constrained else "revenue rate, R*"
    whole.add_row(revenue if priced else "tokens read and written", in_unit(plan.revenue_rate, "/s", 6))
    if plan.penalty:
        whole.add_row("penalty", in_unit(plan.penalty, "/s", 6))
        whole.add_row("objective", in_unit(plan.objective, "/s", 6))
    whole.add_row("share of the GPUs in prefill (mixed fraction)", number(plan.mixed_fraction, 5))
    if plan.operating_point is None:
        whole.add_row("time per output token, all slots busy, (47)", _milliseconds(plan.tpot))
    else:
        whole.add_row("time per output token, of the decodes", _milliseconds(plan.tpot))
        whole.add_row("- spread over all GPUs, as in a pool", _milliseconds(plan.operating_point.pooled_tpot))
    whole.add_row("a solo decode is faster by (kappa)", number(plan.kappa, 4))
    if plan.operating_point is not None:
        for label, value in _operating_point(plan.operating_point, plan.batching):
            whole.add_row(label, value)
    if plan.prefix_hit_rate is not None:
        whole.add_row("prompt tokens found in memory", percent(plan.prefix_hit_rate))
    whole.add_row("decode buffer", "empty" if plan.decode_buffer_free else "kept on purpose")
    if plan.partition is not None:
        split = plan.partition
        whole.add_row(f"split of {several(split.gpus, 'GPU')}", f"{split.mixed} mixed + {split.solo} solo")
        whole.add_row("prefill utilisation of the mixed group", number(split.prefill_utilisation, 4))
    yield whole

    unit = "earn" if priced else "bring, in tokens"
    prices = table(f"What one more unit would {unit}, per second (shadow prices)", "constraint", "price", text=1)
    for name, price in plan.shadow_prices.items():
        prices.add_row(name.replace("_", " "), number(price, 5))
    for name, entry in plan.indicators.items():
        if "limit" in entry:
            label = f"{name} (limit {number(entry['limit'])}, value {number(entry['value'])})"
            prices.add_row(label, number(entry["shadow_price"], 5))
        else:
            label = f"{name} (weight {number(entry['weight'])}, value {number(entry['value'])})"
            prices.add_row(label, "-")
    yield prices

    classes = table(
        "Classes", "class", "served", "done/s", "prefill x", "mixed y_m", "solo y_s", "wait q_p", "wait q_d",
        "price of 1/s more",
    )  # fmt: skip
    if plan.hit_price is not None:
        classes.add_column("found", justify="right")
        classes.add_column("price of 1 % more", justify="right")
    for k, name in enumerate(plan.scenario.class_names):
        hits = () if plan.hit_price is None else (
            percent(plan.scenario.hit_rates[k]), number(float(plan.hit_price[k]) / 100)
        )  # fmt: skip
        classes.add_row(
            name,
            percent(float(plan.served_fraction[k])),
            *(
                number(float(values[k]))
                for values in (
                    plan.completion_rate,
                    plan.prefill,
                    plan.mixed_decode,
                    plan.solo_decode,
                    plan.prefill_queue,
                    plan.decode_queue,
                    plan.flow_price,
                )
            ),
            *hits,
        )
    yield classes


def memory_table(measured: MeasuredHits) -> Table:
    """What the prompts of traces find on GPUs of other memories, and what plans earn there."""
    shared = measured.gpus > 1
    title = f"What KV memory would bring, on {measured.gpus} GPUs" if shared else "What KV memory would bring"
    unit = "earns" if measured.found.plan.scenario.priced else "tokens"
    spread = ["found if spread"] if shared else []
    first = ("KV tokens of a GPU", "left for the cache", "prompt tokens found")
    memories = table(title, *first, *spread, "time in prefill", f"{unit}, /s per GPU", text=0)
    for record in measured.records():
        whole, left = (record[key] for key in ("kv_tokens", "cache_tokens"))
        size = "no end" if whole is None else f"{whole:,.0f}"
        if not record["planned"]:
            memories.add_row(size, "too little")
            continue
        shares = ["prefix_hit_rate", *(["spread_hit_rate"] if shared else []), "mixed_fraction"]
        memories.add_row(
            size,
            "no end" if left is None else ("" if record["converged"] else "about ") + f"{left:,.0f}",
            *(f"{100 * record[key]:.1f} %" for key in shares),
            number(record[measured.money], 6),
        )
    return memories


def loop_words(run: Options) -> str:
    """The users of a closed loop, for a title; nothing where requests come by themselves."""
    if run.users is None:
        return ""
    law = ", exponential" if run.think_law == "exponential" and run.think > 0 else ""
    return f"{run.users:,} users{f' who think {number(run.think)} s{law}' if run.think > 0 else ''}, "


def simulation_title(result: SimulationResult) -> str:
    run = result.run
    return (
        f"'{result.policy}' on '{result.scenario}': {several(run.gpus, 'GPU')}, "
        f"{loop_words(run)}{number(run.horizon)} s, {several(run.replications, 'replication')} (95 % confidence)"
    )


def _operating_point(point: OperatingPoint, batching: str) -> Iterator[tuple[str, str]]:
    """The batch that runs."""
    yield "batching", batching
    for label, seconds in (("mixed", point.mixed_iteration), ("solo", point.solo_iteration)):
        yield f"{label} iteration, mean", "-" if seconds is None else _milliseconds(seconds)
    yield "iterations", in_unit(point.iteration_rate, "/s")
    yield "decodes in a batch, mean", number(point.decodes)
    share = "" if point.kv_share is None else f" ({100 * point.kv_share:.1f} % of the memory)"
    yield "KV memory in use, mean", f"{number(point.kv_tokens)} tokens{share}"
    yield "busy", percent(point.busy)


def _milliseconds(seconds: float) -> Shown:
    return in_unit(1000 * seconds, "ms")


def simulation_tables(result: SimulationResult) -> Iterator[Table]:
    """Revenue and what happened to each class."""
    whole = table(simulation_title(result), "", "")
    earned_rows(whole, result)
    limit_rows(whole, result)
    whole.add_row("events", f"{result.events:,}")
    yield whole
    yield from state_tables(result)
    times = table(
        "Times (wait for decode: 0 for those that never wait)", "class", "TTFT, s", "wait for decode, s", "TPOT, ms"
    )
    for c in result.classes:
        times.add_row(c.name, with_interval(c.ttft), with_interval(c.decode_wait), with_interval(c.tpot, unit=1000.0))
    yield times


def earned_rows(whole: Table, result: SimulationResult) -> None:
    """Revenue and its shares, those that there are; without prices what is completed."""
    if result.revenue_rate.mean is None:
        whole.add_row("completed per GPU", in_unit(completions(result), "/s"))
        return
    whole.add_row("revenue rate per GPU", f"{with_interval(result.revenue_rate, 6)} /s")
    if result.run.users is None:
        whole.add_row("share of R* (without indicators)", with_interval(result.optimality_ratio))
        whole.add_row("share of the plan's objective", with_interval(result.objective_ratio))


def completions(result: SimulationResult) -> float:
    """Of all classes, per GPU and second."""
    return sum(each.completion_rate.mean or 0.0 for each in result.classes)


def merit(result: SimulationResult) -> float:
    """What policies are sorted by: revenue, or without prices what they complete."""
    return completions(result) if result.revenue_rate.mean is None else result.revenue_rate.mean


LIMITS = {
    "max_prefill_gap": ("prefill gap", "", 1.0),
    "max_solo_gap": ("solo gap", "", 1.0),
    "max_tpot": ("TPOT", " ms", 1000.0),
}
"""By limit: the indicator, its unit, and that unit in the limit's."""


def limit_rows(whole: Table, result: SimulationResult) -> None:
    """A row for each limit of the scenario: what came of it."""
    for name, each in result.indicators.items():
        label, unit, scale = LIMITS[name]
        whole.add_row(
            f"{label} (limit {number(scale * each.limit)}{unit})", f"{with_interval(each.value, unit=scale)}{unit}"
        )


def state_tables(result: SimulationResult) -> Iterator[Table]:
    """Occupancies and flows of each class."""
    occupancies = table(
        "Occupancies and queues, per GPU",
        "class",
        "prefill x",
        "mixed y_m",
        "solo y_s",
        "wait q_p",
        "wait q_d",
    )
    flows = table(
        "Flows, per GPU and second",
        "class",
        "arrive",
        "prefilled",
        "done",
        "leave before prefill",
        "leave before decode",
    )
    for c in result.classes:
        occupancies.add_row(
            c.name,
            *map(with_interval, (c.prefill, c.mixed_decode, c.solo_decode, c.prefill_queue, c.decode_queue)),
        )
        flows.add_row(
            c.name,
            *map(
                with_interval,
                (
                    c.arrival_rate,
                    c.prefill_completion_rate,
                    c.completion_rate,
                    c.prefill_abandonment_rate,
                    c.decode_abandonment_rate,
                ),
            ),
        )
    yield from (occupancies, flows)


def comparison_tables(result: Comparison, title: str | None = None) -> Iterator[Table]:
    """One row a policy, the best first."""
    run = result.run
    made = table(
        title
        or f"Policies on '{result.scenario}': {several(run.gpus, 'GPU')}, {loop_words(run)}{number(run.horizon)} s, "
        f"{several(run.replications, 'replication')} (95 % confidence; difference to {result.reference}, paired)",
        "policy", *_earned_heads(result), "TTFT, s", "TPOT, ms", "served",
    )  # fmt: skip
    differences = {p.policy: p.revenue_difference for p in result.paired}
    for each in sorted(result.policies, key=merit, reverse=True):
        made.add_row(
            each.policy,
            *_earned(each, differences.get(each.policy), len(_earned_heads(result))),
            _each_class(each, "ttft", 1.0),
            _each_class(each, "tpot", 1000.0),
            _served(each),
        )
    yield made
    names = " / ".join(c.name for c in result.policies[0].classes)
    made.caption = f"times and served shares by class: {names}"
    made.caption_justify = "left"
    yield from limits_table(result)


REFERENCE = Shown("reference", Figure(None, interval=True))


def _earned_heads(result: Comparison) -> tuple[str, ...]:
    if all(each.revenue_rate.mean is None for each in result.policies):
        return ("done /s",)
    if result.run.users is not None:
        return ("revenue /s", "difference /s")
    return ("revenue /s", "share of R*", "difference /s")


def _earned(each: SimulationResult, difference: Statistic | None, columns: int) -> tuple[str, ...]:
    if columns == 1:
        return (number(completions(each)),)
    share = (with_interval(each.optimality_ratio),) if columns == 3 else ()
    return (with_interval(each.revenue_rate, 5), *share, with_interval(difference) if difference else REFERENCE)


def limits_table(result: Comparison) -> Iterator[Table]:
    """What came of each limit of the scenario, a row a policy; nothing where there are none."""
    names = list(result.policies[0].indicators)
    if not names:
        return
    heads = []
    for name in names:
        label, unit, scale = LIMITS[name]
        heads.append(f"{label} (limit {number(scale * result.policies[0].indicators[name].limit)}{unit})")
    made = table("Limits", "policy", *heads)
    for each in result.policies:
        made.add_row(each.policy, *(with_interval(each.indicators[name].value, unit=LIMITS[name][2]) for name in names))
    yield made


def share_of(value: Statistic) -> str:
    """A mean as a percentage."""
    return percent(value.mean)


def _each_class(result: SimulationResult, quantity: str, unit: float) -> str:
    means = {c.name: getattr(c, quantity).mean for c in result.classes}
    return Several({name: number(None if mean is None else mean * unit, 3) for name, mean in means.items()})


def _served(result: SimulationResult) -> str:
    return Several(
        {
            c.name: percent((c.completion_rate.mean or 0.0) / c.arrival_rate.mean if c.arrival_rate.mean else None)
            for c in result.classes
        }
    )


def policy_table(policies: Sequence[Policy | PlacedPolicy], aliases: dict[str, str]) -> Table:
    """Names and summaries."""
    made = table("Policies", "name", "origin", "summary", text=3, names=2)
    for policy in policies:
        also = [alias for alias, name in aliases.items() if name == policy.name]
        made.add_row(Named(policy.name, also), policy.origin, policy.summary)
    return made


def example_table(examples: Sequence[Example]) -> Table:
    """Names, and what each shows."""
    made = table("Examples", "name", "what it shows", text=2, names=1)
    for example in examples:
        made.add_row(example.name, example.shows)
    return made


def format_table(formats: Sequence[KnownFormat]) -> Table:
    """Formats of traces by what files are known by, and who reads them."""
    made = table("Formats of traces", "format", "known by", "times", "origin", text=4, names=1)
    for each in formats:
        made.add_row(each.name, each.known_by, each.times or "-", each.origin)
    return made


def listed_policies(policies: Sequence[Policy | PlacedPolicy]) -> Table:
    """Those of the catalogue, with their aliases."""
    return policy_table(policies, ALIASES)


def policy_tables(policy: Policy | PlacedPolicy) -> Iterator[Table]:
    """What it is, and the parameters that it leaves open."""
    facts = table(f"Policy '{policy.name}'", "", "", text=2, names=1)
    for key, value in policy.to_dict().items():
        if key not in ("name", "parameters"):
            facts.add_row(key, ", ".join(value) if isinstance(value, list) else str(value))
    yield facts
    if policy.parameters:
        made = table("Parameters", "parameter", "value", "default", "least", "most", "what it is", names=1)
        made.columns[-1].justify = "left"
        for each in policy.parameters:
            values = (policy.values[each.name], each.default, each.low, each.high)
            made.add_row(each.name, *(f"{value:g}" for value in values), each.meaning)
        yield made


def trajectory_table(path: Trajectory) -> Table:
    """The requests of each class at each stage, per GPU, where the path ends, and the most there were."""
    made = table(
        f"Path up to {number(float(path.time[-1]))} s, per GPU", "class", "stage", "at the end", "most", text=2
    )
    for k, name in enumerate(path.class_names):
        for stage in STAGES:
            values = getattr(path, stage)[:, k]
            made.add_row(name, stage.replace("_", " "), number(float(values[-1])), number(float(values.max())))
    return made


PROFILE_WIDTH = 80
_FRAME = 7
"""Blanks around the columns of a table, and between them."""


def profile_table(profiles: Sequence[Profile], packages: Mapping[str, str] | None = None) -> Table:
    """Names, and beside each what was measured and what it is for; no wider than 80 columns, names whole.

    Args:
        packages: that bring profiles, by the names of these.
    """
    made = table("Iteration-time profiles", "profile", "what it is", text=2, names=1)
    names = max((len(profile.name) for profile in profiles), default=0)
    made.columns[1].width = PROFILE_WIDTH - names - _FRAME
    for profile in profiles:
        facts = ", ".join(filter(None, (_group(profile), profile.dtype, _engine(profile), profile.measured)))
        package = (packages or {}).get(profile.name)
        brought = f"of the package {package}" if package else ""
        made.add_row(profile.name, "\n".join(filter(None, (facts, _use(profile), brought))))
    return made


def _group(profile: Profile) -> str:
    return f"{profile.gpus or 1} x {profile.gpu.removeprefix('NVIDIA ')}" if profile.gpu else ""


def _engine(profile: Profile) -> str:
    return f"{profile.engine} {profile.engine_version}".strip()


def _use(profile: Profile) -> str:
    return ": ".join(filter(None, (profile.model, profile.purpose)))


def _sessions_table(workload: Workload) -> Table:
    sessions = table("Sessions (mean, p50, p90)", "class", "sessions", "sub-agents", "turns", "think time, s")
    rows = [(found.name, found.sessions) for found in workload.classes]
    for name, each in [*rows, ("all", workload.sessions)] if len(rows) > 1 else rows:
        if each is not None:
            sessions.add_row(name, f"{each.count:,}", f"{each.subagents:,}", _spread(each.turns), _spread(each.think))
    return sessions


def _spread(spread: Spread | None) -> str:
    return "-" if spread is None else ", ".join(number(value) for value in (spread.mean, spread.p50, spread.p90))


def workload_tables(workload: Workload) -> Iterator[Table]:
    """The classes of a workload, and how far its lengths and gaps are from exponential."""
    scenario = workload.scenario
    gpus = scenario.cluster_gpus or 1
    classes = table(
        f"Workload '{scenario.name}' for {several(gpus, 'GPU')}",
        "class", "requests", "mean prompt P", "mean output D", "arrivals/s, cluster", "arrivals/s per GPU",
    )  # fmt: skip
    for cls, found in zip(scenario.classes, workload.classes, strict=True):
        classes.add_row(
            cls.name,
            f"{len(found):,}",
            number(cls.prompt_tokens),
            number(cls.output_tokens),
            number(cls.arrival_rate * gpus),
            number(cls.arrival_rate),
        )
    yield classes

    if workload.prefix_share is not None:
        shared = table("Found in prompts before, in an endless memory", "class", "share of prompt tokens", "new tokens")
        for found in workload.classes:
            rate = found.prefix_hit_rate
            new = None if rate is None else found.mean_prompt * (1.0 - rate)
            shared.add_row(found.name, "-" if rate is None else f"{100 * rate:.2f} %", number(new))
        if len(workload.classes) > 1:
            shared.add_row("all", f"{100 * workload.prefix_share:.2f} %", "")
        yield shared
    if workload.sessions is not None:
        yield _sessions_table(workload)

    laws = table(
        "Distance from the exponential law (CV 1, KL 0)",
        "class",
        "quantity",
        "mean",
        "CV",
        "KL, nats",
        text=2,
    )
    for row in workload.statistics:
        laws.add_row(
            row.class_name,
            row.quantity.replace("_", " "),
            in_unit(row.mean, row.unit),
            number(row.cv, 3),
            number(row.kl, 3),
        )
    yield laws
