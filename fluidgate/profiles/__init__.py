"""Iteration times of GPUs and models: those shipped with fluidgate, and the user's own."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

from fluidgate.arguments import checked
from fluidgate.errors import FluidgateError, nearest
from fluidgate.profiles.brought import brought_profiles, toml_files
from fluidgate.profiles.listing import ProfileList
from fluidgate.profiles.profile import Profile
from fluidgate.profiles.profile_file import dump_profile, parse_profile
from fluidgate.toml_file import read_text, shown, source_of, write_whole

__all__ = [
    "Profile",
    "ProfileList",
    "all_profiles",
    "dump_profile",
    "find_profile",
    "list_profiles",
    "load_profile",
    "parse_profile",
    "shipped",
    "write_profile",
]


def shipped() -> list[Profile]:
    """The profiles that come with fluidgate, by name."""
    return list(_shipped())


def all_profiles() -> dict[str, tuple[Profile, str]]:
    """By name, each with the package that brings it: those that come with fluidgate, then those of other packages."""
    own = {profile.name: (profile, "fluidgate") for profile in _shipped()}
    return {**own, **brought_profiles(own)}


@checked
def list_profiles() -> ProfileList:
    """The profiles that go by name, with those of other installed packages, as a list that shows itself."""
    return ProfileList(profile for profile, _ in all_profiles().values())


@checked
def find_profile(name_or_path: str | Path, base_dir: str | Path = ".") -> Profile:
    """A profile by its name, shipped or of an installed package, or by a path that ends in `.toml`.

    Args:
        base_dir: where a relative path starts.

    Raises:
        FluidgateError: no such profile, or its file is wrong.
    """
    if str(name_or_path).endswith(".toml"):
        return load_profile(Path(base_dir) / name_or_path)
    name = str(name_or_path)
    if (own := next((each for each in _shipped() if each.name == name), None)) is not None:
        return own
    known = all_profiles()
    if name not in known:
        raise FluidgateError(
            f"unknown profile {shown(name)}{nearest(name, list(known))} "
            "(list them with 'fluidgate profiles', or give the path of a .toml file)"
        )
    return known[name][0]


@checked
def load_profile(path: str | Path) -> Profile:
    """Read a profile file (TOML).

    Raises:
        FluidgateError: the file is missing or wrong; the message names file, key and mend.
    """
    return parse_profile(read_text(path, "a profile file"), source_of(path))


@checked
def write_profile(profile: Profile, path: str | Path) -> None:
    """Write a profile file.

    Raises:
        FluidgateError: the file cannot be written.
    """
    write_whole(path, dump_profile(profile))


@cache
def _shipped() -> tuple[Profile, ...]:
    files = toml_files(resources.files(__name__))
    profiles = [parse_profile(file.read_text("utf-8"), file.name) for file in files]
    return tuple(sorted(profiles, key=lambda profile: profile.name))
