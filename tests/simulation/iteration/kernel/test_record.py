"""The histograms, against plain sorts."""

from __future__ import annotations

import numpy as np
import pytest

from fluidgate.compiled import entry_point
from fluidgate.simulation.iteration.kernel import record
from fluidgate.simulation.iteration.kernel.cluster import BINS
from fluidgate.simulation.iteration.measure import Distribution, bin_edges

_bin_of, _bin_end = record.bin_of, record.bin_end


@entry_point
def bin_and_end(seconds):  # type: ignore[no-untyped-def]
    return _bin_of(seconds), _bin_end(_bin_of(seconds))


def test_bins_hold_their_times() -> None:
    edges = bin_edges()
    for seconds in (1e-9, 2.0**-20, 1e-3, 0.0999, 1.0, 1.5, 3600.0, 1e6, 1e9):
        k, end = bin_and_end(seconds)
        assert edges[k] <= seconds < edges[k + 1] or k == BINS - 1
        assert end == edges[k + 1] or k == BINS - 1
    assert bin_and_end(0.0)[0] == 0
    assert (np.diff(edges[1:-1]) / edges[1:-2] <= 1 / 256).all()


def test_quantiles_are_those_of_the_sample() -> None:
    sample = np.random.default_rng(1).lognormal(-1.0, 2.0, 999)
    counts = np.bincount([bin_and_end(x)[0] for x in sample], minlength=BINS)
    measured = Distribution(counts, float(sample.sum()))
    for share in (0.0, 0.3, 0.5, 0.9, 0.99, 1.0):
        assert measured.quantile(share) == pytest.approx(np.quantile(sample, share), rel=2.1e-3)
    assert measured.mean == pytest.approx(sample.mean())
    assert measured.share_within(0.5) == pytest.approx((sample <= 0.5).mean(), abs=0.003)
    assert Distribution(np.zeros(BINS, np.int64), 0.0).p50 is None
