"""A policy: a plan turned into tables, plus at most three small decision functions; and what every policy has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from fluidgate.arguments import checked
from fluidgate.errors import FluidgateError, nearest, one_line, shown_file
from fluidgate.model import BatchingName, Scenario, Scheme
from fluidgate.planning import Plan
from fluidgate.policies.decisions.tables import Tables
from fluidgate.policies.tuned import Tuned
from fluidgate.shown import Brief, Shown
from fluidgate.wording import printed_aside

if TYPE_CHECKING:
    import pandas as pd

Origin = Literal["paper", "baseline", "published", "ours", "user"]
"""Of a policy that is shipped, or of a file of one's own; else it is the name of the package that brings it."""


@dataclass(frozen=True, repr=False)
class Program(Brief):
    """Which fluid program feeds a policy.

    Attributes:
        scheme: pricing scheme of the objective; None for the scenario's own.
        allow_decode_buffer: False imposes q_d = 0.
    """

    scheme: Scheme | None = None
    allow_decode_buffer: bool = True

    def key(self, scenario: Scenario) -> tuple[Scheme, bool]:
        """Programs with the same key have the same plan."""
        return self.scheme or scenario.pricing.scheme, self.allow_decode_buffer


@dataclass(frozen=True, repr=False)
class Parameter(Brief):
    """A number that a policy leaves open, for `fluidgate tune` or for whoever runs it.

    Attributes:
        low, high: its range, both included.
        meaning: one line, with the unit.
        whole: whether it is an integer.
        with_caching: whether it says something only where prompts find what was read before.
    """

    name: str
    default: float
    low: float
    high: float
    meaning: str
    whole: bool = False
    with_caching: bool = False

    def headline(self) -> str:
        return f"{self.name} from {self.low:g} to {self.high:g}, {self.default:g} by default"

    def problem(self, value: float) -> str | None:
        """What is wrong with a value, as "REASON; MEND", or None."""
        kind = "whole number" if self.whole else "number"
        if not isinstance(value, Real) or isinstance(value, bool):
            return f"must be a {kind} from {self.low:g} to {self.high:g}, but is {value!r}; give one"
        if self.low <= value <= self.high and (value == int(value) or not self.whole):
            return None
        return f"must be a {kind} from {self.low:g} to {self.high:g}, but is {value:g}; give another"

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "default": self.default,
            "low": self.low,
            "high": self.high,
            "whole": self.whole,
            "meaning": self.meaning,
        }


