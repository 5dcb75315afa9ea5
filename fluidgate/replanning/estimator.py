"""The load of a cluster, estimated online: arrival rates, mean lengths, patience."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fluidgate.compiled import kept
from fluidgate.errors import FluidgateError
from fluidgate.model import Array, Scenario
from fluidgate.replanning import estimates as events
from fluidgate.replanning.estimates import ESTIMATE, note

LEAST_SHARE = 1e-3
"""Least arrival rate that a plan is made for, as a share of the scenario's own: a class is never written off."""

PRIOR_LEAVERS = 0.1
"""Share of the prior's requests that have left, as it were: how much the scenario's patience weighs."""

PRIOR_GAPS = 20.0
"""Weight of the prior's gaps between arrivals, which are those of a Poisson process."""


def note_kernel(estimates, event, cls, now, tokens):  # type: ignore[no-untyped-def]
    """One event, from Python."""
    note(estimates, event, cls, now, tokens)


note_event = kept(note_kernel)


@dataclass(frozen=True)
class Estimate:
    """The load at one epoch; arrays of shape (classes,).

    Attributes:
        arrival: requests/s per GPU, and `arrival_deviation`, its standard deviation, bursts included.
        arrival_cv: coefficient of variation of the gaps between arrivals.
        prompt, output: mean lengths, tokens.
        patience: 1/s.
        prompts, outputs, leavers: how many independent observations the last three rest on, prior included.
    """

    arrival: Array
    arrival_deviation: Array
    arrival_cv: Array
    prompt: Array
    output: Array
    patience: Array
    prompts: Array
    outputs: Array
    leavers: Array


