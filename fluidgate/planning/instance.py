"""The instance of the fluid program that one plan solves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fluidgate.model import Array, Indicators, Rates, Scenario, Scheme
from fluidgate.planning.tpot import AverageTpot

_TINY = 1e-5


@dataclass(frozen=True)
class Instance:
    """A scenario as the fluid program sees it: model.md, section 3.

    Decodes are counted in *slots at mixed speed*: a flow of `f` decodes/s of class i keeps `f / mu_m,i` of
    them busy. In this unit a decode balance has the coefficient 1 throughout, whatever the lengths.

    Attributes:
        scenario: the scenario, per GPU.
        rates: its service rates.
        scheme: scheme of the objective.
        indicators: the indicators imposed.
        decode_buffer: whether `q_d > 0` is allowed.
    """

    scenario: Scenario
    rates: Rates
    scheme: Scheme
    indicators: Indicators
    decode_buffer: bool

    @staticmethod
    def of(scenario: Scenario, scheme: Scheme, indicators: Indicators, allow_decode_buffer: bool) -> Instance:
        """The instance of a scenario; each hard limit comes with `q_d = 0`."""
        buffer = allow_decode_buffer and not indicators.any_limit
        return Instance(scenario, scenario.rates, scheme, indicators, buffer)

    @property
    def classes(self) -> int:
        return len(self.rates.arrival)

    @property
    def batch(self) -> int:
        return self.scenario.gpu.batch_size

    @property
    def chunk(self) -> int:
        return self.scenario.gpu.chunk_size

    @cached_property
    def kappa(self) -> float:
        return self.scenario.gpu.kappa

    @cached_property
    def tpot(self) -> AverageTpot:
        gpu = self.scenario.gpu
        return AverageTpot(gpu.batch_size, gpu.tau, gpu.gamma)

    @cached_property
    def load(self) -> Array:
        """Decode slots at mixed speed that keep up with all arrivals, `lambda/mu_m`, shape (classes,)."""
        return self.rates.arrival / self.rates.mixed_decode

    @property
    def slots(self) -> float:
        """Decode slots at mixed speed of a GPU at most."""
        return self.batch * max(1.0, self.kappa)

    @property
    def is_odd(self) -> bool:
        """Whether some load, in slots, is so far from the capacity that a solver would lose one beside the other."""
        scales = np.append(self.load, self.kappa)
        return bool((scales < _TINY).any() or (scales > 1.0 / _TINY).any())

    @cached_property
    def prefill_per_slot(self) -> Array:
        """Prefill occupancy that feeds one decode slot at mixed speed, `mu_m/mu_p`, shape (classes,)."""
        return self.rates.mixed_decode / self.rates.prefill

    @cached_property
    def prompt_per_output(self) -> Array:
        """Prompt tokens for an output token, `P/D = C mu_m/mu_p`, shape (classes,)."""
        return self.chunk * self.prefill_per_slot

    @cached_property
    def waits_for_ever(self) -> NDArray[np.bool_]:
        """Classes with `theta = 0`, which cannot be shed, shape (classes,)."""
        return np.equal(self.rates.patience, 0.0)

    @cached_property
    def prefill_value(self) -> Array:
        """Money/s earned by prefills for each decode slot they feed, (23), shape (classes,)."""
        earned = self.rates.prompt_value if self.scheme == "separate" else np.zeros(self.classes)
        return earned * self.rates.mixed_decode

    @cached_property
    def decode_value(self) -> Array:
        """Money/s earned by a busy decode slot at mixed speed, (22) or (23), shape (classes,)."""
        earned = self.rates.output_value if self.scheme == "separate" else self.rates.bundled_value
        return earned * self.rates.mixed_decode
