"""The table [arrivals], in the form of each process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from fluidgate.model import Duration, NonNegative, Process, ThinkLaw
from fluidgate.toml_file import LARGEST_WHOLE, Table


class PoissonArrivals(Table):
    """The table [arrivals] without a process, or with the model's own."""

    elsewhere: ClassVar[Mapping[str, str]] = {
        "cv": 'only with process = "gamma" (Poisson gaps have cv 1); remove this key, or give that process',
        **dict.fromkeys(("levels", "sojourns"), 'only with process = "mmpp"; remove this key, or give that process'),
        **dict.fromkeys(("weights", "period"), 'only with process = "daily"; remove this key, or give that process'),
        **dict.fromkeys(
            ("users", "think", "think_law"), 'only with process = "closed"; remove this key, or give that process'
        ),
    }

    process: Literal["poisson"] = Field("poisson", description="the law of the gaps between arrivals")


class GammaArrivals(Table):
    process: Literal["gamma"] = Field(description="the law of the gaps between arrivals")
    cv: float = Field(
        ge=0.001,
        le=100,
        description="the coefficient of variation of the gaps between arrivals; above 1 they come in bursts",
        examples=[3.0],
    )


class MmppArrivals(Table):
    process: Literal["mmpp"] = Field(description="the law of the gaps between arrivals")
    levels: list[NonNegative] = Field(
        min_length=2, description="the rate of each phase, in any unit: the mean stays", examples=[[1, 8]]
    )
    sojourns: list[Duration] = Field(min_length=2, description="the mean time in each phase, s", examples=[[50, 5]])


class DailyArrivals(Table):
    process: Literal["daily"] = Field(description="the law of the gaps between arrivals")
    weights: list[NonNegative] = Field(
        min_length=1,
        description="the rate in each of the equal parts of the period, in any unit: the mean stays",
        examples=[[1, 4, 2]],
    )
    period: Duration = Field(86_400.0, description="the time after which the rate repeats, s")


class ClosedArrivals(Table):
    process: Literal["closed"] = Field(description="the law of the gaps between arrivals")
    users: int = Field(
        ge=1,
        le=LARGEST_WHOLE,
        description="the clients of the cluster, each of whom sends its next request when its last has ended",
        examples=[8],
    )
    think: float = Field(0.0, ge=0, description="the mean time from an answer to the user's next request, s")
    think_law: ThinkLaw = Field("fixed", description="the law of that time")


class UnknownArrivals(Table):
    """The table [arrivals] with a process that there is not; its other keys can't be judged."""

    model_config = ConfigDict(extra="ignore")

    process: Process = Field(description="the law of the gaps between arrivals")


ArrivalsTable = PoissonArrivals | GammaArrivals | MmppArrivals | DailyArrivals | ClosedArrivals
ARRIVALS: dict[str, type[Table]] = {
    "poisson": PoissonArrivals,
    "gamma": GammaArrivals,
    "mmpp": MmppArrivals,
    "daily": DailyArrivals,
    "closed": ClosedArrivals,
}
"""The form of the table [arrivals] for each process."""


def arrivals_form(data: Any) -> type[Table]:
    """The form of the table [arrivals] that its process chooses."""
    process = data.get("process", "poisson") if isinstance(data, dict) else "poisson"
    return ARRIVALS.get(process, UnknownArrivals) if isinstance(process, str) else UnknownArrivals
