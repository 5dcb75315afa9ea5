"""Packages that only some of the commands need, and that come with an extra: `pip install 'fluidgate[plot]'`.

Where one is missing, an import of it by this package raises a `FluidgateError` that names the extra, wherever the
import stands; other packages see nothing of it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

from fluidgate.errors import FluidgateError

EXTRAS = {
    "matplotlib": ("plot", "pictures need"),
    "pandas": ("traces", "traces and data frames need"),
}
"""The extra that brings a package, and what for."""

PACKAGE = __name__.partition(".")[0]


class MissingExtra(FluidgateError, ModuleNotFoundError):
    """A package is not installed that comes with an extra."""

    def __init__(self, package: str) -> None:
        extra, needed = EXTRAS[package]
        super().__init__(f"{needed} {package}, which is not installed; pip install '{PACKAGE}[{extra}]'")


def missing_extra(error: BaseException) -> MissingExtra | None:
    """The extra whose package an import lacked, here or in another package; None for another error."""
    if isinstance(error, MissingExtra):
        return error
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        return MissingExtra(error.name)
    return None


def require(package: str) -> None:
    """Refuse before work begins what a missing package would end.

    Raises:
        MissingExtra: it is not installed.
    """
    from importlib.util import find_spec

    if package not in sys.modules and find_spec(package) is None:
        raise MissingExtra(package)


class Missing:
    """A finder that is asked last, so only for what no other one has found."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname in EXTRAS and _imported_here(sys._getframe(1)):
            raise MissingExtra(fullname)


def _imported_here(frame: FrameType | None) -> bool:
    """Whether the import that a frame belongs to stands in this package."""
    while frame is not None and frame.f_globals.get("__name__", "").startswith("importlib."):
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == PACKAGE


def tell_missing() -> None:
    """Have missing packages told from now on."""
    if not any(isinstance(finder, Missing) for finder in sys.meta_path):
        sys.meta_path.append(Missing())
