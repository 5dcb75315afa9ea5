"""The cluster now as gauges: requests by stage, engines, and the plan in force."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from fluidgate.gateway.cluster.engine import REASONS


class Gauges:
    """A collector for Prometheus that reads a snapshot at each scrape."""

    def __init__(self, snapshot: Callable[[], dict[str, Any]]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        snapshot = self._snapshot()
        stages = gauge("requests_now", "Requests by stage", "class", "stage")
        for name, counts in snapshot["classes"].items():
            for stage, number in counts.items():
                stages.add_metric((name, stage), number)
        yield stages
        up = gauge("engine_up", "Whether an engine answers", "engine")
        mixed = gauge("engine_mixed", "Whether an engine belongs to the mixed group", "engine")
        held = gauge("engine_requests", "Requests on an engine", "engine", "kind")
        kv = gauge("engine_kv_usage", "Share of an engine's KV memory in use, where it says so", "engine")
        downs = CounterMetricFamily(
            "fluidgate_engine_downs", "How often an engine went down, by reason", labels=("engine", "reason")
        )
        for engine in snapshot["engines"]:
            url = engine["url"]
            for reason in REASONS:
                downs.add_metric((url, reason), engine["downs"].get(reason, 0))
            up.add_metric((url,), float(engine["state"] == "up"))
            mixed.add_metric((url,), float(engine["role"] == "mixed"))
            for kind in ("prefills", "decodes", "foreign"):
                held.add_metric((url, kind), engine[kind])
            if engine["kv_usage"] is not None:
                kv.add_metric((url,), engine["kv_usage"])
        yield from (up, mixed, held, kv, downs)
        yield one("draining", "Whether new requests are refused", float(snapshot["draining"]))
        value = gauge("indicator", "An indicator over the last minutes", "indicator")
        limit = gauge("indicator_limit", "Its limit in the scenario", "indicator")
        for name, each in snapshot["indicators"].items():
            value.add_metric((name,), math.nan if each["value"] is None else each["value"])
            limit.add_metric((name,), math.inf if each["limit"] is None else each["limit"])
        yield from (value, limit)
        plan = snapshot["plan"]
        if plan is None:
            return
        target = gauge("target", "Requests by stage, as the plan wants them", "class", "stage")
        for name, stages_of in plan["targets"].items():
            for stage, number in stages_of.items():
                target.add_metric((name, stage), number)
        yield target
        rate = gauge("arrival_rate", "Estimated arrivals, 1/s", "class")
        for name, load in plan["estimates"].items():
            rate.add_metric((name,), load["arrival_rate"])
        yield rate
        yield one("plans_solved", "Times that the plan was solved again", plan["solved"])
        yield one("plan_age_seconds", "Age of the plan in force", plan["age"])
        yield one("plan_revenue_rate", "What the plan in force would earn, 1/s", plan["revenue_rate"])


def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"fluidgate_{name}", text, labels=labels)


def one(name: str, text: str, value: float) -> GaugeMetricFamily:
    """A gauge without labels."""
    made = gauge(name, text)
    made.add_metric((), value)
    return made
