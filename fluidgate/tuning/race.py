"""A race: candidates meet the same arrivals, and those that fall behind meet no more of them.

Each round gives more replications to those still in. A candidate leaves when the paired differences to the best one
say, at the stated confidence for all candidates together, that it earns less (racing: Maron and Moore, "Hoeffding
races", 1994, here with Student's t); and the worse half leaves in any case (successive halving: Jamieson and Talwalkar,
AISTATS 2016). The second rule may err, so a race ends with a proposal; the confidence comes from fresh seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

FIRST = 4
"""Least replications that a round adds."""
CONFIDENCE = 0.95

Score = Callable[[Sequence[int], int], None]
"""`score(candidates, replications)` makes `values` of these candidates as long as `replications`."""


def race(candidates: Sequence[int], values: list[list[float]], score: Score, reference: int, allowance: int) -> int:
    """The candidate that is left; all take part in the first round, and `reference` in each.

    Args:
        candidates: numbers of candidates; the earlier wins a tie.
        values: objective of each candidate by replication, grown by `score`.
        score: see `Score`.
        reference: a candidate that is measured in each round, so that all can be compared with it.
        allowance: replications of all candidates together, shared evenly among the rounds; those that leave early
            leave theirs to the others. Each round has at least FIRST for each candidate.
    """
    still, met, left = list(candidates), 0, allowance
    while len(still) > 1:
        rounds = math.ceil(math.log2(len(still)))
        more = max(FIRST, left // rounds // (len(still) + 1))
        met += more
        left -= more * (len(still) + 1)
        score(sorted({*still, reference}), met)
        ranked = sorted(still, key=lambda c: -float(np.mean(values[c][:met])))
        best, *others = ranked[: (len(ranked) + 1) // 2]
        still = [best, *(c for c in others if not behind(values[c], values[best], met, len(candidates) - 1))]
    return still[0]


def behind(candidate: Sequence[float], best: Sequence[float], replications: int, comparisons: int) -> bool:
    """Whether a candidate earns less than the best, one-sided, shared among all comparisons (Bonferroni)."""
    from scipy.special import stdtrit

    difference = np.array(candidate[:replications]) - np.array(best[:replications])
    spread = float(difference.std(ddof=1)) / math.sqrt(replications)
    quantile = float(stdtrit(replications - 1, 1.0 - (1.0 - CONFIDENCE) / max(1, comparisons)))
    return float(difference.mean()) + quantile * spread < 0.0
