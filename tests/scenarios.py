"""Scenarios and hypothesis strategies for tests."""

from __future__ import annotations

from hypothesis import strategies as st

from fluidgate import Gpu, IterationTime, Pricing, RequestClass, Scenario


def two_class_scenario() -> Scenario:
    """The two-class instance of [LDHZ] section 6.2."""
    return Scenario(
        name="two-class",
        gpu=Gpu(batch_size=16, chunk_size=256, iteration=IterationTime(alpha=0.0174, beta=6.2e-5, gamma=45.45)),
        pricing=Pricing(scheme="bundled", prompt=0.1, output=0.2),
        classes=(
            RequestClass(
                name="decode-heavy", prompt_tokens=300, output_tokens=1000, arrival_rate=0.5, patience_rate=0.1
            ),
            RequestClass(
                name="prefill-heavy", prompt_tokens=3000, output_tokens=400, arrival_rate=0.5, patience_rate=0.1
            ),
        ),
    )


def station(*, servers_per_gpu: int = 1, arrival: float, service: float, patience: float) -> Scenario:
    """A network that degenerates to M/M/c+M: prefills last 1/service s on average, decodes no time at all."""
    tau, chunk = 0.05, 256
    return Scenario(
        name="station",
        gpu=Gpu(
            batch_size=servers_per_gpu,
            chunk_size=chunk,
            iteration=IterationTime(alpha=tau - 1e-4 * chunk, beta=1e-4, gamma=40.0),
        ),
        pricing=Pricing(scheme="bundled", prompt=1.0, output=1.0),
        classes=(
            RequestClass(
                name="only",
                prompt_tokens=chunk / (tau * service),
                output_tokens=1e-9,
                arrival_rate=arrival,
                patience_rate=patience,
            ),
        ),
    )


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """Small clusters of any shape: one to four classes, batches of 1 to 6, kappa on both sides of 1."""
    gamma = draw(st.floats(10.0, 60.0))
    kappa = draw(st.floats(0.8, 4.0))
    classes = tuple(
        RequestClass(
            name=f"c{k}",
            prompt_tokens=draw(st.floats(100.0, 3000.0)),
            output_tokens=draw(st.floats(5.0, 300.0)),
            arrival_rate=draw(st.floats(0.05, 2.0)),
            patience_rate=draw(st.floats(0.02, 2.0)),
        )
        for k in range(draw(st.integers(1, 4)))
    )
    return Scenario(
        name="random",
        gpu=Gpu(
            batch_size=draw(st.integers(1, 6)),
            chunk_size=256,
            iteration=IterationTime(alpha=kappa / gamma - 1e-5 * 256, beta=1e-5, gamma=gamma),
        ),
        pricing=Pricing(scheme=draw(st.sampled_from(["bundled", "separate"])), prompt=0.1, output=0.2),
        classes=classes,
    )
