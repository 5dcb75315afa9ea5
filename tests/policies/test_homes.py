"""What a request costs where, beside plain Python; and when index-and-pool goes by it."""

import numpy as np
import pytest

from fluidgate import Scenario, find_policy, plan
from fluidgate.compiled import by_reference, entry_point
from fluidgate.policies.decisions import homes
from fluidgate.policies.decisions.homes import NEXT, Places, new_places
from fluidgate.policies.decisions.tables import Tables

SESSIONS = Scenario.load("examples/deep-sessions.toml")


@entry_point
def _read_seconds(tables, tokens, found, context):  # type: ignore[no-untyped-def]
    return homes.read_seconds(tables, tokens, found, context)


@entry_point
def _cost(places, tables, g, cls, prompt, found, short, wait):  # type: ignore[no-untyped-def]
    return homes.cost(places, tables, g, cls, prompt, found, short, wait)


@entry_point
def _claim(places, tables, g, prompt, found):  # type: ignore[no-untyped-def]
    homes.claim(places, tables, g, prompt, found)


@entry_point
def _drop_claims(places, tables):  # type: ignore[no-untyped-def]
    homes.drop_claims(places, tables)


def read_seconds(tables: Tables, tokens: int, found: int, context: int) -> float:
    return float(_read_seconds(by_reference(tables), tokens, found, context))


def cost(places: Places, tables: Tables, g: int, prompt: int, found: int, wait: float, short: int = 0) -> float:
    return float(_cost(by_reference(places), by_reference(tables), g, 0, prompt, found, short, wait))


def tables_of(scenario: Scenario, toll: float = 10.0) -> Tables:
    made = find_policy("index-and-pool").with_parameters({"toll": toll}).tabulate(plan(scenario), 4)
    assert isinstance(made, Tables)
    return made


def iteration(scenario: Scenario, chunk: int, decodes: int, context: float, read: float = 0.0) -> float:
    return scenario.gpu.seconds(chunk, decodes, context, chunk * read)


def test_reading_takes_whole_chunks_behind_what_was_found() -> None:
    tables = tables_of(SESSIONS)
    chunk = SESSIONS.gpu.chunk_size
    plain = sum(iteration(SESSIONS, chunk, 0, 0.0, 30_000 + k * chunk) for k in range(4))
    assert read_seconds(tables, 4 * chunk, 30_000, 0) == pytest.approx(plain, rel=0.02)


def test_the_cost_is_what_everybody_is_delayed() -> None:
    tables = tables_of(SESSIONS)._replace(most_seconds=np.inf)
    places = new_places(2)
    places.decodes[1], places.context[1], places.backlog[1] = 7, 280_000, 2048
    alpha, beta, zeta, solo, delta, epsilon = tables.seconds
    worth, output = tables.worth[NEXT, 0], 300.0

    def read(tokens: int, found: int) -> float:
        pairs = tokens * found + tokens * max(tokens - 2048, 0) / 2
        return float(beta * tokens + zeta * pairs + (alpha + epsilon * 280_000) * tokens / 2048)

    reading = read(10_000, 30_000)
    first = 0.5 + read(2048, 0) + reading
    itself = output * (solo + 8 * delta + epsilon * 320_000)
    others = 17 * reading + 7 * output * (delta + epsilon * 40_000)
    expected = first + worth * (itself + others)
    assert cost(places, tables, 1, 40_000, 30_000, 0.5) == pytest.approx(expected, rel=1e-12)