@dataclass(frozen=True, repr=False)
class BasePolicy(Shown):
    """What every policy has.

    Attributes:
        name, origin, summary: as `fluidgate policies` lists them.
        parameters: what it leaves open.
        settings: values of parameters that are not the default; see `with_parameters`.
        base: name of the listed policy that a policy file gives parameters to; empty for others.
        tuned: how the parameters were found, if a policy file says so.
        source: whose rule it is, if others have published it.
        fidelities: of the simulations that run it.
    """

    fidelities: ClassVar[tuple[str, ...]] = ("markov", "iteration")

    name: str
    origin: Origin | str
    summary: str
    parameters: tuple[Parameter, ...] = field(default=(), kw_only=True)
    settings: Mapping[str, float] = field(default_factory=dict, hash=False, kw_only=True)
    base: str = field(default="", kw_only=True)
    tuned: Tuned | None = field(default=None, kw_only=True)
    source: str = field(default="", kw_only=True)

    def headline(self) -> str:
        numbers = ", ".join(f"{name} = {value:g}" for name, value in self.settings.items())
        return f"{self.name}{f' ({numbers})' if numbers else ''}"

    def to_dict(self) -> dict[str, Any]:
        """As `fluidgate policies` lists it."""
        return {
            "name": self.name,
            "origin": self.origin,
            "summary": self.summary,
            "fidelity": list(self.fidelities),
            "parameters": [parameter.to_dict() for parameter in self.parameters],
            **({"source": self.source} if self.source else {}),
        }

    def to_dataframe(self) -> pd.DataFrame:
        """A row a parameter: name, value, default, low, high, whole, meaning."""
        import pandas as pd

        rows = [{**each.to_dict(), "value": self.values[each.name]} for each in self.parameters]
        columns = ["name", "value", "default", "low", "high", "whole", "meaning"]
        return pd.DataFrame(rows, columns=columns)

    @property
    def values(self) -> dict[str, float]:
        """The value of every parameter."""
        found = {p: self.settings.get(p.name, p.default) for p in self.parameters}
        return {p.name: int(value) if p.whole else value for p, value in found.items()}

    @checked
    def with_parameters(self, values: Mapping[str, float]) -> Self:
        """This policy with other values of some parameters.

        Raises:
            FluidgateError: a parameter is unknown, or its value is out of range.
        """
        if problems := self.problems(values):
            raise FluidgateError(f"policy '{self.name}': {problems[0]}")
        return replace(self, settings={**self.settings, **{name: float(value) for name, value in values.items()}})

    def problems(self, values: Mapping[str, float]) -> list[str]:
        """One "KEY: REASON; MEND" for each value that the policy can't take."""
        known = {p.name: p for p in self.parameters}
        found = []
        for name, value in values.items():
            if name in known:
                problem = known[name].problem(value)
            elif known:
                mend = nearest(name, list(known)) or f"; remove it (it has: {', '.join(known)})"
                problem = f"the policy has no such parameter{mend}"
            else:
                problem = "the policy has no parameters; remove it"
            if problem is not None:
                found.append(f"parameters.{name}: {problem}")
        return found

    def remarks(self, scenario: Scenario, gpus: int) -> tuple[str, ...]:
        """What to know before this policy runs `scenario` on `gpus` GPUs."""
        if self.tuned is None or (self.tuned.scenario, self.tuned.gpus) == (scenario.name, gpus):
            return ()
        return (
            f"{self.name} was tuned for '{self.tuned.scenario}' on {self.tuned.gpus} GPUs, not for '{scenario.name}' "
            f"on {gpus}; `fluidgate tune` tunes it for these",
        )

    @property
    def is_data(self) -> bool:
        """Whether it is run by shipped code alone."""
        return True


