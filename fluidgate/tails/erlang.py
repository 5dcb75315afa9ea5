"""Queues with many servers in closed form, for numbers of servers that need not be whole.

Sources: A. A. Fredericks, Congestion in blocking systems - a simple approximation technique, Bell System Technical
Journal 59(6), 1980 (Hayward); A. Allen, Probability, Statistics, and Queueing Theory, 1990 (the mean wait); A. Cobham,
Priority assignment in waiting line problems, Operations Research 2(1), 1954.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import gammaincc, gammaln

from fluidgate.model import Array


def erlang_b(servers: float, offered: float) -> float:
    """Share of the arrivals that find all servers taken where nobody waits, `a^n/n! / sum a^k/k!`.

    Args:
        servers: n, at least 0; between whole numbers by the incomplete gamma function.
        offered: a, Erlangs.
    """
    if offered <= 0.0:
        return 0.0 if servers > 0.0 else 1.0
    tail = float(gammaincc(servers + 1.0, offered))
    if tail <= 1e-280:  # far more offered than there are servers
        return max(1.0 - servers / offered, 0.0)
    return min(math.exp(servers * math.log(offered) - offered - float(gammaln(servers + 1.0))) / tail, 1.0)


def erlang_c(servers: float, offered: float, peakedness: float = 1.0) -> float:
    """Share of the arrivals that must wait, M/M/n; `peakedness` z of arrivals that are not Poisson (Hayward).

    1 where as much is offered as there are servers, or more.
    """
    n, a = servers / peakedness, offered / peakedness
    if a >= n:
        return 1.0
    blocked = erlang_b(n, a)
    return blocked / (1.0 - a / n * (1.0 - blocked))


def peakedness(arrival_square: float) -> float:
    """z of arrivals from the squared CV of the gaps between them."""
    return max(1.0 + (arrival_square - 1.0) / 2.0, 0.05)


def mean_wait(servers: float, service: float, load: float, squares: float) -> float:
    """Mean wait of those who wait, s: `service (c_a^2 + c_s^2) / (2 n (1 - rho))`; inf at a load of 1 or more.

    Args:
        servers: n.
        service: mean, s.
        load: rho of each server.
        squares: `c_a^2 + c_s^2`.
    """
    return service * squares / (2.0 * servers * (1.0 - load)) if load < 1.0 else math.inf


def by_priority(load: Array, order: Array) -> Array:
    """Mean wait of each class over that of all were they served first come, first served; no service is broken off.

    Args:
        load: rho of each class.
        order: larger first; classes of the same order are served as they come.
    """
    total, found = float(load.sum()), np.ones(len(load))
    for i in range(len(load)):
        above = float(load[order > order[i]].sum())
        with_it = float(load[order >= order[i]].sum())
        found[i] = (1.0 - total) / ((1.0 - above) * (1.0 - with_it)) if with_it < 1.0 else math.inf
    return found
