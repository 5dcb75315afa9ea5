"""The tournament, the placement search and the histograms, against plain searches and sorts."""

from __future__ import annotations

import numpy as np
import pytest

from fluidgate.compiled import entry_point
from fluidgate.simulation.iteration import placement, record
from fluidgate.simulation.iteration import tournament as tournaments
from fluidgate.simulation.iteration.cluster import BINS, Cluster, Placement
from fluidgate.simulation.iteration.engine import Engine
from fluidgate.simulation.iteration.law import linear_law
from fluidgate.simulation.iteration.measure import Distribution, bin_edges
from fluidgate.simulation.iteration.run import Run, new_cluster
from fluidgate.simulation.iteration.tournament import tournament

_replay, _winner, _least, _change = (
    tournaments.replay,
    tournaments.winner,
    placement.least_product,
    placement.change_load,
)
_bin_of, _bin_end = record.bin_of, record.bin_end


@entry_point
def play(tree, keys, player):  # type: ignore[no-untyped-def]
    _replay(tree, keys, player)
    return _winner(tree)


@entry_point
def put_and_choose(cluster, g, requests, tokens, prompt):  # type: ignore[no-untyped-def]
    _change(cluster, g, requests, tokens)
    return _least(cluster, prompt)


@entry_point
def bin_and_end(seconds):  # type: ignore[no-untyped-def]
    return _bin_of(seconds), _bin_end(_bin_of(seconds))


@pytest.mark.parametrize("players", [1, 2, 3, 5, 8, 13])
def test_the_least_key_wins_and_ties_go_to_the_lowest_number(players: int) -> None:
    rng = np.random.default_rng(players)
    keys = np.full(players, np.inf)
    tree = tournament(players)
    for _ in range(500):
        player = int(rng.integers(players))
        keys[player] = rng.choice([1.0, 2.0, 3.0, np.inf])
        assert play(tree, keys, player) == int(np.argmin(keys))


def lmetric_cluster(gpus: int) -> Cluster:
    return new_cluster(Engine(linear_law(1.0, 1.0), 4, 8), Run(gpus, 1), False, placement=Placement.LMETRIC)


@pytest.mark.parametrize("gpus", [1, 2, 3, 7, 16, 21])
def test_the_pruned_search_finds_the_least_product(gpus: int) -> None:
    rng = np.random.default_rng(gpus)
    cluster = lmetric_cluster(gpus)
    unread, load = np.zeros(gpus, int), np.zeros(gpus, int)
    for _ in range(500):
        g = int(rng.integers(gpus))
        more_requests, more_tokens = int(rng.integers(0, 5)) - min(load[g], 2), int(rng.integers(0, 50))
        more_tokens -= min(int(unread[g]), 30)
        load[g] += more_requests
        unread[g] += more_tokens
        prompt = int(rng.integers(1, 100))
        chosen = put_and_choose(cluster, g, more_requests, more_tokens, prompt)
        assert chosen == int(np.argmin((unread + prompt) * (load + 1)))


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
