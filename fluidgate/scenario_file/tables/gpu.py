"""The table [gpu], with its iteration time spelt out, depending on the batch, or taken from a profile."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from fluidgate.model import IterationTime
from fluidgate.profiles import Profile, find_profile
from fluidgate.profiles.terms import BATCH_TERMS, BatchTerms, has_batch_terms
from fluidgate.toml_file import LARGEST_WHOLE, Table

NAMELESS = "[gpu]"


class GpuTable(Table):
    batch_size: int = Field(ge=1, le=LARGEST_WHOLE, description="the most requests in a batch, B", examples=[16])
    chunk_size: int = Field(
        ge=1, le=LARGEST_WHOLE, description="the prompt tokens read in one iteration, C", examples=[256]
    )


class MeasuredGpu(GpuTable):
    """The table [gpu] with its iteration time spelt out."""

    alpha: float = Field(
        description="the seconds of a mixed iteration at chunk size 0 "
        "(or give a profile instead of alpha, beta and gamma)",
        examples=[0.0174],
    )
    beta: float = Field(
        gt=0, description="the seconds that a prompt token adds to a mixed iteration", examples=[6.2e-5]
    )
    gamma: float = Field(gt=0, description="the tokens per second of one decode on a solo GPU", examples=[45.45])

    def measured(self, base_dir: Path) -> Profile:
        return _nameless(IterationTime(alpha=self.alpha, beta=self.beta, gamma=self.gamma))


class BatchedGpu(GpuTable, BatchTerms):
    """The table [gpu] with an iteration time that depends on the batch: the paper's with more terms."""

    alpha: float = Field(description="the intercept of the mixed iteration time, s", examples=[0.0091])
    beta: float = Field(
        gt=0, description="the seconds that a prompt token adds to a mixed iteration", examples=[9.3e-5]
    )

    def measured(self, base_dir: Path) -> Profile:
        keys = set(IterationTime.model_fields)
        return _nameless(IterationTime(**self.model_dump(include=keys)))


_PROFILE_OR_NUMBERS = "not together with 'profile'; remove 'profile', or alpha, beta and gamma"


class ProfiledGpu(GpuTable):
    """The table [gpu] with the iteration time of a profile."""

    elsewhere: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("alpha", "beta", "gamma"), _PROFILE_OR_NUMBERS),
        **dict.fromkeys(BATCH_TERMS, "not together with 'profile', whose own it is; remove one of the two"),
        **dict.fromkeys(
            ("overhead", "overhead_per_decode"),
            "not together with 'profile'; give it in [engine], on top of the profile",
        ),
    }

    profile: str = Field(
        min_length=1,
        description="the name of a profile ('fluidgate profiles' lists them), or the path of a profile file "
        "ending in .toml, relative to this file",
        examples=["a100-40gb/qwen-8b"],
    )

    def measured(self, base_dir: Path) -> Profile:
        return find_profile(self.profile, base_dir)


def _nameless(iteration: IterationTime) -> Profile:
    """The profile of times that a scenario spells out: nothing else is known of them."""
    return Profile(name=NAMELESS, iteration=iteration)


def gpu_form(data: Any) -> type[GpuTable]:
    """The form of the table [gpu] that its keys choose."""
    if isinstance(data, dict) and "profile" in data:
        return ProfiledGpu
    return BatchedGpu if isinstance(data, dict) and has_batch_terms(data) else MeasuredGpu
