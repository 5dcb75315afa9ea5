"""What a simulation tells: statistics by class and overall, and comparisons of policies."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fluidgate.errors import ArgumentError, nearest
from fluidgate.planning import Plan
from fluidgate.policies.decisions.stages import (
    MIXED_DECODE,
    MIXED_QUEUE,
    PREFILL,
    PREFILL_QUEUE,
    SOLO_DECODE,
    SOLO_QUEUE,
)
from fluidgate.shown import Brief, Drawn, rate, several
from fluidgate.simulation.options import Options
from fluidgate.simulation.penalties import LimitedIndicator
from fluidgate.simulation.statistics import Statistic, statistic
from fluidgate.trajectory import Trajectory

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1


class Sampled(Protocol):
    """A measurement with occupancies at even epochs, shape (samples, 6, classes)."""

    @property
    def samples(self) -> NDArray[np.int64]: ...


@dataclass(frozen=True, repr=False)
class ClassResult:
    """Statistics of one class: occupancies, queues and rates per GPU (time averages over the window), times in s.

    Attributes:
        ttft: arrival to prefill completion, over prefills completed in the window.
        decode_wait: time in the decode buffer, over decodes started in the window (0 for those that never waited).
        tpot: seconds of decode service over output tokens, over decodes completed in the window.
    """

    name: str
    prefill: Statistic
    mixed_decode: Statistic
    solo_decode: Statistic
    prefill_queue: Statistic
    decode_queue: Statistic
    arrival_rate: Statistic
    prefill_completion_rate: Statistic
    completion_rate: Statistic
    prefill_abandonment_rate: Statistic
    decode_abandonment_rate: Statistic
    ttft: Statistic
    decode_wait: Statistic
    tpot: Statistic

    def __repr__(self) -> str:
        return f"<{type(self).__name__} '{self.name}'>"

    def to_dict(self) -> dict[str, Any]:
        return {
            f.name: value.to_dict() if isinstance(value := getattr(self, f.name), Statistic) else value
            for f in fields(self)
        }


T = TypeVar("T")


def named_one(known: Sequence[T], noun: str, key: str, name: str) -> T:
    """The one of that name.

    Raises:
        FluidgateError: there is none.
    """
    found = {str(getattr(each, key)): each for each in known}
    if name not in found:
        mend = nearest(str(name), list(found)) or f"; give one of {', '.join(found)}"
        raise ArgumentError(f"no {noun} is named {name!r} here{mend}")
    return found[name]


@dataclass(frozen=True, repr=False)
class SimulationResult(Drawn):
    """A policy simulated on a scenario.

    Attributes:
        events: sum over replications.
        wall_seconds: time in the kernel, summed over replications.
        revenue_rate: per GPU and second, in the scenario's pricing scheme.
        optimality_ratio: revenue over the R* of the scheme without indicators.
        objective_ratio: revenue minus penalties at the mean occupancies, over the plan's objective.
        trajectory: mean path over the replications; None unless samples were asked for.
        indicators: those of the scenario that have a limit, by name.
        plan: the plan that feeds the policy; None for one that reads no plan, where there is none.
        warnings: what a reader should know, a sentence each: of the plan, the policy, the scenario and the run.
    """

    scenario: str
    policy: str
    run: Options
    events: int
    wall_seconds: float
    revenue_rate: Statistic
    optimality_ratio: Statistic
    objective_ratio: Statistic
    classes: tuple[ClassResult, ...]
    plan: Plan | None = field(repr=False, compare=False)
    trajectory: Trajectory | None = field(default=None, repr=False, compare=False)
    indicators: dict[str, LimitedIndicator] = field(default_factory=dict)
    warnings: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def headline(self) -> str:
        whole = f"{self.policy} on '{self.scenario}', {several(self.run.gpus, 'GPU')}"
        if self.revenue_rate.mean is None:
            done = sum(each.completion_rate.mean or 0.0 for each in self.classes)
            return f"{whole}: {rate(done)} requests/s done per GPU"
        share = self.optimality_ratio.mean
        of_best = "" if share is None else f", {100 * share:.1f} % of R*"
        return f"{whole}: revenue {self.revenue_rate} /s per GPU{of_best}"

    @property
    def window_seconds(self) -> float:
        """Time over which statistics are taken, s."""
        return self.run.horizon - self.run.warmup

    def body(self) -> dict[str, Any]:
        """What differs between the policies of a comparison."""
        return {
            "policy": self.policy,
            "events": self.events,
            "wall_seconds": self.wall_seconds,
            "revenue_rate": self.revenue_rate.to_dict(),
            "optimality_ratio": self.optimality_ratio.to_dict(),
            "objective_ratio": self.objective_ratio.to_dict(),
            "indicators": {name: each.to_dict() for name, each in self.indicators.items()},
            "classes": [c.to_dict() for c in self.classes],
            "warnings": list(self.warnings),
        }

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "scenario": self.scenario, **self.run.to_dict(), **self.body()}

    def to_dataframe(self) -> pd.DataFrame:
        """A row a class and quantity: policy, class, quantity, mean, std, low, high."""
        import pandas as pd

        return pd.DataFrame([statistic_row(self.policy, *measure) for measure in self.measures()])

    def __getitem__(self, name: str) -> ClassResult:
        """What came of a class, by its name."""
        return named_one(self.classes, "class", "name", name)

    def __iter__(self) -> Iterator[ClassResult]:
        return iter(self.classes)

    def measures(self) -> Iterator[tuple[str | None, str, Statistic]]:
        """Every statistic: class (None for all), quantity, value."""
        for name in ("revenue_rate", "optimality_ratio", "objective_ratio"):
            yield None, name, getattr(self, name)
        for name, indicator in self.indicators.items():
            yield None, name.removeprefix("max_"), indicator.value
        for each in self.classes:
            yield from measures_of(each)


@dataclass(frozen=True, repr=False)
class PairedDifference(Brief):
    """Revenue rate of a policy minus that of the reference, replication by replication."""

    policy: str
    revenue_difference: Statistic


@dataclass(frozen=True, repr=False)
class Comparison(Drawn):
    """Policies simulated on the same arrivals; the first is the reference."""

    scenario: str
    run: Options
    policies: tuple[SimulationResult, ...]

    def headline(self) -> str:
        names = ", ".join(each.policy for each in self.policies)
        return f"'{self.scenario}', {several(self.run.gpus, 'GPU')}: {names if len(names) < 90 else names[:87] + '...'}"

    def __getitem__(self, name: str) -> SimulationResult:
        """The result of a policy, by its name."""
        return named_one(self.policies, "policy", "policy", name)

    def __iter__(self) -> Iterator[SimulationResult]:
        return iter(self.policies)

    @property
    def reference(self) -> str:
        return self.policies[0].policy

    @property
    def warnings(self) -> tuple[str, ...]:
        return warnings_of(self.policies)

    @property
    def paired(self) -> tuple[PairedDifference, ...]:
        first = np.array(self.policies[0].revenue_rate.values)
        return tuple(
            PairedDifference(result.policy, statistic(np.array(result.revenue_rate.values) - first))
            for result in self.policies[1:]
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "scenario": self.scenario,
            **self.run.to_dict(),
            "policies": [result.body() for result in self.policies],
            "reference": self.reference,
            "paired": [{"policy": p.policy, "revenue_difference": p.revenue_difference.to_dict()} for p in self.paired],
            "warnings": list(self.warnings),
        }

    def to_dataframe(self) -> pd.DataFrame:
        """A row a policy, class and quantity, with the difference to the reference, replication by replication.

        Columns: policy, class (None for all), quantity, mean, std, low, high; then difference, difference_std,
        difference_low and difference_high, which the reference itself has not. `low` and `high` are the ends of 95 %
        confidence intervals.
        """
        import pandas as pd

        rows = [dict(_with_differences(result, self.policies[0])) for result in self.policies]
        return pd.DataFrame([row for each in rows for row in each.values()])


def _with_differences(
    result: SimulationResult, reference: SimulationResult
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The rows of a policy, by class and quantity, beside their differences to those of the reference."""
    first = {(cls, quantity): value for cls, quantity, value in reference.measures()}
    for cls, quantity, value in result.measures():
        before = None if result is reference else first.get((cls, quantity))
        paired = None if before is None else statistic(np.subtract(value.values, before.values))
        row = statistic_row(result.policy, cls, quantity, value)
        low, high = (paired.ci95 if paired is not None else None) or (None, None)
        row |= {"difference": paired.mean if paired else None, "difference_std": paired.std if paired else None}
        yield (cls, quantity), row | {"difference_low": low, "difference_high": high}


