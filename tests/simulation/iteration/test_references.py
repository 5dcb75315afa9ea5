"""Requests that refer to a script, looked over before they are used."""

from __future__ import annotations

import numpy as np
import pytest

from fluidgate.errors import FluidgateError
from fluidgate.simulation.iteration.requests import checked
from fluidgate.workloads.streams import PIECE, REQUEST, Requests, Script

PIECES = np.array([(0, 0), (0, 5), (1, 9)], PIECE)
SCRIPT = Script(PIECES, np.zeros(2, REQUEST))


def second_with(**fields: int) -> Requests:
    """Two requests, the second of which refers to something."""
    block = np.zeros(2, REQUEST)
    block["prompt"], block["output"] = 5, 4
    for name, value in fields.items():
        block[name][1] = value
    return block


@pytest.mark.parametrize("fields", [{}, {"text": 1}, {"text": 1, "answer": 2}, {"then": 1}])
def test_references_to_what_is_there(fields: dict[str, int]) -> None:
    assert len(list(checked([second_with(**fields)], 1, SCRIPT))) == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"text": 3}, "request 1 has a text that is no piece of the script"),
        ({"answer": -1}, "request 1 has an answer that is no piece of the script"),
        ({"text": 2}, "request 1 has a prompt of another length than its text"),
        ({"answer": 2}, "request 1 has an answer that does not go on from its text"),
        ({"then": 2}, "request 1 refers to a row of the script that is not there"),
        ({"spawns": -1}, "request 1 refers to a row of the script that is not there"),
        ({"beside": 7}, "request 1 refers to a row of the script that is not there"),
    ],
)
def test_references_to_what_is_not_there(fields: dict[str, int], words: str) -> None:
    with pytest.raises(FluidgateError, match=words):
        list(checked([second_with(**fields)], 1, SCRIPT))
