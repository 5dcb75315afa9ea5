"""What lies on the engines, for a rule of placement: the rules are those of the simulator, compiled once for both."""

from __future__ import annotations

from numpy.random import SeedSequence

from fluidgate.compiled import by_reference, kept
from fluidgate.compiled.random import stream
from fluidgate.policies.decisions.placement import (
    NOTHING_SAID,
    Criteria,
    Reuse,
    change_load,
    new_loads,
    place,
    set_up,
    show_queue,
)
from fluidgate.policies.decisions.tables import Placement

PLACE = 0
CHANGE = 1
SET_UP = 2
SHOW_QUEUE = 3


class EngineLoads:
    """Requests and unread prompt tokens by engine, of which those that are up take more."""

    def __init__(self, rule: str, engines: int, seed: int, criteria: Criteria = NOTHING_SAID) -> None:
        """No engine is up."""
        self._loads = new_loads(Placement.named(rule), engines, stream(SeedSequence(seed)), criteria)
        self._state = by_reference(self._loads)
        for g in range(engines):
            self.set_up(g, False)

    @property
    def any_up(self) -> bool:
        return bool(self._loads.ups[0])

    def is_up(self, g: int) -> bool:
        return bool(self._loads.up[g])

    def unread(self, g: int) -> int:
        """Prompt tokens on engine `g` that are not read yet."""
        return int(self._loads.unread[g])

    def set_up(self, g: int, up: bool) -> None:
        ask(self._state, SET_UP, g, int(up), 0, 0.0)

    def change(self, g: int, requests: int, tokens: int) -> None:
        """So many more requests and unread prompt tokens are on engine `g`."""
        ask(self._state, CHANGE, g, requests, tokens, 0.0)

    def show_queue(self, g: int, waiting: int, used: float) -> None:
        """Engine `g` says that so many of its requests wait, and what part of its KV memory is taken."""
        ask(self._state, SHOW_QUEUE, g, waiting, 0, used)

    def place(self, prompt: int, reuse: Reuse | None = None) -> int:
        """The engine that a request of `prompt` tokens goes to; one is up.

        Args:
            reuse: where the prompt's beginning is; None for nowhere.
        """
        known = self._loads.reuse
        known.count[0] = 0 if reuse is None else reuse.count[0]
        if reuse is not None:
            known.gpu[:], known.tokens[:] = reuse.gpu, reuse.tokens
        return int(ask(self._state, PLACE, 0, 0, prompt, 0.0))


def ask_kernel(loads, what, g, number, tokens, used):
    if what == PLACE:
        return place(loads, tokens, loads.reuse)
    if what == CHANGE:
        change_load(loads, g, number, tokens)
    elif what == SHOW_QUEUE:
        show_queue(loads, g, number, used)
    else:
        set_up(loads, g, number)
    return g


ask = kept(ask_kernel, "the rules of placement", seconds=2)
