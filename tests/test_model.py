from __future__ import annotations

from typing import Any

import pytest

from fluidgate.model import Arrivals, EngineModel, Lengths


@pytest.mark.parametrize(
    ("noun", "fields", "message"),
    [
        (Arrivals, {"cv": 3.0}, "cv must be 1 for poisson arrivals"),
        (Arrivals, {"process": "mmpp", "levels": (1.0,), "sojourns": (1.0,)}, "mmpp needs two levels"),
        (Arrivals, {"process": "mmpp", "levels": (1.0, 2.0), "sojourns": (1.0,)}, "as many sojourns"),
        (Arrivals, {"process": "daily", "weights": (0.0,)}, "daily needs weights, one of them above 0"),
        (Lengths, {"prompt": "lognormal"}, "prompt_cv belongs to lognormal lengths"),
        (Lengths, {"output_cv": 1.0}, "output_cv belongs to lognormal lengths"),
        (EngineModel, {"kv_tokens": 8}, "kv_tokens: must hold a block"),
        (EngineModel, {"preemption": "swap"}, "preemption: only with a limited"),
        (EngineModel, {"swap_seconds": 1.0}, "swap_seconds: only with preemption ="),
        (
            EngineModel,
            {"batching": "single-prefill", "max_batched_tokens": 9},
            "max_batched_tokens: not with",
        ),
        (
            EngineModel,
            {"batching": "prefill-first", "async_scheduling": True},
            "async_scheduling: not simulated with",
        ),
    ],
)
def test_nouns_of_the_library_are_checked(noun: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        noun(**fields)
