"""The fair line against a naive one, against the textbook, and against its own promises."""

from __future__ import annotations

from collections import Counter
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from fluidgate.gateway.dispatch.line import FairLine, settle
from fluidgate.gateway.dispatch.ticket import Ticket

KEYS = ("", "a", "b", "c")
WEIGHTS = {"": 1.0, "a": 1.0, "b": 2.0, "c": 0.5}
CLOCK = count()


def ticket(key: str, cost: int = 1) -> Ticket:
    made = Ticket(0, cost, key=key, weight=WEIGHTS[key])
    made.arrived = next(CLOCK)
    return made


def line() -> FairLine:
    return FairLine(lambda ticket: ticket.prompt)


class Naive:
    """The same by lists: every tag is looked at for every start."""

    def __init__(self) -> None:
        self.waiting: list[Ticket] = []
        self.back: list[Ticket] = []
        self.start_anew()

    def start_anew(self) -> None:
        self.tag: dict[str, float] = {}
        self.owed: Counter[str] = Counter()
        self.front_since: dict[str, int] = {}
        self.order = count()
        self.now = 0.0
        self.charged: dict[Ticket, float] = {}

    def wait_in_front(self, key: str) -> None:
        if any(t.key == key for t in self.waiting):
            self.front_since[key] = next(self.order)
        else:
            self.front_since.pop(key, None)

    def add(self, new: Ticket) -> None:
        self.waiting.append(new)
        if new.key not in self.front_since:
            self.tag[new.key] = max(self.now, self.tag.get(new.key, 0.0) + self.owed.pop(new.key, 0.0))
            self.wait_in_front(new.key)

    def head(self) -> Ticket | None:
        if self.back:
            return min(self.back, key=lambda t: t.arrived)
        waiting = {t.key for t in self.waiting}
        if not waiting:
            return None
        key = min(waiting, key=lambda key: (self.tag[key], self.front_since[key]))
        return next(t for t in self.waiting if t.key == key)

    def pop(self) -> Ticket:
        first = self.head()
        assert first is not None
        if first in self.back:
            self.remove(first)
            return first
        gone = [key for key in self.front_since if (self.tag[key], self.front_since[key]) < self.place(first.key)]
        for key in gone:
            del self.front_since[key]
        self.waiting.remove(first)
        self.now = self.tag[first.key]
        self.charged[first] = first.prompt
        self.owed[first.key] += first.prompt / first.weight
        if self.owed[first.key] > 0.0:
            self.tag[first.key] += self.owed.pop(first.key)
        self.wait_in_front(first.key)
        self.if_empty()
        return first

    def place(self, key: str) -> tuple[float, int]:
        return self.tag[key], self.front_since[key]

    def remove(self, gone: Ticket) -> None:
        (self.back if gone in self.back else self.waiting).remove(gone)
        self.if_empty()

    def settle(self, of: Ticket, cost: float) -> None:
        if of in self.charged:
            self.owed[of.key] += (cost - self.charged[of]) / of.weight
            self.charged[of] = cost

    def if_empty(self) -> None:
        if not self.waiting and not self.back:
            self.start_anew()


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "add", "pop", "pop", "remove", "back", "settle"]),
        st.sampled_from(KEYS),
        st.integers(1, 40),
    ),
    max_size=120,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(MOVES)
def test_is_the_naive_line(moves: list[tuple[str, str, int]]) -> None:
    made, naive = line(), Naive()
    started: list[Ticket] = []
    for move, key, number in moves:
        waiting = list(made)
        if move == "add":
            new = ticket(key, number)
            made.add(new)
            naive.add(new)
        elif move == "pop" and waiting:
            started.append(made.pop())
            assert naive.pop() is started[-1]
        elif move == "remove" and waiting:
            gone = waiting[number % len(waiting)]
            made.remove(gone)
            naive.remove(gone)
        elif move == "back" and started:
            lost = started.pop(number % len(started))
            made.put_back(lost)
            naive.back.append(lost)
        elif move == "settle" and started:
            settle(started[number % len(started)], number)
            naive.settle(started[number % len(started)], number)
        assert made.head is naive.head()
        assert len(made) == len(naive.waiting) + len(naive.back) == len(list(made))
        for key in KEYS:
            assert made.waiting_of(key) == sum(t.key == key for t in (*naive.waiting, *naive.back))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(MOVES, st.sampled_from(KEYS))
