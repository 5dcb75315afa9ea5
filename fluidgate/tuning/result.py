"""What a tuning found: the parameters kept, the gain on fresh seeds, and every value tried."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluidgate.arguments import checked
from fluidgate.policies import Policy, Tuned, write_policy
from fluidgate.policies.policy_file import dump_policy
from fluidgate.shown import Brief, Drawn, several
from fluidgate.simulation import Statistic

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1


@dataclass(frozen=True, repr=False)
class Trial(Brief):
    """A candidate of the search. Money is per GPU and second, revenue less penalties.

    Attributes:
        values: of all parameters.
        stage: 0 for the default, 1 for the whole ranges, then closer around the best.
        objective: over the replications it met.
        difference: to the default on the same arrivals, replication by replication.
    """

    values: dict[str, float]
    stage: int
    objective: Statistic
    difference: Statistic

    def to_dict(self) -> dict[str, Any]:
        return {
            "parameters": self.values,
            "stage": self.stage,
            "replications": len(self.objective.values),
            "objective": self.objective.to_dict(),
            "difference": self.difference.to_dict(),
        }


@dataclass(frozen=True, repr=False)
class Tuning(Drawn):
    """The outcome of `tune`. Money is per GPU and second, revenue less penalties.

    Attributes:
        policy: with the parameters that are kept: the proposed ones if the gain is beyond noise, else the default.
        default, proposed: parameters before the search, and the best of the search.
        objective_default, objective_proposed: over fresh replications, which the search has not met.
        gain: their paired difference, proposed less default.
        plan_objective: what the fluid plan promises.
        trials: every candidate of the search, the default first.
        replications: fresh replications of each of the two.
        events: simulated, in all.
        warnings: what a reader of the plan, and of these simulations, should know.
    """

    scenario: str
    policy: Policy
    gpus: int
    seed: int
    budget: float
    horizon: float
    warmup: float
    replications: int
    events: int
    default: dict[str, float]
    proposed: dict[str, float]
    objective_default: Statistic
    objective_proposed: Statistic
    gain: Statistic
    plan_objective: float
    trials: tuple[Trial, ...] = field(repr=False)
    warnings: tuple[str, ...] = ()

    def headline(self) -> str:
        kept = "the proposed" if self.improves else "the default"
        return f"{self.name} on '{self.scenario}', {several(self.gpus, 'GPU')}: gain {self.gain} /s, {kept} kept"

    @property
    def improves(self) -> bool:
        """Whether the gain is beyond noise: its 95 % confidence interval is above 0."""
        return self.gain.ci95 is not None and self.gain.ci95[0] > 0.0

    @property
    def name(self) -> str:
        """Name of the policy."""
        return self.policy.base or self.policy.name

    @checked
    def command(self, scenario: str) -> str:
        """The command that finds the same from the scenario file at that path."""
        import shlex

        words = ["fluidgate", "tune", scenario, "--gpus", str(self.gpus), "--policy", self.policy.name]
        return shlex.join([*words, "--budget", f"{self.budget:g}", "--seed", str(self.seed)])

    @checked
    def as_tuned(self, command: str | None = None) -> Policy:
        """The policy with the record that its file keeps; `command` is part of it."""
        low, high = self.gain.ci95 or (0.0, 0.0)
        before = self.objective_default.mean or 0.0
        after = self.objective_proposed.mean or 0.0
        record = Tuned(
            scenario=self.scenario,
            gpus=self.gpus,
            seed=self.seed,
            objective_default=_shown(before),
            objective_tuned=_shown(after if self.improves else before),
            gain=_shown(self.gain.mean or 0.0) if self.improves else 0.0,
            gain_ci95=[_shown(low), _shown(high)] if self.improves else None,
            command=command,
        )
        return replace(self.policy, tuned=record)

    @checked
    def to_toml(self, command: str | None = None) -> str:
        """The text of the policy file."""
        return dump_policy(self.as_tuned(command))

    @checked
    def save(self, path: str | Path, *, force: bool = False, command: str | None = None) -> None:
        """Write the policy file that `simulate`, `compare` and `load_policy` read.

        Raises:
            FluidgateError: the path does not end in .toml, is there already (unless `force`), or can't be written; the
                policy is Python code.
        """
        write_policy(self.as_tuned(command), path, force=force)

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "scenario": self.scenario,
            "policy": self.name,
            "gpus": self.gpus,
            "seed": self.seed,
            "budget": self.budget,
            "horizon": self.horizon,
            "warmup": self.warmup,
            "replications": self.replications,
            "events": self.events,
            "parameters": self.policy.values,
            "default": self.default,
            "proposed": self.proposed,
            "improves": self.improves,
            "objective_default": self.objective_default.to_dict(),
            "objective_proposed": self.objective_proposed.to_dict(),
            "gain": self.gain.to_dict(),
            "plan_objective": self.plan_objective,
            "trials": [trial.to_dict() for trial in self.trials],
            "warnings": list(self.warnings),
        }

    def to_dataframe(self) -> pd.DataFrame:
        """A row a candidate: stage, replications, its parameters, objective and difference to the default."""
        import pandas as pd

        rows = []
        for each in self.trials:
            row = {"stage": each.stage, "replications": len(each.objective.values), **each.values}
            rows.append(row | each.objective.columns("objective") | each.difference.columns("difference"))
        return pd.DataFrame(rows)


def _shown(value: float) -> float:
    return float(f"{value:.7g}")
