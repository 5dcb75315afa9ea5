"""The answers of a sizing, best first."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fluidgate.sizing.choices import Choice
from fluidgate.sizing.cost import Bill
from fluidgate.sizing.targets import Target
from fluidgate.sizing.trial import Reading, Trial

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
Status = Literal["met", "undecided", "impossible"]
CAPACITY = "capacity"
"""What is broken where the engines can't serve the load at all."""


@dataclass(frozen=True)
class OneLess:
    """What one engine less breaks.

    Attributes:
        engines: so many, the spare ones among them.
        broken: the target, by name; `capacity` where they can't serve the load; None where it is undecided.
        value: of that target; None for capacity.
    """

    engines: int
    broken: str | None
    value: float | None

    def to_dict(self) -> dict[str, Any]:
        return {"engines": self.engines, "broken": self.broken, "value": _number(self.value)}


@dataclass(frozen=True)
class Answer:
    """Of one choice.

    Attributes:
        status: `met` where simulation has shown that the targets are kept; `undecided` where its budget did not do;
            `impossible` where they are not, by any number of engines that may be had.
        engines: the fewest, spare ones among them; None where it is impossible.
        spare: engines that may be gone.
        bound_engines: the fewest that serve the load at all, by the program, without spare ones.
        proof: the trial without the spare engines.
        whole: the trial with them; the same where there are none.
        one_less: what one engine less breaks.
        bill: what the engines cost.
        utilisation: the load over what the engines can do at best, by the program.
        trials: all that were made, by engines.
        reason: why not, or what is open.
    """

    choice: Choice
    status: Status
    engines: int | None
    spare: int
    bound_engines: int
    proof: Trial | None = field(repr=False)
    whole: Trial | None = field(repr=False)
    one_less: OneLess | None
    bill: Bill | None
    utilisation: float | None
    trials: tuple[Trial, ...] = field(repr=False)
    reason: str | None = None

    @property
    def gpus(self) -> int | None:
        return None if self.engines is None else self.engines * self.choice.gpus_per_engine

    @property
    def binding(self) -> Reading | None:
        """The target that is nearest to its limit where the spare engines are gone."""
        return None if self.proof is None else self.proof.binding

    @property
    def order(self) -> tuple[int, float, float]:
        """Cheapest met first; of equals the one with more room."""
        place = ("met", "undecided", "impossible").index(self.status)
        cost = math.inf if self.engines is None else self.choice.hourly(self.engines)
        return place, cost, self.binding.excess if self.binding else math.inf

    def to_dict(self) -> dict[str, Any]:
        choice, bill, whole = self.choice, self.bill, self.whole
        priced = choice.gpu_hour is not None
        found: dict[str, Any] = {
            "profile": choice.profile,
            "batch_size": choice.batch_size,
            "chunk_size": choice.chunk_size,
            "policy": choice.policy,
            "status": self.status,
            "engines": self.engines,
            "gpus": self.gpus,
            "gpus_per_engine": choice.gpus_per_engine,
            "spare": self.spare,
            "bound_engines": self.bound_engines,
            "cost_per_hour": bill.per_hour if bill and priced else None,
            "cost_per_million_tokens": bill.per_million if bill and priced else None,
            "prices": [each.to_dict() for each in bill.classes] if bill and priced else None,
            "targets": [_reading(each) for each in whole.readings] if whole else [],
            "binding": self.binding.target.name if self.binding else None,
            "one_less": self.one_less.to_dict() if self.one_less else None,
            **(_use(whole) if whole else {"goodput": None, "busy": None, "kv_share": None}),
            "utilisation": self.utilisation,
            "replications": whole.replications if whole else 0,
        }
        if self.spare and self.proof is not None:
            found["spare_gone"] = {
                "engines": self.proof.engines,
                "targets": [_reading(each) for each in self.proof.readings],
                **_use(self.proof),
            }
        if self.reason is not None:
            found["reason"] = self.reason
        return found


def _reading(reading: Reading) -> dict[str, Any]:
    return {
        **reading.target.to_dict(),
        "value": _number(reading.value),
        "ci95": None if reading.ci95 is None else list(reading.ci95),
        "met": reading.status == "met" if reading.status != "undecided" else reading.target.keeps(reading.value),
    }


def _use(trial: Trial) -> dict[str, float | None]:
    """Goodput, and how busy the engines are, time and memory."""
    result = trial.result
    idle, memory = result.gpu_time["idle"].mean, result.plan.scenario.engine.kv_tokens if result.plan else None
    good, done = result.overall.goodput.mean, result.overall.completion_rate.mean
    held = result.kv_tokens.mean
    return {
        "goodput": good / done if good is not None and done else None,
        "busy": None if idle is None else 1.0 - idle,
        "kv_share": held / memory if held is not None and memory else None,
    }


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True)
class Sizing:
    """What `fluidgate size` finds.

    Attributes:
        answers: cheapest met first.
        pruned: choices that were not simulated: what they need at least costs more than the best answer.
        warnings: what a reader should know, a sentence each.
    """

    scenario: str
    targets: tuple[Target, ...]
    answers: tuple[Answer, ...]
    pruned: tuple[Choice, ...]
    seed: int
    wall_seconds: float
    currency: str = "$"
    warnings: tuple[str, ...] = ()

    @property
    def priced(self) -> bool:
        """Whether costs are money."""
        return any(each.choice.gpu_hour is not None for each in self.answers)

    @property
    def best(self) -> Answer | None:
        """The cheapest that keeps all targets; None if none does."""
        first = self.answers[0] if self.answers else None
        return first if first is not None and first.status == "met" else None

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "scenario": self.scenario,
            "targets": [each.to_dict() for each in self.targets],
            "currency": self.currency,
            "answers": [each.to_dict() for each in self.answers],
            "pruned": [
                {
                    "profile": each.profile,
                    "batch_size": each.batch_size,
                    "chunk_size": each.chunk_size,
                    "policy": each.policy,
                }
                for each in self.pruned
            ],
            "seed": self.seed,
            "warnings": list(self.warnings),
            "wall_seconds": self.wall_seconds,
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def to_dataframe(self) -> pd.DataFrame:
        """A row an answer: what `to_dict` has of it, each target's value in a column of its own."""
        import pandas as pd

        rows = []
        for each in self.answers:
            row = each.to_dict()
            row |= {t["measure"] + "_" + t["statistic"]: t["value"] for t in row.pop("targets")}
            rows.append({key: value for key, value in row.items() if not isinstance(value, dict | list)})
        return pd.DataFrame(rows)
