"""The tournament against a plain search."""

from __future__ import annotations

import numpy as np
import pytest

from fluidgate.compiled import entry_point, tournament

_replay, _winner = tournament.replay, tournament.winner


@entry_point
def play(tree, keys, player):  # type: ignore[no-untyped-def]
    _replay(tree, keys, player)
    return _winner(tree)


@pytest.mark.parametrize("players", [1, 2, 3, 5, 8, 13])
def test_the_least_key_wins_and_ties_go_to_the_lowest_number(players: int) -> None:
    rng = np.random.default_rng(players)
    keys = np.full(players, np.inf)
    tree = tournament.tournament(players)
    for _ in range(500):
        player = int(rng.integers(players))
        keys[player] = rng.choice([1.0, 2.0, 3.0, np.inf])
        assert play(tree, keys, player) == int(np.argmin(keys))
