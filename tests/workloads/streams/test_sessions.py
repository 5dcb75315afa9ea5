"""Drawn sessions: what every script must be, and the closed forms of their laws.

Confidence: fixed seeds; five standard errors for a mean, and p-values above 1e-3.
"""

from __future__ import annotations

import heapq
import itertools
import math
import pickle
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fluidgate import FluidgateError, RequestClass, Scenario
from fluidgate.model import Arrivals, Lengths
from fluidgate.session_table import cluster_size
from fluidgate.simulation.iteration.source import Drawn
from fluidgate.workloads.streams import NO_SCRIPT, DrawnSessions, drawn_requests, drawn_sessions, sessions
from fluidgate.workloads.streams.lengths import Pool
from fluidgate.workloads.streams.sessions import AT_ONCE
from tests.scenarios import two_class_scenario

SIGMAS = 5.0
GPUS = 4
AGENTS: dict[str, Any] = {
    "name": "agent",
    "prompt_tokens": 6000,
    "output_tokens": 100,
    "arrival_rate": 2.0,
    "patience_rate": 0.01,
    "prefix_tokens": 1000,
    "prefixes": 20,
    "prefix_law": "zipf",
    "prefix_exponent": 0.8,
    "turns": 5,
    "turn_tokens": 200,
    "think": 30,
    "tool_share": 0.75,
    "tool_seconds": 2,
    "subagents": 0.5,
    "subagent_class": "sub-agent",
}
SUBAGENTS: dict[str, Any] = {
    "name": "sub-agent",
    "prompt_tokens": 2000,
    "output_tokens": 50,
    "arrival_rate": 1.0,
    "patience_rate": 0,
    "prefix_tokens": 500,
    "turns": 3,
    "turns_law": "fixed",
    "turn_tokens": 60,
    "think": 4,
    "think_law": "exponential",
}
PLAIN: dict[str, Any] = {
    "name": "plain",
    "prompt_tokens": 300,
    "output_tokens": 20,
    "arrival_rate": 1,
    "patience_rate": 0,
}
SHARED: dict[str, Any] = {**PLAIN, "name": "shared", "prefix_tokens": 100, "prefixes": 3}


def of(*classes: dict[str, Any], **fields: Any) -> Scenario:
    return two_class_scenario().replace(classes=tuple(RequestClass(**keys) for keys in classes), **fields)


SCENARIOS = {
    "all": of(AGENTS, SUBAGENTS, PLAIN, SHARED),
    "plain sub-agents": of({**AGENTS, "subagent_class": "plain", "subagents": 2.0}, PLAIN),
    "prefixes alone": of(SHARED),
    "phases": of(AGENTS, SUBAGENTS, arrivals=Arrivals(process="mmpp", levels=(0, 3), sojourns=(20, 10))),
    "users": of(AGENTS, SUBAGENTS, PLAIN, arrivals=Arrivals(process="closed", users=5, think=2.0)),
    "lognormal": of(AGENTS, SUBAGENTS, lengths=Lengths(prompt="lognormal", prompt_cv=2.0, output="fixed")),
}


def together(drawn: DrawnSessions) -> Any:
    """The requests that start a session, then the rows, the first of which is none."""
    return np.concatenate([drawn.first, drawn.script.rows])


def sessions_of(drawn: DrawnSessions) -> list[list[Any]]:
    """The requests of each session, in order; sub-agents after the others."""
    rows = drawn.script.rows
    chained = np.zeros(len(rows), bool)
    chained[[*drawn.first["then"], *rows["then"]]] = True
    begins = [*drawn.first, *rows[1:][~chained[1:]]]
    found = []
    for request in begins:
        session = [request]
        while session[-1]["then"]:
            session.append(rows[session[-1]["then"]])
        found.append(session)
    return found


