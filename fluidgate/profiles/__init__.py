"""Iteration times of GPUs and models: those shipped with fluidgate, and the user's own."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

from fluidgate.errors import FluidgateError, nearest
from fluidgate.profiles.profile import Profile
from fluidgate.profiles.profile_file import dump_profile, parse_profile
from fluidgate.toml_file import read_text, shown, write_whole

__all__ = [
    "Profile",
    "dump_profile",
    "find_profile",
    "load_profile",
    "parse_profile",
    "shipped",
    "write_profile",
]


def shipped() -> list[Profile]:
    """The profiles that come with fluidgate, by name."""
    return list(_shipped())


def find_profile(name_or_path: str | Path, base_dir: str | Path = ".") -> Profile:
    """A shipped profile by its name, or the user's by a path that ends in `.toml`, relative to `base_dir`.

    Raises:
        FluidgateError: no such profile, or its file is wrong.
    """
    if str(name_or_path).endswith(".toml"):
        return load_profile(Path(base_dir) / name_or_path)
    by_name = {profile.name: profile for profile in _shipped()}
    if str(name_or_path) not in by_name:
        raise FluidgateError(
            f"unknown profile {shown(str(name_or_path))}{nearest(str(name_or_path), list(by_name))} "
            "(list them with 'fluidgate profiles', or give the path of a .toml file)"
        )
    return by_name[str(name_or_path)]


def load_profile(path: str | Path) -> Profile:
    """Read a profile file (TOML).

    Raises:
        FluidgateError: the file is missing or wrong; the message names file, key and mend.
    """
    return parse_profile(read_text(path, "a profile file"), str(path))


def write_profile(profile: Profile, path: str | Path) -> None:
    """Write a profile file.

    Raises:
        FluidgateError: the file cannot be written.
    """
    write_whole(path, dump_profile(profile))


@cache
def _shipped() -> tuple[Profile, ...]:
    root = resources.files(__name__)
    files = [file for folder in root.iterdir() if folder.is_dir() for file in folder.iterdir()]
    profiles = [parse_profile(f.read_text("utf-8"), f.name) for f in files if f.name.endswith(".toml")]
    return tuple(sorted(profiles, key=lambda profile: profile.name))
