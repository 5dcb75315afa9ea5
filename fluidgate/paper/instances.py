"""The instances of the published evaluation."""

from __future__ import annotations

import numpy as np

from fluidgate.model import Gpu, IterationTime, Pricing, RequestClass, Scenario, Scheme

SCALES = (5, 20, 50, 200, 500)


def two_class(scheme: Scheme = "bundled") -> Scenario:
    """The two-class instance of [LDHZ] section 6.2, also used in 6.4."""
    return Scenario(
        name="two-class",
        gpu=Gpu(batch_size=16, chunk_size=256, iteration=IterationTime(alpha=0.0174, beta=6.2e-5, gamma=45.45)),
        pricing=Pricing(scheme=scheme, prompt=0.1, output=0.2),
        classes=(
            RequestClass(
                name="decode-heavy", prompt_tokens=300, output_tokens=1000, arrival_rate=0.5, patience_rate=0.1
            ),
            RequestClass(
                name="prefill-heavy", prompt_tokens=3000, output_tokens=400, arrival_rate=0.5, patience_rate=0.1
            ),
        ),
    )


def random_instance(seed: int, number: int) -> Scenario:
    """An instance of [LDHZ] section 6.3, drawn from its printed ranges: `beta` log-uniform, the rest uniform.

    alpha 0.015..0.02 s, beta 1e-5..1e-3 s/token, gamma 10..50 tokens/s, P and D 200..3000 tokens, lambda 0.25..0.5,
    two to four classes; B = 16, C = 256, theta = 0.1, c_p = 0.1, c_d = 0.2.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
    law = IterationTime(
        alpha=rng.uniform(0.015, 0.02),
        beta=float(np.exp(rng.uniform(np.log(1e-5), np.log(1e-3)))),
        gamma=rng.uniform(10.0, 50.0),
    )
    classes = tuple(
        RequestClass(
            name=f"class-{k}",
            prompt_tokens=rng.uniform(200.0, 3000.0),
            output_tokens=rng.uniform(200.0, 3000.0),
            arrival_rate=rng.uniform(0.25, 0.5),
            patience_rate=0.1,
        )
        for k in range(int(rng.integers(2, 5)))
    )
    return Scenario(
        name=f"random-{number}",
        gpu=Gpu(batch_size=16, chunk_size=256, iteration=law),
        pricing=Pricing(scheme="bundled", prompt=0.1, output=0.2),
        classes=classes,
    )