def close(x: Any, y: Any, ratio: float) -> bool:
    """Whether the ratio of the sums of independent pairs is this one."""
    error = np.asarray(x, float) - ratio * np.asarray(y, float)
    return bool(abs(error.sum()) <= SIGMAS * math.sqrt(float((error**2).sum())))


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("seed", [1, 2])
def test_every_script_holds_together(name: str, seed: int) -> None:
    scenario = SCENARIOS[name]
    drawn = drawn_sessions(scenario, GPUS, seed=seed, horizon=700.0)
    requests, pieces = together(drawn), drawn.script.pieces
    rows = drawn.script.rows
    assert len(drawn.first) > 100
    assert tuple(rows[0]) == (0,) * len(rows.dtype)
    assert tuple(pieces[0]) == (0, 0)
    assert (pieces["parent"][1:] < np.arange(1, len(pieces))).all()
    assert (np.diff(drawn.first["arrival"]) >= 0).all()
    assert drawn.first["arrival"].max() <= 700.0

    sent = Counter(itertools.chain(*(requests[key].tolist() for key in ("then", "spawns", "beside"))))
    del sent[0]
    assert sent == dict.fromkeys(range(1, len(rows)), 1)  # every row is sent exactly once

    shared = np.array([c.shares_text for c in scenario.classes])[requests["cls"]]
    shared[len(drawn.first)] = False
    np.testing.assert_array_equal(requests["text"] > 0, shared)
    np.testing.assert_array_equal(requests["answer"] > 0, requests["then"] > 0)
    of_text = requests[shared]
    np.testing.assert_array_equal(pieces["end"][of_text["text"]], of_text["prompt"])
    answered = requests[requests["answer"] > 0]
    np.testing.assert_array_equal(pieces["parent"][answered["answer"]], answered["text"])
    np.testing.assert_array_equal(pieces["end"][answered["answer"]], answered["prompt"] + answered["output"])
    used = np.concatenate([of_text["text"], answered["answer"]])
    assert len(np.unique(used)) == len(used)  # a piece a prompt, and one an answer
    assert len(used) == len(pieces) - 1 - sum(c.prefixes for c in scenario.classes if c.prefix_tokens)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_prompt_is_the_last_one_and_its_answer_and_more(name: str) -> None:
    scenario = SCENARIOS[name]
    drawn = drawn_sessions(scenario, GPUS, seed=3, horizon=700.0)
    pieces = drawn.script.pieces
    beginnings: dict[int, Counter[int]] = {}
    for session in sessions_of(drawn):
        for before, request in itertools.pairwise(session):
            assert request["cls"] == before["cls"]
            assert pieces["parent"][request["text"]] == before["answer"]
            assert request["prompt"] > before["prompt"] + before["output"]
        each = scenario.classes[session[0]["cls"]]
        if each.shares_text:
            beginning = int(pieces["parent"][session[0]["text"]])
            assert pieces["end"][beginning] == each.prefix_tokens < session[0]["prompt"]
            beginnings.setdefault(int(session[0]["cls"]), Counter())[beginning] += 1
    for k, found in beginnings.items():  # prompts of one prefix have its piece in common
        assert len(found) <= scenario.classes[k].prefixes < found.total()
    for one, other in itertools.combinations(beginnings.values(), 2):
        assert not one.keys() & other.keys()


def test_sub_agents_are_sessions_of_their_class_and_start_with_the_request_that_sets_them_off() -> None:
    drawn = drawn_sessions(SCENARIOS["all"], GPUS, seed=4, horizon=2000.0)
    requests, rows = together(drawn), drawn.script.rows
    set_off = []
    for request in requests[requests["spawns"] > 0]:
        row, count = int(request["spawns"]), 0
        while row:
            assert rows[row]["cls"] == 1
            assert rows[row]["arrival"] == 0.0
            row, count = int(rows[row]["beside"]), count + 1
        assert request["cls"] == 0
        set_off.append(count)
    assert max(set_off) > 1
    by_session = [session for session in sessions_of(drawn)[: len(drawn.first)] if session[0]["cls"] == 0]
    assert min(len(session) for session in by_session) == 1
    # Poisson, whatever the number of turns
    brought = np.array([sum(_beside(rows, r["spawns"]) for r in session) for session in by_session])
    assert brought.sum() == sum(set_off)
    counts = np.bincount(np.minimum(brought, 3), minlength=4)
    chance = stats.poisson(0.5).pmf([0, 1, 2])
    assert stats.chisquare(counts, np.append(chance, 1 - chance.sum()) * len(brought)).pvalue > 1e-3
    places = [k / (len(s) - 1) for s in by_session for k, r in enumerate(s) if len(s) > 1 and r["spawns"]]
    assert abs(np.mean(places) - 0.5) < SIGMAS * np.std(places) / math.sqrt(len(places))  # any turn as likely


def _beside(rows: Any, row: int) -> int:
    count = 0
    while row:
        row, count = rows[row]["beside"], count + 1
    return count


LAWS = [Lengths(), Lengths(prompt="lognormal", prompt_cv=1.5, output="lognormal", output_cv=0.5)]


