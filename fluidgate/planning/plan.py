"""A steady-state plan."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fluidgate.batching import Batching
from fluidgate.model import Array, Rates, Scenario, Scheme
from fluidgate.planning.operating_point import OperatingPoint
from fluidgate.planning.partition import Partition
from fluidgate.shown import Drawn, rate

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class Plan(Drawn):
    """An optimal steady state of the fluid model, [LDHZ] (40), (42) or (49), per GPU.

    Attributes:
        scenario: the scenario planned, its load per GPU.
        scheme: scheme of the objective.
        batching: that it holds for.
        rates: service rates at which its requests are served, (4): those of full batches under [LDHZ]'s law, else of
            the batch that runs.
        prefill: x, requests in prefill, shape (classes,).
        mixed_decode: y_m, requests decoding on mixed GPUs, shape (classes,).
        solo_decode: y_s, requests decoding on solo GPUs, shape (classes,).
        prefill_queue: q_p, requests waiting for prefill, shape (classes,).
        decode_queue: q_d, requests waiting for decode, shape (classes,).
        completion_rate: requests completed, 1/s, shape (classes,).
        flow_price: d objective / d lambda, objective per second for one request/s more, shape (classes,).
        prefill_cost: what reading a prompt takes of everything scarce, at its price, money, shape (classes,).
        decode_cost: the same of a request's decode, mixed or solo, whichever costs less, shape (classes,).
        revenue_rate: money/s before penalties; tokens/s of the requests served where the scenario has no prices, which
            all other money is then counted in too.
        penalty: penalties (44), (46), (48), money/s.
        mixed_fraction: sum x, in 0..1.
        kappa: speed of a solo decode over that of a mixed one.
        tpot: left side of (47), all slots busy, s; at an operating point what the decodes feel.
        shadow_prices: d objective / d right-hand side of `prefill_capacity`, `mixed_capacity` and
            `solo_capacity`; at an operating point also of `time`, `mixed_slots`, `solo_slots`, `chunks` and, where it
            ends, of `memory`.
        indicators: for each limit its `limit`, `value` and `shadow_price` (d objective / d limit); for each
            penalty its `weight` and `value`.
        hit_price: d objective / d `prefix_hit_rate` of each class, shape (classes,); None without prefix caching.
        request_seconds: of a GPU that one request more takes where it runs, shape (classes,); None under [LDHZ]'s law
            with full chunks.
        slots: decodes of a GPU at most, as many as its batch size and its memory hold.
        operating_point: the batch that runs; None under [LDHZ]'s law with full chunks.
        warnings: what a reader of the plan should know, a sentence each.
        partition: mixed and solo group, if a number of GPUs was given.
    """

    scenario: Scenario
    scheme: Scheme
    batching: Batching
    rates: Rates
    prefill: Array
    mixed_decode: Array
    solo_decode: Array
    prefill_queue: Array
    decode_queue: Array
    completion_rate: Array
    flow_price: Array
    prefill_cost: Array
    decode_cost: Array
    revenue_rate: float
    penalty: float
    mixed_fraction: float
    kappa: float
    tpot: float
    shadow_prices: dict[str, float]
    indicators: dict[str, dict[str, float]]
    slots: float
    hit_price: Array | None = None
    request_seconds: Array | None = None
    operating_point: OperatingPoint | None = None
    warnings: tuple[str, ...] = ()
    partition: Partition | None = None

    def headline(self) -> str:
        earned = "R*" if self.scenario.priced else "tokens"
        return (
            f"'{self.scenario.name}': {earned} {rate(self.revenue_rate)} /s per GPU, "
            f"{100 * self.mixed_fraction:.1f} % in prefill{self._split()}"
        )

    def _split(self) -> str:
        if self.partition is None:
            return ""
        mixed, gpus = self.partition.mixed, self.partition.gpus
        return ", on 1 GPU" if gpus == 1 else f", {mixed:,} of {gpus:,} GPUs mixed"

    @property
    def objective(self) -> float:
        """Revenue less penalties, money/s."""
        return self.revenue_rate - self.penalty

    @property
    def served_fraction(self) -> Array:
        """Completions over arrivals, shape (classes,)."""
        arrival_rate: Array = np.array([c.arrival_rate for c in self.scenario.classes])
        return np.divide(self.completion_rate, arrival_rate)

    @property
    def decode_buffer_free(self) -> bool:
        """Whether no prefilled request waits: `q_d = 0`."""
        return not self.decode_queue.any()

    @property
    def solo_speed(self) -> float:
        """Tokens/s of one decode in solo iterations, `gamma`."""
        rates, output = self.rates, np.array([c.output_tokens for c in self.scenario.classes])
        return float((rates.solo_decode * output).max())

    @property
    def solo_probability(self) -> Array:
        """Share of decodes that run solo, `p_s,i` of the SLI-aware policy (Theorem 5.1), 1 if none runs.

        Shape (classes,).
        """
        solo = self.kappa * self.solo_decode
        decodes = self.mixed_decode + solo
        return np.divide(solo, decodes, out=np.ones_like(solo), where=decodes > 0)

    @property
    def prefix_hit_rate(self) -> float | None:
        """Tokens found over tokens of the prompts that are read, of all classes; None without prefix caching."""
        if not self.scenario.engine.prefix_caching:
            return None
        tokens = self.rates.prefill * self.prefill * [c.prompt_tokens for c in self.scenario.classes]
        return float(self.scenario.hit_rates @ tokens / tokens.sum()) if tokens.any() else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The plan as the contract's JSON object."""
        plan: dict[str, Any] = {
            "schema": 1,
            "scenario": self.scenario.name,
            **self._earned(),
            "mixed_fraction": self.mixed_fraction,
            "kappa": self.kappa,
            "tpot": self.tpot,
            "decode_buffer_free": self.decode_buffer_free,
            "shadow_prices": dict(self.shadow_prices),
            "indicators": {name: dict(entry) for name, entry in self.indicators.items()},
        }
        if self.partition is not None:
            plan["partition"] = asdict(self.partition)
        if self.operating_point is not None:
            plan["batching"] = str(self.batching)
            plan["operating_point"] = self.operating_point.to_dict()
        else:
            gpu = self.scenario.gpu
            plan["iteration"] = {"mixed_seconds": gpu.tau, "solo_seconds": gpu.solo, "context_tokens": None}
        if self.scenario.engine.prefix_caching:
            plan["prefix_hit_rate"] = self.prefix_hit_rate
        plan["classes"] = self._class_records()
        plan["warnings"] = list(self.warnings)
        return plan

    def to_dataframe(self) -> pd.DataFrame:
        """A row for each class; columns as in the contract's `classes`."""
        import pandas as pd

        return pd.DataFrame(self._class_records())

    def _earned(self) -> dict[str, Any]:
        """Money; or without prices the tokens served in its place, which all shadow prices are in then."""
        if self.scenario.priced:
            return {
                "scheme": self.scheme,
                "revenue_rate": self.revenue_rate,
                "penalty": self.penalty,
                "objective": self.objective,
            }
        tokens = {"token_rate": self.revenue_rate}
        return {"scheme": None, "revenue_rate": None, "penalty": self.penalty, "objective": None, **tokens}

    def _class_records(self) -> list[dict[str, Any]]:
        columns = {
            "name": self.scenario.class_names,
            "prefill": self.prefill.tolist(),
            "mixed_decode": self.mixed_decode.tolist(),
            "solo_decode": self.solo_decode.tolist(),
            "prefill_queue": self.prefill_queue.tolist(),
            "decode_queue": self.decode_queue.tolist(),
            "completion_rate": self.completion_rate.tolist(),
            "served_fraction": self.served_fraction.tolist(),
            "flow_price": self.flow_price.tolist(),
        }
        if self.hit_price is not None:
            columns |= {"prefix_hit_rate": self.scenario.hit_rates.tolist(), "hit_price": self.hit_price.tolist()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
