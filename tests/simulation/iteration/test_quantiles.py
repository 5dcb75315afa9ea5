"""Quantiles of times: of all observations, and how sure they are over replications."""

from __future__ import annotations

import numpy as np
import pytest

from fluidgate.simulation.iteration.results import QUANTILES, TimeStatistic
from fluidgate.simulation.statistics import statistic
from tests.reports.results import observed


def test_an_interval_is_that_of_the_replications_own_quantiles() -> None:
    rng = np.random.default_rng(5)
    replications = [rng.exponential(size=2000) for _ in range(4)]
    found = TimeStatistic.of([observed(*each).distribution for each in replications])
    shown = found.to_dict()
    for name in QUANTILES:
        share = int(name[1:]) / 100
        assert shown[name] == pytest.approx(np.quantile(np.concatenate(replications), share), rel=2e-3)
        exact = statistic([float(np.quantile(each, share)) for each in replications]).ci95
        assert shown[f"{name}_ci95"] == pytest.approx(exact, rel=5e-3)


def test_one_replication_or_no_observation_has_none() -> None:
    for found in (observed(0.1, 0.2), TimeStatistic.of([observed().distribution] * 2)):
        assert [found.to_dict()[f"{name}_ci95"] for name in QUANTILES] == [None] * 4
