"""What Prometheus scrapes: the cluster as the gateway knows it, and what its requests went through."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from fluidgate.gateway.client.request_handler import Journey
    from fluidgate.gateway.gateway import Gateway

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8)
TOKEN_SECONDS = (0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.2, 0.5)


class Metrics:
    """Counters and distributions of finished requests; gauges are read off the gateway when it is scraped."""

    def __init__(self, gateway: Gateway) -> None:
        self.registry = CollectorRegistry()
        self._prices = gateway.settings.scenario.pricing
        self._names = gateway.class_names
        self._requests = self._counter("requests", "Requests by outcome", "class", "outcome")
        self._refusals = self._counter("refusals", "Requests refused on arrival, by reason", "reason")
        self._prompt = self._counter("prompt_tokens", "Prompt tokens of completed requests", "class")
        self._output = self._counter("output_tokens", "Output tokens of completed requests", "class")
        self._revenue = self._counter("revenue", "Money earned by the scenario's prices", "class")
        self._lost = self._counter(
            "kv_lost", "Prompts read again because their KV was lost or would have been", "class"
        )
        self._retries = self._counter("retries", "Prefills begun again", "class")
        self._ttft = self._histogram("ttft_seconds", "Arrival to first token", SECONDS)
        self._tpot = self._histogram("tpot_seconds", "Time per output token after the first", TOKEN_SECONDS)
        self._latency = self._histogram("latency_seconds", "Arrival to last token", SECONDS)
        self._prefill_wait = self._histogram("prefill_wait_seconds", "Arrival to start of prefill", SECONDS)
        self._decode_wait = self._histogram("decode_wait_seconds", "End of prefill to start of decode", SECONDS)
        self.registry.register(State(gateway))
        for name in self._names:
            self._requests.labels(name, "completed")

    def observe(self, journey: Journey) -> None:
        """A request has ended."""
        name, times = self._names[journey.ticket.cls], journey.times
        self._requests.labels(name, journey.outcome).inc()
        if journey.lost_kv:
            self._lost.labels(name).inc(journey.lost_kv)
        if journey.ticket.attempts > 1:
            self._retries.labels(name).inc(journey.ticket.attempts - 1)
        for histogram, start, end in (
            (self._prefill_wait, times.arrived, times.prefill),
            (self._decode_wait, times.prompt_read, times.decode),
            (self._ttft, times.arrived, times.first_token),
            (self._latency, times.arrived, times.last_token),
        ):
            if not math.isnan(end - start):
                histogram.labels(name).observe(end - start)
        if self._prices.scheme == "separate" and not math.isnan(times.prompt_read):
            self._revenue.labels(name).inc(self._prices.prompt * journey.prompt_tokens)
        if journey.outcome == "completed":
            self._completed(name, journey)

    def refused(self, reason: str) -> None:
        """A request was refused on arrival."""
        self._refusals.labels(reason).inc()

    def scrape(self) -> bytes:
        return generate_latest(self.registry)

    def _completed(self, name: str, journey: Journey) -> None:
        times, output = journey.times, journey.output_tokens
        self._prompt.labels(name).inc(journey.prompt_tokens)
        self._output.labels(name).inc(output)
        bundled = self._prices.prompt * journey.prompt_tokens if self._prices.scheme == "bundled" else 0.0
        self._revenue.labels(name).inc(bundled + self._prices.output * output)
        if output > 1 and not math.isnan(times.first_token):
            self._tpot.labels(name).observe((times.last_token - times.first_token) / (output - 1))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        made = Counter(f"fluidgate_{name}", text, labels, registry=self.registry)
        if labels == ("class",):
            self._from_nothing(made)
        return made

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        made = Histogram(f"fluidgate_{name}", text, ("class",), registry=self.registry, buckets=buckets)
        self._from_nothing(made)
        return made

    def _from_nothing(self, by_class: Counter | Histogram) -> None:
        """Let every class be there from the first scrape on: a rate sees its first event too."""
        for name in self._names:
            by_class.labels(name)


class State:
    """The gateway's state as gauges."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def collect(self) -> Iterator[Metric]:
        snapshot = self._gateway.snapshot()
        stages = gauge("requests_now", "Requests by stage", "class", "stage")
        for name, counts in snapshot["classes"].items():
            for stage, number in counts.items():
                stages.add_metric((name, stage), number)
        yield stages
        up = gauge("engine_up", "Whether an engine answers", "engine")
        mixed = gauge("engine_mixed", "Whether an engine belongs to the mixed group", "engine")
        held = gauge("engine_requests", "Requests on an engine", "engine", "kind")
        kv = gauge("engine_kv_usage", "Share of an engine's KV memory in use, where it says so", "engine")
        for engine in snapshot["engines"]:
            url = engine["url"]
            up.add_metric((url,), float(engine["role"] != "down"))
            mixed.add_metric((url,), float(engine["role"] == "mixed"))
            for kind in ("prefills", "decodes", "foreign"):
                held.add_metric((url, kind), engine[kind])
            if engine["kv_usage"] is not None:
                kv.add_metric((url,), engine["kv_usage"])
        yield from (up, mixed, held, kv)
        yield one("draining", "Whether new requests are refused", float(snapshot["draining"]))
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
