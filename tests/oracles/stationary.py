"""Stationary distribution of a `Network`, and every mean that follows from it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from numpy.typing import NDArray

from .network import EVENTS, Network, State

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Stationary:
    """Means in steady state. Arrays have one entry a class; occupancies and rates are per GPU.

    Attributes:
        prefill, mixed_decode, solo_decode, prefill_queue, decode_queue: mean occupancies X, Y_m, Y_s, Q_p,
        Q_d over n.
        arrival_rate: accepted arrivals.
        lost_rate: requests lost to the truncation, before prefill and before decode together.
        ttft: mean time from arrival to prefill completion, by Little's law; NaN where requests abandon
            (the queue then holds requests that never complete, and Little's law does not tell them apart).
        time_in_buffer: mean time in the decode buffer of all that finish prefill, whether served or not (0
        for most).
        decode_time: mean service time of a decode, s.
        revenue_bundled, revenue_separate: money per GPU per second; NaN without prices.
        truncation: probability that a queue or buffer is at its limit.
        states: number of states; seconds: time to build and solve.
        residual: largest |pi Q| over largest rate.
    """

    prefill: Array
    mixed_decode: Array
    solo_decode: Array
    prefill_queue: Array
    decode_queue: Array
    arrival_rate: Array
    lost_rate: Array
    prefill_completion_rate: Array
    completion_rate: Array
    prefill_abandonment_rate: Array
    decode_abandonment_rate: Array
    ttft: Array
    time_in_buffer: Array
    decode_time: Array
    revenue_bundled: float
    revenue_separate: float
    truncation: float
    states: int
    seconds: float
    residual: float
    distribution: dict[State, float]


def solve(
    network: Network,
    prompt_value: Sequence[float] | None = None,
    output_value: Sequence[float] | None = None,
    max_states: int = 300_000,
) -> Stationary:
    """Build the generator breadth first from the empty network, solve `pi Q = 0` and take means.

    Args:
        network: the system.
        prompt_value: c_p P of each class.
        output_value: c_d D of each class.
        max_states: give up beyond.
    """
    began = time.perf_counter()
    classes = len(network.arrival)
    states = [network.empty()]
    index = {states[0]: 0}
    rows: list[int] = []
    cols: list[int] = []
    rates: list[float] = []
    event_state: list[int] = []
    event_kind: list[int] = []
    event_rate: list[float] = []
    number = {(name, i): k * classes + i for k, name in enumerate(EVENTS) for i in range(classes)}
    at = 0
    while at < len(states):
        for rate, after, events in network.transitions(states[at]):
            to = index.get(after)
            if to is None:
                to = index[after] = len(states)
                states.append(after)
            if to != at:
                rows.append(at)
                cols.append(to)
                rates.append(rate)
            for event in events:
                event_state.append(at)
                event_kind.append(number[event])
                event_rate.append(rate)
        at += 1
        if len(states) > max_states:
            raise MemoryError(f"more than {max_states} states")

    size = len(states)
    off = sp.coo_matrix((rates, (rows, cols)), shape=(size, size)).tocsr()
    generator = (off - sp.diags(np.asarray(off.sum(axis=1)).ravel())).tocsr()
    pi = stationary_vector(generator)
    residual = float(np.abs(generator.T @ pi).max() / np.abs(generator.diagonal()).max())

    occupancy = np.zeros((5, classes))
    truncation = 0.0
    for state, p in zip(states, pi, strict=True):
        for gpu in state.gpus:
            if gpu.prefill >= 0:
                occupancy[0, gpu.prefill] += p
            for i, count in enumerate(gpu.decodes):
                occupancy[1 if gpu.prefill >= 0 else 2, i] += p * count
        for i, count in enumerate(state.pool):
            occupancy[2, i] += p * count
        for i in state.waiting:
            occupancy[3, i] += p
        for buffer in state.buffers:
            for i in buffer:
                occupancy[4, i] += p
        buffered = sum(map(len, state.buffers))
        # A coupled policy has no buffer: a limit of 0 is then no truncation.
        if len(state.waiting) >= network.queue_limit or (buffered and buffered >= network.buffer_limit):
            truncation += p
    occupancy /= network.gpus

    happen = np.zeros(len(EVENTS) * classes)
    np.add.at(happen, event_kind, pi[event_state] * np.asarray(event_rate))
    rate_of = dict(zip(EVENTS, happen.reshape(len(EVENTS), classes) / network.gpus, strict=True))

    prefills, decodes = rate_of["prefill_done"], rate_of["decode_done"]
    with np.errstate(divide="ignore", invalid="ignore"):
        ttft = np.where(np.asarray(network.patience) == 0, (occupancy[3] + occupancy[0]) / rate_of["arrival"], np.nan)
        time_in_buffer = occupancy[4] / prefills
        decode_time = (occupancy[1] + occupancy[2]) / decodes
    prompt = np.asarray(prompt_value if prompt_value is not None else [np.nan] * classes)
    output = np.asarray(output_value if output_value is not None else [np.nan] * classes)
    return Stationary(
        *occupancy,
        arrival_rate=rate_of["arrival"],
        lost_rate=rate_of["arrival_lost"] + rate_of["decode_lost"],
        prefill_completion_rate=prefills,
        completion_rate=decodes,
        prefill_abandonment_rate=rate_of["prefill_abandoned"],
        decode_abandonment_rate=rate_of["decode_abandoned"],
        ttft=ttft,
        time_in_buffer=time_in_buffer,
        decode_time=decode_time,
        revenue_bundled=float((prompt + output) @ decodes),
        revenue_separate=float(prompt @ prefills + output @ decodes),
        truncation=truncation,
        states=size,
        seconds=time.perf_counter() - began,
        residual=residual,
        distribution=dict(zip(states, pi.tolist(), strict=True)),
    )


def stationary_vector(generator: sp.csr_matrix, direct_up_to: int = 3000) -> Array:
    """`pi Q = 0`, `sum pi = 1`: by sparse LU when the system is small, else by Gauss-Seidel; the residual is
    checked."""
    size = generator.shape[0]
    if size == 1:
        return np.ones(1)
    transposed = generator.T.tocsc()
    pi = _by_elimination(transposed) if size <= direct_up_to else _by_sweeps(transposed)
    if pi.min() < -1e-12 * pi.max():
        raise ArithmeticError("negative probabilities")
    pi = np.maximum(pi, 0.0)
    pi /= pi.sum()
    residual = np.abs(transposed @ pi).max() / np.abs(generator.diagonal()).max()
    if residual > 1e-12:
        raise ArithmeticError(f"stationary equations violated by {residual:.1e}")
    return pi


def _by_elimination(transposed: sp.csc_matrix) -> Array:
    """The first state's probability fixed at 1, the others by LU (Q' without it is a nonsingular M-matrix),
    refined."""
    inner = transposed[1:, 1:]
    source = -np.asarray(transposed[1:, [0]].todense()).ravel()
    factors = spla.splu(inner, permc_spec="COLAMD")
    rest = factors.solve(source)
    for _ in range(3):
        rest = rest + factors.solve(source - inner @ rest)
    return np.concatenate(([1.0], rest))


def _by_sweeps(transposed: sp.csc_matrix, max_sweeps: int = 20_000) -> Array:
    """Gauss-Seidel: `(D + L) pi_new = -U pi_old`, until a sweep changes no more than rounding does."""
    lower = sp.tril(transposed, format="csc")
    upper = sp.triu(transposed, k=1, format="csr")
    factors = spla.splu(lower, permc_spec="NATURAL", diag_pivot_thresh=0.0)  # triangular: no fill, no work
    pi = np.full(transposed.shape[0], 1.0 / transposed.shape[0])
    for sweep in range(max_sweeps):
        new = factors.solve(-(upper @ pi))
        new /= new.sum()
        change = np.abs(new - pi).sum()
        pi = new
        if change < 1e-15 or (change < 1e-13 and sweep > 2000):
            return pi
    raise ArithmeticError("Gauss-Seidel did not converge")
