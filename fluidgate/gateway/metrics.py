"""What Prometheus scrapes: the cluster as the gateway knows it, and what its requests went through."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib.metadata import version
from platform import python_version
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector, generate_latest

from fluidgate.gateway.ended import EndedRequest, RefusedRequest
from fluidgate.gateway.gauges import Gauges
from fluidgate.gateway.samples import Samples

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8)
TOKEN_SECONDS = (0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.2, 0.5)


BY_CLASS = ("model", "class")


class Metrics:
    """Counters and distributions of ended requests, and gauges of the cluster, read when they are scraped."""

    def __init__(self, snapshots: Callable[[], list[dict[str, Any]]]) -> None:
        """
        Args:
            snapshots: gives the engines now, as `Gateway.snapshots`.
        """
        self.registry = CollectorRegistry()
        self._by_class: list[Counter | Histogram] = []
        self._requests = self._counter("requests", "Requests by outcome", *BY_CLASS, "outcome")
        self._refusals = self._counter("refusals", "Requests refused on arrival, by reason", "reason")
        self._prompt = self._counter("prompt_tokens", "Prompt tokens of completed requests", *BY_CLASS)
        self._output = self._counter("output_tokens", "Output tokens of completed requests", *BY_CLASS)
        self._revenue = self._counter("revenue", "Money earned by the scenario's prices", *BY_CLASS)
        self._lost = self._counter(
            "kv_lost", "Prompts read again because their KV was lost or would have been", *BY_CLASS
        )
        self._retries = self._counter("retries", "Prefills begun again", *BY_CLASS)
        self._ttft = self._histogram("ttft_seconds", "Arrival to first token", SECONDS)
        self._tpot = self._histogram("tpot_seconds", "Time per output token after the first", TOKEN_SECONDS)
        self._latency = self._histogram("latency_seconds", "Arrival to last token", SECONDS)
        self._prefill_wait = self._histogram("prefill_wait_seconds", "Arrival to start of prefill", SECONDS)
        self._decode_wait = self._histogram("decode_wait_seconds", "End of prefill to start of decode", SECONDS)
        self.registry.register(Gauges(snapshots))
        ProcessCollector(registry=self.registry)
        build = Info("fluidgate_build", "What runs", registry=self.registry)
        build.info({"version": version("fluidgate"), "python": python_version()})

    def expect(self, model: str, class_names: Sequence[str]) -> None:
        """Let every class of a group be there from now on: a rate sees its first event too."""
        for name in class_names:
            self._requests.labels(model, name, "completed")
            for each in self._by_class:
                each.labels(model, name)

    def ended(self, request: EndedRequest) -> None:
        """A request has ended."""
        name, times, prices = (request.model, request.class_name), request.times, request.pricing
        self._requests.labels(*name, request.outcome).inc()
        if request.lost_kv:
            self._lost.labels(*name).inc(request.lost_kv)
        if request.attempts > 1:
            self._retries.labels(*name).inc(request.attempts - 1)
        for histogram, start, end in (
            (self._prefill_wait, times.arrived, times.prefill),
            (self._decode_wait, times.prompt_read, times.decode),
            (self._ttft, times.arrived, times.first_token),
            (self._latency, times.arrived, times.last_token),
        ):
            if not math.isnan(end - start):
                histogram.labels(*name).observe(end - start)
        if prices.scheme == "separate" and not math.isnan(times.prompt_read):
            self._revenue.labels(*name).inc(prices.prompt * request.prompt_tokens)
        if request.outcome == "completed":
            self._completed(request)

    def refused(self, request: RefusedRequest) -> None:
        """A request was refused on arrival."""
        self._refusals.labels(request.reason).inc()

    def samples(self) -> Samples:
        """What was counted of requests, without the gauges of engines."""
        own = (self._requests, self._refusals, *self._by_class)
        return Samples(family for each in own for family in each.collect())

    def scrape(self) -> bytes:
        return generate_latest(self.registry)

    def _completed(self, request: EndedRequest) -> None:
        name, prices = (request.model, request.class_name), request.pricing
        times, output = request.times, request.output_tokens
        self._prompt.labels(*name).inc(request.prompt_tokens)
        self._output.labels(*name).inc(output)
        bundled = prices.prompt * request.prompt_tokens if prices.scheme == "bundled" else 0.0
        self._revenue.labels(*name).inc(bundled + prices.output * output)
        if output > 1 and not math.isnan(times.first_token):
            self._tpot.labels(*name).observe((times.last_token - times.first_token) / (output - 1))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        made = Counter(f"fluidgate_{name}", text, labels, registry=self.registry)
        if labels == BY_CLASS:
            self._by_class.append(made)
        return made

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        made = Histogram(f"fluidgate_{name}", text, BY_CLASS, registry=self.registry, buckets=buckets)
        self._by_class.append(made)
        return made
