"""What was counted, as Prometheus has it, looked up by name and labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Self

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


class Samples:
    """The samples of a scrape, or of counters that are at hand."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._samples: defaultdict[str, list[Sample]] = defaultdict(list)
        for family in families:
            for sample in family.samples:
                self._samples[sample.name].append(sample)

    @classmethod
    def parsed(cls, text: str) -> Self:
        """
        Raises:
            ValueError: this is no scrape.
        """
        return cls(text_string_to_metric_families(text))

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """Sums of the samples `name` with these labels, by the value of one more."""
        sums: defaultdict[str, float] = defaultdict(float)
        for sample in self._samples[name]:
            if all(sample.labels.get(key) == value for key, value in labels.items()):
                sums[sample.labels.get(label, "")] += sample.value
        return dict(sums)
