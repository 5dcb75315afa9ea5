"""What an emulated engine counts, under vLLM's names and in Prometheus' text format.

Times are those that a client of the engine sees, seconds of the wall clock.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from fluidgate.emulator.request import EngineRequest, Finish, Source

TTFT_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0,
    640.0, 2560.0,
)  # fmt: skip
TOKEN_BUCKETS = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
LATENCY_BUCKETS = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
)  # fmt: skip
TRANSFER_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 5.0)
ITERATION_BUCKETS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
SOURCES: tuple[Source, ...] = ("local_compute", "local_cache_hit", "external_kv_transfer")
FINISHES: tuple[Finish, ...] = ("stop", "length", "abort", "error")


class Histogram:
    """Observations in buckets; each is divided by `scale`."""

    def __init__(self, buckets: Sequence[float], scale: float = 1.0) -> None:
        self._buckets = tuple(buckets)
        self._scale = scale
        self._counts = [0] * (len(buckets) + 1)
        self.sum = 0.0
        self.count = 0

    def observe(self, value: float, times: int = 1) -> None:
        """The same value, so many times."""
        value /= self._scale
        self._counts[bisect_left(self._buckets, value)] += times
        self.sum += value * times
        self.count += times

    def lines(self, name: str, labels: str) -> Iterator[str]:
        """Its samples."""
        bounds = [*(repr(float(bound)) for bound in self._buckets), "+Inf"]
        for bound, below in zip(bounds, accumulate(self._counts), strict=True):
            yield f'{name}_bucket{{{labels},le="{bound}"}} {below}'
        yield f"{name}_sum{{{labels}}} {self.sum!r}"
        yield f"{name}_count{{{labels}}} {self.count}"


class EngineMetrics:
    """Counters and histograms of an engine.

    Args:
        speed: seconds of the engine in one of the wall clock.
    """

    def __init__(self, speed: float) -> None:
        self.iteration_tokens = Histogram(ITERATION_BUCKETS)
        self.inter_token = Histogram(TOKEN_BUCKETS, speed)
        self.rejected = 0
        self.preemptions = 0
        self.looked_for = 0
        self.found = 0
        self.failed_transfers = 0
        self.generation_tokens = 0
        self.prompt_tokens = dict.fromkeys(SOURCES, 0)
        self.ends = dict.fromkeys(FINISHES, 0)
        self._ttft = Histogram(TTFT_BUCKETS, speed)
        self._per_token = Histogram(TOKEN_BUCKETS, speed)
        self._latency = Histogram(LATENCY_BUCKETS, speed)
        self._queue = Histogram(LATENCY_BUCKETS, speed)
        self._prefill = Histogram(LATENCY_BUCKETS, speed)
        self._decode = Histogram(LATENCY_BUCKETS, speed)
        self._transfer = Histogram(TRANSFER_BUCKETS, speed)

    def looked_up(self, request: EngineRequest) -> None:
        """A request has joined, and its prompt was looked for in the memory."""
        self.looked_for += request.prompt
        self.found += request.found

    def prompt_known(self, request: EngineRequest) -> None:
        """The KV of a prompt is complete."""
        rest: Source = "external_kv_transfer" if request.fetched else "local_compute"
        self.prompt_tokens["local_cache_hit"] += request.found
        self.prompt_tokens[rest] += request.prompt - request.found

    def first_token(self, request: EngineRequest) -> None:
        self._ttft.observe(request.first_token - request.arrival)

    def generated(self, tokens: int) -> None:
        self.generation_tokens += tokens

    def finished(self, request: EngineRequest) -> None:
        """A request has all its tokens."""
        if request.finish is not None:
            self.ends[request.finish] += 1
        self._latency.observe(request.last_token - request.arrival)
        self._queue.observe(request.started - request.arrival)
        self._prefill.observe(request.first_token - request.started)
        self._decode.observe(request.last_token - request.first_token)
        if request.written > 1:
            self._per_token.observe((request.last_token - request.first_token) / (request.written - 1))

    def transferred(self, seconds: float) -> None:
        """KV has come from another engine, and took so long, s of the engine."""
        self._transfer.observe(seconds)

    def lines(self, labels: str, expired: int) -> Iterator[str]:
        """Counters and histograms; `expired` leases of KV have ended."""
        yield from self._counters(labels, expired)
        yield from self._histograms(labels)

    def _counters(self, labels: str, expired: int) -> Iterator[str]:
        plain = {
            "prompt_tokens": sum(self.prompt_tokens.values()),
            "generation_tokens": self.generation_tokens,
            "num_preemptions": self.preemptions,
            "admission_rejections": self.rejected,
            "nixl_num_failed_transfers": self.failed_transfers,
            "nixl_num_kv_expired_reqs": expired,
            "prefix_cache_hits": self.found,
            "prefix_cache_queries": self.looked_for,
        }
        for name, value in plain.items():
            yield f"# TYPE vllm:{name}_total counter"
            yield f"vllm:{name}_total{{{labels}}} {value}"
        yield "# TYPE vllm:prompt_tokens_by_source_total counter"
        for source, tokens in self.prompt_tokens.items():
            yield f'vllm:prompt_tokens_by_source_total{{{labels},source="{source}"}} {tokens}'
        yield "# TYPE vllm:request_success_total counter"
        for finish, requests in self.ends.items():
            yield f'vllm:request_success_total{{{labels},finished_reason="{finish}"}} {requests}'

    @property
    def histograms(self) -> dict[str, Histogram]:
        """Under vLLM's names."""
        return {
            "iteration_tokens_total": self.iteration_tokens,
            "time_to_first_token_seconds": self._ttft,
            "inter_token_latency_seconds": self.inter_token,
            "request_time_per_output_token_seconds": self._per_token,
            "e2e_request_latency_seconds": self._latency,
            "request_queue_time_seconds": self._queue,
            "request_prefill_time_seconds": self._prefill,
            "request_decode_time_seconds": self._decode,
            "nixl_xfer_time_seconds": self._transfer,
        }

    def _histograms(self, labels: str) -> Iterator[str]:
        for name, histogram in self.histograms.items():
            yield f"# TYPE vllm:{name} histogram"
            yield from histogram.lines(f"vllm:{name}", labels)


