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
from typing import IO, Any

from numba.core import serialize
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult

from fluidgate.compiled.contents import digest_of

try:
    import fcntl
except ImportError:  # of a system without such locks, where processes that start together compile the same
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("fluidgate")

STATES = 6
"""States of a kernel that are kept: others belong to sources that are no more."""
PATIENCE = 5
"""Times as long as compilation takes that a process waits for another one that compiles the same."""


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

    It says when the compiler starts and how long it took. Of processes that start together one compiles, and the others
    wait for it.
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
        self._seconds = seconds
        self._patience = PATIENCE * seconds
        self._lock: IO[str] | None = None
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
        found = self._loaded(path, target_context)
        if found is None and path is not None and self._patience:
            self._lock = _locked(_lock_of(path), self._patience)
            found = self._loaded(path, target_context)
            if found is not None:
                self._unlock(path)
        if found is None:
            if self._what:
                told = {"compiling": self._what, "expected": self._seconds}
                log.info("compiling %s (%s)%s ...", self._what, _whereabouts(), self._some, extra=told)
            self._began = time.perf_counter()
        return found

    def _loaded(self, path: Path | None, target_context: Any) -> Any:
        if path is None:
            return None
        try:
            payload = pickle.loads(path.read_bytes())
            target_context.refresh()
            found = CompileResult._rebuild(target_context, *payload)
            with suppress(OSError):  # of another user, or on a disk that is read-only
                os.utime(path)
            return found
        except FileNotFoundError:
            return None
        except Exception:  # a file of an unfinished write, or of another compiler: it is made again
            with suppress(OSError):
                path.unlink()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        if self._what:
            log.info("compiled in %.1f s", time.perf_counter() - self._began, extra={"compiling": ""})
        path = self._path(sig)
        if path is None:
            return
        try:
            unfinished = path.with_name(f"{path.name}.{os.getpid()}")
            unfinished.write_bytes(serialize.dumps(_payload(data)))
            unfinished.replace(path)
            self._remove_old_states(path.parent)
        except OSError:
            pass
        self._unlock(path)

    def _unlock(self, path: Path) -> None:
        if self._lock is not None:
            with suppress(OSError):
                _lock_of(path).unlink()
            self._lock.close()
            self._lock = None

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


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _locked(path: Path, seconds: float) -> IO[str] | None:
    """The file, locked, once no other process has it; None after so many seconds, or where nothing can be locked.

    A process that ends leaves its locks.
    """
    if fcntl is None:
        return None
    try:
        file = path.open("w")
    except OSError:
        return None
    limit = time.monotonic() + seconds
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except OSError as error:
            if not isinstance(error, BlockingIOError | PermissionError) or time.monotonic() > limit:
                file.close()
                return None
        time.sleep(0.05)


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
