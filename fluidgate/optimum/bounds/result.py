"""The bound, and policies beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluidgate.arguments import checked
from fluidgate.model import Scenario
from fluidgate.planning.per_gpu_rates import looks_like_a_total
from fluidgate.shown import Drawn, rate, several
from fluidgate.simulation import SimulationResult
from fluidgate.simulation.fidelity import ELSEWHERE, unseen
from fluidgate.simulation.results import warnings_of
from fluidgate.wording import all_worded

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
ROUNDING = 1e-9


@dataclass(frozen=True, repr=False)
class Bound(Drawn):
    """More than any policy earns in the long run on `gpus` GPUs. Rates are per GPU and second.

    Attributes:
        scenario: as it was bounded, in its pricing scheme.
        revenue_rate: no policy earns more, whatever the accuracy of the numbers behind it.
        fluid_rate: R*, the optimum of the fluid program without indicators.
        lattice: which numbers of requests the bound follows: "fluid" (none), "totals" (of each group all in the
            system) "stages" (before and after the end of
            the prefill, before it all together) or "stages by group" (each of a group).
        groups: names of the classes that are counted together.
        states: of the lattice that were solved, 0 for "fluid".
        starving: classes that never leave and that a policy may earn more by never serving; R* does not allow for it.
    """

    scenario: Scenario
    gpus: int
    revenue_rate: float
    fluid_rate: float
    lattice: str
    groups: tuple[tuple[str, ...], ...]
    states: int
    starving: tuple[str, ...] = ()

    def headline(self) -> str:
        most = f"no policy earns more than {rate(self.revenue_rate)} /s per GPU"
        return f"'{self.scenario.name}' on {several(self.gpus, 'GPU')}: {most}"

    @property
    def unavoidable(self) -> float | None:
        """The share of R* that no policy can earn; None where R* is 0."""
        if self.fluid_rate <= 0:
            return None
        share = 1.0 - self.revenue_rate / self.fluid_rate
        return share if abs(share) > ROUNDING else 0.0

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the number should know."""
        starving: tuple[str, ...] = ()
        if self.starving:
            names = ", ".join(f"'{name}'" for name in self.starving)
            starving = (
                f"class {names}: nobody leaves, and a policy that never serves it may earn more than R*; the bound "
                "counts such policies too",
            )
        return all_worded((*starving, *looks_like_a_total(self.scenario, self.gpus), *unseen(self.scenario, ELSEWHERE)))

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "scenario": self.scenario.name,
            "gpus": self.gpus,
            "scheme": self.scenario.pricing.scheme,
            "revenue_rate_bound": self.revenue_rate,
            "fluid_rate": self.fluid_rate,
            "unavoidable": self.unavoidable,
            "lattice": self.lattice,
            "groups": [list(group) for group in self.groups],
            "states": self.states,
            "warnings": list(self.warnings),
        }

    def to_dataframe(self) -> pd.DataFrame:
        """One row: what `to_dict` has of it."""
        import pandas as pd

        return pd.DataFrame([{key: value for key, value in self.to_dict().items() if not isinstance(value, list)}])


@dataclass(frozen=True, repr=False)
class MeasuredBound(Drawn):
    """What simulated policies earn beside a bound."""

    bound: Bound
    results: tuple[SimulationResult, ...]

    def headline(self) -> str:
        return f"{self.bound.headline()}; beside {several(len(self.results), 'policy')}"

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those of the bound and of the policies, each once."""
        return tuple(dict.fromkeys((*self.bound.warnings, *warnings_of(self.results))))

    @checked
    def at_least(self, result: SimulationResult) -> float | None:
        """The share of what any policy can earn that this one earns at least: the lower end of its 95 % confidence
        interval over the bound. None without an interval (one replication), or where nothing is earned."""
        interval = result.revenue_rate.ci95
        return None if interval is None or self.bound.revenue_rate <= 0 else interval[0] / self.bound.revenue_rate

    @checked
    def explained(self, result: SimulationResult) -> float | None:
        """The part of the policy's gap to R* that no policy can avoid, by its mean; None where there is no gap."""
        mean = result.revenue_rate.mean
        if mean is None or mean >= self.bound.fluid_rate:
            return None
        return min((self.bound.fluid_rate - self.bound.revenue_rate) / (self.bound.fluid_rate - mean), 1.0)

    def to_dict(self) -> dict[str, Any]:
        run = self.results[0].run.to_dict() if self.results else None
        policies = [
            {
                "policy": result.policy,
                "revenue_rate": result.revenue_rate.to_dict(),
                "at_least": self.at_least(result),
                "gap_unavoidable": self.explained(result),
                "warnings": list(result.warnings),
            }
            for result in self.results
        ]
        return {**self.bound.to_dict(), "run": run, "policies": policies, "warnings": list(self.warnings)}

    def to_dataframe(self) -> pd.DataFrame:
        """A row a policy: its revenue, per GPU and second, and at least what share of the most that any can earn."""
        import pandas as pd

        rows = []
        for each in self.results:
            row: dict[str, Any] = {"policy": each.policy, **each.revenue_rate.columns("revenue_rate")}
            row |= {"at_least": self.at_least(each), "explained": self.explained(each)}
            rows.append(row)
        return pd.DataFrame(rows)
