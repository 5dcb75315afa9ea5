"""The examples that come with the package: in a checkout they lie beside it, once installed inside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fluidgate.errors import FluidgateError, nearest
from fluidgate.toml_file import fail, read_text, shown

FOLDER = "examples"
ROW = re.compile(r"^\| `(?P<name>[^`]+)` \| (?P<shows>.+) \|$", re.MULTILINE)
LEFT_OUT = "__pycache__"
NAMING = (".toml", ".py")
"""Ends of files that name others."""


@dataclass(frozen=True)
class Example:
    """A file or a folder of the examples.

    Attributes:
        name: of the file or folder.
        shows: one line.
    """

    name: str
    shows: str


def examples() -> list[Example]:
    """All of them, as their README lists them.

    Raises:
        FluidgateError: they were not installed.
    """
    readme = read_text(_folder() / "README.md", "the list of the examples")
    return [Example(row["name"], row["shows"]) for row in ROW.finditer(readme)]


def copy_examples(to: str | Path, names: Sequence[str] = (), *, force: bool = False) -> list[Path]:
    """Copy examples into the folder `to`/examples, which is made where it is missing.

    Args:
        names: those wanted; with each go the files that it names. All if there are none.
        force: replace files that are there and differ.

    Returns:
        the files that are there now, sorted.

    Raises:
        FluidgateError: there is no example of a name, a file is there already and differs, or can't be written.
    """
    source, target = _folder(), Path(to, FOLDER)
    known = [each.name for each in examples()]
    for name in names:
        if name not in known:
            raise FluidgateError(
                f"no example {shown(name)}{nearest(name, known) or '; `fluidgate examples` lists them'}"
            )
    files = sorted({file for name in _with_named(names or known, known, source) for file in _files(source / name)})
    pairs = [(file, target / file.relative_to(source)) for file in [source / "README.md", *files]]
    for file, copy in pairs:
        if not force and copy.exists() and not (copy.is_file() and copy.read_bytes() == file.read_bytes()):
            fail(str(copy), ["is there already and differs; give another folder, or --force to replace it"])
    for file, copy in pairs:
        try:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
        except OSError as error:
            fail(str(copy), [f"can't be written ({error.strerror}); give another folder"])
    return sorted(copy for _, copy in pairs)


def _folder() -> Path:
    package = Path(__file__).parent
    folder = next((each for each in (package / FOLDER, package.parent / FOLDER) if each.is_dir()), None)
    if folder is None:
        raise FluidgateError("the examples are not installed; pip install --force-reinstall fluidgate")
    return folder


def _with_named(names: Sequence[str], known: Sequence[str], folder: Path) -> set[str]:
    """These, and those that their files name, and so on."""
    found: set[str] = set()
    wanted = list(names)
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        found.add(name)
        said = {word for file in _files(folder / name) if file.suffix in NAMING for word in _words(file)}
        wanted.extend(said.intersection(known) - found)
    return found


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for file in path.rglob("*"):
        if file.is_file() and LEFT_OUT not in file.parts:
            yield file


def _words(file: Path) -> list[str]:
    """The names of files in a text."""
    return re.findall(r"[\w-]+(?:\.[\w-]+)+", file.read_bytes().decode("utf-8", "ignore"))
