"""Sessions played against an emulated engine: who says what when, and what the engine finds of it."""

from __future__ import annotations

import asyncio

import numpy as np

from fluidgate.emulator.session_player import SessionPlayer, Sessions
from tests.emulator.served import FAST, Client
from tests.emulator.test_api import served

SHORT = Sessions(prefix=200, prefixes=1, new=40, output=20, turns=3.0, think=2.0, seed=1)


def player(client: Client, users: int, sessions: Sessions = SHORT) -> SessionPlayer:
    return SessionPlayer(client.servers[0].url, "emulated", sessions, users, FAST)


def test_sessions_are_alike_in_their_beginning_and_drawn_by_their_number() -> None:
    two = Sessions(prefix=50, prefixes=2, new=10, turns=4.0)
    firsts = [[message for message, _ in two.one(k)] for k in range(300)]
    assert {len(talk[0]["content"]) for talk in firsts} == {200}
    assert len({talk[0]["content"] for talk in firsts}) == 2
    assert len({talk[1]["content"] for talk in firsts}) == 300
    assert firsts[7] == [message for message, _ in two.one(7)]
    assert 3.0 < np.mean([len(talk) - 1 for talk in firsts]) < 5.0
    thoughts = [thought for k in range(300) for _, thought in list(two.one(k))[2:]]
    assert 4.0 < np.mean(thoughts) < 6.0


def test_the_next_turn_comes_when_the_last_was_answered_and_finds_it_all() -> None:
    async def test(client: Client) -> None:
        rows = await player(client, users=2).play(most=6)
        assert set(rows["session"]) == set(range(6))
        assert rows["done"].all()
        assert (rows["tokens"] == 20).all()
        assert (np.diff(rows["sent"]) >= 0).all()
        later = 0
        for number in range(6):
            own = rows[rows["session"] == number]
            assert own["turn"].tolist() == list(range(1, len(own) + 1))
            assert (own["sent"][1:] >= own["last"][:-1]).all()
            assert own["cached"][1:].tolist() == ((own["prompt"][:-1] + 19) // 16 * 16).tolist()
            later += len(own) - 1
        assert later >= 4
        begins = rows[rows["turn"] == 1]
        assert begins["cached"].max() == 192  # the system's prompt and the blocks that it fills
        assert await client.metric("prefix_cache_hits_total") == rows["cached"].sum()
        busy = [((rows["sent"] <= at) & (rows["last"] > at)).sum() for at in rows["sent"]]
        assert max(busy) <= 2

    served(test)


def test_a_session_ends_with_a_refusal_and_all_end_in_time() -> None:
    async def test(client: Client) -> None:
        client.servers[0].fault("refuse", requests=1)
        rows = await player(client, users=1).play(most=1)
        assert rows["status"].tolist() == [503]
        assert not rows["done"][0]
        endless = await asyncio.wait_for(player(client, 1, Sessions(prefix=10, output=10_000)).play(until=10.0), 60.0)
        assert (len(endless), endless["done"].any()) == (1, False)
        assert endless["tokens"][0] > 0

    served(test)
