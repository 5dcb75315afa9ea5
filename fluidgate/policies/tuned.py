"""What `fluidgate tune` found: the table [tuned] of a policy file."""

from __future__ import annotations

from pydantic import Field

from fluidgate.toml_file import LARGEST_WHOLE, Table


class Tuned(Table):
    """The table [tuned]: what `fluidgate tune` found, for the record. The objective is revenue less penalties."""

    scenario: str = Field(description="the name of the scenario it was tuned for", examples=["two-class"])
    gpus: int = Field(ge=1, le=LARGEST_WHOLE, description="the number of GPUs it was tuned for", examples=[50])
    seed: int | None = Field(None, ge=0, description="the seed of all random numbers")
    objective_default: float | None = Field(
        None, description="what the policy earns with its default parameters, per GPU and second"
    )
    objective_tuned: float | None = Field(None, description="what it earns with these parameters")
    gain: float | None = Field(None, description="the mean of the paired differences of the two, on fresh seeds")
    gain_ci95: list[float] | None = Field(
        None, min_length=2, max_length=2, description="the 95 % confidence interval of the gain", examples=[[4.9, 5.7]]
    )
    command: str | None = Field(None, description="the command that found the parameters")
