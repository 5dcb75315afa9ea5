"""Several types of GPUs in one fleet: which there are, and which class of the load goes to which of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fluidgate.batching import Batching
from fluidgate.errors import FluidgateError
from fluidgate.model import Array, Scenario
from fluidgate.planning.batches.mixed import GpuType, MixedProgram, Mixture
from fluidgate.planning.batches.need import wanted_of
from fluidgate.policies import find_any_policy
from fluidgate.shown import Brief
from fluidgate.sizing.choices import Choice
from fluidgate.sizing.load import Load
from fluidgate.sizing.targets import QUANTILES, Target, least_served
from fluidgate.tails import Prediction, predict

QUIET = 20.0
"""Times the engines that a load needs, among which a request hardly waits."""
LEAST_SHARE = 1e-4
"""Of a class, that is planned for where none of it goes: plans have no class without requests."""
LEAST_SERVED = 1e-6
"""Share of a class that the bound counts at least, for the same reason."""


@dataclass(frozen=True, repr=False)
class Mix(Brief):
    """Engines of several types in one fleet, each set in one way.

    Attributes:
        choices: that there are.
        used: those of them that it is named after; empty for all.
    """

    choices: tuple[Choice, ...]
    used: tuple[Choice, ...] = ()

    @property
    def named(self) -> tuple[Choice, ...]:
        return self.used or self.choices

    @property
    def profile(self) -> str:
        return " + ".join(each.profile for each in self.named)

    @property
    def batch_size(self) -> int | None:
        """Of all types; None where they differ."""
        return _common(each.batch_size for each in self.named)

    @property
    def chunk_size(self) -> int | None:
        return _common(each.chunk_size for each in self.named)

    @property
    def gpus_per_engine(self) -> int | None:
        return _common(each.gpus_per_engine for each in self.named)

    @property
    def policy(self) -> str:
        return " + ".join(dict.fromkeys(each.policy for each in self.named))

    @property
    def priced(self) -> bool:
        return self.choices[0].priced

    @property
    def name(self) -> str:
        return " + ".join(each.name for each in self.named)

    def hourly(self, engines: Sequence[int]) -> float:
        """Of so many engines of each type that there is."""
        return sum(each.hourly(count) for each, count in zip(self.choices, engines, strict=True))


def _common(values: Iterable[int]) -> int | None:
    found = set(values)
    return found.pop() if len(found) == 1 else None


@dataclass(frozen=True)
class MixPlan:
    """What the program over several types says of a mix.

    Attributes:
        max_gpus: that there are of all types together; None for no limit.
        spare: engines that may be gone.
        serves: classes that a type can serve within the targets where they hardly wait, shape (types, classes).
    """

    mix: Mix
    load: Load
    max_gpus: int | None
    spare: int
    serves: NDArray[np.bool_] = field(repr=False)

    @staticmethod
    def of(mix: Mix, load: Load, ranks: Sequence[float], max_gpus: int | None, spare: int) -> MixPlan:
        """`ranks`: that the whole load needs of each type alone."""
        serves = np.array([fit(each, load, need) for each, need in zip(mix.choices, ranks, strict=True)])
        serves[:, ~serves.any(axis=0)] = True  # nobody can: the simulation will say by how much
        return MixPlan(mix, load, max_gpus, spare, serves)

    @property
    def least_growth(self) -> float:
        """Of the load as it comes in the long run, that engines must carry to serve it in the end."""
        return self.load.bounded(1.0) * (1.0 - 1e-6)

    def bound(self) -> Mixture | None:
        """The cheapest fleet that serves the load at all, whatever the times; None if there are too few engines."""
        scenario = self.mix.choices[0].scenario
        served = np.maximum(least_served(scenario, self.load.targets), LEAST_SERVED) * self.load.bounded(1.0)
        everywhere = np.ones(len(scenario.classes), dtype=bool)
        types = [self._type(each, everywhere, 1.0, np.maximum(served, LEAST_SERVED)) for each in self.mix.choices]
        return self._program(types, min(self.spare, 1)).in_whole_engines()

    def cheapest(self, use: Array) -> Mixture | None:
        """The cheapest fleet of which each type is used to a share, shape (types,), at most, whichever of the spare
        engines are gone; None if there are too few."""
        return self._program(self._used(use), self.spare).in_whole_engines()

    def split(self, engines: Sequence[int], use: Array) -> Mixture | None:
        """Which class goes where, for the most room; None where a class has nowhere to go."""
        return self._program(self._used(use)).at_most(engines)

    def has(self, engines: Sequence[int]) -> bool:
        """Whether there are so many engines of each type, and GPUs in all."""
        types = list(zip(self.mix.choices, engines, strict=True))
        gpus = sum(count * each.gpus_per_engine for each, count in types)
        within = all(each.max_engines is None or count <= each.max_engines for each, count in types)
        return within and (self.max_gpus is None or gpus <= self.max_gpus)

    def carried(self, engines: Sequence[int]) -> float | None:
        """Times the load that these engines serve at best, by the program."""
        found = self._program(self._used(np.ones(len(engines)))).at_most(engines)
        return None if found is None else found.growth

    def _program(self, types: Sequence[GpuType], spare: int = 0) -> MixedProgram:
        return MixedProgram(types, math.inf if self.max_gpus is None else float(self.max_gpus), spare)

    def _used(self, use: Array) -> list[GpuType]:
        return [
            self._type(each, there, float(most), 1.0)
            for each, there, most in zip(self.mix.choices, self.serves, use, strict=True)
        ]

    def _type(self, choice: Choice, serves: NDArray[np.bool_], use: float, served: Array | float) -> GpuType:
        batching = Batching(find_any_policy(choice.policy).on(choice.scenario).batching)
        return GpuType(
            wanted_of(choice.scenario.for_gpus(1), batching, served),
            choice.hourly(1),
            choice.ranks,
            serves,
            math.inf if choice.max_engines is None else float(choice.max_engines),
            choice.gpus_per_engine,
            use,
        )


def part_of(scenario: Scenario, shares: Array) -> Scenario:
    """The load of which a share of each class, shape (classes,), goes here."""
    classes = tuple(
        each.model_copy(update={"arrival_rate": each.arrival_rate * max(float(share), LEAST_SHARE)})
        for each, share in zip(scenario.classes, shares, strict=True)
    )
    return scenario.replace(classes=classes)


def fit(choice: Choice, load: Load, ranks: float) -> NDArray[np.bool_]:
    """Classes that keep their targets there by the theory of tails where they hardly wait, shape (classes,).

    Of a target of all requests, a class that alone has more beyond the limit than all together may have does not.
    """
    classes = len(choice.scenario.classes)
    fits = np.ones(classes, dtype=bool)
    try:
        prediction = predict(choice.scenario, max(1, math.ceil(QUIET * ranks)), policy=choice.policy)
        for target in load.targets:
            names = choice.scenario.class_names
            own = range(classes) if target.cls is None else [names.index(target.cls)]
            for cls in own:
                fits[cls] &= _keeps(prediction, target, cls)
    except (FluidgateError, ArithmeticError):
        return np.ones(classes, dtype=bool)
    return fits


def _keeps(prediction: Prediction, target: Target, cls: int) -> bool:
    weight = 1.0 if target.cls is not None else float(prediction.rate[cls] / prediction.rate.sum())
    if target.measure == "served":
        return True
    if target.measure == "goodput":
        return weight * (1.0 - prediction.goodput(cls)) <= 1.0 - target.limit
    time = prediction.time(target.measure, cls)  # type: ignore[arg-type]
    if target.statistic == "mean":
        return weight < 1.0 or target.keeps(time.mean)
    return weight * (1.0 - time.share_within(target.limit)) <= 1.0 - QUANTILES[target.statistic]
