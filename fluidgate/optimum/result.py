"""The optimum: what it earns, and what it decides in each state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from fluidgate.arguments import checked
from fluidgate.errors import FluidgateError
from fluidgate.model import Array, Scenario
from fluidgate.optimum.space import Counts, GpuState, Integers, Space, State
from fluidgate.planning.per_gpu_rates import looks_like_a_total
from fluidgate.shown import Brief, Drawn, rate, several
from fluidgate.simulation import SimulationResult
from fluidgate.simulation.fidelity import ELSEWHERE, unseen
from fluidgate.simulation.results import warnings_of
from fluidgate.wording import all_worded

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1


def worth_of_all(scenario: Scenario) -> float:
    """Money that all who arrive would bring if they were served to their end, per GPU and second."""
    rates = scenario.rates  # in both schemes: what pays for a prompt, and for its output
    return float(rates.arrival @ rates.bundled_value)


class Action(NamedTuple):
    """One decision: start the prefill, or place the decode, of a class (a number from 0) on a GPU in a given state."""

    kind: Literal["prefill", "decode"]
    cls: int
    gpu: GpuState


@dataclass(frozen=True, eq=False, repr=False)
class PolicyTable(Brief):
    """The optimal decisions in every state, and how often each state is met.

    Attributes:
        space: the states, numbered.
        value: relative value of each state if nothing is decided before the next event, money.
        after: the state after the next decision; the state itself where it is best to hold.
        visited: numbers of the states between events that the policy meets, and `chance`: how much of the time.
    """

    space: Space
    value: Array
    after: Integers
    visited: Integers
    chance: Array

    def headline(self) -> str:
        return f"of {several(len(self.value), 'state')}, {len(self.visited):,} met"

    def actions(self, state: State) -> tuple[Action, ...]:
        """The decisions due in `state`, in order; none where it is best to hold."""
        try:
            number = self.space.number(state)
        except (KeyError, ValueError) as error:
            raise FluidgateError(f"no such state within the limits {self.space.size}: {state}") from error
        taken = []
        while self.after[number] != number:
            before, number = self.space.state(number), int(self.after[number])
            taken.append(_difference(before, self.space.state(number)))
        return tuple(taken)


def _difference(before: State, after: State) -> Action:
    """The decision that leads from one state to the other."""
    old = list(before.gpus)
    for gpu in after.gpus:
        if gpu in old:
            old.remove(gpu)
    queue = _less(before.waiting, after.waiting)
    if queue is not None:
        return Action("prefill", queue, old[0])
    buffer = _less(before.buffered, after.buffered)
    assert buffer is not None
    return Action("decode", buffer, old[0])


def _less(before: Counts, after: Counts) -> int | None:
    return next((i for i, (b, a) in enumerate(zip(before, after, strict=True)) if a < b), None)


@dataclass(frozen=True, repr=False)
class Optimum(Drawn):
    """The most that any policy earns on a small cluster. Rates are per GPU and second.

    Attributes:
        revenue_rate: what the policy of the table earns.
        lower, upper: certified bounds of the optimal revenue within the limits.
        fluid_rate: R*, the optimum of the fluid program without indicators.
        queue_limits, buffer_limit: where the queues are cut off; see `Size`.
        queue_limit_chance: share of the time that some queue for prefill stands at its limit.
        buffer_limit_chance: share of the time that the decode buffer stands at its limit.
        endless: classes that never leave and whose queues grow without end under the optimal policy.
        settled: whether the bounds are as close as was asked for.
        states: size of the state space; `visited`: how many the optimal policy meets.
        iterations: sweeps over all states.
        holding_chance: share of the time that a prefill could start and the optimal policy holds it back.
    """

    scenario: Scenario
    gpus: int
    revenue_rate: float
    lower: float
    upper: float
    fluid_rate: float
    queue_limits: Counts
    buffer_limit: int
    queue_limit_chance: float
    buffer_limit_chance: float
    states: int
    visited: int
    iterations: int
    holding_chance: float
    endless: tuple[str, ...]
    settled: bool
    policy: PolicyTable = field(repr=False, compare=False)

    def headline(self) -> str:
        most = f"no policy earns more than {rate(self.revenue_rate)} /s per GPU"
        return f"'{self.scenario.name}' on {several(self.gpus, 'GPU')}: {most}"

    @property
    def optimality_ratio(self) -> float | None:
        """Revenue over the fluid R*; None where R* is 0."""
        return self.revenue_rate / self.fluid_rate if self.fluid_rate > 0 else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the number should know."""
        return all_worded((*self._limits(), *self._accuracy()))

    def _accuracy(self) -> tuple[str, ...]:
        if self.settled:
            return ()
        apart = (self.upper - self.lower) / abs(self.upper)
        return (
            f"the bounds are still {100 * apart:.2g} % apart after as many sweeps as are made; the optimum is between",
        )

    def _limits(self) -> tuple[str, ...]:
        if self.lower >= (1 - TRUNCATION) * worth_of_all(self.scenario):
            return ()  # all are served, whatever the limits
        if self.endless:
            names = ", ".join(f"'{name}'" for name in self.endless)
            return (
                f"class {names}: nobody leaves and not all are served, so the queue grows without end; the revenue is "
                "that of those who are served; lower the load, or give a patience_rate",
            )
        limits = (
            ("a queue for prefill", self.queue_limit_chance, "--queue-limit"),
            ("the decode buffer", self.buffer_limit_chance, "--buffer-limit"),
        )
        cut_off = [
            f"{what} stands at its limit {100 * chance:.2g} % of the time, so that the optimum without limits is "
            f"higher; raise {option} (and --max-states)"
            for what, chance, option in limits
            if chance > TRUNCATION
        ]
        total = looks_like_a_total(self.scenario, self.gpus)
        return (*cut_off, *total, *unseen(self.scenario, ELSEWHERE))

    @checked
    def decision(
        self,
        gpus: Sequence[tuple[int | None, Sequence[int]]],
        waiting: Sequence[int],
        buffered: Sequence[int] | None = None,
    ) -> tuple[Action, ...]:
        """What the optimal policy decides in a state; empty where it holds.

        Args:
            gpus: of each GPU the class in prefill (a number from 0, or None) and the decodes of each class.
            waiting: requests of each class that wait for prefill.
            buffered: requests of each class that wait for decode, the one whose prefill just ended among them.

        Raises:
            FluidgateError: the state is beyond the limits.
        """
        none = (0,) * len(self.scenario.classes)
        state = State(
            tuple(GpuState(prefill, tuple(decodes)) for prefill, decodes in gpus),
            tuple(waiting),
            none if buffered is None else tuple(buffered),
        )
        return self.policy.actions(state)

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "scenario": self.scenario.name,
            "gpus": self.gpus,
            "revenue_rate": self.revenue_rate,
            "revenue_rate_bounds": [self.lower, self.upper],
            "fluid_rate": self.fluid_rate,
            "optimality_ratio": self.optimality_ratio,
            "queue_limits": list(self.queue_limits),
            "buffer_limit": self.buffer_limit,
            "queue_limit_chance": self.queue_limit_chance,
            "buffer_limit_chance": self.buffer_limit_chance,
            "states": self.states,
            "visited": self.visited,
            "iterations": self.iterations,
            "holding_chance": self.holding_chance,
            "warnings": list(self.warnings),
        }

    def to_dataframe(self) -> pd.DataFrame:
        """One row: what `to_dict` has of it."""
        import pandas as pd

        return pd.DataFrame([{key: value for key, value in self.to_dict().items() if not isinstance(value, list)}])