class Estimator:
    """Estimates of a load from its events, with a scenario for a prior.

    What each is, with weights `exp(-age/window)`:

    - *arrival rate*: arrivals over seconds seen, `sum_k exp(-(t - t_k)/T) / (T (1 - exp(-(t - t_0)/T)))`. Unbiased from
      the first second for a constant rate. For Poisson arrivals its variance is `lambda (T/2) (1 - exp(-2s/T))` over
      the square of that denominator (`s = t - t_0`), `lambda / (2T)` in the long run; for renewal arrivals CV^2 times
      as much in the long run, with the CV of the gaps, which is estimated too.
    - *mean prompt, mean output*: over prompts read and over requests completed. A length is known when it has ended,
      so long ones come late: in steady state that is no bias, as every request ends; at the start, and for as long as
      a request takes after a change, short ones are over-represented. The prior makes up for the former.
    - *patience rate*: those who left over the seconds that all have waited, those still waiting included: the maximum
      likelihood estimate for exponential patience under censoring.

    The prior is `prior` seconds of the scenario's own load, seen before the start and forgotten like everything else.

    Attributes:
        rows: the sums, dtype ESTIMATE, shape (classes,): compiled code writes them itself.
    """

    def __init__(self, scenario: Scenario, gpus: int, *, window: float, prior: float = 0.0, start: float = 0.0) -> None:
        """
        Args:
            scenario: classes, and the prior's numbers.
            gpus: GPUs of the cluster; the attribute may change, the total load is estimated.
            window: time constant T, s.
            prior: s; with 0 there is none, and a number that nothing is known of yet is the scenario's.
            start: epoch of the first look, s.

        Raises:
            FluidgateError: a time is out of range.
        """
        check_window(window, prior)
        self.scenario = scenario.for_gpus(gpus)
        self.gpus = gpus
        self._unseen = self.scenario.rates.arrival * gpus
        self.rows = np.zeros(len(scenario.classes), ESTIMATE)
        self._seen_before(window, prior, start)

    def compile(self) -> None:
        """Compile what the events call, before the first comes; kept on disk for later processes."""
        note_event(self.rows.copy(), events.ARRIVED, 0, 0.0, 0.0)

    def arrived(self, cls: int, now: float) -> None:
        """A request of class `cls` has come, at epoch `now`, s; epochs never go back."""
        note_event(self.rows, events.ARRIVED, cls, now, 0.0)

    def waits(self, cls: int, now: float) -> None:
        """It waits, for its prefill or for its decode, and leaves if that takes too long."""
        note_event(self.rows, events.WAITS, cls, now, 0.0)

    def waits_no_more(self, cls: int, now: float) -> None:
        """Its wait has ended with service."""
        note_event(self.rows, events.WAITS_NO_MORE, cls, now, 0.0)

    def left(self, cls: int, now: float) -> None:
        """It has left before it was served."""
        note_event(self.rows, events.LEFT, cls, now, 0.0)

    def prompt_read(self, cls: int, now: float, tokens: float) -> None:
        """Its prefill has ended."""
        note_event(self.rows, events.PROMPT_READ, cls, now, tokens)

    def completed(self, cls: int, now: float, tokens: float) -> None:
        """Its last token has come, `tokens` in all."""
        note_event(self.rows, events.COMPLETED, cls, now, tokens)

    def at(self, now: float) -> Estimate:
        """The estimates at epoch `now`; O(classes)."""
        rows = self.rows
        window, age = rows["window"], now - rows["start"]
        kept = np.exp(-age / window)
        seen = rows["prior"] * kept - window * np.expm1(-age / window)
        own = self.scenario.rates
        arrived = rows["arrived"] * np.exp((rows["arrived_at"] - now) / window)
        rate = _over(arrived, seen, self._unseen)
        cv = self._arrival_cv()
        variance = -rate * np.maximum(cv, 1.0) ** 2 * (window / 2.0) * np.expm1(-2.0 * age / window)
        waited_since = (rows["waited_at"] - now) / window
        waits = np.exp(waited_since)
        left = rows["left"] * waits
        waited = rows["waited"] * waits + rows["waiting"] * window * -np.expm1(waited_since)
        return Estimate(
            arrival=rate / self.gpus,
            arrival_deviation=_over(np.sqrt(variance), seen, np.full(len(rows), np.inf)) / self.gpus,
            arrival_cv=cv,
            prompt=_over(rows["prompt_tokens"], rows["prompts"], self._own("prompt_tokens")),
            output=_over(rows["output_tokens"], rows["outputs"], self._own("output_tokens")),
            patience=_over(left, waited, own.patience),
            prompts=2.0 * rows["prompts"],
            outputs=2.0 * rows["outputs"],
            leavers=2.0 * left,
        )

    def scenario_at(self, now: float) -> Scenario:
        """The scenario with the estimates in the place of its own rates, lengths and patience."""
        return scenario_of(self.scenario, self.at(now))

    def _seen_before(self, window: float, prior: float, start: float) -> None:
        rows, rates = self.rows, self.scenario.rates
        for name in ("start", "arrived_at", "prompts_at", "outputs_at", "waited_at"):
            rows[name] = start
        rows["window"], rows["prior"], rows["last_arrival"] = window, prior, np.nan
        requests = rates.arrival * self.gpus * prior
        rows["arrived"] = rows["prompts"] = rows["outputs"] = requests
        rows["prompt_tokens"] = requests * self._own("prompt_tokens")
        rows["output_tokens"] = requests * self._own("output_tokens")
        leaves = rates.patience > 0.0
        rows["left"] = np.where(leaves, PRIOR_LEAVERS * requests, 0.0)
        rows["waited"] = rows["left"] / np.where(leaves, rates.patience, 1.0)

    def _arrival_cv(self) -> Array:
        rows = self.rows
        gaps, seconds = rows["gaps"], rows["gap_seconds"]
        squared = _over(gaps * rows["gap_squares"], seconds**2, np.full(len(rows), 2.0)) - 1.0
        return np.asarray(np.sqrt((PRIOR_GAPS + gaps * np.maximum(squared, 0.0)) / (PRIOR_GAPS + gaps)))

    def _own(self, name: str) -> Array:
        return np.array([getattr(c, name) for c in self.scenario.classes])


def check_window(window: float, prior: float) -> None:
    """Refuse times that no estimate can be made over.

    Raises:
        FluidgateError: one is out of range.
    """
    if not (0 < window < math.inf and 0 <= prior < math.inf):
        raise FluidgateError(
            f"estimates: the window must be above 0 s and the prior at least 0 s, but they are {window:g} and {prior:g}"
        )


def scenario_of(scenario: Scenario, load: Estimate) -> Scenario:
    """`scenario` (rates per GPU) under another load."""
    classes = tuple(
        c.model_copy(
            update={
                "arrival_rate": max(float(load.arrival[i]), LEAST_SHARE * c.arrival_rate),
                "prompt_tokens": float(load.prompt[i]),
                "output_tokens": float(load.output[i]),
                "patience_rate": float(load.patience[i]),
            }
        )
        for i, c in enumerate(scenario.classes)
    )
    return scenario.replace(classes=classes)


def _over(numerator: Array, denominator: Array, otherwise: Array) -> Array:
    there = denominator > 0.0
    return np.where(there, numerator / np.where(there, denominator, 1.0), otherwise)
