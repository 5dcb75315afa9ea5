"""What is believed of an engine against what the emulated one finds, on a clock that no load of the machine moves."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Any

import pytest

from fluidgate.emulator.kv_cache import IDS, KvCache
from fluidgate.emulator.metrics import EngineMetrics
from fluidgate.emulator.prompt import token_prompt
from fluidgate.emulator.request import EngineRequest
from fluidgate.emulator.scheduler import Scheduler
from fluidgate.emulator.settings import EngineSettings
from fluidgate.emulator.wire import token
from fluidgate.gateway.prefixes import PrefixIndex, Sent, chain_of_ids
from fluidgate.model import Gpu, IterationTime

GPU = Gpu(batch_size=4, chunk_size=64, iteration=IterationTime(alpha=0.02, beta=1e-4, gamma=50.0))
STEMS, STEM = 3, 250
SESSIONS = 60


@dataclass
class Session:
    """A conversation: all that was said, and how many turns are left."""

    ids: list[int]
    left: int


class Played:
    """Sessions on one engine, each turn sent some time after the last answer's end.

    Attributes:
        tokens: of all prompts; `believed`, those that were believed to be there, `found` those that were.
    """

    def __init__(self, kv_tokens: int, users: int, think: float, batching: Any, seed: int) -> None:
        """
        Args:
            think: mean, s.
        """
        self.rng, self.think, self.left = random.Random(seed), think, SESSIONS
        settings = EngineSettings(GPU, batching=batching, kv_tokens=kv_tokens, max_model_len=kv_tokens)
        self.scheduler = Scheduler(settings, KvCache(settings), EngineMetrics(1.0))
        self.index = PrefixIndex(kv_tokens)
        self.stems = [self.said(STEM) for _ in range(STEMS)]
        self.turns: list[tuple[float, int, Session]] = []
        self.numbers = count()
        self.under_way: dict[EngineRequest, tuple[Session, Sent]] = {}
        self.tokens = self.believed = self.found = 0
        for _ in range(users):
            self.begin(0.0)
        self.play()

    def said(self, number: int) -> list[int]:
        return [self.rng.randrange(1, 1 << 30) for _ in range(number)]

    def begin(self, now: float) -> None:
        if self.left > 0:
            self.left -= 1
            self.later(now, Session(list(self.rng.choice(self.stems)), self.rng.randrange(2, 6)))

    def later(self, now: float, session: Session) -> None:
        heappush(self.turns, (now + self.rng.expovariate(1.0 / self.think), next(self.numbers), session))

    def play(self) -> None:
        while self.turns or self.under_way:
            now = min(self.scheduler.next_event, self.turns[0][0] if self.turns else math.inf)
            self.scheduler.advance(now, 1 << 30)
            if self.turns and self.turns[0][0] <= now:
                self.send(now, heappop(self.turns)[2])
            for request in [each for each in self.under_way if each.finish is not None]:
                self.end(request)

    def send(self, now: float, session: Session) -> None:
        session.ids += self.said(self.rng.randrange(20, 200))
        ids, output = session.ids, self.rng.randrange(10, 40)
        key = self.rng.randbytes(2)
        text = token_prompt(ids)
        request = EngineRequest("", key, prompt=len(ids), output=output, arrival=now, since=now, text=text)
        self.under_way[request] = session, self.index.sent(0, chain_of_ids(ids), len(ids))
        self.scheduler.add(request)
        self.scheduler.advance(now, 1 << 30)

    def end(self, request: EngineRequest) -> None:
        session, sent = self.under_way.pop(request)
        self.tokens += request.prompt
        self.believed += sent.found
        self.found += request.found
        said = [int.from_bytes(IDS[token(request, k)], "little") for k in range(1, request.output + 1)]
        self.index.told(0, sent, request.prompt, request.found)
        self.index.left(sent, [sent.chain.followed_by(said)])
        session.ids += said
        session.left -= 1
        if session.left > 0:
            self.later(request.last_token, session)
        else:
            self.begin(request.last_token)


@pytest.mark.parametrize("batching", ["single-prefill", "token-budget"])
@pytest.mark.parametrize(
    ("kv_tokens", "users", "think"),
    [(10_000, 7, 5.0), (10_000, 20, 0.5), (5_000, 7, 0.5), (5_000, 20, 0.5), (2_512, 7, 5.0), (2_512, 20, 0.5)],
)
def test_two_points_apart_at_most(kv_tokens: int, users: int, think: float, batching: str) -> None:
    """From a memory that holds all to one that four requests fill, with nobody or sixteen in the engine's own queue."""
    runs = [Played(kv_tokens, users, think, batching, seed) for seed in range(3)]
    tokens, believed, found = (sum(getattr(run, name) for run in runs) for name in ("tokens", "believed", "found"))
    assert 0.3 * tokens < found < 0.85 * tokens
    assert abs(believed - found) < 0.02 * tokens
