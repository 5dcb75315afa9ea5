"""One engine behind the gateway."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from fluidgate.gateway.cluster.health import Health
from fluidgate.gateway.engines import Adapter, EngineUnreachable, Facts, Load, Role

FROM_FILE = "file"
"""Origin of the engines that the gateway file lists."""


REASONS = ("refused", "failures", "late", "replaced")
"""Why an engine may go down: see `Monitor`."""


@dataclass(eq=False)
class Engine:
    """What the gateway knows of an engine.

    Attributes:
        place: its index in all that is kept by engine.
        adapter: speaks to it.
        origin: who said that it is there: the gateway file, a watched file, the admin API, ...
        facts: what it said of itself; None if that must be asked anew.
        load: what it said of its load at the last look that it answered; None while it is down.
        answers: whether it answers, and is what it should be.
        cordoned: it takes nothing new, by an operator's will; `leaving`, it is removed once it holds nothing.
        why: why it does not answer, "" if it does.
        downs: how often it went down, by one of `REASONS`.
        since: epoch of the last change, s.
        life: how often it has come up: KV of an earlier life is lost.
        handovers: prompts read here whose KV waits to be fetched.
        health: what became of its requests.
    """

    place: int
    adapter: Adapter
    origin: str = FROM_FILE
    facts: Facts | None = None
    load: Load | None = None
    answers: bool = False
    cordoned: bool = False
    leaving: bool = False
    why: str = "not looked at yet"
    downs: dict[str, int] = field(default_factory=dict)
    since: float = -math.inf
    life: int = 0
    handovers: int = 0
    health: Health = field(default_factory=Health)
    _unanswered: dict[Callable[[EngineUnreachable], None], None] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.adapter.url

    @property
    def up(self) -> bool:
        """Whether it takes requests."""
        return self.answers and not self.cordoned

    @property
    def state(self) -> str:
        """In a word: "up", "cordoned", "draining", "joining" (not up so far) or "down"."""
        if self.leaving:
            return "draining"
        if self.cordoned and self.answers:
            return "cordoned"
        return "up" if self.answers else "down" if self.life else "joining"

    @property
    def models(self) -> tuple[str, ...]:
        """That it serves, as far as is known."""
        return () if self.facts is None else self.facts.models

    @property
    def role(self) -> Role:
        """What it takes, as far as is known."""
        return "both" if self.facts is None else self.facts.role

    @property
    def unanswered(self) -> int:
        """Requests that wait for its first word."""
        return len(self._unanswered)

    def expect_answer(self, give_up: Callable[[EngineUnreachable], None]) -> None:
        """A request waits for this engine's first word; `give_up` is called if that is no longer to be hoped for."""
        self._unanswered[give_up] = None

    def answered(self, give_up: Callable[[EngineUnreachable], None]) -> None:
        """It waits no more."""
        self._unanswered.pop(give_up, None)

    def give_up_unanswered(self) -> None:
        """The engine says nothing any more, to anybody: who still waits for its first word need not."""
        for give_up in list(self._unanswered):
            give_up(EngineUnreachable(self.url, self.why or "it has gone", taken=True))
        self._unanswered.clear()


@dataclass
class Watch:
    """What the monitor remembers of an engine.

    Attributes:
        excess: requests of others that the last looks have seen.
        late: looks in a row that were not answered, during none of which it answered a request either.
        downs: times in a row that it went down, each soon after the one before; `down_at`, epoch of the last, s.
        rests_until: epoch before which it is not looked at, s.
        taken: requests that had come to it by the last look.
        models_at: epoch at which its models were last looked up, s.
        wanted: set when a look is due at once.
        looked: set, and made anew, with each look that has ended.
    """

    excess: list[int] = field(default_factory=list)
    late: int = 0
    downs: int = 0
    down_at: float = -math.inf
    rests_until: float = -math.inf
    taken: int = 0
    models_at: float = -math.inf
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    looked: asyncio.Event = field(default_factory=asyncio.Event)
