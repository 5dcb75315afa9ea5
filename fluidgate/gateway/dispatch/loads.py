"""What lies on the engines, for a rule of placement: the rules are those of the simulator, compiled once for both."""

from __future__ import annotations

from numpy.random import SeedSequence

from fluidgate.compiled import by_reference, kept
from fluidgate.compiled.random import stream
from fluidgate.policies.decisions.placement import change_load, new_loads, place, set_up
from fluidgate.policies.decisions.tables import Placement

PLACE = 0
CHANGE = 1
SET_UP = 2


class EngineLoads:
    """Requests and unread prompt tokens by engine, of which those that are up take more."""

    def __init__(self, rule: str, engines: int, seed: int) -> None:
        """No engine is up."""
        self._loads = new_loads(Placement.named(rule), engines, stream(SeedSequence(seed)))
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
        ask(self._state, SET_UP, g, int(up), 0)

    def change(self, g: int, requests: int, tokens: int) -> None:
        """So many more requests and unread prompt tokens are on engine `g`."""
        ask(self._state, CHANGE, g, requests, tokens)

    def place(self, prompt: int) -> int:
        """The engine that a request of `prompt` tokens goes to; one is up."""
        return int(ask(self._state, PLACE, 0, 0, prompt))


def ask_kernel(loads, what, g, number, tokens):
    if what == PLACE:
        return place(loads, tokens)
    if what == CHANGE:
        change_load(loads, g, number, tokens)
    else:
        set_up(loads, g, number)
    return g


ask = kept(ask_kernel, "the rules of placement", seconds=2)