@pytest.mark.parametrize("lengths", LAWS, ids=lambda laws: laws.prompt)
@pytest.mark.parametrize("turns_law", ["geometric", "fixed"])
def test_means_over_all_requests_are_those_of_the_class(lengths: Lengths, turns_law: str) -> None:
    scenario = of({**AGENTS, "turns_law": turns_law}, SUBAGENTS, PLAIN, SHARED, lengths=lengths)
    horizon = 6000.0
    drawn = drawn_sessions(scenario, GPUS, seed=5, horizon=horizon)
    pieces = drawn.script.pieces
    every = sessions_of(drawn)
    for k, each in enumerate(scenario.classes):
        own = [session for session in every if session[0]["cls"] == k]
        requests = np.array([len(session) for session in own])
        # A session may set others off: the variance of their number is at most that of the requests in clusters of 10.
        assert abs(requests.sum() / (GPUS * horizon) - each.arrival_rate) < SIGMAS * math.sqrt(
            10 * each.arrival_rate / (GPUS * horizon)
        )
        prompts = [sum(int(r["prompt"]) for r in session) for session in own]
        assert close(prompts, requests, each.prompt_tokens)
        assert close([sum(int(r["output"]) for r in session) for session in own], requests, each.output_tokens)
        assert close([int(session[0]["prompt"]) for session in own], np.ones(len(own)), each.first_tokens)
        if not each.shares_text:
            assert (each.new_tokens, each.prefix_share, each.session_share) == (each.prompt_tokens, 0.0, 0.0)
            continue
        found = [sum(int(pieces["end"][pieces["parent"][r["text"]]]) for r in session) for session in own]
        there = [sum(int(pieces["end"][pieces["parent"][r["text"]]]) for r in session[1:]) for session in own]
        new = np.array(prompts) - np.array(found)
        assert close(new, requests, each.new_tokens)
        assert close(found, prompts, each.prefix_share)
        assert close(there, prompts, each.session_share)


def test_an_endless_memory_finds_the_share_but_for_prefixes_met_for_the_first_time() -> None:
    scenario = of(AGENTS, SUBAGENTS, SHARED)
    drawn = drawn_sessions(scenario, GPUS, seed=6, horizon=3000.0)
    parent, end = drawn.script.pieces["parent"], drawn.script.pieces["end"]
    held = np.zeros(len(parent), bool)
    held[0] = True
    found, prompts, met = (np.zeros(3) for _ in range(3))
    for session in sessions_of(drawn):
        for request in session:
            piece, k = int(request["text"]), request["cls"]
            prompts[k] += request["prompt"]
            while not held[piece]:
                held[piece] = True
                met[k] += end[piece] == scenario.classes[k].prefix_tokens and parent[piece] == 0
                piece = int(parent[piece])
            found[k] += end[piece]
            held[request["answer"]] = True
    np.testing.assert_array_equal(met, [20, 1, 3])
    prefix = np.array([c.prefix_tokens for c in scenario.classes])
    share = np.array([c.prefix_share for c in scenario.classes])
    np.testing.assert_allclose((found + met * prefix) / prompts, share, rtol=0.02)
    assert (found / prompts < share + 0.02).all()


def test_the_number_of_turns_and_the_prefix_follow_their_laws() -> None:
    scenario = of(AGENTS, SUBAGENTS)
    drawn = drawn_sessions(scenario, GPUS, seed=7, horizon=8000.0)
    agents = [session for session in sessions_of(drawn) if session[0]["cls"] == 0]
    turns = np.minimum([len(session) for session in agents], 12)
    counts = np.bincount(turns, minlength=13)[1:]
    chance = stats.geom(1 / 5).pmf(np.arange(1, 12))
    assert stats.chisquare(counts, np.append(chance, 1 - chance.sum()) * len(turns)).pvalue > 1e-3
    beginnings = drawn.script.pieces["parent"][[session[0]["text"] for session in agents]] - 1
    weights = np.arange(1.0, 21.0) ** -0.8
    counts = np.bincount(beginnings, minlength=20)
    assert stats.chisquare(counts, weights / weights.sum() * len(agents)).pvalue > 1e-3
    assert {len(s) for s in sessions_of(drawn) if s[0]["cls"] == 1} == {3}
    uniform = drawn_sessions(of(SHARED), GPUS, seed=7, horizon=3000.0)
    counts = np.bincount(uniform.script.pieces["parent"][uniform.first["text"]])[1:]
    assert stats.chisquare(counts).pvalue > 1e-3


