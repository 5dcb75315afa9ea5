"""A tournament over the GPUs: the one with the least key, ties to the lowest number, kept in O(log n) a change."""

from __future__ import annotations

from typing import Any

import numpy as np

from fluidgate.compiled import inlined


def tournament(players: int) -> Any:
    """The tree over keys of shape (players,) that are all alike; node 1 is the winner, int32."""
    size = 1
    while size < players:
        size *= 2
    tree = np.zeros(2 * size, np.int32)
    tree[size:] = np.minimum(np.arange(size), players - 1)
    for node in range(size - 1, 0, -1):
        tree[node] = tree[2 * node]
    return tree


@inlined
def winner(tree: Any) -> int:
    return tree[1]


@inlined
def replay(tree: Any, keys: Any, player: int) -> None:
    """Play the matches of `player` again, its key having changed."""
    node = (tree.size // 2 + player) // 2
    while node >= 1:
        left, right = tree[2 * node], tree[2 * node + 1]
        best = left if keys[left] <= keys[right] else right
        if tree[node] == best and best != player:
            return
        tree[node] = best
        node //= 2
