"""What a run hands on of its iterations: conserved, and what requests have met of it takes as long as they took."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fluidgate.batching import Batching
from fluidgate.engine_table import EngineModel
from fluidgate.simulation.iteration.engine import Engine
from fluidgate.simulation.iteration.kernel.cluster import COMPLETED
from fluidgate.simulation.iteration.law import linear_law
from fluidgate.simulation.iteration.rules import Placements
from fluidgate.simulation.iteration.run import Run, run_requests
from fluidgate.simulation.iteration.what_ran import TERMS, WhatRan
from fluidgate.workloads.streams import REQUEST

COEFFICIENTS = np.array([0.01, 1e-4, 2e-4, 3e-7, 4e-9, 0.008, 1e-4, 2e-7])
"""One for each of `TERMS`."""


def ran(batching: Batching, memory: int | None, seed: int, gpus: int = 1) -> tuple[Any, Any, list[Any]]:
    """What was measured, the log, and the segments, of a law with every term."""
    random, count = np.random.default_rng(seed), 120
    requests = np.zeros(count, REQUEST)
    requests["arrival"] = np.cumsum(random.exponential(0.2, count))
    requests["prompt"], requests["output"] = random.integers(1, 900, count), random.integers(1, 200, count)
    requests["patience"] = np.inf
    alpha, beta, delta, epsilon, zeta, *solo = COEFFICIENTS.tolist()
    law = linear_law(alpha, beta, delta=delta, epsilon=epsilon, zeta=zeta, solo=tuple(solo))
    engine = Engine(law, 32, 256, batching, EngineModel(kv_tokens=memory))
    logs: list[Any] = []
    segments: list[Any] = []
    taken = {"take_log": logs.append, "take_segments": segments.append}
    measured = run_requests([requests], engine, Run(gpus, 1), Placements(), **taken)
    return measured, np.concatenate(logs), segments


@pytest.mark.parametrize("memory", [None, 5000])
@pytest.mark.parametrize("batching", [Batching.TOKEN_BUDGET, Batching.PREFILL_FIRST])
def test_a_request_takes_as_long_as_what_it_meets(batching: Batching, memory: int | None) -> None:
    for seed in range(3):
        measured, log, segments = ran(batching, memory, seed)
        what = WhatRan.of(segments)
        met = what.by(log["last_token"]) - what.by(log["first_token"])
        assert met @ COEFFICIENTS == pytest.approx(log["last_token"] - log["first_token"], rel=1e-7, abs=1e-7)
        assert (memory is not None) == (measured.preemptions.sum() > 0)


def test_tokens_are_conserved() -> None:
    measured, log, segments = ran(Batching.TOKEN_BUDGET, None, 7, gpus=3)
    total = sum(WhatRan.of(segments, gpu).before[-1] for gpu in range(3))
    counted = dict(zip(TERMS, total, strict=True))
    assert counted["prompt tokens"] == log["prompt"].sum()
    assert counted["decodes beside them"] + counted["solo decodes"] == (log["output"] - 1).sum()
    assert counted["mixed iterations"] + counted["solo iterations"] == measured.iterations
    assert (log["outcome"] == COMPLETED).all()


def test_at_an_epoch_stands_the_segment_under_way() -> None:
    _, log, segments = ran(Batching.TOKEN_BUDGET, None, 1)
    what = WhatRan.of(segments)
    middle = 0.5 * (log["first_token"].max() + log["last_token"].max())
    running = ((log["first_token"] <= middle) & (log["last_token"] > middle)).sum()
    assert what.at(np.array([middle]), "decodes") == [running]
    assert what.at(np.array([-1.0, 1e9]), "decodes").tolist() == [0, 0]
