"""The benchmark's script of sessions is what its player says."""

from __future__ import annotations

import numpy as np

from benchmarks.gateway_sessions import script_of
from fluidgate.emulator.prompt import BYTES_PER_TOKEN
from fluidgate.emulator.session_player import Sessions

SESSIONS = Sessions(prefix=64, prefixes=2, new=32, output=16, turns=3.0, think=2.0, seed=5)


def test_turns_lengths_and_thoughts_are_those_of_the_player() -> None:
    first, script = script_of(SESSIONS, 8)
    assert len(first) == 8
    stems = {}
    for number, row in enumerate(first):
        system, *said = SESSIONS.one(number)
        text = system[0]["content"]
        stem = script.pieces[row["text"]]["parent"]
        assert stems.setdefault(text, stem) == stem
        tokens = len(text) // BYTES_PER_TOKEN
        for k, (message, _) in enumerate(said):
            tokens += len(message["content"]) // BYTES_PER_TOKEN
            assert row["prompt"] == tokens == script.pieces[row["text"]]["end"]
            tokens += SESSIONS.output
            assert script.pieces[row["answer"]]["end"] == tokens
            assert script.pieces[row["answer"]]["parent"] == row["text"]
            last = k == len(said) - 1
            assert (row["then"] == 0) == last
            if not last:
                assert row["think"] == said[k + 1][1]
                following = script.rows[row["then"]]
                assert script.pieces[following["text"]]["parent"] == row["answer"]
                row = following
    assert len(stems) == 2
    assert np.isinf(first["patience"]).all()
