"""What a run measured: distributions of times, rates, occupancies, GPU time by mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluidgate.model import Array, Pricing
from fluidgate.shown import Brief, rate, several
from fluidgate.simulation.events import (
    ARRIVAL,
    DECODE_ABANDONMENT,
    DECODE_END,
    DECODE_LOSS,
    DECODE_PREEMPTION,
    GOOD,
    PREFILL_ABANDONMENT,
    PREFILL_LOSS,
    PREFILL_PREEMPTION,
    REJECTION,
    WAITING_LOSS,
)
from fluidgate.simulation.iteration.fleet import FleetTimes
from fluidgate.simulation.iteration.kernel.cluster import (
    BINS,
    FIRST_BIN,
    ITERATIONS,
    KV_PEAK,
    KV_TIME,
    MIXED_TIME,
    MOST_ALIVE,
    NOW,
    OUTPUT_SERVED,
    PREFILL_TIME,
    PROMPT_ADMITTED,
    PROMPT_FOUND,
    PROMPT_READ,
    PROMPT_SERVED,
    SAMPLES_TAKEN,
    SHIFT,
    SOLO_TIME,
    TOTAL_EVENTS,
    Cluster,
)
from fluidgate.simulation.iteration.times import TIMES


@dataclass(frozen=True, repr=False)
class Distribution(Brief):
    """A time in s over many observations, in a histogram of relative width 1/256 an octave.

    Attributes:
        counts: observations by bin, shape (BINS,).
        total: sum of the observations, exact.
    """

    counts: NDArray[np.int64]
    total: float

    def headline(self) -> str:
        return f"of {several(self.observations, 'observation')}, mean {rate(self.mean)} s"

    @property
    def observations(self) -> int:
        return int(self._cumulative[-1])

    @property
    def mean(self) -> float | None:
        """None if nothing was observed."""
        return self.total / self.observations if self.observations else None

    def quantile(self, share: float) -> float | None:
        """The quantile, interpolated as numpy does, within 0.2 %; None if nothing was observed."""
        if not self.observations:
            return None
        rank = share * (self.observations - 1)
        low, high = np.searchsorted(self._cumulative, [np.floor(rank), np.ceil(rank)], side="right")
        weight = rank - np.floor(rank)
        return float((1 - weight) * bin_middles()[low] + weight * bin_middles()[high])

    @property
    def p50(self) -> float | None:
        return self.quantile(0.5)

    @property
    def p90(self) -> float | None:
        return self.quantile(0.9)

    @property
    def p95(self) -> float | None:
        return self.quantile(0.95)

    @property
    def p99(self) -> float | None:
        return self.quantile(0.99)

    def share_within(self, seconds: float) -> float | None:
        """Share of the observations at or below `seconds`, to the width of a bin; None if nothing was observed."""
        if not self.observations:
            return None
        return float(self.counts[bin_middles() <= seconds].sum()) / self.observations

    def to_dict(self) -> dict[str, float | int | None]:
        return {
            "count": self.observations,
            "mean": self.mean,
            "p50": self.p50,
            "p90": self.p90,
            "p95": self.p95,
            "p99": self.p99,
        }

    @cached_property
    def _cumulative(self) -> NDArray[np.int64]:
        return np.asarray(np.cumsum(self.counts), dtype=np.int64)


def bin_edges() -> Array:
    """Ends of the bins of a histogram, s, the first and the last of them without bound; shape (BINS + 1,)."""
    edges = (np.arange(BINS + 1, dtype=np.int64) - 1 + FIRST_BIN << SHIFT).view(np.float64)
    edges[0], edges[-1] = 0.0, np.inf
    return edges


def bin_middles() -> Array:
    """What stands for a bin: its middle, 0 for the first, the lower end for the last; shape (BINS,)."""
    edges = bin_edges()
    middles = 0.5 * (edges[:-1] + edges[1:])
    middles[0], middles[-1] = 0.0, edges[-2]
    return middles


@dataclass(frozen=True)
class IterationMeasurement:
    """What one run measured over its window [warm-up, end], in requests of the whole cluster.

    A quantity is counted where it becomes known: TTFT at the first token, a wait when it ends, the rest at completion.

    Attributes:
        gpus: n.
        window: s, from the warm-up to the horizon, or to the last event where there is none.
        histograms: by quantity, class and bin, shape (7, classes, BINS).
        seconds: sums by quantity and class, shape (7, classes).
        events: counts by (event, class); rows of `fluidgate.simulation.iteration.kernel.cluster`.
        tokens: shape (3, classes): prompts read, prompts and outputs of completed requests.
        occupancy: time averages by (stage, class), shape (6, classes).
        mode_seconds: GPU seconds solo, mixed, prefill only; and tokens of KV times seconds.
        kv_peak: most tokens held on one GPU.
        samples: occupancies at even epochs, shape (samples, 6, classes).
        iterations, total_events: since time 0.
        most_alive: most requests in the cluster at once.
        bytes_held: memory of the cluster's state.
        wall_seconds: time in the kernel.
        fleet: GPU time that was paid for, up and wanted; None where all GPUs are up all the time.
    """

    gpus: int
    window: float
    histograms: NDArray[np.int64]
    seconds: Array
    events: NDArray[np.int64]
    tokens: NDArray[np.int64]
    occupancy: Array
    mode_seconds: Array
    kv_peak: float
    samples: NDArray[np.int64]
    iterations: int
    total_events: int
    most_alive: int
    bytes_held: int
    wall_seconds: float
    fleet: FleetTimes | None = None

    @staticmethod
    def of(cluster: Cluster, wall_seconds: float) -> IterationMeasurement:
        """Read a cluster whose run has ended."""
        window = max(float(cluster.clock[NOW]) - cluster.set.warmup, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            occupancy = cluster.area / window + cluster.counts
        return IterationMeasurement(
            gpus=cluster.gpus,
            window=window,
            histograms=cluster.histogram,
            seconds=cluster.seconds,
            events=cluster.events - cluster.events_before,
            tokens=cluster.tokens - cluster.tokens_before,
            occupancy=occupancy,
            mode_seconds=cluster.mode_seconds,
            kv_peak=float(cluster.tops[KV_PEAK]),
            samples=cluster.samples[: cluster.tally[SAMPLES_TAKEN]],
            iterations=int(cluster.tally[ITERATIONS]),
            total_events=int(cluster.tally[TOTAL_EVENTS]),
            most_alive=int(cluster.tally[MOST_ALIVE]),
            bytes_held=sum(field.nbytes for field in cluster if isinstance(field, np.ndarray)),
            wall_seconds=wall_seconds,
        )

    def and_of(self, others: Sequence[IterationMeasurement]) -> IterationMeasurement:
        """What this and other clusters measured of the same classes, as one, but for samples, which stay these."""
        every = (self, *others)

        def together(name: str) -> Any:
            return sum(getattr(each, name) for each in every)

        added = ("gpus", "histograms", "seconds", "events", "tokens", "occupancy", "mode_seconds", "iterations",
                 "total_events", "most_alive", "bytes_held", "wall_seconds")  # fmt: skip
        return replace(
            self,
            window=max(each.window for each in every),
            kv_peak=max(each.kv_peak for each in every),
            **{name: together(name) for name in added},
        )

    def distribution(self, quantity: str, cls: int | None = None) -> Distribution:
        """The distribution of a time of `TIMES`, of one class or of all."""
        row = TIMES[quantity].number
        if cls is None:
            return Distribution(self.histograms[row].sum(axis=0), float(self.seconds[row].sum()))
        return Distribution(self.histograms[row, cls], float(self.seconds[row, cls]))

    @property
    def arrivals(self) -> NDArray[np.int64]:
        """By class, as are the following."""
        return self.events[ARRIVAL]

    @property
    def completions(self) -> NDArray[np.int64]:
        return self.events[DECODE_END]

    @property
    def within_targets(self) -> NDArray[np.int64]:
        """Completions within the targets of TTFT and TPOT: divided by the window, goodput."""
        return self.events[GOOD]

    @property
    def prefill_abandonments(self) -> NDArray[np.int64]:
        return self.events[PREFILL_ABANDONMENT]

    @property
    def decode_abandonments(self) -> NDArray[np.int64]:
        return self.events[DECODE_ABANDONMENT]

    @property
    def preemptions(self) -> NDArray[np.int64]:
        return self.events[PREFILL_PREEMPTION] + self.events[DECODE_PREEMPTION]

    @property
    def gpu_hours(self) -> float:
        """Of GPUs that are up, start, or finish what they have."""
        return (self.gpus * self.window if self.fleet is None else self.fleet.paid) / 3600.0

    @property
    def availability(self) -> float:
        """Share of the time for which GPUs are meant to be up that they take requests; nan if there is none."""
        if self.fleet is None:
            return 1.0
        return self.fleet.up / self.fleet.wanted if self.fleet.wanted > 0.0 else float("nan")

    @property
    def losses(self) -> NDArray[np.int64]:
        """Requests that went elsewhere because their GPU failed, as often as each did."""
        return self.events[WAITING_LOSS] + self.events[PREFILL_LOSS] + self.events[DECODE_LOSS]

    @property
    def rejections(self) -> NDArray[np.int64]:
        """Requests that no GPU's memory could hold to their end."""
        return self.events[REJECTION]

    @property
    def output_tokens(self) -> NDArray[np.int64]:
        """Of completed requests."""
        return self.tokens[OUTPUT_SERVED]

    @property
    def prompt_admitted(self) -> NDArray[np.int64]:
        """Tokens of prompts that were given memory the first time."""
        return self.tokens[PROMPT_ADMITTED]

    @property
    def prompt_found(self) -> NDArray[np.int64]:
        """Of those what was in memory already."""
        return self.tokens[PROMPT_FOUND]

    def revenue(self, pricing: Pricing) -> Array:
        """Money earned in the window by class, at each request's own lengths, [LDHZ] (21)-(23)."""
        prompts = self.tokens[PROMPT_SERVED if pricing.scheme == "bundled" else PROMPT_READ]
        return np.asarray(pricing.prompt * prompts + pricing.output * self.tokens[OUTPUT_SERVED])

    @property
    def gpu_time(self) -> dict[str, float]:
        """Shares of the GPUs' time: idle, solo, mixed (a chunk beside decodes), prefill (a chunk alone)."""
        total = self.gpus * self.window
        if total <= 0.0:
            return {"idle": 1.0, "solo": 0.0, "mixed": 0.0, "prefill": 0.0}
        solo, mixed, prefill = (float(self.mode_seconds[row]) / total for row in (SOLO_TIME, MIXED_TIME, PREFILL_TIME))
        return {"idle": max(1.0 - solo - mixed - prefill, 0.0), "solo": solo, "mixed": mixed, "prefill": prefill}

    @property
    def kv_mean(self) -> float:
        """Tokens of KV held by a GPU, time average."""
        return float(self.mode_seconds[KV_TIME]) / (self.gpus * self.window) if self.window > 0 else 0.0
