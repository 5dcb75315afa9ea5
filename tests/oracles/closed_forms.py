"""Textbook stations: M/M/c (Erlang B and C), M/M/c+M (Erlang A), M/G/1 (Pollaczek-Khinchine) and GI/M/c (Takacs)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq


@dataclass(frozen=True)
class Station:
    """Stationary means of a station with one queue.

    Attributes:
        queue: mean number waiting.
        busy: mean number of busy servers.
        throughput: completions per second.
        abandonment_rate: requests per second that leave unserved.
        wait_probability: probability that an arrival finds every server busy.
        wait: mean wait in queue of those served.
        full: probability that exactly `c` or more are present (equal to `wait_probability` by PASTA).
    """

    queue: float
    busy: float
    throughput: float
    abandonment_rate: float
    wait_probability: float
    wait: float

    @property
    def full(self) -> float:
        return self.wait_probability


def erlang_b(load: float, servers: int) -> float:
    """Blocking probability of M/M/c/c, by the stable recursion `1/B(c) = 1 + c/(a B(c-1))`."""
    inverse = 1.0
    for c in range(1, servers + 1):
        inverse = 1.0 + inverse * c / load
    return 1.0 / inverse


def erlang_c(load: float, servers: int) -> float:
    """Probability of waiting in M/M/c; `load = lambda/mu < c`."""
    if load >= servers:
        raise ValueError("unstable: load must be under the number of servers")
    blocked = erlang_b(load, servers)
    return servers * blocked / (servers - load * (1.0 - blocked))


def mmc(arrival: float, service: float, servers: int) -> Station:
    """M/M/c, FCFS."""
    load = arrival / service
    waits = erlang_c(load, servers)
    queue = waits * load / (servers - load)
    return Station(queue, load, arrival, 0.0, waits, queue / arrival)


def erlang_a(arrival: float, service: float, servers: int, patience: float) -> Station:
    """M/M/c+M, FCFS: exponential patience at rate `patience` while waiting (0 gives M/M/c).

    Probabilities by the birth-death recursion, in both directions from state `c`, where the weight is 1;
    upwards the ratio `lambda/(c mu + k theta)` decreases, and the sum is cut where a geometric bound of the
    rest is under 1e-18 of the largest term.
    """
    if patience == 0:
        return mmc(arrival, service, servers)
    below = np.empty(servers + 1)  # weights of 0..c
    below[servers] = 1.0
    for k in range(servers, 0, -1):
        below[k - 1] = below[k] * k * service / arrival
    above, peak = [1.0], 1.0  # weights of c, c+1, ...
    while True:
        ratio = arrival / (servers * service + len(above) * patience)
        if ratio < 1 and above[-1] * ratio / (1 - ratio) < 1e-18 * peak:
            break
        above.append(above[-1] * ratio)
        peak = max(peak, above[-1])
        if peak > 1e280:
            raise OverflowError("the weights need scaling")
    up = np.array(above)
    scale = max(below.max(), up.max())
    below, up = below / scale, up / scale
    total = below.sum() + up[1:].sum()
    waiting = np.arange(len(up))
    queue = float(up @ waiting / total)
    busy = float((below @ np.arange(servers + 1) + servers * up[1:].sum()) / total)
    full = float(up.sum() / total)
    # An arrival that finds k waiting and all servers busy is served with probability c mu/(c mu + (k+1)
    # theta). Its time V to reach a server, if it does not leave, is a sum of exponentials of rates c mu + j
    # theta, j = 0..k, so E[V exp(-theta V)] = c mu/(c mu + (k+1) theta) * sum_j 1/(c mu + (j+1) theta).
    drain = servers * service + (waiting + 1) * patience
    served = servers * service / drain
    wait_and_served = float(up @ (served * np.cumsum(1.0 / drain)) / total)
    throughput = service * busy
    return Station(queue, busy, throughput, patience * queue, full, wait_and_served * arrival / throughput)


def mg1_queue(arrival: float, mean: float, second_moment: float) -> float:
    """Mean number waiting in M/G/1, FCFS (Pollaczek-Khinchine)."""
    return arrival**2 * second_moment / (2.0 * (1.0 - arrival * mean))


def gamma_transform(rate: float, cv: float) -> Callable[[float], float]:
    """Laplace transform of Gamma gaps with mean `1/rate` and the given CV."""
    shape = 1.0 / cv**2
    return lambda s: (1.0 + s / (shape * rate)) ** -shape


def gimc_wait(transform: Callable[[float], float], service: float, servers: int) -> tuple[float, float]:
    """Probability of waiting and mean wait in GI/M/c, FCFS, from the transform of the gaps.

    L. Takacs, Introduction to the Theory of Queues (1962), chapter 2: arrivals find `k >= c` in the system with
    probability `A w^(k-c)`, `w` the root in (0, 1) of `w = transform(c mu (1 - w))`.
    """
    root = float(brentq(lambda w: w - transform(servers * service * (1.0 - w)), 0.0, 1.0 - 1e-9))
    total, product = 1.0 / (1.0 - root), 1.0
    for j in range(1, servers + 1):
        phi = transform(j * service)
        product *= phi / (1.0 - phi)
        ratio = (servers * (1.0 - phi) - j) / (servers * (1.0 - root) - j)
        total += math.comb(servers, j) / (product * (1.0 - phi)) * ratio
    waits = 1.0 / (total * (1.0 - root))
    return waits, waits / (servers * service * (1.0 - root))
