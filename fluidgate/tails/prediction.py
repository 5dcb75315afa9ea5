"""What the theory predicts of a cluster: laws of TTFT, TPOT and latency, by class and of all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from fluidgate.arguments import checked
from fluidgate.errors import FluidgateError, nearest
from fluidgate.model import Array
from fluidgate.shown import Drawn, several
from fluidgate.tails.density import Time, mixture

if TYPE_CHECKING:
    import pandas as pd

Measure = Literal["ttft", "tpot", "latency"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, eq=False, repr=False)
class ClassPrediction:
    """The times of the requests of a class.

    Attributes:
        ttft: arrival to first token.
        tpot: (last token - first token)/(tokens - 1), of requests with two tokens or more; all at 0 where none has.
        latency: arrival to last token.
        several: share of the requests that have two tokens or more.
    """

    name: str
    ttft: Time
    tpot: Time
    latency: Time
    several: float

    def __repr__(self) -> str:
        return f"<ClassPrediction '{self.name}'>"

    def goodput(self, ttft: float, tpot: float) -> float:
        """Share of the requests within both limits, s, taken as independent."""
        kept = 1.0 if math.isinf(tpot) else 1.0 - self.several * (1.0 - self.tpot.share_within(tpot))
        return kept * (1.0 if math.isinf(ttft) else self.ttft.share_within(ttft))


@dataclass(frozen=True, eq=False, repr=False)
class Prediction(Drawn):
    """The laws of the times of a cluster's requests, and what of the scenario they do not see.

    Attributes:
        engines: n.
        batching: how a GPU forms its batch.
        classes: in the scenario's order.
        rate: requests/s of each class per GPU, shape (classes,).
        targets: TTFT and TPOT of each class for goodput, s; inf for none.
        load: prompt tokens that arrive over those that can be read.
        slots: decodes over those that there are slots and memory for, or shares of the slots' time that are taken.
        decodes: in the batch of a GPU, on average.
        scenario: its name.
        doubts: what the theory does not see, or is not good at here, a sentence each.
    """

    engines: int
    batching: str
    classes: tuple[ClassPrediction, ...]
    rate: Array
    targets: tuple[tuple[float, float], ...]
    load: float
    slots: float
    decodes: float
    doubts: tuple[str, ...]
    scenario: str = ""

    def headline(self) -> str:
        whole = f"'{self.scenario}' on {several(self.engines, 'engine')}"
        if not self.stable:
            return f"{whole}: more arrives than can be served"
        tails = (f"{each} p99 {self.time(each).quantile(0.99):.3g} s" for each in ("ttft", "tpot"))
        return f"{whole}: {', '.join(tails)}"

    @property
    def warnings(self) -> tuple[str, ...]:
        """The doubts."""
        return self.doubts

    def to_dataframe(self) -> pd.DataFrame:
        """A row a class and time, s: class, time, mean and percentiles; None without a bound."""
        import pandas as pd

        found = []
        for row in self.to_dict()["latency"]:
            found += [{"class": row["name"], "time": measure, **(row[measure] or {})} for measure in MEASURES]
        return pd.DataFrame(found)

    @property
    def stable(self) -> bool:
        """Whether all that arrives can be served; if not, times have no bound."""
        return max(self.load, self.slots) < 1.0

    @checked
    def time(self, measure: Measure, cls: int | str | None = None) -> Time:
        """The law of a time, of a class by its name or place, or of all requests (None).

        Raises:
            FluidgateError: no time, or no class, has that name.
        """
        if cls is not None:
            return getattr(self.classes[self._place(cls)], measure)  # type: ignore[no-any-return]
        weights = self.rate
        if measure == "tpot":
            several = np.array([each.several for each in self.classes])
            weights = weights * several if several.any() else weights
        return mixture([getattr(each, measure) for each in self.classes], weights)

    @checked
    def goodput(self, cls: int | str | None = None) -> float:
        """Share of the requests within their class's targets for TTFT and TPOT, of a class or of all.

        Raises:
            FluidgateError: no class has that name.
        """
        if not self.stable and any(min(pair) < math.inf for pair in self.targets):
            return 0.0
        own = [each.goodput(*pair) for each, pair in zip(self.classes, self.targets, strict=True)]
        return own[self._place(cls)] if cls is not None else float(self.rate @ own / self.rate.sum())

    def _place(self, cls: int | str) -> int:
        names = [each.name for each in self.classes]
        if isinstance(cls, str):
            if cls not in names:
                known = nearest(cls, names) or f"; give one of {', '.join(names)}"
                raise FluidgateError(f"cls: no class is named '{cls}'{known}")
            return names.index(cls)
        if not -len(names) <= cls < len(names):
            raise FluidgateError(f"cls: no number {cls} among {several(len(names), 'class')}, which count from 0")
        return cls

    def to_dict(self) -> dict[str, Any]:
        """The contract's `latency` and `doubts`; numbers without a bound are null."""
        every = [(each.name, k) for k, each in enumerate(self.classes)] + [("all", None)]
        return {"latency": [self._row(name, k) for name, k in every], "doubts": list(self.doubts)}

    def _row(self, name: str, cls: int | None) -> dict[str, Any]:
        found: dict[str, Any] = {"name": name}
        several = [self.classes[cls].several] if cls is not None else [each.several for each in self.classes]
        for measure in MEASURES:
            if measure == "tpot" and not any(several):
                found[measure] = None
                continue
            time = self.time(measure, cls)
            found[measure] = {"mean": _finite(time.mean)} | {
                key: _finite(time.quantile(share)) for key, share in QUANTILES.items()
            }
        targets = self.targets if cls is None else (self.targets[cls],)
        found["goodput"] = self.goodput(cls) if any(min(pair) < math.inf for pair in targets) else None
        return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
