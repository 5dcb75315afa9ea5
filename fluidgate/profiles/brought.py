"""Profiles that other installed packages bring: entry points of the group `fluidgate.profiles`.

Each names a package whose TOML files, in it and in its folders, are profiles.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from types import ModuleType

from fluidgate.errors import FluidgateError
from fluidgate.plugins import PROFILES, Plugin, plugins, warn_of
from fluidgate.profiles.profile import Profile
from fluidgate.profiles.profile_file import parse_profile


def brought_profiles(taken: Container[str]) -> dict[str, tuple[Profile, str]]:
    """All of them by name, each with the package that brings it.

    A warning for each that can't be read, or whose name is taken.
    """
    found: dict[str, tuple[Profile, str]] = {}
    for each in plugins(PROFILES):
        try:
            files = list(_files(each))
        except FluidgateError as error:
            warn_of(error)
            continue
        for file in files:
            try:
                profile = parse_profile(file.read_text("utf-8"), file.name)
            except (FluidgateError, OSError, ValueError) as error:
                warn_of(each.wrong(f"has a file that is no profile: {error}"))
                continue
            if profile.name in taken or profile.name in found:
                owner = found[profile.name][1] if profile.name in found else "fluidgate"
                warn_of(each.wrong(f"leaves out the profile '{profile.name}': {owner} has one of that name"))
                continue
            found[profile.name] = profile, each.package
    return found


def toml_files(folder: Traversable) -> Iterator[Traversable]:
    """Those of a package, and of its folders."""
    for file in sorted(folder.iterdir(), key=lambda each: each.name):
        if file.is_dir():
            yield from toml_files(file)
        elif file.name.endswith(".toml"):
            yield file


def _files(plugin: Plugin) -> Iterator[Traversable]:
    package = plugin.load()
    if not isinstance(package, ModuleType) or not hasattr(package, "__path__"):
        raise plugin.wrong("is no package; name one that has profiles as TOML files")
    return toml_files(resources.files(package))
