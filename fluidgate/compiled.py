"""How the kernels and the decision functions are compiled.

All state is held by the caller, so nothing is allocated in a kernel and reference counts are left out (`_nrt=False`):
they cost ten times the work itself. A function that the hot loop calls is inlined, because its many arrays would
otherwise be copied at each call. Decision functions therefore may not make arrays.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba import njit
from numba.core import config as numba_config

Function = TypeVar("Function", bound=Callable[..., Any])

_LEAN: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "_nrt": False,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}

inlined: Callable[[Function], Function] = njit(forceinline=True, **_LEAN)
"""For functions that only compiled code calls, in the hot loop."""

called: Callable[[Function], Function] = njit(**_LEAN)
"""For functions that only compiled code calls, and rarely or from many places."""


def entry_point(function: Callable[..., Any], *, allocates: bool = False, cache: bool = False) -> Any:
    """`function` compiled, to be called from Python; `allocates` if it makes arrays."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "_nrt": allocates, "cache": cache}
    return njit(**options)(function)


def cached(function: Callable[..., Any], *, allocates: bool = False) -> Any:
    """`function` compiled, and kept on disk for later processes; `allocates` if it makes arrays.

    numba's own cache notices a change of the file that defines a function but not of those it calls, so each state of
    the package's sources has a folder of its own. Where no folder can be written the code is compiled anew each time.
    """
    config: Any = numba_config
    before = config.CACHE_DIR
    try:
        config.CACHE_DIR = str(cache_folder())
        return entry_point(function, allocates=allocates, cache=True)
    finally:
        config.CACHE_DIR = before


def is_cached(compiled: Any) -> bool:
    """Whether an earlier process has left the compiled code of a `cached` function on disk."""
    folder = Path(compiled.stats.cache_path)
    return any(folder.glob(f"*{compiled.__name__}*.nbc"))


COMPILED = (
    ".",
    "policies/decisions",
    "policies",
    "replanning",
    "simulation",
    "simulation/markov",
    "simulation/iteration",
    "optimum",
    "gateway/dispatch",
)
"""Folders of the package whose sources compiled code may come from."""


@cache
def cache_folder() -> Path:
    import platformdirs

    digest = hashlib.sha256(numba.__version__.encode())
    package = Path(__file__).parent
    for part in COMPILED:
        for source in sorted((package / part).glob("*.py")):
            digest.update(source.read_bytes())
    for root in (platformdirs.user_cache_path("fluidgate"), Path(tempfile.gettempdir()) / "fluidgate-cache"):
        folder = root / digest.hexdigest()[:16]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return folder
        except OSError:
            continue
    return Path(tempfile.mkdtemp(prefix="fluidgate-"))
