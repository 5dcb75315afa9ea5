"""Samples looked up by name and labels."""

from __future__ import annotations

import pytest

from fluidgate.gateway.samples import Samples
from tests.reports.gateway import metrics


def test_samples_are_summed_by_a_label() -> None:
    found = Samples.parsed(metrics(chat={"completed": 5.0, "cancelled": 1.0}, code={"completed": 2.0}))
    assert found.by("outcome", "fluidgate_requests_total") == {"completed": 7.0, "cancelled": 1.0}
    assert found.by("class", "fluidgate_requests_total", outcome="completed") == {"chat": 5.0, "code": 2.0}
    assert found.by("nothing", "fluidgate_requests_total") == {"": 8.0}
    assert found.by("class", "fluidgate_unknown_total") == {}
    with pytest.raises(ValueError, match=r".*"):
        Samples.parsed("<html>no metrics</html>")
