"""Files plain or packed by gzip, bzip2, xz or zip, told by their first bytes, not by their names."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from fluidgate.errors import one_line
from fluidgate.toml_file import decoded, fail, read_bytes, shown, source_of

PARQUET = b"PAR1"
OTHER_FILES = {".toml": "TOML", ".py": "Python", ".html": "a web page", ".md": "Markdown"}
"""Endings of files that are neither traces nor measurements."""
SPREADSHEETS = (".xls", ".xlsx", ".ods")
PACKED_SHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""How they begin; many an export of that name is a plain table."""
DEEPEST = 4
"""Times that a file is unpacked: a member of an archive may be packed itself."""

BROKEN = (OSError, EOFError, ValueError, RuntimeError, lzma.LZMAError, zlib.error, zipfile.BadZipFile)


def refuse_other_kind(source: str, what: str) -> None:
    """Refuse a file whose name says that it is no table of `what`.

    Raises:
        FluidgateError: naming what it is.
    """
    if kind := OTHER_FILES.get(Path(source).suffix.lower()):
        fail(source, [f"{kind}, not {what}, as its name says; give another file"])


def read_packed(path: str | Path, what: str) -> bytes:
    """The content of a file, unpacked where it is packed; `what` names its kind in errors, such as "a trace file".

    Raises:
        FluidgateError: the file is missing, a folder, unreadable, damaged, packed otherwise, or an archive of several.
    """
    source, content = source_of(path), read_bytes(path, what)
    if Path(source).suffix.lower() in SPREADSHEETS and content.startswith(PACKED_SHEETS):
        fail(source, ["a spreadsheet; save it as CSV, and give that"])
    for _ in range(DEEPEST):
        kind = next((kind for magic, kind in PACKED.items() if content.startswith(magic)), None)
        if content[257:262] == b"ustar":
            fail(source, ["a tar archive; unpack it, and give the files that you mean"])
        if kind is None:
            return content
        name, unpack = kind
        try:
            content = unpack(content, source)
        except BROKEN as error:
            fail(source, [f"not a whole {name} file ({one_line(str(error)) or 'it ends too early'}); get it again"])
    return content


def read_packed_text(path: str | Path, what: str) -> str:
    """The UTF-8 text of a file, unpacked where it is packed.

    Raises:
        FluidgateError: as `read_packed`, or it is not UTF-8.
    """
    content = read_packed(path, what)
    if content.startswith(PARQUET):
        fail(source_of(path), [f"a Parquet file; give {what} as text"])
    return decoded(content, source_of(path))


def _only_member(content: bytes, source: str) -> bytes:
    with zipfile.ZipFile(BytesIO(content)) as archive:
        hidden = ("__MACOSX/", ".")
        members = [each for each in archive.infolist() if not each.is_dir() and not each.filename.startswith(hidden)]
        if len(members) != 1:
            names = ", ".join(shown(each.filename) for each in members[:4])
            held = f"{len(members)} files ({names}{', ...' if len(members) > 4 else ''})" if members else "no file"
            fail(source, [f"a zip archive of {held}; unpack it, and give the files that you mean"])
        return archive.read(members[0])


def _unreadable(content: bytes, source: str) -> bytes:
    fail(source, ["compressed with zstd, which is not read; unpack it first (zstd -d)"])


def _pointer(content: bytes, source: str) -> bytes:
    fail(source, ["a pointer of Git LFS in the place of the file; fetch the file with git lfs pull"])


PACKED: dict[bytes, tuple[str, Callable[[bytes, str], bytes]]] = {
    b"\x1f\x8b": ("gzip", lambda content, _: gzip.decompress(content)),
    b"BZh": ("bzip2", lambda content, _: bz2.decompress(content)),
    b"\xfd7zXZ\x00": ("xz", lambda content, _: lzma.decompress(content)),
    b"PK\x03\x04": ("zip", _only_member),
    b"PK\x05\x06": ("zip", _only_member),
    b"\x28\xb5\x2f\xfd": ("zstd", _unreadable),
    b"version https://git-lfs": ("Git LFS", _pointer),
}
"""By the bytes that such a file begins with: its name, and how it is unpacked."""