def warnings_of(results: Sequence[SimulationResult]) -> tuple[str, ...]:
    """The warnings of all policies, each once; one that some do not have, after the names of those that have it."""
    whose: dict[str, list[str]] = {}
    for result in results:
        for warning in result.warnings:
            whose.setdefault(warning, []).append(result.policy)
    return tuple(
        warning if len(names) == len(results) else f"{', '.join(names)}: {warning}" for warning, names in whose.items()
    )


def measures_of(each: ClassResult) -> Iterator[tuple[str | None, str, Statistic]]:
    """Every statistic of a class, those of its parts after it."""
    for f in fields(each):
        if isinstance(value := getattr(each, f.name), Statistic):
            yield each.name, f.name, value
            yield from ((each.name, f"{f.name}_{part}", other) for part, other in value.parts().items())


def statistic_row(policy: str, cls: str | None, quantity: str, value: Statistic) -> dict[str, Any]:
    """The row of a statistic of one class, or of all if None."""
    low, high = value.ci95 or (None, None)
    return {
        "policy": policy,
        "class": cls,
        "quantity": quantity,
        "mean": value.mean,
        "std": value.std,
        "low": low,
        "high": high,
    }


LEAST_INTERVALS = 64
"""Into at least so many the time is cut at whose ends occupancies are recorded: enough to see a queue grow."""


def samples_taken(asked: int) -> int:
    """How many times occupancies are recorded where a path of `asked` points is wanted, the points among them."""
    return max(asked - 1, 1) * _cuts(asked) + 1


def _cuts(asked: int) -> int:
    """Parts that each interval of the path is cut into: a power of 2, so that its points stay where they are."""
    return 1 << max(math.ceil(math.log2(LEAST_INTERVALS / max(asked - 1, 1))), 0)


def trajectory(
    measurements: Sequence[Sampled], run: Options, seconds: float, names: Sequence[str]
) -> Trajectory | None:
    """Mean path of the occupancies over the replications, if it was asked for, evenly from 0 to `seconds`."""
    if run.samples < 2:
        return None
    paths = [m.samples[:: _cuts(run.samples)] for m in measurements]
    shared = min(map(len, paths))
    samples = np.stack([path[:shared] for path in paths]).mean(axis=0) / run.gpus
    return Trajectory(
        time=np.linspace(0.0, seconds, run.samples)[:shared],
        prefill_queue=samples[:, PREFILL_QUEUE],
        prefill=samples[:, PREFILL],
        decode_queue=samples[:, MIXED_QUEUE] + samples[:, SOLO_QUEUE],
        mixed_decode=samples[:, MIXED_DECODE],
        solo_decode=samples[:, SOLO_DECODE],
        names=tuple(names),
    )
