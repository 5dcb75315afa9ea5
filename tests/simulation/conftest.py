"""Scenarios that the simulation tests share."""

from __future__ import annotations

import pytest

from fluidgate import Scenario
from tests.scenarios import two_class_scenario


@pytest.fixture(scope="session")
def two_class() -> Scenario:
    """The two-class instance of [LDHZ] section 6.2."""
    return two_class_scenario()
