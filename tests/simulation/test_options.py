"""What is asked of a simulation, and what it becomes."""

from __future__ import annotations

import math

import pytest

from fluidgate import Scenario
from fluidgate.errors import FluidgateError
from fluidgate.replanning import Replanning
from fluidgate.simulation.iteration.replay_options import ReplayOptions
from fluidgate.simulation.options import Options, check_draws, gpus_of


def test_defaults_are_filled_in(two_class: Scenario) -> None:
    options = Options.checked(two_class, gpus=4, horizon=300)
    assert options == Options(4, 300.0, 30.0, 5, 0)
    assert isinstance(options.horizon, float)
    own = two_class.replace(cluster_gpus=7)
    assert Options.checked(own).gpus == 7
    assert Options.checked(own, gpus=3).gpus == 3
    assert gpus_of(own, None) == 7


def test_only_what_a_reader_needs_is_shown(two_class: Scenario) -> None:
    options = Options.checked(two_class, gpus=4, samples=9, audited=True, replanning=Replanning())
    assert list(options.to_dict()) == ["gpus", "horizon", "warmup", "replications", "seed", "fidelity"]
    assert options == Options.checked(two_class, gpus=4), "the path and the audit change no number"
    assert Options(1, math.inf, 0.0, 1, 0, "iteration").to_dict()["horizon"] is None


def test_a_replay_is_as_logged_where_nothing_is_changed() -> None:
    logged = ReplayOptions(2, math.inf, 0.0, 1, 0, traces=("a.csv",))
    assert logged.as_logged
    assert logged.to_dict()["fidelity"] == "iteration"
    assert logged.to_dict()["traces"] == ("a.csv",)
    for other in (
        ReplayOptions(2, 100.0, 0.0, 1, 0),
        ReplayOptions(2, math.inf, 5.0, 1, 0),
        ReplayOptions(2, math.inf, 0.0, 1, 0, times="repeat"),
        ReplayOptions(2, math.inf, 0.0, 1, 0, rate_scale=2.0),
        ReplayOptions(2, math.inf, 0.0, 1, 0, requests=9),
    ):
        assert not other.as_logged


def test_wrong_numbers_are_named(two_class: Scenario) -> None:
    with pytest.raises(FluidgateError, match="gpus: missing"):
        gpus_of(two_class, None)
    with pytest.raises(FluidgateError, match="replications: must be at least 1, but is 0"):
        check_draws(0, 0)
    with pytest.raises(FluidgateError, match="seed: must be at least 0, but is -1"):
        check_draws(1, -1)
