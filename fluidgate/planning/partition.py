"""The split of a cluster into a mixed and a solo group."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Partition:
    """Groups of a cluster, static planning of [LDHZ] section 4.

    Attributes:
        gpus: GPUs of the cluster, n.
        mixed: GPUs that keep a slot for prefill, M.
        solo: GPUs that only decode, n - M.
        prefill_utilisation: share of the mixed group's prefill slots that the plan fills, `n sum x / M`.
    """

    gpus: int
    mixed: int
    solo: int
    prefill_utilisation: float


def ceil_tolerant(value: float) -> int:
    """The least integer not below `value`, where 107.0000000001 counts as 107."""
    return max(0, math.ceil(value - 1e-9 * max(1.0, value)))


def partition(mixed_fraction: float, gpus: int) -> Partition:
    """`M = ceil(n sum x)` mixed GPUs (107.0000000001 counts as 107), at most `gpus`; the others solo.

    Args:
        mixed_fraction: the plan's `sum x`, in 0..1.
        gpus: GPUs of the cluster.

    Raises:
        ValueError: `gpus` is less than 1.
    """
    if gpus < 1:
        raise ValueError(f"gpus must be >= 1 (it is {gpus})")
    prefills = gpus * mixed_fraction
    mixed = min(gpus, ceil_tolerant(prefills))
    utilisation = min(1.0, prefills / mixed) if mixed else 0.0
    return Partition(gpus, mixed, gpus - mixed, utilisation)
