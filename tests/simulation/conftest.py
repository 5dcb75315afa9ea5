"""Scenarios and helpers that the simulation tests share."""

from __future__ import annotations

import pytest

from fluidgate import Gpu, IterationTime, Pricing, RequestClass, Scenario


@pytest.fixture(scope="session")
def two_class() -> Scenario:
    """The two-class instance of [LDHZ] section 6.2."""
    return Scenario(
        name="two-class",
        gpu=Gpu(batch_size=16, chunk_size=256, iteration=IterationTime(alpha=0.0174, beta=6.2e-5, gamma=45.45)),
        pricing=Pricing(scheme="bundled", prompt=0.1, output=0.2),
        classes=(
            RequestClass(
                name="decode-heavy",
                prompt_tokens=300,
                output_tokens=1000,
                arrival_rate=0.5,
                patience_rate=0.1,
            ),
            RequestClass(
                name="prefill-heavy",
                prompt_tokens=3000,
                output_tokens=400,
                arrival_rate=0.5,
                patience_rate=0.1,
            ),
        ),
    )
