"""Parts of a gateway that do as a test says, without network or time."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import NoReturn

from fluidgate.gateway.ended import EndedRequest, Times
from fluidgate.gateway.engines import Abilities, Adapter, Answer, Call, EngineUnreachable, Facts, Handover, Load, Served
from fluidgate.model import Pricing

IDLE = Load(running=0, waiting=0, kv_usage=None)


class FakeAdapter(Adapter):
    """An engine that says what a test has written into it; None for an engine that is away."""

    abilities = Abilities(late=True, two_legs=True, lease=30.0)

    def __init__(self, url: str, *, models: tuple[str, ...] = ("m",), context: int | None = None) -> None:
        super().__init__(url)
        self.facts: Facts | None = Facts(models, context, None, True, None)
        self.now: Load | None = IDLE
        self.pair_problem: str | None = None
        self.released: list[Handover] = []
        self.answered = 0

    @property
    def heard(self) -> int:
        return self.answered

    async def start(self) -> None:
        """There is nothing to connect to."""

    async def close(self) -> None:
        """Nor to close."""

    async def check(self) -> Facts:
        return self.facts or self._away()

    async def check_pair(self, other: Adapter) -> str | None:
        return self.pair_problem

    async def look_up_models(self) -> Served:
        return self.facts.served if self.facts else self._away()

    async def load(self) -> Load:
        return self.now or self._away()

    async def read_prompt(self, call: Call, to: Adapter | None = None) -> Handover:
        return Handover(self.url, 0.0)

    def write_answer(self, call: Call, handover: Handover | None) -> AbstractAsyncContextManager[Answer]:
        raise AssertionError("nobody who is tested with a fake writes answers")

    async def release(self, handover: Handover) -> None:
        self.released.append(handover)

    def _away(self) -> NoReturn:
        raise EngineUnreachable(self.url, "away", taken=False)


def ended_request(**changes: object) -> EndedRequest:
    """Of class "chat", completed: 100 tokens in, 5 out, two seconds from its arrival to its end."""
    times = Times(10.0, prefill=10.25, prompt_read=10.5, decode=10.75, first_token=11.0, last_token=11.8, end=12.0)
    usual: dict[str, object] = {
        "id": "fg-1",
        "client_id": "",
        "client": "127.0.0.1:5000",
        "model": "m",
        "class_name": "chat",
        "pricing": Pricing(scheme="bundled", prompt=0.1, output=0.2),
        "key": None,
        "path": "/v1/completions",
        "stream": True,
        "status": 200,
        "outcome": "completed",
        "prompt_tokens": 100,
        "output_tokens": 5,
        "prefill_engine": "http://one",
        "decode_engine": "http://two",
        "attempts": 1,
        "lost_kv": 0,
        "times": times,
    }
    return EndedRequest(**(usual | changes))  # type: ignore[arg-type]


def waited_in_vain() -> EndedRequest:
    """One that has seen no engine, three seconds long."""
    nowhere = {"prefill_engine": None, "decode_engine": None, "attempts": 0, "output_tokens": 0}
    return ended_request(outcome="wait_limit", status=429, times=Times(10.0, end=13.0), **nowhere)
