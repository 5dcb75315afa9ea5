"""What a calibration from a log found: the profile, how sure it is, and how far its replay lies from the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fluidgate.fitting.doubts import far_off, unexplained
from fluidgate.fitting.fit import Fit
from fluidgate.profiles import Profile
from fluidgate.shown import Brief, Drawn, several
from fluidgate.simulation.iteration.logged import Agreement, LoggedRun, agreement

if TYPE_CHECKING:
    import pandas as pd

SURE = 0.5
"""Least resolution of a coefficient that the log tells, and largest half of its interval over its value."""
TOGETHER = 0.95
"""Correlation of two coefficients that the log tells only together."""
Z = 1.96


@dataclass(frozen=True, repr=False)
class Coefficient(Brief):
    """A number that was fitted.

    Attributes:
        name: its key in a profile file; `front_end` for the delay between client and engine, s.
        value: in s, s a token and so on.
        half: of the 95 % interval.
        resolution: how much the log says of it: 1 all, 0 nothing.
    """

    name: str
    value: float
    half: float
    resolution: float

    @property
    def identified(self) -> bool:
        return self.resolution >= SURE and self.half <= SURE * self.value

    def to_dict(self) -> dict[str, Any]:
        interval = [max(self.value - self.half, 0.0), self.value + self.half]
        return {"value": self.value, "ci95": interval, "resolution": self.resolution, "identified": self.identified}


@dataclass(frozen=True, repr=False)
class LogCalibration(Drawn):
    """An iteration time fitted to a log.

    Attributes:
        profile: to be written.
        what: `overhead` or `law`.
        fit: how it was found.
        names: of its coefficients, without the delay.
        run: the log.
        chosen: which requests were fitted; the others were held out.
        remarks: what a reader should know of the log.
    """

    profile: Profile
    what: str
    fit: Fit
    names: tuple[str, ...]
    run: LoggedRun
    chosen: NDArray[np.bool_]
    remarks: tuple[str, ...] = ()

    def headline(self) -> str:
        rows = {(row.quantity, row.statistic): row.relative for row in self.held_out or self.fitted}
        means = ", ".join(f"{quantity} {100 * off:+.1f} %" for (quantity, kind), off in rows.items() if kind == "mean")
        return f"'{self.profile.name}' of {several(len(self.chosen), 'request')}: replayed mean {means}"

    @property
    def coefficients(self) -> tuple[Coefficient, ...]:
        fit = self.fit
        names = (*self.names, "front_end") if self.run.clock == "client" else self.names
        numbers = zip(fit.values.tolist(), (Z * fit.sd).tolist(), fit.resolution.tolist(), strict=True)
        return tuple(Coefficient(name, *three) for name, three in zip(names, numbers, strict=False))

    @property
    def fitted(self) -> tuple[Agreement, ...]:
        """How far the replay lies from the log on the requests that were fitted; TTFT, TPOT and latency."""
        return self._agreement(self.chosen)

    @property
    def held_out(self) -> tuple[Agreement, ...]:
        """The same on the others; empty where there are none."""
        return self._agreement(~self.chosen) if not self.chosen.all() else ()

    @property
    def everything(self) -> tuple[Agreement, ...]:
        """The same on all of them, and the throughput."""
        return tuple(agreement(self.run.summary, self.fit.replay.simulated.summary))

    def _agreement(self, chosen: NDArray[np.bool_]) -> tuple[Agreement, ...]:
        one, two = (run.of_requests(chosen).summary for run in (self.run, self.fit.replay.simulated))
        return tuple(row for row in agreement(one, two) if row.statistic != "tokens/s")

    @property
    def not_identified(self) -> tuple[str, ...]:
        """What the log does not tell, a sentence each."""
        return tuple(self._not_identified())

    def _not_identified(self) -> Iterator[str]:
        unsure = [each for each in self.coefficients if not each.identified]
        for each in unsure:
            if each.resolution < SURE:
                yield f"{each.name}: the log says little of it; {each.value:.3g} is what was likely before"
            else:
                yield f"{each.name}: {each.value:.3g}, but anything from {_interval(each)} fits the log as well"
        names = [each.name for each in self.coefficients]
        for i, j in np.argwhere(np.triu(np.abs(self.fit.correlation), 1) > TOGETHER):
            if max(i, j) < len(names):
                yield f"{names[i]} and {names[j]}: told only together, for what they count grew together in this log"

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(self._warnings())

    def _warnings(self) -> Iterator[str]:
        yield from self.remarks
        if not self.fit.converged:
            yield (
                f"the fit had not settled after {self.fit.rounds} replays, and the nearest of them is taken: "
                "its batches change with the least change of the law"
            )
        if unsure := [each.name for each in self.coefficients if not each.identified]:
            yield f"the log does not tell {', '.join(unsure)} well: see what it does not identify"
        yield from unexplained(self.fit, self.what)
        yield from far_off(self.held_out or self.fitted, self.everything, "held out" if self.held_out else "fitted")
        if self.run.clock == "client":
            delay = self.fit.values[-1]
            yield (
                f"the times are a client's: {1e3 * delay:.3g} ms of every TTFT are taken for the way to the engine and "
                "back, which no profile holds"
            )

    def to_dataframe(self) -> pd.DataFrame:
        """A row a part of the log (fitted, held out, all), quantity and statistic: measured, simulated (s, or tokens/s)
        and relative, the one over the other less 1."""
        import pandas as pd

        parts = {"fitted": self.fitted, "held out": self.held_out, "all": self.everything}
        return pd.DataFrame([{"part": part, **row} for part, rows in parts.items() for row in _rows(rows)])

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "name": self.profile.name,
            "fit": self.what,
            "clock": self.run.clock,
            "requests": {"fitted": int(self.chosen.sum()), "held_out": int((~self.chosen).sum())},
            "coefficients": {each.name: each.to_dict() for each in self.coefficients},
            "not_identified": list(self.not_identified),
            "rounds": self.fit.rounds,
            "converged": self.fit.converged,
            "fitted": _rows(self.fitted),
            "held_out": _rows(self.held_out),
            "all": _rows(self.everything),
            "warnings": list(self.warnings),
            "profile": self.profile.to_dict(),
        }


def _interval(each: Coefficient) -> str:
    return f"{max(each.value - each.half, 0.0):.3g} to {each.value + each.half:.3g}"


def _rows(rows: Sequence[Agreement]) -> list[dict[str, Any]]:
    return [{**asdict(row), "relative": row.relative} for row in rows]
