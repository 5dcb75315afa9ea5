"""The sets of GPUs that are ready, by level, against lists made anew."""

from __future__ import annotations

import numpy as np
import pytest

from fluidgate.compiled import entry_point
from fluidgate.policies.decisions.board import (
    EXACT,
    GPU_FIELDS,
    LEVELS,
    NOWHERE,
    Functions,
    new_board,
)
from fluidgate.policies.decisions.board import at_its_level as _at_its_level
from fluidgate.policies.decisions.board import fewest as _fewest
from fluidgate.policies.decisions.board import update_ready as _update_ready


@entry_point
def update_ready(board, gpu):  # type: ignore[no-untyped-def]
    _update_ready(board, gpu)


@entry_point
def at_its_level(board, gpu):  # type: ignore[no-untyped-def]
    return _at_its_level(board, gpu)


@entry_point
def fewest(board):  # type: ignore[no-untyped-def]
    return _fewest(board)


@pytest.mark.parametrize("ranked", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3, 16, 200])
def test_gpus_that_could_start_a_prefill_stand_in_order_of_what_they_have_to_do(batch_size: int, ranked: bool) -> None:
    rng = np.random.default_rng([batch_size, ranked])
    gpus = 7
    gpu = np.zeros(gpus, np.dtype(list(GPU_FIELDS), align=True))
    board = new_board(
        gpu,
        batch_size=batch_size,
        mixed_gpus=gpus,
        reserve=False,
        ranked=ranked,
        counts=np.zeros((6, 1), np.int64),
        since=np.full((3, 1), np.inf),
        draws=np.ones(4, np.uint64),
        functions=Functions(),
    )
    for _ in range(3000):
        g = int(rng.integers(gpus))
        step = rng.integers(0, batch_size + 1) if rng.random() < 0.3 else gpu["occupied"][g] + rng.integers(-1, 2)
        gpu["occupied"][g] = min(batch_size, max(0, step))
        gpu["prefill_seat"][g] = NOWHERE if rng.random() < 0.7 else 3
        gpu["barred"][g] = int(rng.random() < 0.1)
        update_ready(board, g)
        able = [
            k
            for k in range(gpus)
            if gpu["prefill_seat"][k] == NOWHERE and gpu["barred"][k] == 0 and gpu["occupied"][k] < batch_size
        ]
        count = int(board.state.startable[0])
        listed = board.prefill_ready[:count].tolist()
        assert sorted(listed) == able
        assert all(at_its_level(board, k) for k in listed)
        levels = [int(gpu["level"][k]) for k in listed]
        assert levels == sorted(levels)
        assert board.first.tolist() == [sum(level < k for level in levels) for k in range(len(board.first))]
        if listed and ranked:
            least = min(gpu["occupied"][k] for k in listed)
            if least < EXACT:
                few = listed[: fewest(board)]
                assert sorted(few) == [k for k in able if gpu["occupied"][k] == least]
    assert len(board.first) == (LEVELS if ranked else 1)