@dataclass(frozen=True, repr=False)
class Policy(BasePolicy):
    """A policy by name that reads a plan.

    Attributes:
        program: the fluid program whose plan it reads.
        tabulate: `tabulate(plan, gpus) -> Tables`; it takes each of `parameters` as a keyword too.
        gate, route, refill: decision functions in the place of the shipped ones (None), with the same arguments: see
            `fluidgate.policies.decisions`. They are compiled, so they use numbers, loops and the fields of `View` and
            `Tables`, and make no arrays.
        batching: of the GPUs that it decides for, iteration by iteration.
        takes_any_batching: whether its gate also feeds GPUs that form their own batches; see `on`.
    """

    program: Program
    tabulate: Callable[[Plan, int], Tables]
    gate: Callable[..., int] | None = None
    route: Callable[..., int] | None = None
    refill: Callable[..., int] | None = None
    batching: BatchingName = field(default="single-prefill", kw_only=True)
    takes_any_batching: bool = field(default=False, kw_only=True)

    def on(self, scenario: Scenario) -> Self:
        """This policy for the engines of a scenario, iteration by iteration.

        One that takes any batching takes that of `[engine]`; where none is given a token budget, as engines have it,
        if the scenario has a measured law, or memory for fewer requests than slots, since they run whatever batch there
        is. With the three numbers of [LDHZ] else, or indicators to hold, it is the paper's: one prompt a GPU, decodes
        that move.
        """
        if not self.takes_any_batching or scenario.indicators.any_limit:
            return self
        as_engines_do = scenario.gpu.iteration.by_batch or _memory_ends_first(scenario)
        own: BatchingName = "token-budget" if as_engines_do else self.batching
        return replace(self, batching=scenario.engine.batching or own)

    @checked
    def with_parameters(self, values: Mapping[str, float]) -> Self:
        changed = super().with_parameters(values)
        numbers = {p.name: changed.settings[p.name] for p in self.parameters if p.name in values}
        return replace(changed, tabulate=partial(self.tabulate, **numbers))

    @property
    def is_data(self) -> bool:
        """Whether the policy is tables alone, run by the shipped decision functions."""
        return self.gate is None and self.route is None and self.refill is None

    def for_worker(self) -> Policy:
        """What a worker needs of the policy once its tables are made."""
        return replace(self, tabulate=_tabulated_before)

    @property
    def functions(self) -> dict[str, Callable[..., int] | None]:
        """The decision functions in the place of the shipped ones, by name."""
        return {"gate": self.gate, "route": self.route, "refill": self.refill}

    @checked
    def with_functions(
        self,
        name: str,
        *,
        gate: Callable[..., int] | None = None,
        route: Callable[..., int] | None = None,
        refill: Callable[..., int] | None = None,
        tabulate: Callable[[Plan, int], Tables] | None = None,
        summary: str = "a user's policy",
        parameters: tuple[Parameter, ...] = (),
    ) -> Policy:
        """This policy under another name with some of its parts replaced.

        With `tabulate` come the `parameters` that it takes.
        """
        changes: dict[str, Any] = {
            "gate": gate or self.gate,
            "route": route or self.route,
            "refill": refill or self.refill,
            "tabulate": Checked(tabulate) if tabulate is not None else self.tabulate,
            "base": "",
            "tuned": None,
            "takes_any_batching": self.takes_any_batching and route is None and refill is None,
        }
        if tabulate is not None:
            changes |= {"parameters": parameters, "settings": {}}
        return replace(self, name=name, origin="user", summary=summary, **changes)


def _memory_ends_first(scenario: Scenario) -> bool:
    """Whether a GPU has KV memory for fewer than B decodes, at the mean of its decode tokens."""
    memory = scenario.engine.kv_tokens
    tokens = [c.arrival_rate * c.output_tokens for c in scenario.classes]
    if memory is None or not sum(tokens):
        return False
    each = sum(t * (c.prompt_tokens + c.output_tokens) for t, c in zip(tokens, scenario.classes, strict=True))
    return memory < scenario.gpu.batch_size * each / sum(tokens)


@dataclass(frozen=True)
class Checked:
    """A user's `tabulate` whose tables are looked over before they are used."""

    tabulate: Callable[..., Tables]

    def __call__(self, plan: Plan, gpus: int, **parameters: float) -> Tables:
        """
        Raises:
            FluidgateError: it gives no tables, or a field of another kind.
        """
        try:
            with printed_aside():
                tables = self.tabulate(plan, gpus, **parameters)
        except FluidgateError:
            raise
        except (Exception, SystemExit) as error:
            reason = f"raises {type(error).__name__}: {error}; mend the function"
            raise FluidgateError(one_line(f"{self._place()} {reason}")) from error
        if not isinstance(tables, Tables):
            raise FluidgateError(f"{self._place()} gives no Tables, but {tables!r:.60}; return tables_of(plan, gpus)")
        try:
            return tables.checked(len(plan.scenario.classes), gpus)
        except FluidgateError as error:
            raise FluidgateError(f"{self._place()}: {error}") from None

    def _place(self) -> str:
        code = getattr(self.tabulate, "__code__", None)
        return (
            "tabulate"
            if code is None
            else f"{shown_file(code.co_filename)}, line {code.co_firstlineno}: {code.co_name}"
        )


def _tabulated_before(plan: Plan, gpus: int) -> Tables:
    raise RuntimeError("the tables of this policy were made before it was sent to a worker")
