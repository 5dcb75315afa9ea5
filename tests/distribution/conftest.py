"""The packages, built once, and an environment that has the wheel."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.distribution.bare import ROOT, Bare

pytest.importorskip("build", reason="needs build: pip install 'fluidgate[dev]'")
pytest.importorskip("hatchling", reason="needs hatchling: pip install 'fluidgate[dev]'")


@dataclass(frozen=True)
class Built:
    """The files of a release."""

    sdist: Path
    wheel: Path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sdist of this checkout, and the wheel made from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "-o", folder, ROOT], check=True, timeout=300)
    return Built(next(folder.glob("*.tar.gz")), next(folder.glob("*.whl")))


@pytest.fixture(scope="session")
def bare(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Bare:
    """An environment that has the wheel."""
    made = Bare.made(tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("elsewhere"))
    made.install(built.wheel)
    return made
