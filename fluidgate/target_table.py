"""What percentiles, means and shares a fleet must keep: keys of [targets], for all requests, and of [[classes]].

Each key stands here alone. The table is the form that a file is checked against; the nouns, which inherit it, are the
ones that a `Scenario` holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from fluidgate.toml_file import Table, without_default

TIMES = {"ttft": "time to first token", "tpot": "time per output token", "latency": "time to the last token"}
STATISTICS = {"mean": "mean", "p50": "median", "p90": "90th percentile", "p95": "95th percentile",
              "p99": "99th percentile"}  # fmt: skip
SHARES = ("goodput", "served")


def _most(measure: str, statistic: str, example: float) -> Any:
    description = f"the largest {STATISTICS[statistic]} of the {TIMES[measure]}, s, that a fleet is sized for"
    return Field(
        default=None, description=description, json_schema_extra=without_default, gt=0, examples=[example], repr=False
    )


def _least(what: str, example: float) -> Any:
    description = f"the least share of the requests that {what}, that a fleet is sized for"
    return Field(
        default=None,
        description=description,
        json_schema_extra=without_default,
        gt=0,
        le=1,
        examples=[example],
        repr=False,
    )


class StatisticTargetTable(Table):
    ttft_mean: float | None = _most("ttft", "mean", 0.5)
    ttft_p50: float | None = _most("ttft", "p50", 0.5)
    ttft_p90: float | None = _most("ttft", "p90", 1.0)
    ttft_p95: float | None = _most("ttft", "p95", 1.0)
    ttft_p99: float | None = _most("ttft", "p99", 2.0)
    tpot_mean: float | None = _most("tpot", "mean", 0.03)
    tpot_p50: float | None = _most("tpot", "p50", 0.03)
    tpot_p90: float | None = _most("tpot", "p90", 0.04)
    tpot_p95: float | None = _most("tpot", "p95", 0.04)
    tpot_p99: float | None = _most("tpot", "p99", 0.05)
    latency_mean: float | None = _most("latency", "mean", 10.0)
    latency_p50: float | None = _most("latency", "p50", 10.0)
    latency_p90: float | None = _most("latency", "p90", 20.0)
    latency_p95: float | None = _most("latency", "p95", 20.0)
    latency_p99: float | None = _most("latency", "p99", 30.0)
    goodput: float | None = _least("keep ttft and tpot", 0.99)
    served: float | None = _least("are served", 0.999)

    @property
    def of_statistics(self) -> Iterator[tuple[str, str, float]]:
        """Measure, statistic (`share` for a share) and limit of each that is given, in the order above."""
        for key in StatisticTargetTable.model_fields:
            if (limit := getattr(self, key)) is not None:
                measure, _, statistic = key.partition("_")
                yield measure, statistic or "share", float(limit)


TARGET_KEYS = frozenset(StatisticTargetTable.model_fields)