def test_think_times_are_those_of_people_and_tools() -> None:
    scenario = of(AGENTS, SUBAGENTS)
    requests = together(drawn_sessions(scenario, GPUS, seed=8, horizon=4000.0))
    agents = requests[(requests["cls"] == 0) & (requests["then"] > 0)]
    assert set(agents["think"]) == {30.0, 2.0}
    tools = agents["think"] == 2.0
    assert abs(tools.mean() - 0.75) < SIGMAS * math.sqrt(0.75 * 0.25 / len(tools))
    assert agents["think"].mean() == pytest.approx(scenario.classes[0].think_mean, rel=0.05)
    subs = requests[(requests["cls"] == 1) & (requests["then"] > 0)]
    assert stats.kstest(subs["think"], stats.expon(scale=4.0).cdf).pvalue > 1e-3
    assert (requests["think"][requests["then"] == 0] == 0.0).all()


def test_sessions_start_by_the_arrivals_of_the_scenario() -> None:
    arrivals = Arrivals(process="gamma", cv=2.0)
    scenario = of(AGENTS, SUBAGENTS, PLAIN, arrivals=arrivals)
    starts = scenario.session_starts
    np.testing.assert_allclose(starts, [2.0 / 5, 1.0 / 3 - 0.5 * 2.0 / 5, 1.0])
    drawn = drawn_sessions(scenario, GPUS, seed=9, horizon=5000.0)
    shares = starts / starts.sum()
    counts = np.bincount(drawn.first["cls"])
    assert stats.chisquare(counts, shares * len(drawn.first)).pvalue > 1e-3
    plain = of({**PLAIN, "arrival_rate": starts.sum()}, arrivals=arrivals)
    epochs = np.concatenate(list(drawn_requests(plain, GPUS, seed=9, horizon=5000.0)))["arrival"]
    np.testing.assert_allclose(drawn.first["arrival"], epochs)


@pytest.mark.parametrize("name", ["all", "plain sub-agents", "prefixes alone"])
def test_requests_come_in_clusters(name: str) -> None:
    scenario = SCENARIOS[name]
    drawn = drawn_sessions(scenario, GPUS, seed=10, horizon=6000.0)
    sizes = []
    for session in sessions_of(drawn)[: len(drawn.first)]:
        size = len(session)
        for request in session:
            row = int(request["spawns"])
            while row:
                size += _turns_from(drawn, row)
                row = int(drawn.script.rows[row]["beside"])
        sizes.append(size)
    count = np.array(sizes, float)
    assert close(count**2, count, cluster_size(scenario.of_sessions))
    assert (cluster_size(scenario.of_sessions) == 1.0) == (name == "prefixes alone")


def _turns_from(drawn: DrawnSessions, row: int) -> int:
    count = 0
    while row:
        row, count = int(drawn.script.rows[row]["then"]), count + 1
    return count


def test_a_class_that_only_sub_agents_send_starts_none_by_itself() -> None:
    scenario = of(AGENTS, {**SUBAGENTS, "arrival_rate": 0.5 * 2.0 / 5 * 3 * (1 + 1e-9)})
    assert scenario.session_starts[1] == 0.0
    drawn = drawn_sessions(scenario, GPUS, seed=1, horizon=500.0)
    assert set(drawn.first["cls"]) == {0}
    assert 1 in drawn.script.rows["cls"]


@pytest.mark.parametrize("name", ["all", "phases"])
def test_a_longer_run_begins_as_a_shorter_one_and_replications_differ(name: str) -> None:
    scenario = SCENARIOS[name]
    short = drawn_sessions(scenario, GPUS, seed=1, horizon=900.0)
    long = drawn_sessions(scenario, GPUS, seed=1, horizon=2500.0)
    count = len(short.first)
    assert AT_ONCE < count < len(long.first)
    for one, other in zip(sessions_of(short)[:count], sessions_of(long), strict=False):
        for key in ("cls", "prompt", "output", "patience", "think"):
            assert [r[key] for r in one] == [r[key] for r in other]
    np.testing.assert_array_equal(short.first["arrival"], long.first["arrival"][:count])
    again = drawn_sessions(scenario, GPUS, seed=1, horizon=900.0)
    np.testing.assert_array_equal(short.first, again.first)
    np.testing.assert_array_equal(short.script.rows, again.script.rows)
    np.testing.assert_array_equal(short.script.pieces, again.script.pieces)
    other = drawn_sessions(scenario, GPUS, seed=1, replication=1, horizon=900.0)
    assert not np.isin(short.first["arrival"], other.first["arrival"]).any()


