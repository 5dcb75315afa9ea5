"""The partition of a cluster."""

import pytest

from fluidgate.planning import partition


@pytest.mark.parametrize(
    ("fraction", "gpus", "mixed"),
    [
        (0.213211446, 500, 107),
        (107.0000000001 / 500, 500, 107),
        (107 / 500, 500, 107),
        (107.001 / 500, 500, 108),
        (0.0, 10, 0),
        (1.0, 10, 10),
        (1.0 + 1e-12, 10, 10),
        (1e-6, 10, 1),
    ],
)
def test_mixed_group(fraction, gpus, mixed):
    groups = partition(fraction, gpus)
    assert (groups.mixed, groups.solo) == (mixed, gpus - mixed)
    assert groups.prefill_utilisation == pytest.approx(gpus * fraction / mixed if mixed else 0, abs=1e-9)


def test_no_gpus():
    with pytest.raises(ValueError, match="gpus"):
        partition(0.5, 0)
