"""Installed packages that bring something, as files on a path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def install(
    folder: Path, package: str, groups: Mapping[str, Mapping[str, str]], files: Mapping[str, str] | None = None
) -> None:
    """Put a distribution into a folder of the path.

    Args:
        groups: its entry points by group and name.
        files: its modules and their data, by path.
    """
    information = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", "utf-8")
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in named.items()) for group, named in groups.items()]
    (information / "entry_points.txt").write_text("\n".join(lines), "utf-8")
    for path, text in (files or {}).items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
