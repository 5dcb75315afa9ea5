"""Compiled kernels on disk, by what they are made of: an edit of anything else compiles nothing."""

from __future__ import annotations

import logging
import os
import pickle
import tempfile
import time
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from numba.core import serialize
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult

from fluidgate.compiled.contents import digest_of

log = logging.getLogger("fluidgate")

STATES = 6
"""States of a kernel that are kept: others belong to sources that are no more."""


@cache
def folder() -> Path | None:
    """Where kernels are kept; None where nothing can be written."""
    import platformdirs

    for root in (platformdirs.user_cache_path, lambda name: Path(tempfile.gettempdir()) / f"{name}-cache"):
        try:  # where no folder at all can be written, there is no folder for temporary files either
            here: Path = root("fluidgate") / "kernels"
            here.mkdir(parents=True, exist_ok=True)
            return here
        except OSError:
            continue
    return None


class KernelCache(_Cache):
    """The code of one entry point, in a file for each state of its contents and each signature.

    It says when the compiler starts and how long it took.
    """

    def __init__(self, function: Any, what: str, *, seconds: int = 0, states: int = STATES) -> None:
        """
        Args:
            what: the kernel as a user would call it; empty to be silent.
            seconds: that compilation takes, about.
            states: how many files of this name are kept, those used last.
        """
        self._function = function
        self._what = what
        self._some = f", some {seconds} s" if seconds else ""
        self._states = states
        self._began = 0.0

    @property
    def cache_path(self) -> str:
        return str(folder())

    @cached_property
    def name(self) -> str:
        """Of the entry point, whatever its state."""
        return f"{self._function.__module__}.{self._function.__qualname__}".replace("<locals>.", "")

    @cached_property
    def digest(self) -> str:
        return digest_of(self._function)

    def is_there(self) -> bool:
        """Whether an earlier process has left code for this state."""
        here = folder()
        return here is not None and any(here.glob(f"{self.name}-{self.digest}-*"))

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        path = self._path(sig)
        if path is not None:
            try:
                payload = pickle.loads(path.read_bytes())
                target_context.refresh()
                found = CompileResult._rebuild(target_context, *payload)
                with suppress(OSError):  # of another user, or on a disk that is read-only
                    os.utime(path)
                return found
            except FileNotFoundError:
                pass
            except Exception:  # a file of an unfinished write, or of another compiler: it is made again
                with suppress(OSError):
                    path.unlink()
        if self._what:
            log.info("compiling %s (%s)%s ...", self._what, _whereabouts(), self._some)
        self._began = time.perf_counter()
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        if self._what:
            log.info("compiled in %.1f s", time.perf_counter() - self._began)
        path = self._path(sig)
        if path is None:
            return
        try:
            unfinished = path.with_name(f"{path.name}.{os.getpid()}")
            unfinished.write_bytes(serialize.dumps(_payload(data)))
            unfinished.replace(path)
            self._remove_old_states(path.parent)
        except OSError:
            return

    def enable(self) -> None:
        pass

    def disable(self) -> None:
        pass

    def flush(self) -> None:
        pass

    def _path(self, sig: Any) -> Path | None:
        here = folder()
        if here is None:
            return None
        import hashlib

        return here / f"{self.name}-{self.digest}-{hashlib.sha256(repr(sig).encode()).hexdigest()[:12]}"

    def _remove_old_states(self, here: Path) -> None:
        states = sorted(here.glob(f"{self.name}-*"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in states[self._states :]:
            path.unlink(missing_ok=True)


def _whereabouts() -> str:
    """Of the code to come, for the message that it is compiled."""
    here = folder()
    if here is None or not os.access(here, os.W_OK):
        return "at each start: it can't be kept, give XDG_CACHE_HOME a folder to write to"
    return f"once, it is kept in {here}"


def _payload(compiled: Any) -> tuple[Any, ...]:
    """What numba builds the code from again, without the environments of linked functions.

    They hold constants of Python objects, of which there are none, and to build them again would import the modules of
    these functions, a user's own files among them.
    """
    *payload, _environments = compiled._reduce()
    return (*payload, ())