def test_a_second_counts_more_near_a_target() -> None:
    """Of a decode by the square of what is used up of its target; before the first token, ten times more past 3/4."""
    tables = tables_of(SESSIONS)
    places = new_places(1)
    places.decodes[0], places.context[0] = 7, 280_000
    _, beta, _, solo, delta, epsilon = tables.seconds
    without = cost(places, tables._replace(most_seconds=np.inf, deadline=np.array([np.inf])), 0, 40_000, 30_000, 0.5)
    tokens = 10_000
    reading = (beta + (tables.seconds[0] + epsilon * 280_000) / 2048) * tokens
    token = solo + 8 * delta + epsilon * 320_000
    assert token < 0.03
    loose = cost(places, tables._replace(deadline=np.array([np.inf])), 0, 40_000, 30_000, 0.5)
    saved = tables.worth[NEXT, 0] * 7 * reading * (1 - (token / 0.03) ** 2)
    assert without - loose == pytest.approx(saved, rel=1e-9)
    tight = cost(places, tables._replace(deadline=np.array([0.8])), 0, 40_000, 30_000, 0.5)
    assert tight - loose == pytest.approx(10 * (0.5 + reading - 0.6), rel=1e-9)


def test_who_waits_for_memory_waits_for_whole_requests() -> None:
    """Of 8 with 30,000 tokens each one ends every 1/8 of an answer, for 1 token as for 30,000; it makes late, too."""
    tables = tables_of(SESSIONS)._replace(most_seconds=np.inf, deadline=np.array([np.inf]))
    places = new_places(1)
    places.decodes[0], places.context[0] = 8, 240_000
    _, _, _, solo, delta, epsilon = tables.seconds
    one = 300.0 * (solo + 8 * delta + epsilon * 240_000) / 8
    free = cost(places, tables, 0, 40_000, 30_000, 0.0)
    for short, leave in ((1, 1), (30_000, 1), (30_001, 2), (1_000_000, 8)):
        waits = cost(places, tables, 0, 40_000, 30_000, 0.0, short)
        assert waits - free == pytest.approx(leave * one, rel=1e-9)
    late = tables._replace(deadline=np.array([0.0]))
    waits = cost(places, late, 0, 40_000, 30_000, 0.0, 1) - cost(places, late, 0, 40_000, 30_000, 0.0)
    assert waits == pytest.approx(11 * one, rel=1e-9)


def test_who_waits_for_a_gpu_lies_there_until_all_have_been_asked() -> None:
    tables = by_reference(tables_of(SESSIONS))
    places = new_places(2)
    state = by_reference(places)
    for tokens in (8_000, 30_000):
        _claim(state, tables, 1, 40_000, tokens)
    assert (places.decodes[1], places.backlog[1], places.context[1]) == (2, 42_000, 80_000)
    assert places.keys[1] > places.keys[0]
    _drop_claims(state, tables)
    assert not any(each.any() for each in (places.decodes, places.backlog, places.context, places.claims))
    assert places.claimants[0] == 0


def test_what_is_found_makes_a_place_cheap_and_work_there_dear() -> None:
    tables = tables_of(SESSIONS)
    places = new_places(2)
    found = cost(places, tables, 0, 40_000, 38_000, 0.0)
    assert found < cost(places, tables, 0, 40_000, 0, 0.0)
    places.decodes[0], places.context[0], places.backlog[0] = 30, 1_200_000, 100_000
    assert cost(places, tables, 0, 40_000, 38_000, 0.0) > cost(places, tables, 1, 40_000, 0, 0.0)


def test_a_second_counts_by_its_share_of_the_targets() -> None:
    assert tables_of(SESSIONS).worth[:, 0] == pytest.approx([1.0, 2.0 / (0.03 * 300)])
    assert tables_of(SESSIONS.replace(targets=SESSIONS.targets.model_copy(update={"ttft": None}))).worth[
        :, 0
    ].tolist() == [1.0, 1.0]


def test_without_prefix_caching_there_are_no_homes() -> None:
    alone = SESSIONS.engine.model_copy(update={"prefix_caching": False})
    light = SESSIONS.replace(classes=tuple(c.model_copy(update={"arrival_rate": 0.3}) for c in SESSIONS.classes))
    assert tables_of(light).homing
    assert not tables_of(light.replace(engine=alone)).homing
