"""Policies in Python files of one's own, by `PATH.py:NAME`.

Such a file is loaded as a submodule of this module. The submodule's name holds the file's path, so that a worker
process that is sent a function of the file imports the file anew; other machines are sent the code itself.
"""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

from fluidgate.errors import FluidgateError, nearest, one_line
from fluidgate.policies.placed import PlacedPolicy
from fluidgate.policies.policy import Policy
from fluidgate.toml_file import fail, read_text
from fluidgate.wording import printed_aside

__path__: list[str] = []  # makes this module a package, whose submodules `OwnFiles` finds
OWN = re.compile(r"(?P<path>.+\.py)(:(?P<name>\w*))?")
SUBMODULE = re.compile(re.escape(__name__) + r"\.(?P<path>[0-9a-f]+)_[0-9a-f]+")


def is_own(name: str) -> bool:
    """Whether a policy's name is that of a Python file of one's own."""
    return OWN.fullmatch(name) is not None


def own_policy(name: str, folder: str | Path = "") -> Policy | PlacedPolicy:
    """The policy `PATH.py:NAME`; it goes by that name.

    The file runs once in a process, and again when it has changed.

    Args:
        folder: where a relative path starts; the working folder if empty.

    Raises:
        FluidgateError: there is no such file, it raises, or has no policy of that name.
    """
    match = OWN.fullmatch(name)
    assert match is not None
    path = str(Path(folder, match["path"])) if folder else match["path"]
    module = load(path)
    found = {key: value for key, value in vars(module).items() if isinstance(value, Policy | PlacedPolicy)}
    wanted = match["name"]
    if wanted in found:
        return replace(found[wanted], name=f"{path}:{wanted}")
    names = ", ".join(found)
    has = f"it has {names}" if found else "it has none; make one with find_policy('gate-and-route').with_functions(...)"
    if not wanted:
        fail(path, [f"which of its policies is not said; give {match['path']}:NAME ({has})"])
    if wanted in vars(module):
        fail(
            path, [f"'{wanted}' is no policy but of type {type(vars(module)[wanted]).__name__}; name a policy ({has})"]
        )
    mend = nearest(wanted, list(found)) or "; name another"
    fail(path, [f"no policy '{wanted}'{mend} ({has})"])


def load(path: str) -> ModuleType:
    """The module of a Python file.

    Raises:
        FluidgateError: there is no such file, or it raises.
    """
    read_text(path, "a Python file with a policy")
    whole = Path(path).resolve()
    try:
        return importlib.import_module(f"{__name__}.{str(whole).encode().hex()}_{whole.stat().st_mtime_ns:x}")
    except (Exception, SystemExit) as error:
        where = _line(error, str(whole))
        reason = one_line(str(error)) or "no message"
        raise FluidgateError(
            one_line(f"{path}: {where}raises {type(error).__name__}: {reason}; mend the file")
        ) from error


class OwnFiles(MetaPathFinder):
    """Finds the submodules of this module."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        match = SUBMODULE.fullmatch(fullname)
        if match is None:
            return None
        file = bytes.fromhex(match["path"]).decode()
        return spec_from_file_location(fullname, file, loader=OwnLoader(fullname, file))


class OwnLoader(SourceFileLoader):
    """Runs a file with its folder on the path, as `python FILE` does; no bytecode is kept beside it."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__only_here__"] = True
        folder = str(Path(self.path).parent)
        sys.path.insert(0, folder)
        try:
            with printed_aside():
                super().exec_module(module)
        finally:
            with suppress(ValueError):
                sys.path.remove(folder)


sys.meta_path.append(OwnFiles())


def _line(error: BaseException, file: str) -> str:
    """`line N: ` for the last line of the file that an error comes from."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return f"line {error.lineno}: "
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"line {lines[-1]}: " if lines else ""