@dataclass(frozen=True)
class Reading:
    """What a rank says of itself.

    Attributes:
        gauges: name without `vllm:` to value.
        expired: leases of KV that have ended.
        config: labels of `vllm:cache_config_info`.
    """

    metrics: EngineMetrics
    gauges: dict[str, float]
    expired: int
    config: dict[str, str]

    def lines(self, labels: str, rank: int) -> Iterator[str]:
        yield from _gauges(self.gauges, labels)
        yield from self.metrics.lines(labels, self.expired)
        yield from _info({**self.config, "engine": str(rank)})


def page(model: str, ranks: Sequence[Reading]) -> str:
    """All of it: the series of each rank under its number, as vLLM has them.

    Args:
        model: for the label `model_name`.
    """
    families: dict[str, list[str]] = {}
    for rank, reading in enumerate(ranks):
        head = ""
        for line in reading.lines(f'engine="{rank}",model_name={json.dumps(model, ensure_ascii=False)}', rank):
            if line.startswith("#"):
                head = line
            else:
                families.setdefault(head, []).append(line)
    return "".join(f"{line}\n" for head, series in families.items() for line in (head, *series))


def _gauges(gauges: dict[str, float], labels: str) -> Iterator[str]:
    for name, value in gauges.items():
        yield f"# TYPE vllm:{name} gauge"
        yield f"vllm:{name}{{{labels}}} {float(value)!r}"


def _info(config: dict[str, str]) -> Iterator[str]:
    yield "# TYPE vllm:cache_config_info gauge"
    yield "vllm:cache_config_info{" + ",".join(f'{key}="{value}"' for key, value in config.items()) + "} 1.0"
