"""Which rank of an emulated engine a request goes to: vLLM's own rule, compiled once for the simulator too."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fluidgate.compiled import by_reference, kept
from fluidgate.policies.decisions.placement import last_publication, least_waiting, new_ranks, publication_due, show

SEND = -1


class Balancer:
    """Which rank a request goes to: by what the ranks had reported when that was last published, and what was sent
    since."""

    def __init__(self, ranks: int) -> None:
        self._told = [(0, 0)] * ranks
        self._ranks = new_ranks(ranks, ranks)
        self._state = by_reference(self._ranks)

    def report(self, now: float, waiting_and_running: Sequence[tuple[int, int]]) -> None:
        """An iteration has ended."""
        self._publish(now)
        self._told = list(waiting_and_running)

    def send(self, now: float) -> int:
        """The rank of a request that comes now."""
        self._publish(now)
        return int(ask(self._state, SEND, 0, 0, now))

    def _publish(self, now: float) -> None:
        if ask(self._state, 0, *self._told[0], now):
            for rank, (waiting, running) in enumerate(self._told):
                ask(self._state, rank, waiting, running, math.inf)


def ask_kernel(ranks, rank, waiting, running, now):
    """The counts of a rank as published; or, at an epoch, whether it is time for the first of them; or where to."""
    if rank < 0:
        return least_waiting(ranks, 0)
    if now < math.inf:
        if not publication_due(ranks, 0, now):
            return 0
        ranks.published[0] = last_publication(now)
        return 1
    show(ranks, rank, waiting, running)
    return 1


ask = kept(ask_kernel, "the balancer of ranks in step", seconds=2)
