"""What Prometheus scrapes: the cluster as the gateway knows it, and what its requests went through."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from fluidgate.gateway.ended import EndedRequest, RefusedRequest
from fluidgate.gateway.gauges import Gauges
from fluidgate.model import Pricing

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8)
TOKEN_SECONDS = (0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.2, 0.5)


class Metrics:
    """Counters and distributions of ended requests, and gauges of the cluster, read when they are scraped."""

    def __init__(self, class_names: Sequence[str], pricing: Pricing, snapshot: Callable[[], dict[str, Any]]) -> None:
        """
        Args:
            class_names, pricing: of the scenario.
            snapshot: gives the cluster now, as `Gateway.snapshot`.
        """
        self.registry = CollectorRegistry()
        self._prices = pricing
        self._names = class_names
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
        self.registry.register(Gauges(snapshot))
        for name in self._names:
            self._requests.labels(name, "completed")

    def ended(self, request: EndedRequest) -> None:
        """A request has ended."""
        name, times = request.class_name, request.times
        self._requests.labels(name, request.outcome).inc()
        if request.lost_kv:
            self._lost.labels(name).inc(request.lost_kv)
        if request.attempts > 1:
            self._retries.labels(name).inc(request.attempts - 1)
        for histogram, start, end in (
            (self._prefill_wait, times.arrived, times.prefill),
            (self._decode_wait, times.prompt_read, times.decode),
            (self._ttft, times.arrived, times.first_token),
            (self._latency, times.arrived, times.last_token),
        ):
            if not math.isnan(end - start):
                histogram.labels(name).observe(end - start)
        if self._prices.scheme == "separate" and not math.isnan(times.prompt_read):
            self._revenue.labels(name).inc(self._prices.prompt * request.prompt_tokens)
        if request.outcome == "completed":
            self._completed(name, request)

    def refused(self, request: RefusedRequest) -> None:
        """A request was refused on arrival."""
        self._refusals.labels(request.reason).inc()

    def scrape(self) -> bytes:
        return generate_latest(self.registry)

    def _completed(self, name: str, request: EndedRequest) -> None:
        times, output = request.times, request.output_tokens
        self._prompt.labels(name).inc(request.prompt_tokens)
        self._output.labels(name).inc(output)
        bundled = self._prices.prompt * request.prompt_tokens if self._prices.scheme == "bundled" else 0.0
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
