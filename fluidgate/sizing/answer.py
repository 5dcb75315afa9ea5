"""The answers of a sizing, best first."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fluidgate.shown import Brief, Drawn, several
from fluidgate.sizing.choices import Choice
from fluidgate.sizing.cost import Bill
from fluidgate.sizing.load import Load
from fluidgate.sizing.mix import Mix
from fluidgate.sizing.peak import Peak
from fluidgate.sizing.targets import Target
from fluidgate.sizing.trial import Reading, Trial

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
Status = Literal["met", "undecided", "impossible"]
CAPACITY = "capacity"
"""What is broken where the engines can't serve the load at all."""


@dataclass(frozen=True, repr=False)
class OneLess(Brief):
    """What one engine less breaks.

    Attributes:
        engines: so many, the spare ones among them.
        broken: the target, by name; `capacity` where they can't serve the load; None where it is undecided.
        value: of that target; None for capacity.
    """

    engines: int
    broken: str | None
    value: float | None

    @staticmethod
    def of(below: Trial | None, engines: int) -> OneLess:
        """By the trial of what is left; None where the program rules it out."""
        if below is None:
            return OneLess(engines, CAPACITY, None)
        if below.status == "undecided":
            return OneLess(engines, None, below.binding.value)
        if below.grows and below.binding.excess <= 1.0:
            return OneLess(engines, CAPACITY, None)
        missed = [reading for reading in below.readings if reading.status == "missed"] or list(below.readings)
        worst = max(missed, key=lambda reading: reading.excess)
        return OneLess(engines, worst.target.name, worst.value)

    def to_dict(self) -> dict[str, Any]:
        return {"engines": self.engines, "broken": self.broken, "value": _number(self.value)}


@dataclass(frozen=True, repr=False)
class Pool(Brief):
    """The engines of one type in a fleet of several, spare ones among them.

    Attributes:
        shares: of each class that go to these engines, by its name.
        one_less: what one engine of this type less breaks, the others as they are.
    """

    choice: Choice
    engines: int
    shares: dict[str, float]
    one_less: OneLess | None = None

    @property
    def hourly(self) -> float:
        return self.choice.hourly(self.engines)

    def to_dict(self) -> dict[str, Any]:
        choice = self.choice
        return {
            "profile": choice.profile,
            "batch_size": choice.batch_size,
            "chunk_size": choice.chunk_size,
            "policy": choice.policy,
            "engines": self.engines,
            "gpus": self.engines * choice.gpus_per_engine,
            "gpus_per_engine": choice.gpus_per_engine,
            "cost_per_hour": self.hourly if choice.priced else None,
            "share": self.shares,
            "one_less": self.one_less.to_dict() if self.one_less else None,
        }