def test_a_closed_loop_has_as_many_sessions_as_its_users_can_go_through() -> None:
    scenario, horizon = SCENARIOS["users"], 900.0
    drawn = drawn_sessions(scenario, GPUS, seed=1, horizon=horizon)
    assert (drawn.first["arrival"] == 0).all()
    assert (drawn.first["think"][drawn.first["then"] == 0] == 2.0).all()
    gpu = scenario.gpu
    least = min(gpu.seconds(0, 1, 0), gpu.seconds(1, 0, 0))
    free, started = [0.0] * 5, 0
    for session in sessions_of(drawn)[: len(drawn.first)]:  # each as fast as can be
        begins = heapq.heappop(free)
        if begins > horizon:
            break
        started += 1
        heapq.heappush(free, begins + sum(float(r["think"] + least * (r["output"] - 1)) for r in session))
    assert started < len(drawn.first) < 3 * started
    blocks = drawn_requests(scenario, GPUS, seed=1, horizon=horizon, size=500)
    endless = np.concatenate(list(itertools.islice(blocks, 10)))
    assert len(endless) == 5000
    assert (endless[:500]["text"] == drawn.first[:500]["text"]).all()


def test_a_closed_loop_draws_no_more_than_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MOST", 3000)
    drawn = drawn_sessions(SCENARIOS["users"], GPUS, seed=1, horizon=1e9)
    own = sum(len(session) for session in sessions_of(drawn)[: len(drawn.first)])
    assert 2900 < own <= 3000


def test_outputs_may_be_those_of_a_trace() -> None:
    scenario = of(AGENTS, SUBAGENTS, lengths=Lengths(output="empirical"))
    lent = [np.array([7, 11]), np.array([40])]
    drawn = drawn_sessions(scenario, GPUS, seed=1, horizon=300.0, pool=Pool.of(lent, lent))
    requests = np.concatenate([drawn.first, drawn.script.rows[1:]])
    assert [set(requests["output"][requests["cls"] == k]) for k in (0, 1)] == [{7, 11}, {40}]


def test_a_source_has_the_script_of_its_requests() -> None:
    source = Drawn(SCENARIOS["all"], GPUS, seed=3, horizon=300.0)
    drawn = drawn_sessions(SCENARIOS["all"], GPUS, seed=3, replication=2, horizon=300.0)
    in_a_worker = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(np.concatenate(list(source.requests(2))), drawn.first)
    np.testing.assert_array_equal(in_a_worker.script(2).rows, drawn.script.rows)
    assert len(source.script(1).rows) != len(drawn.script.rows)
    plain = Drawn(of(PLAIN), GPUS, seed=3, horizon=300.0)
    assert plain.script(0) is NO_SCRIPT
    assert not np.concatenate(list(plain.requests(0)))["text"].any()


def test_the_load_of_a_cluster_is_shared_by_sessions_too() -> None:
    cluster = SCENARIOS["all"].replace(cluster_gpus=GPUS)
    few, many = (drawn_sessions(cluster, gpus, seed=2, horizon=200.0) for gpus in (GPUS, 5 * GPUS))
    np.testing.assert_allclose(few.first["arrival"], many.first["arrival"])


def test_what_sessions_can_not_be_drawn_from_is_named() -> None:
    with pytest.raises(FluidgateError, match="give a finite horizon"):
        drawn_sessions(SCENARIOS["all"], GPUS)
    long = {**AGENTS, "prompt_tokens": 1e9, "subagents": 0, "subagent_class": None}
    with pytest.raises(
        FluidgateError, match=r"classes\[0\] \('agent'\): turns: a session of it grows beyond 2147483647"
    ):
        drawn_sessions(of(long), GPUS, horizon=1e4)
    with pytest.raises(ValueError, match="empirical prompts have no prefixes"):
        Scenario(**{**dict(of(SHARED)), "lengths": Lengths(prompt="empirical", traces=("a.csv",))})
    with pytest.raises(ValueError, match="class 'plain': arrival_rate: is that of all its requests"):
        Scenario(**dict(of({**AGENTS, "subagents": 3, "subagent_class": "plain"}, PLAIN)))
    assert len(drawn_sessions(SCENARIOS["all"], GPUS, most=17).first) == 17
