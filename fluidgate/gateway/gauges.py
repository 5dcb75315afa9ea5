"""The cluster now as gauges: requests by stage, engines, and the plan in force."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from fluidgate.gateway.cluster.engine import REASONS


class Gauges:
    """A collector for Prometheus that reads snapshots, one a group of engines, at each scrape."""

    def __init__(self, snapshots: Callable[[], list[dict[str, Any]]]) -> None:
        self._snapshots = snapshots

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        snapshots = self._snapshots()

        def add(made: GaugeMetricFamily | CounterMetricFamily, labels: tuple[str, ...], value: float) -> None:
            family = families.setdefault(made.name, made)
            family.add_metric(labels, value)  # type: ignore[attr-defined]

        for snapshot in snapshots:
            of_requests(snapshot, add)
            of_engines(snapshot, add)
            of_indicators(snapshot, add)
            if snapshot["prefixes"] is not None:
                seconds = CounterMetricFamily(
                    "fluidgate_prefix_hash_seconds", "CPU time that the hashing of prompts has taken", labels=("model",)
                )
                add(seconds, (snapshot["model"],), snapshot["prefixes"]["hash_seconds"])
            if snapshot["plan"] is not None:
                of_plan(snapshot["model"], snapshot["plan"], add)
        yield from families.values()
        draining = GaugeMetricFamily("fluidgate_draining", "Whether the gateway is about to leave")
        draining.add_metric((), float(any(snapshot["draining"] for snapshot in snapshots)))
        yield draining


class Add(Protocol):
    """Adds a sample to the family of a name."""

    def __call__(
        self, made: GaugeMetricFamily | CounterMetricFamily, labels: tuple[str, ...], value: float
    ) -> None: ...


def of_requests(snapshot: dict[str, Any], add: Add) -> None:
    for name, counts in snapshot["classes"].items():
        for stage, number in counts.items():
            stages = gauge("requests_now", "Requests by stage", "class", "stage")
            add(stages, (snapshot["model"], name, stage), number)


def of_engines(snapshot: dict[str, Any], add: Add) -> None:
    model = snapshot["model"]
    up = gauge("engine_up", "Whether an engine takes requests", "engine")
    mixed = gauge("engine_mixed", "Whether an engine belongs to the mixed group", "engine")
    held = gauge("engine_requests", "Requests on an engine", "engine", "kind")
    kv = gauge("engine_kv_usage", "Share of an engine's KV memory in use, where it says so", "engine")
    downs = CounterMetricFamily(
        "fluidgate_engine_downs", "How often an engine went down, by reason", labels=("model", "engine", "reason")
    )
    for engine in snapshot["engines"]:
        url = engine["url"]
        add(up, (model, url), float(engine["state"] == "up"))
        add(mixed, (model, url), float(engine["role"] == "mixed"))
        for kind in ("prefills", "decodes", "foreign"):
            add(held, (model, url, kind), engine[kind])
        if engine["prefixes"] is not None:
            of_prefixes((model, url), engine["prefixes"], add)
        if engine["kv_usage"] is not None:
            add(kv, (model, url), engine["kv_usage"])
        for reason in REASONS:
            add(downs, (model, url, reason), engine["downs"].get(reason, 0))


def of_prefixes(of: tuple[str, str], prefixes: dict[str, float], add: Add) -> None:
    """What an engine is believed to have of prompts."""
    labels = ("model", "engine")
    believed = "Prompt tokens sent to an engine that were believed to be in its memory"
    told = "Prompt tokens that an engine says were in its memory"
    add(
        CounterMetricFamily("fluidgate_prefix_believed_tokens", believed, labels=labels),
        of,
        prefixes["believed_tokens"],
    )
    add(CounterMetricFamily("fluidgate_prefix_told_tokens", told, labels=labels), of, prefixes["told_tokens"])
    add(gauge("prefix_blocks", "Blocks that an engine is believed to have", "engine"), of, prefixes["blocks"])
    add(gauge("prefix_bytes", "Memory of the gateway for them", "engine"), of, prefixes["bytes"])
    add(gauge("prefix_room_tokens", "Tokens that an engine is believed to keep", "engine"), of, prefixes["room"])


def of_indicators(snapshot: dict[str, Any], add: Add) -> None:
    model = snapshot["model"]
    for name, each in snapshot["indicators"].items():
        value = gauge("indicator", "An indicator over the last minutes", "indicator")
        limit = gauge("indicator_limit", "Its limit in the scenario", "indicator")
        add(value, (model, name), math.nan if each["value"] is None else each["value"])
        add(limit, (model, name), math.inf if each["limit"] is None else each["limit"])


def of_plan(model: str, plan: dict[str, Any], add: Add) -> None:
    for name, stages in plan["targets"].items():
        for stage, number in stages.items():
            target = gauge("target", "Requests by stage, as the plan wants them", "class", "stage")
            add(target, (model, name, stage), number)
    for name, load in plan["estimates"].items():
        add(gauge("arrival_rate", "Estimated arrivals, 1/s", "class"), (model, name), load["arrival_rate"])
    add(gauge("plans_solved", "Times that the plan was solved again"), (model,), plan["solved"])
    add(gauge("plan_age_seconds", "Age of the plan in force"), (model,), plan["age"])
    add(gauge("plan_revenue_rate", "What the plan in force would earn, 1/s"), (model,), plan["revenue_rate"])


def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    """A gauge by model, and by further labels."""
    return GaugeMetricFamily(f"fluidgate_{name}", text, labels=("model", *labels))
