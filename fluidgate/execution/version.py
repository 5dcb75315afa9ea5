"""Which code runs: two processes with the same version give the same numbers."""

from __future__ import annotations

import hashlib
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
EXAMPLES = PACKAGE / "examples"
"""Where they lie once installed; in a checkout they are beside the package."""
NUMERICAL = ("highspy", "numba", "numpy", "scipy")
"""Libraries that numbers come from."""


@cache
def code_version() -> str:
    """A digest of every source file of this package, and the versions of Python and of the numerical libraries."""
    digest = hashlib.sha256(f"{sys.version_info[:2]}".encode())
    for name in NUMERICAL:
        digest.update(f"{name} {metadata.version(name)}\n".encode())
    for source in sorted(each for each in PACKAGE.rglob("*.py") if EXAMPLES not in each.parents):
        digest.update(f"{source.relative_to(PACKAGE).as_posix()}\n".encode())
        digest.update(hashlib.sha256(source.read_bytes()).digest())
    return digest.hexdigest()