TRUNCATION = 1e-4
"""Share of the time at a limit from which on the result carries a warning."""


@dataclass(frozen=True, repr=False)
class Yardstick(Drawn):
    """What policies earn beside the most that any policy could earn."""

    optimum: Optimum
    results: tuple[SimulationResult, ...]

    def headline(self) -> str:
        shares = ((each.policy, self.share(each)[0]) for each in self.results)
        earned = ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares if share is not None)
        return f"{self.optimum.headline()}; of it earn {earned}"

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those of the optimum and of the policies, each once."""
        return tuple(dict.fromkeys((*self.optimum.warnings, *warnings_of(self.results))))

    @checked
    def share(self, result: SimulationResult) -> tuple[float | None, tuple[float, float] | None]:
        """The share of the optimum that a policy earns, and its 95 % confidence interval (None for one replication)."""
        best, earned = self.optimum.revenue_rate, result.revenue_rate
        if earned.mean is None or best <= 0:
            return None, None
        interval = None if earned.ci95 is None else (earned.ci95[0] / best, earned.ci95[1] / best)
        return earned.mean / best, interval

    def to_dict(self) -> dict[str, Any]:
        run = self.results[0].run.to_dict() if self.results else None
        policies = []
        for result in self.results:
            share, interval = self.share(result)
            policies.append(
                {
                    "policy": result.policy,
                    "revenue_rate": result.revenue_rate.to_dict(),
                    "share": share,
                    "share_ci95": None if interval is None else list(interval),
                    "warnings": list(result.warnings),
                }
            )
        return {**self.optimum.to_dict(), "run": run, "policies": policies, "warnings": list(self.warnings)}

    def to_dataframe(self) -> pd.DataFrame:
        """A row a policy: its revenue, per GPU and second, and the share of the optimum."""
        import pandas as pd

        rows = []
        for each in self.results:
            row: dict[str, Any] = {"policy": each.policy, **each.revenue_rate.columns("revenue_rate")}
            share, interval = self.share(each)
            low, high = interval or (None, None)
            row |= {"share": share, "share_low": low, "share_high": high}
            rows.append(row)
        return pd.DataFrame(rows)
