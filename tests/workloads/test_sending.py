"""Sessions unrolled: which request is sent when, and whose it is."""

import numpy as np

from fluidgate.workloads.sending import in_order_of_sending
from fluidgate.workloads.streams.requests import REQUEST, requests_of
from fluidgate.workloads.streams.script import NO_SCRIPT, Script, no_pieces


def test_turns_follow_answers_and_sub_agents_what_sets_them_off():
    first = requests_of([0.0, 1.0], [0, 1], [10, 20], [100, 10], [9.0, 9.0], [5.0, 0.0])
    rows = np.zeros(5, REQUEST)
    first["then"][0], first["spawns"][0] = 1, 2
    rows["output"] = 50
    rows["arrival"][2], rows["beside"][2], rows["then"][2], rows["think"][2] = 3.0, 3, 4, 1.0
    rows["arrival"][3] = 2.5
    rows["prompt"] = np.arange(5)
    whole, session = in_order_of_sending(first, Script(no_pieces(), rows), 0.02)
    assert whole["prompt"].tolist() == [10, 20, 3, 2, 4, 1]
    assert whole["arrival"].tolist() == [0.0, 1.0, 2.5, 3.0, 3.0 + 1.0 + 1.0, 2.0 + 5.0]
    assert session.tolist() == [0, 1, 0, 0, 0, 0]


def test_requests_without_sessions_stay_as_they_are():
    first = requests_of([0.0, 1.0], 0, [10, 20], 5, 9.0)
    whole, session = in_order_of_sending(first, NO_SCRIPT, 1.0)
    assert np.array_equal(whole, first)
    assert session.tolist() == [0, 1]
    nothing, none = in_order_of_sending(first[:0], NO_SCRIPT, 1.0)
    assert len(nothing) == len(none) == 0
