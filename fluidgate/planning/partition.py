"""The split of a cluster into a mixed and a solo group."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fluidgate.errors import FluidgateError
from fluidgate.shown import Brief


@dataclass(frozen=True, repr=False)
class Partition(Brief):
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


MOST_GPUS = 2**31 - 1


def check_gpus(gpus: int, option: str = "--gpus") -> None:
    """Refuse a number of GPUs that no cluster has.

    Raises:
        FluidgateError: it is below 1 or above 2^31 - 1.
    """
    if not 1 <= gpus <= MOST_GPUS:
        shown = str(gpus) if abs(gpus) < 10**12 else "beyond it"
        least_and_most = f"must be at least 1 and at most {MOST_GPUS}"
        raise FluidgateError(f"{option}: {least_and_most}, but is {shown}; give another number")


def check_ranks(gpus: int, ranks: int) -> None:
    """Refuse GPUs that are no whole number of groups of so many ranks in step.

    Raises:
        FluidgateError: naming the key and the mend.
    """
    if gpus % ranks != 0:
        raise FluidgateError(
            f"engine.data_parallel: {gpus} GPUs are no whole number of groups of {ranks} ranks; "
            f"give a multiple of {ranks} as --gpus, or another number of ranks"
        )


def ceil_tolerant(value: float) -> int:
    """The least integer not below `value`, where 107.0000000001 counts as 107."""
    return max(0, math.ceil(value - 1e-9 * max(1.0, value)))


def partition(mixed_fraction: float, gpus: int, ranks: int = 1) -> Partition:
    """`M = ceil(n sum x)` mixed GPUs (107.0000000001 counts as 107), at most `gpus`; the others solo.

    Args:
        mixed_fraction: the plan's `sum x`, in 0..1.
        gpus: GPUs of the cluster.
        ranks: GPUs that step together: a prefill on one of them slows all, so each group is mixed or solo as a whole.

    Raises:
        ValueError: `gpus` is less than 1.
        FluidgateError: they are no whole number of groups.
    """
    if gpus < 1:
        raise ValueError(f"gpus must be >= 1 (it is {gpus})")
    prefills = gpus * mixed_fraction
    check_ranks(gpus, ranks)
    mixed = min(gpus, ranks * ceil_tolerant(prefills / ranks))
    utilisation = min(1.0, prefills / mixed) if mixed else 0.0
    return Partition(gpus, mixed, gpus - mixed, utilisation)