@dataclass(frozen=True, repr=False)
class Answer:
    """Of one choice, or of a mix of some.

    Attributes:
        status: `met` where simulation has shown that the targets are kept; `undecided` where its budget did not do;
            `impossible` where they are not, by any number of engines that may be had.
        engines: the fewest, spare ones among them; None where it is impossible.
        spare: engines that may be gone.
        bound_engines: the fewest that serve the load at all, by the program, without spare ones; of a mix those of the
            cheapest that does.
        proof: the trial without the spare engines.
        whole: the trial with them; the same where there are none.
        one_less: what one engine less breaks; None where that was not tried, for the policy, failures or a schedule ask
            for so many.
        bill: what the engines cost.
        utilisation: the load over what the engines can do at best, by the program.
        trials: all that were made, by engines.
        reason: why not, or what is open.
        fleet: of a mix, the engines of each type.
        bound_hourly: of a mix, what the cheapest fleet costs that serves the load at all, by the program.
    """

    choice: Choice | Mix
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
    fleet: tuple[Pool, ...] = ()
    bound_hourly: float | None = None

    def __repr__(self) -> str:
        engines = "" if self.engines is None else f", {several(self.engines, 'engine')}"
        return f"<Answer {self.choice.name}: {self.status}{engines}>"

    @property
    def gpus(self) -> int | None:
        if self.engines is None:
            return None
        if isinstance(self.choice, Mix):
            return sum(each.engines * each.choice.gpus_per_engine for each in self.fleet)
        return self.engines * self.choice.gpus_per_engine

    @property
    def hourly(self) -> float | None:
        """Money, or GPUs where there is no price."""
        if self.engines is None:
            return None
        return (
            sum(each.hourly for each in self.fleet)
            if isinstance(self.choice, Mix)
            else self.choice.hourly(self.engines)
        )

    def hourly_of(self, trial: Trial) -> float:
        """What the engines of a trial cost, with the spare ones."""
        if isinstance(self.choice, Mix):
            return self.choice.hourly(trial.bought)
        return self.choice.hourly(trial.engines + self.spare)

    @property
    def binding(self) -> Reading | None:
        """The target that is nearest to its limit where the spare engines are gone."""
        return None if self.proof is None else self.proof.binding

    @property
    def peak(self) -> Peak | None:
        """Where in the period of the load, or in the trace, that target is worst; None where the load has no period."""
        return None if self.proof is None else self.proof.peak

    @property
    def undecided_between(self) -> tuple[int, int] | None:
        """Where simulation could not tell whether one engine less would do, that number and the one that is met."""
        if self.engines is None or self.one_less is None or self.one_less.broken is not None:
            return None
        return self.one_less.engines, self.engines

    @property
    def order(self) -> tuple[int, float, float]:
        """Cheapest met first; of equals the one with more room."""
        place = ("met", "undecided", "impossible").index(self.status)
        cost = math.inf if self.hourly is None else self.hourly
        return place, cost, self.binding.excess if self.binding else math.inf

    def to_dict(self) -> dict[str, Any]:
        choice, bill, whole = self.choice, self.bill, self.whole
        priced = choice.priced
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
            "bound_engines": None if isinstance(choice, Mix) else self.bound_engines,
            "cost_per_hour": bill.per_hour if bill and priced else None,
            "cost_per_million_tokens": bill.per_million if bill and priced else None,
            "prices": [each.to_dict() for each in bill.classes] if bill and priced else None,
            "targets": [_reading(each) for each in whole.readings] if whole else [],
            "binding": self.binding.target.name if self.binding else None,
            "peak": self.peak.to_dict() if self.peak else None,
            "one_less": self.one_less.to_dict() if self.one_less else None,
            "undecided_between": list(self.undecided_between) if self.undecided_between else None,
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
        if isinstance(choice, Mix):
            found["bound_cost_per_hour"] = self.bound_hourly if priced else None
            found["fleet"] = [each.to_dict() for each in self.fleet]
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
    results = trial.results

    def mean(values: Iterable[float | None]) -> float | None:
        known = list(values)
        if any(value is None for value in known):
            return None
        return sum(each.run.gpus * (v or 0.0) for each, v in zip(results, known, strict=True)) / sum(
            each.run.gpus for each in results
        )

    idle = mean(each.gpu_time["idle"].mean for each in results)
    good, done = (
        mean(each.overall.goodput.mean for each in results),
        mean(each.overall.completion_rate.mean for each in results),
    )
    memory = mean(each.plan.scenario.engine.kv_tokens if each.plan else None for each in results)
    held = mean(each.kv_tokens.mean for each in results)
    return {
        "goodput": good / done if good is not None and done else None,
        "busy": None if idle is None else 1.0 - idle,
        "kv_share": held / memory if held is not None and memory else None,
    }


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True, repr=False)
class Sizing(Drawn):
    """What `fluidgate size` finds.

    Attributes:
        answers: cheapest met first.
        pruned: choices that were not simulated: what they need at least costs more than the best answer.
        warnings: what a reader should know, a sentence each.
        load: that was sized for.
    """

    scenario: str
    targets: tuple[Target, ...]
    answers: tuple[Answer, ...]
    pruned: tuple[Choice | Mix, ...]
    seed: int
    wall_seconds: float
    currency: str = "$"
    warnings: tuple[str, ...] = ()
    load: Load | None = field(default=None, repr=False, compare=False)

    def headline(self) -> str:
        best = self.best
        if best is None or best.gpus is None:
            return f"'{self.scenario}': no choice keeps the targets"
        return f"'{self.scenario}': {several(best.gpus, 'GPU')}, {best.choice.name}"

    @property
    def priced(self) -> bool:
        """Whether costs are money."""
        return any(each.choice.priced for each in self.answers)

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

    def to_dataframe(self) -> pd.DataFrame:
        """A row an answer: what `to_dict` has of it, each target's value in a column of its own."""
        import pandas as pd

        rows = []
        for each in self.answers:
            row = each.to_dict()
            row |= {t["measure"] + "_" + t["statistic"]: t["value"] for t in row.pop("targets")}
            rows.append({key: value for key, value in row.items() if not isinstance(value, dict | list)})
        return pd.DataFrame(rows)
