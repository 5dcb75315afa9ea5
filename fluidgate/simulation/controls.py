"""Precise estimates of the revenue rate: control variates from the martingales of the network.

Every count of the Markov network has a rate that is known from the state, so that in each batch of a run (a part of its
window) the following have mean zero, class by class:

- arrivals less `n lambda T`;
- prefills ended less `mu_p` times the time integral of `X`;
- decodes ended less the integral of `mu_m Y_m + mu_s Y_s`;
- abandonments of the prefill queue, and of the decode buffer, less `theta` times the integral of those who wait;
- in steady state, the changes of `Q_p`, `X`, `Q_d` and `Y_m + Y_s` over the batch.

The first five are martingales. They stay so under every policy, since decisions look at the past only, and whatever the
warm-up. Gamma arrivals are no martingale, but their count has that mean once the first gaps are forgotten.

The base of the estimate is the revenue of all who arrive less that of all who are bound to leave,
`v (n lambda T - theta integral of those who wait)`: balances make it the revenue earned, but for controls. A regression
on the controls then finds the linear estimator of least variance. Two precautions keep it honest:

- Coefficients for the batches of one fold come from the other folds (Nelson, Operations Research 38(6), 1990). As
  batches are all but independent and controls have mean zero, the estimate is then unbiased, for any law.
- The variance of a martingale is the mean of its rate's integral. Where its events are so rare that the sample can't
  tell, that is used: otherwise the regression would learn from their absence that they never happen.

Source of the method: Lavenberg and Welch, Management Science 27(3), 1981.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fluidgate.errors import FluidgateError
from fluidgate.model import Array, Scenario
from fluidgate.planning import service_rates
from fluidgate.policies.decisions.stages import (
    MIXED_DECODE,
    MIXED_QUEUE,
    PREFILL,
    PREFILL_QUEUE,
    SOLO_DECODE,
    SOLO_QUEUE,
)
from fluidgate.simulation.events import (
    ARRIVAL,
    DECODE_ABANDONMENT,
    DECODE_END,
    DECODE_START,
    PREFILL_ABANDONMENT,
    PREFILL_END,
    PREFILL_START,
)
from fluidgate.simulation.markov.replication import Measurement

FOLDS = 20
BATCHES_PER_CONTROL = 3
"""With fewer batches than this for each control, the classes are taken together."""
LEAST_BATCHES = 20
GROUPS = 40
"""The interval comes from so many groups of successive batches, which are correlated less than the batches."""
RARE = 100.0
"""Events expected in all batches together under which a variance is taken from their rate."""
DEPENDENT = 1e-9
"""Controls whose variance given the others is below this share of their own are linear combinations of them."""


@dataclass(frozen=True)
class ControlledRevenue:
    """The revenue rate per GPU and second, by control variates.

    Attributes:
        mean: estimate.
        half_width: of its 95 % confidence interval (Student t over groups of batches).
        plain_mean, plain_half_width: the same from the money earned alone, without controls.
        variance_reduction: ratio of the two variances; so many times the events would give the plain estimate the
            same precision.
        batches: batches used.
        controls: controls used.
    """

    mean: float
    half_width: float
    plain_mean: float
    plain_half_width: float
    batches: int
    controls: int

    @property
    def variance_reduction(self) -> float:
        return (self.plain_half_width / self.half_width) ** 2


def controlled_revenue(scenario: Scenario, measurements: list[Measurement], gpus: int) -> ControlledRevenue:
    """Estimate the revenue rate from all batches of all measurements, taken as independent.

    A batch should last a decode or more, or the coefficients are not the best; and a fortieth of all batches should be
    long against the time that the network takes to forget its state, or the interval is too narrow.

    Args:
        scenario: what was simulated, its load shared by `gpus`.
        measurements: replications, each cut into the same number of batches (`Job.batches`), or one batch each.
        gpus: n.

    Raises:
        FluidgateError: there are fewer than 20 batches in all, or batches of different lengths.
    """
    occupancy, events, seconds = _batches(measurements)
    count = len(occupancy)
    rates = scenario.rates
    prompt_value, decode_value = rates.prompt_value, rates.output_value
    if scenario.pricing.scheme == "bundled":
        prompt_value, decode_value = np.zeros_like(prompt_value), rates.bundled_value

    money = events[:, PREFILL_END] @ prompt_value + events[:, DECODE_END] @ decode_value
    arrivals = rates.arrival * gpus * seconds
    bound_to_leave = rates.patience * seconds * occupancy[:, PREFILL_QUEUE]
    bound_to_leave_decode = rates.patience * seconds * (occupancy[:, MIXED_QUEUE] + occupancy[:, SOLO_QUEUE])
    prefilled = arrivals - bound_to_leave
    base = prefilled @ prompt_value + (prefilled - bound_to_leave_decode) @ decode_value
    controls, variances = _controls(scenario, occupancy, events, seconds, gpus)
    if count < BATCHES_PER_CONTROL * controls.shape[1]:
        controls, variances = _together(controls, variances, prompt_value + decode_value)

    scale = gpus * seconds
    controlled = _without_controls(base, controls, variances) / scale
    # Not one request lost in N says no more than that at most 3 of them are, at 95 %.
    resolution = 3.0 * float((prompt_value + decode_value).max()) / (scale * count)
    return ControlledRevenue(
        mean=float(controlled.mean()),
        half_width=max(_half_width(controlled), resolution),
        plain_mean=float(money.mean() / scale),
        plain_half_width=_half_width(money / scale),
        batches=count,
        controls=controls.shape[1],
    )


def _batches(measurements: list[Measurement]) -> tuple[Array, Array, float]:
    """Occupancies and events of all batches, shapes (batches, 6 or 7, classes), and the seconds of one."""
    parts = [m.batches if m.batches is not None else (m.occupancy[None], m.events[None]) for m in measurements]
    lengths = {m.window / len(part[0]) for m, part in zip(measurements, parts, strict=True)}
    count = sum(len(part[0]) for part in parts)
    if count < LEAST_BATCHES:
        raise FluidgateError(f"batches: must be at least {LEAST_BATCHES} in all, but are {count}; cut the window finer")
    if len(lengths) > 1:
        raise FluidgateError("batches: must be of one length, but differ; give measurements of the same run")
    occupancy = np.concatenate([part[0] for part in parts])
    events = np.concatenate([part[1] for part in parts]).astype(np.float64)
    return occupancy, events, lengths.pop()


def _controls(scenario: Scenario, occupancy: Array, events: Array, seconds: float, gpus: int) -> tuple[Array, Array]:
    """Controls of each batch, shape (batches, 9 * classes), and the variance of each if its events are rare, else 0.

    The columns are the five martingales and the four changes in the order of the head of this file, each by class.
    """
    rates = service_rates(scenario)
    integral = occupancy * seconds
    expected = {
        ARRIVAL: np.broadcast_to(rates.arrival * gpus * seconds, events[:, ARRIVAL].shape),
        PREFILL_END: rates.prefill * integral[:, PREFILL],
        DECODE_END: rates.mixed_decode * integral[:, MIXED_DECODE] + rates.solo_decode * integral[:, SOLO_DECODE],
        PREFILL_ABANDONMENT: rates.patience * integral[:, PREFILL_QUEUE],
        DECODE_ABANDONMENT: rates.patience * (integral[:, MIXED_QUEUE] + integral[:, SOLO_QUEUE]),
    }
    martingales = [events[:, event] - mean for event, mean in expected.items()]
    changes = [
        events[:, ARRIVAL] - events[:, PREFILL_ABANDONMENT] - events[:, PREFILL_START],
        events[:, PREFILL_START] - events[:, PREFILL_END],
        events[:, PREFILL_END] - events[:, DECODE_ABANDONMENT] - events[:, DECODE_START],
        events[:, DECODE_START] - events[:, DECODE_END],
    ]
    table = np.concatenate([*martingales, *changes], axis=1)
    variance = np.zeros(table.shape[1])
    implied = np.concatenate([mean.mean(axis=0) for mean in expected.values()])
    variance[: len(implied)] = np.where(implied * len(events) < RARE, implied, 0.0)
    return table, variance


def _together(controls: Array, variances: Array, value: Array) -> tuple[Array, Array]:
    """Four controls in the place of 9 for each class: arrivals, ends of decodes, abandonments, and the change of all.

    Each is the sum over the classes with the values of their requests.
    """
    by_kind = controls.reshape(len(controls), 9, len(value)) @ value
    variance = variances.reshape(9, len(value)) @ value**2
    kinds = ([0], [2], [3, 4], [5, 6, 7, 8])
    return (
        np.stack([by_kind[:, kind].sum(axis=1) for kind in kinds], axis=1),
        np.array([variance[kind].sum() for kind in kinds]),
    )


def _without_controls(base: Array, controls: Array, variances: Array) -> Array:
    """`base` less its regression on the controls, the coefficients of each fold from the others; shape (batches,)."""
    result = np.empty_like(base)
    for fold in np.array_split(np.arange(len(base)), min(FOLDS, len(base))):
        others = np.delete(np.arange(len(base)), fold)
        result[fold] = base[fold] - controls[fold] @ _coefficients(base[others], controls[others], variances)
    return result


def _coefficients(base: Array, controls: Array, variances: Array) -> Array:
    """Coefficients of least variance of `base - controls @ coefficients`; 0 for controls that never move."""
    centred = controls - controls.mean(axis=0)
    covariance = centred.T @ centred / (len(base) - 1)
    with_base = centred.T @ (base - base.mean()) / (len(base) - 1)
    np.fill_diagonal(covariance, np.maximum(np.diag(covariance), variances))
    spread = np.sqrt(np.diag(covariance))
    moves = np.flatnonzero(spread > 0)
    found = np.zeros(controls.shape[1])
    correlation = covariance[np.ix_(moves, moves)] / np.outer(spread[moves], spread[moves])
    found[moves] = np.linalg.pinv(correlation, rcond=DEPENDENT, hermitian=True) @ (with_base[moves] / spread[moves])
    found[moves] /= spread[moves]
    return found


def _half_width(values: Array) -> float:
    """Half of the 95 % confidence interval of the mean of the values of successive batches."""
    from scipy.special import stdtrit

    size = max(1, len(values) // GROUPS)
    groups = values[: len(values) // size * size].reshape(-1, size).mean(axis=1)
    return float(stdtrit(len(groups) - 1, 0.975)) * float(groups.std(ddof=1)) / math.sqrt(len(groups))
