"""Plans along any field of a scenario, [LDHZ] section 6.4 and Figures 9 and 10.

A field is named by its path in `Scenario`:

- `gpu.batch_size`, `gpu.iteration.beta`, `pricing.prompt`, `indicators.max_tpot`;
- `classes.chat.arrival_rate` by name, `classes[0].arrival_rate` by number, `classes.*.arrival_rate` for all of them;
- `cluster_gpus`: the same load shared among another number of GPUs (`Scenario.for_gpus`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from fluidgate.arguments import checked, shown_value
from fluidgate.errors import FluidgateError, InfeasiblePlanError, nearest, one_line
from fluidgate.model import AnyScenario, Array, Gpu, Indicators, IterationTime, Noun, Pricing, RequestClass, Scenario
from fluidgate.planning.frontier import LIMITS
from fluidgate.planning.plan import Plan
from fluidgate.planning.planner import Planner
from fluidgate.refusals import limit_broken
from fluidgate.shown import Drawn, several

if TYPE_CHECKING:
    import pandas as pd

EVERY_CLASS = "*"
GPUS = "cluster_gpus"
CAPACITIES = ("prefill_capacity", "mixed_capacity", "solo_capacity")
_TABLES: dict[str, type[Noun]] = {
    "gpu": Gpu,
    "gpu.iteration": IterationTime,
    "pricing": Pricing,
    "indicators": Indicators,
}
_CLASS_FIELDS = {name: info for name, info in RequestClass.model_fields.items() if name != "name"}


@dataclass(frozen=True, eq=False, repr=False)
class Sweep(Drawn):
    """Plans along one field; arrays of shape (points,) unless said otherwise, NaN where there is no plan.

    Attributes:
        scenario: name of the scenario.
        field: path of the field.
        values: what the field was set to, or the factors that it was multiplied by.
        scale: whether `values` are factors.
        class_names: names of the classes.
        objective: revenue less penalties, money/s per GPU.
        revenue_rate: money/s per GPU.
        tpot: left side of (47), s.
        mixed_fraction: sum x, in 0..1.
        shadow_prices: of `prefill_capacity`, `mixed_capacity`, `solo_capacity` and of each limit that is set at
            some point, see `Plan`.
        flow_price: d objective / d lambda, shape (points, classes).
        reasons: why there is no plan; None where there is one.
        warnings: what a reader of the plans should know, each once.
    """

    scenario: str
    field: str
    values: tuple[Any, ...]
    scale: bool
    class_names: tuple[str, ...]
    objective: Array
    revenue_rate: Array
    tpot: Array
    mixed_fraction: Array
    shadow_prices: dict[str, Array]
    flow_price: Array
    reasons: tuple[str | None, ...]
    warnings: tuple[str, ...] = ()

    def headline(self) -> str:
        return f"'{self.scenario}' along {self.field}: {several(len(self.values), 'plan')}"

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON: `points` are objects; a NaN is None."""
        return {
            "schema": 1,
            "scenario": self.scenario,
            "field": self.field,
            "scale": self.scale,
            "classes": list(self.class_names),
            "points": [
                {
                    "value": self.values[k],
                    "objective": _number(self.objective[k]),
                    "revenue_rate": _number(self.revenue_rate[k]),
                    "tpot": _number(self.tpot[k]),
                    "mixed_fraction": _number(self.mixed_fraction[k]),
                    "shadow_prices": {name: _number(prices[k]) for name, prices in self.shadow_prices.items()},
                    "flow_price": [_number(price) for price in self.flow_price[k]],
                    "reason": self.reasons[k],
                }
                for k in range(len(self.values))
            ],
            "warnings": list(self.warnings),
        }

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def to_dataframe(self) -> pd.DataFrame:
        """A row for each value; shadow prices under `price of ...`."""
        import pandas as pd

        prices = {f"price of {name}": values for name, values in self.shadow_prices.items()}
        flows = {f"price of {name}": self.flow_price[:, k] for k, name in enumerate(self.class_names)}
        columns = {
            self.field: list(self.values),
            "objective": self.objective,
            "revenue_rate": self.revenue_rate,
            "tpot": self.tpot,
            "mixed_fraction": self.mixed_fraction,
        }
        return pd.DataFrame(columns | prices | flows | {"reason": list(self.reasons)})


