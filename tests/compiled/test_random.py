"""Random numbers in compiled code are numpy's."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.random import SFC64, Generator, SeedSequence

from fluidgate.compiled import entry_point, random

_uniform, _exponential = random.uniform, random.exponential


@entry_point
def draw(state, uniforms, exponentials):  # type: ignore[no-untyped-def]
    for k in range(uniforms.size):
        uniforms[k] = _uniform(state)
        exponentials[k] = _exponential(state)


@pytest.mark.parametrize("seed", [0, 1, 2**63])
def test_a_stream_gives_what_a_generator_of_that_seed_gives(seed: int) -> None:
    uniforms, exponentials = np.empty(100_000), np.empty(100_000)
    draw(random.stream(SeedSequence(seed)), uniforms, exponentials)
    rng = Generator(SFC64(SeedSequence(seed)))
    expected = np.array([(rng.random(), rng.standard_exponential()) for _ in range(len(uniforms))])
    assert (uniforms == expected[:, 0]).all()
    np.testing.assert_allclose(exponentials, expected[:, 1], rtol=1e-15)
    assert exponentials.max() > 7.7, "the tail is drawn from"
