"""Sessions of traces as streams: their starts, their further turns as rows of a script, and where they are cut."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluidgate import FluidgateError, Scenario
from fluidgate.model import Arrivals, EngineModel
from fluidgate.workloads.streams import (
    ClassTrace,
    Replay,
    Script,
    assign_traces,
    matching_scale,
    notes_on,
    rates_of,
    replayed_requests,
    replayed_script,
    sent_times,
)
from tests.scenarios import two_class_scenario
from tests.workloads.test_formats import lines, read
from tests.workloads.test_sessions import AGENT, MAIN, mooncake, session

RATED = Replay(sessions_rate=0.5)


def one_class(**changed: Any) -> Scenario:
    two = two_class_scenario()
    return two.replace(classes=two.classes[:1], **changed)


def loop(users: int = 2, think: float = 3.0) -> Scenario:
    return one_class(arrivals=Arrivals(process="closed", users=users, think=think))


@pytest.fixture
def trace(tmp_path: Path) -> list[ClassTrace]:
    two_agents = [{"t": 12.5, "requests": AGENT}, {"t": 14.0, "requests": AGENT[:1]}]
    found = read(tmp_path, lines(session(subagents=two_agents), session(requests=MAIN[:2], subagents=[])))
    return assign_traces(one_class(), [found])


def both(scenario: Scenario, traces: list[ClassTrace], replay: Replay = RATED, **options: Any) -> tuple[Any, Script]:
    """The requests that come by themselves, and the script."""
    script = replayed_script(scenario, traces, replay, **options)
    return np.concatenate(list(replayed_requests(scenario, traces, replay, **options))), script


def chain(first: Any, script: Script) -> list[Any]:
    found = [first]
    while found[-1]["then"]:
        found.append(script.rows[found[-1]["then"]])
    return found


def agents(request: Any, script: Script) -> list[Any]:
    row, found = request["spawns"], []
    while row:
        found.append(script.rows[row])
        row = script.rows[row]["beside"]
    return found


def test_a_session_is_its_first_request_and_rows(trace: list[ClassTrace]) -> None:
    requests, script = both(one_class(), trace)
    assert len(requests) == 2
    assert len(script.rows) == 1 + 2 + 3 + 1
    one, two = (chain(each, script) for each in requests)
    assert [(each["prompt"], each["output"], each["think"]) for each in one] == [(100, 5, 4), (160, 6, 8), (260, 7, 0)]
    assert [(each["prompt"], each["think"]) for each in two] == [(100, 4), (160, 0)]
    assert not agents(one[0], script)
    first, second = agents(one[1], script)
    assert (first["arrival"], second["arrival"]) == (2.5, 4.0)
    assert [(each["prompt"], each["think"]) for each in chain(first, script)] == [(50, 1.5), (80, 0)]
    assert [each["prompt"] for each in chain(second, script)] == [50]
    assert (script.rows["patience"][1:] > 0).all()
    every = np.concatenate([requests, script.rows[1:]])
    np.testing.assert_array_equal(script.pieces["end"][every["text"]], every["prompt"])
    assert not every["answer"].any()


def test_turns_share_what_was_found_and_sessions_share_nothing(trace: list[ClassTrace]) -> None:
    requests, script = both(one_class(), trace)

    def way(request: Any) -> set[int]:
        piece, found = int(request["text"]), set()
        while piece:
            found.add(piece)
            piece = int(script.pieces["parent"][piece])
        return found

    def shared(one: Any, two: Any) -> int:
        return max((int(script.pieces["end"][piece]) for piece in way(one) & way(two)), default=0)

    one, two = (chain(each, script) for each in requests)
    assert [shared(a, b) for a, b in pairwise(one)] == [96, 128]
    assert shared(one[0], two[0]) == shared(one[1], agents(one[1], script)[0]) == 0


def test_sessions_start_as_a_poisson_process(tmp_path: Path) -> None:
    many = assign_traces(one_class(), [read(tmp_path, lines(*[session(requests=MAIN[:1], subagents=[])] * 4000))])
    requests, _ = both(one_class(), many)
    gaps = np.diff(requests["arrival"], prepend=0.0)
    assert gaps.mean() == pytest.approx(2.0, rel=0.06)
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.06)
    again, _ = both(one_class(), many)
    np.testing.assert_array_equal(again, requests)
    other, _ = both(one_class(), many, replication=1)
    assert (other["arrival"] != requests["arrival"]).all()
    fast, _ = both(one_class(), many, Replay(sessions_rate=0.5, scale=2.0))
    np.testing.assert_allclose(fast["arrival"], requests["arrival"] / 2.0)


def test_a_faster_start_leaves_think_times(trace: list[ClassTrace]) -> None:
    requests, script = both(one_class(), trace, Replay(sessions_rate=0.5, scale=10.0))
    assert requests["think"].tolist() == [4, 4]
    assert sorted(script.rows["think"][1:].tolist()) == [0, 0, 0, 0, 1.5, 8]


def test_users_start_sessions_and_think_between_them(trace: list[ClassTrace]) -> None:
    requests, script = both(loop(), trace, Replay())
    assert not requests["arrival"].any()
    one, two = (chain(each, script) for each in requests)
    assert [each["think"] for each in (*one, *two)] == [4, 8, 3, 4, 3]
    assert [each["think"] for agent in agents(one[1], script) for each in chain(agent, script)] == [1.5, 0, 0]


@pytest.mark.parametrize("scenario", [one_class(), loop()])
def test_the_largest_number_counts_every_turn(trace: list[ClassTrace], scenario: Scenario) -> None:
    replay = Replay() if scenario.arrivals.closed else RATED
    for most in range(1, 10):
        requests, script = both(scenario, trace, replay, most=most)
        played = 0
        for first in requests:
            for turn in chain(first, script):
                played += 1
                played += sum(len(chain(agent, script)) for agent in agents(turn, script))
        assert played == min(most, 8)
    (first,), script = both(scenario, trace, replay, most=4)
    *_, last = chain(first, script)
    free = 3.0 if scenario.arrivals.closed else 0.0
    assert (last["prompt"], last["think"]) == (260, free)
    (agent,) = agents(chain(first, script)[1], script)
    assert (agent["then"], agent["think"]) == (0, 0)
    (first,), script = both(scenario, trace, replay, most=1)
    assert (first["then"], first["think"]) == (0, free)


def test_sessions_beside_a_trace_with_times(trace: list[ClassTrace], tmp_path: Path) -> None:
    timed = assign_traces(one_class(), [read(tmp_path, mooncake((0, 600, [0, 1]), (900, 600, [0, 2])))])
    both_kinds = [*timed, *trace]
    requests, script = both(one_class(), both_kinds)
    assert len(requests) == 4
    assert (np.diff(requests["arrival"]) >= 0).all()
    single = requests[requests["prompt"] == 600]
    assert single["then"].tolist() == [0, 0]
    a, b = single["text"]
    assert script.pieces["parent"][a] == script.pieces["parent"][b] != 0
    assert [len(chain(each, script)) for each in requests[requests["prompt"] == 100]] == [3, 2]
    assert rates_of(both_kinds, 0.5) == [2 / 1.8, 0.5 * 8 / 2]


def test_rates_of_sessions(trace: list[ClassTrace]) -> None:
    scenario = one_class()
    assert rates_of(trace, 0.5) == [2.0]
    assert rates_of([*trace, *trace], 0.5) == [1.0, 1.0]
    wanted = 4 * float(scenario.rates.arrival.sum())
    assert matching_scale(scenario, 4, trace, 0.5) == pytest.approx(wanted / 2.0)
    assert not any("arrive together" in note for note in notes_on(scenario, trace))


def test_when_requests_would_be_sent(trace: list[ClassTrace], tmp_path: Path) -> None:
    def random() -> np.random.Generator:
        return np.random.default_rng(3)

    (played,) = trace
    first, second = np.cumsum(random().standard_exponential(2)) / 0.5
    agents = [first + 4 + 2.5, first + 4 + 4.0]
    expected = [first, first + 4, first + 12, agents[0], agents[0] + 1.5, agents[1], second, second + 4]
    np.testing.assert_allclose(sent_times(played.trace, 0.5, random()), expected)
    slow = sent_times(played.trace, 0.5, random(), np.array([10.0, 20.0, 0, 0, 0, 0, 1.0, 0]))
    np.testing.assert_allclose(slow[:4], [first, first + 14, first + 42, first + 14 + 2.5])
    np.testing.assert_allclose(slow[6:], [second, second + 5])
    timed = read(tmp_path, mooncake((0, 600, [0, 1]), (900, 600, [0, 2])))
    assert sent_times(timed, 0.5, random()).tolist() == [0.0, 0.9]


def test_what_does_not_go_with_sessions(trace: list[ClassTrace], tmp_path: Path) -> None:
    def refused(scenario: Scenario, replay: Replay, traces: list[ClassTrace] = trace) -> str:
        with pytest.raises(FluidgateError) as caught:
            replayed_requests(scenario, traces, replay)
        with pytest.raises(FluidgateError):
            replayed_script(scenario, traces, replay)
        return str(caught.value)

    assert refused(one_class(), Replay()).startswith("t.csv: it does not say when its sessions start; give sessions_")
    assert "leave it out" in refused(loop(), RATED)
    assert "must be above 0" in refused(one_class(), Replay(sessions_rate=0.0))
    for times in ("repeat", "resample"):
        assert "would come back" in refused(one_class(), Replay(times=times, sessions_rate=1.0))
    assert "lengths='drawn'" in refused(one_class(), Replay(lengths="drawn", sessions_rate=1.0))
    timed = assign_traces(one_class(), [read(tmp_path, mooncake((0, 600, [0, 1]), (900, 600, [0, 2])))])
    assert "no trace has sessions" in refused(one_class(), RATED, timed)
    caching = one_class(engine=EngineModel(prefix_caching=True))
    assert "prefix_caching" in refused(caching, Replay(times="repeat"), timed)
    without = np.concatenate(list(replayed_requests(one_class(), timed, Replay(times="repeat"), most=5)))
    assert not without["text"].any()
    drawn = np.concatenate(list(replayed_requests(caching, timed, Replay(lengths="drawn"))))
    assert not drawn["text"].any()
