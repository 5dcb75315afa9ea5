"""[failures] and [[schedule]]: which GPUs of a cluster are up, in a scenario file and in a `Scenario`.

Each key stands here alone: its type, its range, its default, what an error says of it, and what it goes with. The
tables are the form that a file is checked against; the nouns, which inherit them, are what a `Scenario` holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Self

from pydantic import ConfigDict, Field, model_validator

from fluidgate.toml_file import LARGEST_WHOLE, Table, absent

LATEST = 1e9
"""s; beyond what is ever simulated."""


class FailureTable(Table):
    time: float = Field(ge=0, le=LATEST, description="the time of the failure, s", examples=[600.0])
    gpu: int = Field(ge=0, le=LARGEST_WHOLE, description="the GPU that fails, from 0, with its unit", examples=[0])
    seconds: float | None = absent("the seconds until it is repaired", gt=0, le=LATEST, examples=[120.0])


class FailuresTable(Table):
    mtbf: float | None = absent("the mean time between failures of a unit that is up, s", gt=0, examples=[864000.0])
    mttr: float | None = absent("the mean time until a unit is repaired, s", gt=0, examples=[1800.0])
    units: int = Field(default=1, ge=1, le=LARGEST_WHOLE, description="the GPUs that fail together")
    at: list[FailureTable] = Field(default=[], description="failures at given times, each with time, gpu and seconds")

    def problems(self) -> Iterator[str]:
        """One "KEY: REASON; MEND" for each key that does not go with the others."""
        if (self.mtbf is None) != (self.mttr is None):
            given, missing = ("mtbf", "mttr") if self.mttr is None else ("mttr", "mtbf")
            yield f"{missing}: missing beside {given}; add '{missing} = 1800.0', in s, or remove {given}"
        if self.mtbf is None and not self.at:
            yield "mtbf: missing, and no failure is at a given time; add mtbf and mttr, or [[failures.at]]"


class StepTable(Table):
    time: float = Field(ge=0, le=LATEST, description="the time from which so many GPUs are up, s", examples=[3600.0])
    gpus: int = Field(ge=0, le=LARGEST_WHOLE, description="the GPUs that are meant to be up", examples=[4])
    start_up: float = Field(default=0.0, ge=0, le=LATEST, description="the seconds that a GPU takes to start")


def step_problems(steps: Sequence[StepTable]) -> Iterator[tuple[int, str]]:
    """The place of a step and its "KEY: REASON; MEND", for each that does not go with the one before."""
    for k in range(1, len(steps)):
        if steps[k].time <= steps[k - 1].time:
            yield k, f"time: must be after {steps[k - 1].time:g} s, that of the step before; put them in order of time"


class Failure(FailureTable):
    """A failure at a given time."""

    model_config = ConfigDict(strict=False)

    @property
    def duration(self) -> float:
        """s; inf where it is never repaired."""
        return math.inf if self.seconds is None else self.seconds


class Failures(FailuresTable):
    """How units of GPUs fail: up for an exponential time, then down for one; and at given times besides."""

    model_config = ConfigDict(strict=False)

    at: tuple[Failure, ...] = ()  # type: ignore[assignment]

    @model_validator(mode="after")
    def _keys_go_together(self) -> Self:
        for problem in self.problems():
            raise ValueError(problem)
        return self


class Step(StepTable):
    """From when on how many GPUs are meant to be up."""

    model_config = ConfigDict(strict=False)
