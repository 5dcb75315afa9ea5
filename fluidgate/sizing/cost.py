"""What a fleet costs an hour, and what of it each million tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fluidgate.planning.batches.need import Need
from fluidgate.sizing.choices import Choice
from fluidgate.sizing.trial import Trial

MILLION = 1e6
HOUR = 3600.0


@dataclass(frozen=True)
class ClassPrice:
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
class Bill:
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
    def of(choice: Choice, engines: int, trial: Trial, need: Need) -> Bill:
        """Of so many engines, for the tokens that were served in a trial."""
        result, hourly = trial.result, choice.hourly(engines)
        scale = result.run.gpus * HOUR / MILLION
        prompts = np.array([c.prompt_token_rate.mean or 0.0 for c in result.classes]) * scale
        outputs = np.array([c.output_token_rate.mean or 0.0 for c in result.classes]) * scale
        requests = np.array([c.completion_rate.mean or 0.0 for c in result.classes])
        taken = np.stack([requests * np.maximum(need.prefill, 0.0), requests * np.maximum(need.decode, 0.0)])
        share = taken / taken.sum() if taken.sum() > 0.0 else taken
        total = float(prompts.sum() + outputs.sum())
        return Bill(
            hourly,
            hourly / total if total > 0.0 else None,
            tuple(
                ClassPrice(c.name, _each(hourly * share[0, k], prompts[k]), _each(hourly * share[1, k], outputs[k]))
                for k, c in enumerate(result.classes)
            ),
        )


def _each(money: float, millions: float) -> float | None:
    return float(money / millions) if millions > 0.0 else None
