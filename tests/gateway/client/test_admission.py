"""Who is let in, before one engine that a placement fills."""

from __future__ import annotations

import pytest

from fluidgate.gateway.client.admission import Admission
from fluidgate.gateway.client.api_error import ApiError
from fluidgate.gateway.client.completion_request import COMPLETIONS, CompletionRequest
from fluidgate.gateway.client.prompt_meter import PromptMeter
from fluidgate.gateway.cluster.backends import Backends
from fluidgate.gateway.dispatch.placed import Placed
from fluidgate.gateway.dispatch.ticket import Stage, Ticket
from fluidgate.gateway.gateway_tables import LimitsTable
from tests.gateway.asynchronous import asynchronous
from tests.gateway.fakes import FakeAdapter

NAMES = ("chat", "code")


class Door:
    """One engine that is up; at most 3 wait, and 2 of each class."""

    def __init__(self) -> None:
        self.now = 0.0
        self.closed = False
        engine = FakeAdapter("http://a", context=50)
        self.backends = Backends([engine], batch_size=4, model="m")
        self.backends[0].answers, self.backends[0].facts = True, engine.facts
        self.dispatcher = Placed("round-robin", 1, len(NAMES), clock=lambda: self.now)
        self.dispatcher.engine_up(0, 0)
        self.admission = Admission(
            self.dispatcher,
            self.backends,
            class_names=NAMES,
            limits=LimitsTable(max_waiting=3, max_prompt_tokens=1000),
            max_waiting=(2, 2),
            closed=lambda: self.closed,
            clock=lambda: self.now,
            max_waiting_of={"a": 1}.get,
            waiting_of=lambda key: self.waiting,
        )
        self.waiting = 0

    def admit(self, cls: int, key: str = "") -> Ticket:
        ticket = Ticket(cls, 10, key=key)
        self.admission.admit(ticket)
        return ticket


@asynchronous
async def test_queues_are_bounded_by_class_and_in_all() -> None:
    door = Door()
    door.admit(0)
    door.admit(0)
    with pytest.raises(ApiError, match="2 requests of class 'chat' wait already, 2 in all") as raised:
        door.admit(0)
    assert (raised.value.status, raised.value.reason) == (429, "queue_full")
    assert raised.value.headers["retry-after"] == "1"
    door.admit(1)
    with pytest.raises(ApiError, match="3 in all"):
        door.admit(1)


@asynchronous
async def test_a_keys_waiting_requests_are_bounded_and_its_others_are_not() -> None:
    door = Door()
    door.waiting = 5
    door.admit(0, "a")
    with pytest.raises(ApiError, match="4 requests of key 'a' wait already; this one is of class 'code'") as raised:
        door.admit(1, "a")
    assert (raised.value.status, raised.value.reason) == (429, "quota_waiting")
    assert door.dispatcher.held(0) == 1
    door.admit(1, "b")


@asynchronous
async def test_nobody_is_let_in_while_nobody_is_served() -> None:
    door = Door()
    door.closed = True
    with pytest.raises(ApiError) as raised:
        door.admit(0)
    assert raised.value.reason == "shutting_down"
    door.closed, door.backends[0].answers = False, False
    with pytest.raises(ApiError) as raised:
        door.admit(0)
    assert raised.value.reason == "no_engine"
    assert door.admission.waited_too_long(Ticket(0, 10), 2.0, "a prefill").reason == "no_engine"


@asynchronous
async def test_the_longer_the_queue_and_the_slower_it_moves_the_later_to_come_again() -> None:
    door = Door()
    door.dispatcher.engine_down(0)
    door.admit(1)
    door.admit(1)
    for _ in range(5):
        door.now += 2.0
        door.admission.note_end(1)
    assert door.admission.retry_after(1) == pytest.approx(2 / (4 / 8.0))
    assert door.admission.retry_after(0) == 1.0, "nothing is known of the class"
    door.now += 1e6
    error = door.admission.waited_too_long(Ticket(1, 10, key="a"), 0.25, "a decode")
    assert error.message == "waited 0.25 s for a decode in class 'code' (key 'a')"
    assert error.headers["retry-after"] == "60"


def test_what_no_engine_could_serve() -> None:
    door, meter = Door(), PromptMeter(4.0)

    def reason(**body: object) -> str:
        request = CompletionRequest(
            COMPLETIONS, body, b"", str(body.get("model", "m")), False, meter.count("completion", body), None
        )
        try:
            door.admission.check(request)
        except ApiError as error:
            return error.reason
        return ""

    assert reason(prompt="hello") == ""
    assert reason(prompt="x" * 4004) == "prompt_too_long"
    assert reason(prompt="x" * 400) == "", "an estimate may err: the engine says"
    assert reason(prompt=[1] * 50) == "prompt_too_long", "counted"
    assert reason(prompt=[1] * 49) == ""


@asynchronous
async def test_who_is_refused_leaves_no_trace() -> None:
    door = Door()
    tickets = [door.admit(0), door.admit(0)]
    with pytest.raises(ApiError):
        door.admit(0)
    assert door.dispatcher.held(0) == 2
    for ticket in tickets:
        door.dispatcher.leave(ticket)
        assert ticket.stage is Stage.DONE
    assert door.dispatcher.held(0) == 0