@dataclass(frozen=True, eq=False, repr=False)
class HeatMap(Drawn):
    """Plans over two fields; arrays of shape (y values, x values), NaN where there is no plan.

    Attributes:
        scenario: name of the scenario.
        field_x: path of the field along the columns.
        values_x: its values, or factors.
        field_y: path of the field along the rows.
        values_y: its values, or factors.
        scale: whether the values are factors.
        objective: revenue less penalties, money/s per GPU.
        revenue_rate: money/s per GPU.
        tpot: left side of (47), s.
        mixed_fraction: sum x, in 0..1.
        reasons: why there is no plan, a tuple for each row; None where there is one.
        warnings: what a reader of the plans should know, each once.
    """

    scenario: str
    field_x: str
    values_x: tuple[Any, ...]
    field_y: str
    values_y: tuple[Any, ...]
    scale: bool
    objective: Array
    revenue_rate: Array
    tpot: Array
    mixed_fraction: Array
    reasons: tuple[tuple[str | None, ...], ...]
    warnings: tuple[str, ...] = ()

    def headline(self) -> str:
        return f"'{self.scenario}' over {self.field_x} and {self.field_y}: {several(self.objective.size, 'plan')}"

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON: nested lists, a row for each y value; a NaN is None."""
        grids = ("objective", "revenue_rate", "tpot", "mixed_fraction")
        return {
            "schema": 1,
            "scenario": self.scenario,
            "x": {"field": self.field_x, "values": list(self.values_x)},
            "y": {"field": self.field_y, "values": list(self.values_y)},
            "scale": self.scale,
            **{name: [[_number(cell) for cell in row] for row in getattr(self, name)] for name in grids},
            "reasons": [list(row) for row in self.reasons],
            "warnings": list(self.warnings),
        }

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def to_dataframe(self) -> pd.DataFrame:
        """A row for each pair of values."""
        import pandas as pd

        columns, rows = len(self.values_x), len(self.values_y)
        return pd.DataFrame(
            {
                self.field_x: list(self.values_x) * rows,
                self.field_y: [value for value in self.values_y for _ in range(columns)],
                "objective": self.objective.ravel(),
                "revenue_rate": self.revenue_rate.ravel(),
                "tpot": self.tpot.ravel(),
                "mixed_fraction": self.mixed_fraction.ravel(),
                "reason": [reason for row in self.reasons for reason in row],
            }
        )


@checked
def sweep(
    scenario: AnyScenario, field: str, values: Iterable[Any], *, scale: bool = False, planner: Planner | None = None
) -> Sweep:
    """Plans of a scenario whose field takes one value after another, [LDHZ] Figure 9.

    Args:
        scenario: cluster and load.
        field: path of the field, see the module.
        values: checked as the scenario's own fields are.
        scale: multiply the field by the values instead of setting it.
        planner: to solve with.

    Raises:
        FluidgateError: no such field, or a value that it cannot take; the message names both.
    """
    scenario = Scenario.of(scenario)
    scenario.need_prices("a sweep")
    place = _Place.of(scenario, field)
    settings = place.settings(scenario, values, scale)
    solver = planner or Planner()
    solved = [_solved(solver, _valid(place.put(scenario, setting), [place])) for setting in settings.results]
    plans = [plan for plan, _ in solved]
    resources = dict.fromkeys(name for plan in plans if plan for name in plan.shadow_prices if name not in CAPACITIES)
    names = [
        *CAPACITIES,
        *resources,
        *(name for name in LIMITS if any(plan and name in plan.indicators for plan in plans)),
    ]
    unpriced = np.full(len(scenario.classes), np.nan)
    return Sweep(
        scenario=scenario.name,
        field=field,
        values=settings.given,
        scale=scale,
        class_names=tuple(scenario.class_names),
        **{name: _of(plans, name) for name in _MEASURED},
        shadow_prices={name: np.array([_price(plan, name) for plan in plans]) for name in names},
        flow_price=np.array([unpriced if plan is None else plan.flow_price for plan in plans]),
        reasons=tuple(reason for _, reason in solved),
        warnings=_warnings(plans),
    )


@checked
def heat_map(
    scenario: AnyScenario,
    field_x: str,
    values_x: Iterable[Any],
    field_y: str,
    values_y: Iterable[Any],
    *,
    scale: bool = False,
    planner: Planner | None = None,
) -> HeatMap:
    """Plans over all pairs of values of two fields, [LDHZ] Figure 10; see `sweep`."""
    scenario = Scenario.of(scenario)
    scenario.need_prices("a heat map")
    across, along = _Place.of(scenario, field_x), _Place.of(scenario, field_y)
    if across.overlaps(along):
        raise FluidgateError(f"{field_x} and {field_y} name the same field; give two")
    x, y = across.settings(scenario, values_x, scale), along.settings(scenario, values_y, scale)
    solver = planner or Planner()
    # The number of GPUs first: it divides arrival rates, which the other field may set per GPU.
    places = sorted((across, along), key=lambda place: place.name != GPUS)

    def solve(setting_x: tuple[Any, ...], setting_y: tuple[Any, ...]) -> tuple[Plan | None, str | None]:
        changed = scenario
        for place in places:
            changed = place.put(changed, setting_x if place is across else setting_y)
        return _solved(solver, _valid(changed, places))

    solved = [[solve(u, v) for u in x.results] for v in y.results]
    shape = (len(y.results), len(x.results))
    plans = [plan for row in solved for plan, _ in row]
    return HeatMap(
        scenario=scenario.name,
        field_x=field_x,
        values_x=x.given,
        field_y=field_y,
        values_y=y.given,
        scale=scale,
        **{name: _of(plans, name).reshape(shape) for name in _MEASURED},
        reasons=tuple(tuple(reason for _, reason in row) for row in solved),
        warnings=_warnings(plans),
    )


_MEASURED = ("objective", "revenue_rate", "tpot", "mixed_fraction")


def _solved(planner: Planner, scenario: Scenario) -> tuple[Plan | None, str | None]:
    try:
        return planner.solve(scenario), None
    except InfeasiblePlanError as error:
        return None, str(error)


def _warnings(plans: Sequence[Plan | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(warning for plan in plans if plan is not None for warning in plan.warnings))


def _of(plans: Sequence[Plan | None], name: str) -> Array:
    return np.array([np.nan if plan is None else getattr(plan, name) for plan in plans])


def _price(plan: Plan | None, name: str) -> float:
    if plan is None:
        return float("nan")
    if name in plan.shadow_prices:
        return plan.shadow_prices[name]
    return plan.indicators.get(name, {}).get("shadow_price", float("nan"))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


@dataclass(frozen=True)
class _Settings:
    """The values as they were given, and what they make of the field: one result for each class meant."""

    given: tuple[Any, ...]
    results: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class _Place:
    """A field of a scenario.

    Attributes:
        path: as it was given.
        table: `gpu`, `gpu.iteration`, `pricing`, `indicators`, `classes`, or empty for the scenario itself.
        name: of the field in its table.
        members: the classes meant.
    """

    path: str
    table: str
    name: str
    members: tuple[int, ...] = ()

    @staticmethod
    def of(scenario: Scenario, path: str) -> _Place:
        if path == GPUS:
            if scenario.cluster_gpus is None:
                raise FluidgateError(
                    f"{path}: the scenario's rates are per GPU; sweep classes.*.arrival_rate, or give [cluster] gpus"
                )
            return _Place(path, "", path)
        if path.startswith("classes"):
            return _class_place(scenario, path)
        table, _, name = path.rpartition(".")
        if table in _TABLES and _is_value(_TABLES[table].model_fields.get(name)):
            return _Place(path, table, name)
        raise _unknown(scenario, path)

    @cached_property
    def field(self) -> FieldInfo:
        if self.table == "classes":
            return _CLASS_FIELDS[self.name]
        owner: type[Noun] = _TABLES.get(self.table, Scenario)
        return owner.model_fields[self.name]

    def overlaps(self, other: _Place) -> bool:
        same = (self.table, self.name) == (other.table, other.name)
        return same and (self.table != "classes" or bool(set(self.members) & set(other.members)))

    def settings(self, scenario: Scenario, values: Iterable[Any], scale: bool) -> _Settings:
        """The values checked against the field.

        Raises:
            FluidgateError: there is none, or one that the field cannot take.
        """
        given = tuple(value.item() if isinstance(value, np.generic) else value for value in values)
        if not given:
            raise FluidgateError(f"{self.path}: no values; give at least one")
        now = self._now(scenario)
        if not scale:
            return _Settings(given, tuple((self._checked(value),) * len(now) for value in given))
        unscalable = next((v for v in now if isinstance(v, str) or v is None), 0)
        if unscalable != 0:
            held = "no value" if unscalable is None else f"'{unscalable}'"
            raise FluidgateError(f"{self.path}: has {held} to scale; give values instead of factors")
        factors = [_factor(self.path, value) for value in given]
        return _Settings(given, tuple(tuple(self._checked(factor * v) for v in now) for factor in factors))

    def put(self, scenario: Scenario, setting: tuple[Any, ...]) -> Scenario:
        """The scenario with its field set, fields that depend on each other not yet checked."""
        if self.name == GPUS:
            return scenario.for_gpus(setting[0])
        if self.table == "classes":
            classes = list(scenario.classes)
            for index, value in zip(self.members, setting, strict=True):
                classes[index] = classes[index].model_copy(update={self.name: value})
            return scenario.model_copy(update={"classes": tuple(classes)})
        update = {self.name: setting[0]}
        if self.table == "gpu.iteration":
            iteration = scenario.gpu.iteration.model_copy(update=update)
            return scenario.model_copy(update={"gpu": scenario.gpu.model_copy(update={"iteration": iteration})})
        return scenario.model_copy(update={self.table: getattr(scenario, self.table).model_copy(update=update)})

    def _now(self, scenario: Scenario) -> tuple[Any, ...]:
        if self.table == "classes":
            return tuple(getattr(scenario.classes[index], self.name) for index in self.members)
        owner: Any = scenario
        for step in filter(None, self.table.split(".")):
            owner = getattr(owner, step)
        return (getattr(owner, self.name),)

    def _checked(self, value: Any) -> Any:
        if isinstance(value, bool):
            raise FluidgateError(f"{self.path}: must be a number, but is {value}; {self._mend}")
        try:
            checked = self._adapter.validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            reason = (
                limit_broken(first, shown_value(value))
                or f"{first['msg'].replace('Input should', 'must')}, but is {value!r}"
            )
            raise FluidgateError(one_line(f"{self.path}: {reason}; {self._mend}")) from None
        if self.name == GPUS and checked is None:
            raise FluidgateError(f"{self.path}: must be a number, but is None; {self._mend}")
        return checked

    @property
    def _mend(self) -> str:
        return f"give another ({self.field.description or 'GPUs that share the load'})"

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        kind: Any = self.field.annotation
        if self.field.metadata:
            kind = Annotated[kind, *self.field.metadata]
        return TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False))


def _factor(path: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FluidgateError(f"{path}: a factor must be a number, but is {value!r}; give numbers")
    return value


def _valid(scenario: Scenario, places: Sequence[_Place]) -> Scenario:
    """The scenario, once its GPU is known to be possible: a mixed iteration takes time, (3)."""
    if not any(place.table.startswith("gpu") for place in places):
        return scenario
    try:
        Gpu.model_validate(dict(scenario.gpu))
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise FluidgateError(one_line(f"{' and '.join(place.path for place in places)}: {reason}")) from None
    return scenario


def _class_place(scenario: Scenario, path: str) -> _Place:
    """`classes[0].field`, `classes.name.field` (the name may have dots) or `classes.*.field`."""
    names = scenario.class_names
    matched = re.fullmatch(r"classes(?:\[(\d+)\]|\.(.+))\.(\w+)", path)
    if matched is None:
        raise _unknown(scenario, path)
    number, name, field = matched.groups()
    if field not in _CLASS_FIELDS:
        raise _unknown(scenario, path)
    members: tuple[int, ...]
    if number is not None:
        if int(number) >= len(names):
            raise FluidgateError(f"{path}: there are {len(names)} classes; give a number from 0 to {len(names) - 1}")
        members = (int(number),)
    elif name == EVERY_CLASS:
        members = tuple(range(len(names)))
    elif name in names:
        members = (names.index(name),)
    else:
        hint = nearest(name, names) or f"; the classes are {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
        raise FluidgateError(one_line(f"{path}: no class is named '{name}'{hint}"))
    return _Place(path, "classes", field, members)


def _is_value(field: FieldInfo | None) -> bool:
    return field is not None and field.annotation is not IterationTime and field.repr is not False


def _unknown(scenario: Scenario, path: str) -> FluidgateError:
    known = [
        *(f"{table}.{n}" for table, owner in _TABLES.items() for n, f in owner.model_fields.items() if _is_value(f)),
        *(f"classes.{EVERY_CLASS}.{n}" for n in _CLASS_FIELDS),
        *(f"classes.{c}.{n}" for c in scenario.class_names[:100] for n in _CLASS_FIELDS),
        *(f"classes[{k}].{n}" for k in range(min(100, len(scenario.classes))) for n in _CLASS_FIELDS),
        GPUS,
    ]
    own_name = path.rpartition(".")[2]
    same_field = [place for place in known if place.rpartition(".")[2] == own_name]
    hint = (
        nearest(path, same_field)
        or nearest(path, known)
        or "; a path is such as gpu.batch_size or classes.*.arrival_rate"
    )
    return FluidgateError(one_line(f"{path}: no such field of a scenario{hint}"))
