"""A gateway as one screen of a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fluidgate.gateway.rates import History, Rates
from fluidgate.reports.tables import number, table

STAGES = {
    "prefill": "in prefill",
    "mixed_decode": "mixed decode",
    "solo_decode": "solo decode",
    "prefill_queue": "wait for prefill",
    "decode_queue": "wait for decode",
}
BINDINGS = {
    "late": "decodes placed after their prefill",
    "early": "decodes placed before their prefill",
    "stay": "decodes stay where they are read",
    "pairs": "engines either read or write",
}
SLOTS = (("█", "prefill", "yellow"), ("▆", "decode", "green"), ("▒", "others", "magenta"), ("·", "free", "dim"))
ROLES = {
    "mixed": "yellow",
    "solo": "green",
    "placed": "cyan",
    "prefill": "yellow",
    "decode": "green",
    "down": "bold red",
}
WIDEST_BAR = 16


def frame(url: str, history: History, away: str | None = None) -> RenderableType:
    """What is known of the gateway at `url`; `away` says why it does not answer now."""
    parts: list[RenderableType] = []
    if away is not None:
        parts.append(Text(f"{url} is away ({away}); trying again", "bold red"))
    if history.last is not None:
        parts += _parts(url, history.last.state, history.rates)
    return Group(*parts)


def _parts(url: str, state: dict[str, Any], rates: Rates | None) -> Iterator[RenderableType]:
    yield Text(f"{state['scenario']} · {state['policy']} · {BINDINGS[state['binding']]} · {url}", "bold")
    yield _summary(state, rates)
    yield Text()
    yield from _titled(_stages(state))
    yield from _titled(_flows(state["plan"], rates, state["classes"]))
    if rates is not None:
        yield from _titled(_times(rates))
        if rates.refusals:
            yield Text(f"refused on arrival: {_listed(rates.refusals)}\n", "red")
    yield Text("Engines ", "bold").append_text(_legend())
    yield Columns([_engine(each, state["batch_size"]) for each in state["engines"]], padding=(0, 3))


def _titled(made: Table) -> Iterator[RenderableType]:
    yield Text(str(made.title), "bold")
    made.title = None
    made.show_edge = False
    yield made
    yield Text()


def _summary(state: dict[str, Any], rates: Rates | None) -> Text:
    engines, plan = state["engines"], state["plan"]
    up = sum(engine["role"] != "down" for engine in engines)
    mixed = sum(engine["role"] == "mixed" for engine in engines)
    line = Text(f"{up} of {len(engines)} engines up", "" if up == len(engines) else "bold red")
    if plan is not None:
        if state["binding"] == "pairs":
            line.append(f", {sum(engine['role'] == 'prefill' for engine in engines)} of them read", "default")
        else:
            line.append(f", {mixed} mixed (plan: {plan['mixed_engines']})", "default")
        line.append(f" · plan {_span(plan['age'])} old, solved again {_often(plan['solved'])}", "default")
    if rates is not None:
        wanted = "" if plan is None else f" of {number(plan['revenue_rate'])} planned"
        line.append(f" · revenue {number(rates.revenue)}/s{wanted}", "default")
    line.append(f" · up for {_span(state['uptime'])}", "default")
    if state["draining"]:
        line.append(" · DRAINING", "bold red")
    return line


def _stages(state: dict[str, Any]) -> Table:
    plan = state["plan"]
    made = table("Requests now" if plan is None else "Requests now / as the plan wants them", "class", *STAGES.values())
    for name, counts in state["classes"].items():
        wanted = {} if plan is None else plan["targets"][name]
        cells = (str(counts[stage]) + (f" / {number(wanted[stage], 3)}" if wanted else "") for stage in STAGES)
        made.add_row(name, *cells)
    return made


def _flows(plan: dict[str, Any] | None, rates: Rates | None, names: Mapping[str, Any]) -> Table:
    title = "Rates come with the second reading" if rates is None else f"Over the last {number(rates.seconds, 3)} s"
    made = table(title, "class", "arrivals/s (est.)", "done/s", "revenue/s", "tokens/s", "ended otherwise")
    for name in names:
        cells: list[str] = [number(None if plan is None else plan["estimates"][name]["arrival_rate"], 3)]
        if rates is not None:
            of = rates.classes[name]
            cells += [number(value, 3) for value in (of.completions, of.revenue, of.output_tokens)]
            cells.append(_listed(of.outcomes))
        made.add_row(name, *cells)
    return made


def _times(rates: Rates) -> Table:
    made = table("Times of those that ended", "class", "TTFT p50, s", "p90", "TPOT p50, ms", "p90")
    for name, of in rates.classes.items():
        tpot = (None if value is None else 1000.0 * value for value in (of.tpot.p50, of.tpot.p90))
        made.add_row(name, *(number(value, 3) for value in (of.ttft.p50, of.ttft.p90, *tpot)))
    return made


def _engine(engine: dict[str, Any], batch_size: int) -> Text:
    name = engine["url"].partition("://")[2]
    line = Text(f"{name} ").append(f"{engine['role']:<6}", ROLES[engine["role"]]).append(" ")
    if engine["role"] == "down":
        return line
    held = [engine["prefills"], engine["decodes"], engine["foreign"]]
    for (sign, _, style), cells in zip(SLOTS, bar(held, batch_size), strict=True):
        line.append(sign * cells, style)
    line.append(f" {sum(held):>{len(str(batch_size))}}/{batch_size}")
    if engine["kv_usage"] is not None:
        line.append(f"  KV {100 * engine['kv_usage']:.0f} %")
    return line


def bar(held: list[int], slots: int) -> list[int]:
    """How many cells of a bar show each kind of held slot, and the free ones: at least one for a kind that is there."""
    width = min(slots, WIDEST_BAR)
    cells = [max(round(count * width / slots), int(count > 0)) for count in held]
    while sum(cells) > width:
        cells[cells.index(max(cells))] -= 1
    return [*cells, width - sum(cells)]


def _legend() -> Text:
    line = Text()
    for sign, name, style in SLOTS:
        line.append(f" {sign}", style).append(f" {name}")
    return line


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "-"


def _often(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _span(seconds: float) -> str:
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
