"""Files packed in every way that is read, and the ways that are not."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fluidgate.errors import FluidgateError
from fluidgate.packed_file import read_packed, read_packed_text

TEXT = b"arrival_time,prompt_tokens,output_tokens\n0,100,10\n" * 40


def zipped(**members: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_csv", ".csv"), content)
    return packed.getvalue()


def tarred() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("t.csv"))
    return packed.getvalue()


def mac_zip(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.mkdir("day")
        archive.writestr("day/t.csv", content)
        archive.writestr("__MACOSX/day/._t.csv", b"\0")
    return packed.getvalue()


@pytest.mark.parametrize(
    "pack",
    [
        bytes,
        gzip.compress,
        bz2.compress,
        lzma.compress,
        lambda content: zipped(t_csv=content),
        mac_zip,
        lambda content: zipped(t=gzip.compress(content)),
        lambda content: gzip.compress(content[:100]) + gzip.compress(content[100:]),
    ],
)
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t"])
def test_read_by_content_whatever_the_name(tmp_path: Path, pack: Callable[[bytes], bytes], name: str) -> None:
    (tmp_path / name).write_bytes(pack(TEXT))
    assert read_packed(tmp_path / name, "a trace file") == TEXT
    assert read_packed_text(tmp_path / name, "a trace file") == TEXT.decode()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (gzip.compress(TEXT)[:-20], "not a whole gzip file ("),
        (b"\x1f\x8bgarbage", "not a whole gzip file ("),
        (bz2.compress(TEXT)[:-20], "not a whole bzip2 file ("),
        (lzma.compress(TEXT)[:-20], "not a whole xz file ("),
        (zipped(t_csv=TEXT)[:-30], "not a whole zip file (File is not a zip file); get it again"),
        (zipped(), "a zip archive of no file; unpack it, and give the files that you mean"),
        (zipped(a_csv=TEXT, b_csv=TEXT), "a zip archive of 2 files ('a.csv', 'b.csv'); unpack it, and give the files"),
        (b"\x28\xb5\x2f\xfd....", "compressed with zstd, which is not read; unpack it first (zstd -d)"),
        (gzip.compress(tarred()), "a tar archive; unpack it, and give the files that you mean"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS in the place of the file; fetch"),
    ],
    ids=["half gzip", "no gzip", "half bzip2", "half xz", "half zip", "empty", "two", "zstd", "tar", "pointer"],
)
def test_what_cannot_be_unpacked_is_said_in_a_line(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(FluidgateError) as caught:
        read_packed(path, "a trace file")
    assert str(caught.value).startswith(f"{path}: {reason}")
    assert "\n" not in str(caught.value)


def test_text_of_what_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"PAR1....")
    with pytest.raises(FluidgateError, match="a Parquet file; give a CSV file as text"):
        read_packed_text(tmp_path / "t", "a CSV file")
    (tmp_path / "t").write_bytes(gzip.compress(b"a\ncaf\xe9"))
    with pytest.raises(FluidgateError, match="line 2: not UTF-8; save the file as UTF-8"):
        read_packed_text(tmp_path / "t", "a CSV file")
