"""What a fleet costs an hour, and what of it each million tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fluidgate.model import Array
from fluidgate.planning.batches.need import Need
from fluidgate.shown import Brief
from fluidgate.simulation.iteration.results import RequestResult

MILLION = 1e6
HOUR = 3600.0


@dataclass(frozen=True, repr=False)
class ClassPrice(Brief):
    """Of a million tokens of a class: its share of the bill, by what its prompts and answers take of a GPU.

    Attributes:
        prompt, output: money; None where no such tokens were served.
    """

    name: str
    prompt: float | None
    output: float | None

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "prompt": self.prompt, "output": self.output}


@dataclass(frozen=True)
class Paid:
    """Engines of one kind, and what they served.

    Attributes:
        hourly: of them all, money.
    """

    hourly: float
    result: RequestResult
    need: Need

    @property
    def served(self) -> Array:
        """Millions of prompt and of output tokens an hour by class, shape (2, classes)."""
        each = self.result.classes
        rates = [[c.prompt_token_rate.mean or 0.0 for c in each], [c.output_token_rate.mean or 0.0 for c in each]]
        return np.array(rates) * self.result.run.gpus * HOUR / MILLION

    @property
    def money(self) -> Array:
        """What of the bill these are for, shape (2, classes)."""
        requests = np.array([c.completion_rate.mean or 0.0 for c in self.result.classes])
        taken = requests * np.maximum(np.stack([self.need.prefill, self.need.decode]), 0.0)
        return np.asarray(self.hourly * (taken / taken.sum() if taken.sum() > 0.0 else taken))


@dataclass(frozen=True, repr=False)
class Bill(Brief):
    """Of a fleet.

    Attributes:
        per_hour: money.
        per_million: tokens, prompts and outputs alike; None where none were served.
        classes: by class.
    """

    per_hour: float
    per_million: float | None
    classes: tuple[ClassPrice, ...]

    @staticmethod
    def of(fleet: Sequence[Paid]) -> Bill:
        """Of engines of some kinds, of the same classes."""
        hourly = sum(part.hourly for part in fleet)
        served, money = (np.sum(parts, axis=0) for parts in ([p.served for p in fleet], [p.money for p in fleet]))
        total = float(np.sum(served))
        return Bill(
            hourly,
            hourly / total if total > 0.0 else None,
            tuple(
                ClassPrice(c.name, _each(money[0, k], served[0, k]), _each(money[1, k], served[1, k]))
                for k, c in enumerate(fleet[0].result.classes)
            ),
        )


def _each(money: float, millions: float) -> float | None:
    return float(money / millions) if millions > 0.0 else None