def test_with_one_key_it_is_first_come_first_served(moves: list[tuple[str, str, int]], key: str) -> None:
    made = line()
    waiting: list[Ticket] = []
    started: list[Ticket] = []
    for move, _, number in moves:
        if move == "add":
            waiting.append(ticket(key, number))
            made.add(waiting[-1])
        elif move == "pop" and waiting:
            started.append(made.pop())
            assert started[-1] is waiting.pop(0)
        elif move == "remove" and waiting:
            made.remove(waiting.pop(number % len(waiting)))
        elif move == "back" and started:
            lost = started.pop(number % len(started))
            made.put_back(lost)
            waiting = sorted((lost, *waiting), key=lambda t: t.arrived)
        assert list(made) == waiting


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(KEYS), st.integers(1, 1 << 30)), min_size=1, max_size=60))
def test_is_the_textbook_where_nobody_leaves(arrivals: list[tuple[str, int]]) -> None:
    """Goyal et al., (4) and (5): S = max(v, F of the one before), F = S + l/r; in order of S. All come at once."""
    made, finish, tags = line(), dict.fromkeys(KEYS, 0.0), []
    for k, (key, cost) in enumerate(arrivals):
        made.add(ticket(key, cost))
        tags.append((finish[key], k, key, cost))
        finish[key] += cost / WEIGHTS[key]
    order = [(key, cost) for _, _, key, cost in sorted(tags, key=lambda tag: tag[0])]
    popped = [made.pop() for _ in arrivals]
    firsts = len({key for key, _ in arrivals})
    assert [(t.key, t.prompt) for t in popped[:firsts]] == order[:firsts], "of equals, who came first"
    assert sorted((t.key, t.prompt) for t in popped) == sorted(order)
    for key in KEYS:
        assert [t.prompt for t in popped if t.key == key] == [cost for each, cost in arrivals if each == key]
    starts, spent = [], dict.fromkeys(KEYS, 0.0)
    for each in popped:
        starts.append(spent[each.key])
        spent[each.key] += each.prompt / each.weight
    assert starts == sorted(starts)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 500), min_size=40, max_size=200), st.integers(0, 1000))
def test_keys_that_wait_throughout_differ_by_one_request_of_each(costs: list[int], seed: int) -> None:
    made, work = line(), dict.fromkeys(KEYS, 0.0)
    largest = max(costs)
    for key in KEYS:
        for cost in costs:
            made.add(ticket(key, cost))
    for _ in range(len(costs)):
        popped = made.pop()
        work[popped.key] += popped.prompt / popped.weight
        for one in KEYS:
            for other in KEYS:
                assert work[one] - work[other] <= largest / WEIGHTS[one] + largest / WEIGHTS[other]


def test_a_key_that_did_not_come_has_saved_nothing() -> None:
    made = line()
    for _ in range(400):
        made.add(ticket("a"))
    for _ in range(200):
        assert made.pop().key == "a"
    for _ in range(50):
        made.add(ticket(""))
    assert [made.pop().key for _ in range(10)] == ["", "a"] * 5


def test_a_line_that_was_empty_bears_no_grudge() -> None:
    made = line()
    made.add(ticket("a", 1_000_000))
    made.pop()
    for _ in range(3):
        made.add(ticket("a"))
        made.add(ticket(""))
    assert [made.pop().key for _ in range(6)] == ["a", "", "a", "", "a", ""]


def test_what_was_foretold_too_high_or_too_low_is_set_right() -> None:
    """Key a's requests are twice as long as foretold, the others' half: it gets a quarter as many."""
    made, served = line(), Counter[str]()
    for _ in range(1000):
        made.add(ticket("a", 10))
        made.add(ticket("", 10))
    for _ in range(500):
        popped = made.pop()
        served[popped.key] += 1
        settle(popped, 20 if popped.key == "a" else 5)
    assert abs(5 * served[""] - 20 * served["a"]) <= 20 + 5


def test_settling_twice_is_settling_once() -> None:
    made = line()
    for key in ("a", "") * 10:
        made.add(ticket(key, 10))
    popped = made.pop()
    settle(popped, 25)
    settle(popped, 25)
    settle(popped, 10)
    assert [made.pop().key for _ in range(6)] == ["", "a", "", "a", "", "a"]


def test_a_key_that_comes_and_goes_leaves_nothing_behind() -> None:
    made = line()
    made.add(ticket("b"))
    for _ in range(1000):
        gone = ticket("a")
        made.add(gone)
        made.remove(gone)
    assert len(made._heap) <= 2
