"""Kernels on disk: found again by what they are made of, and removed when they are old."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fluidgate.compiled import disk, inlined, kept, needs_compilation
from fluidgate.compiled.contents import digest_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(disk, "folder", lambda: tmp_path)
    return tmp_path


def made(source: str, **names: Any) -> Any:
    """The function `f` of a source, with names of its own."""
    module: dict[str, Any] = {"__name__": __name__, **names}
    exec(source, module)
    return module["f"]


def test_code_is_found_again_whatever_else_the_file_says(shelf: Path) -> None:
    first = kept(made("def f(x):\n    return x + 1\n"))
    assert needs_compilation(first)
    assert first(1) == 2
    again = kept(made("'''Docs.'''\n\n\n# a word\ndef f(x):\n    '''More.'''\n    return x + 1  # and more\n"))
    assert not needs_compilation(again)
    assert again(2) == 3
    assert len(list(shelf.iterdir())) == 1
    assert sum(again.stats.cache_hits.values()) == 1
    changed = kept(made("def f(x):\n    return x + 2\n"))
    assert needs_compilation(changed)
    assert changed(1) == 3


def test_what_a_function_is_made_of() -> None:
    def digest(helper: str, constant: float = 1.0) -> str:
        return digest_of(
            made("def f(x):\n    return helper(x) + LIMIT\n", helper=inlined(made(helper)), LIMIT=constant)
        )

    same = digest("def f(x):\n    return 2 * x\n")
    assert digest("def f(x):\n    'Twice.'\n    # that is it\n    return 2 * x\n") == same
    assert digest("def f(x):\n    return 3 * x\n") != same
    assert digest("def f(x):\n    return 2 * x\n", constant=2.0) != same
    assert digest_of(made("def f(x):\n    return x\n")) != digest_of(made("def f(x, y=1):\n    return x\n"))


def test_constants_of_a_module_of_ours_count_where_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from fluidgate.policies.decisions import stages

    function = made("def f(x):\n    return x + stages.PREFILL\n", stages=stages)
    before = digest_of(function)
    monkeypatch.setattr(stages, "SOLO_DECODE", 77)
    assert digest_of(function) == before
    monkeypatch.setattr(stages, "PREFILL", 77)
    assert digest_of(function) != before


def test_old_states_are_removed(shelf: Path) -> None:
    for k in range(disk.STATES + 3):
        kept(made(f"def f(x):\n    return x + {k}\n"))(1)
    assert len(list(shelf.iterdir())) == disk.STATES


def test_a_file_that_is_none_is_made_again(shelf: Path) -> None:
    kept(made("def f(x):\n    return x + 1\n"))(1)
    (file,) = shelf.iterdir()
    file.write_bytes(b"half a file")
    assert kept(made("def f(x):\n    return x + 1\n"))(1) == 2
    assert len(file.read_bytes()) > 100


def test_it_says_what_is_compiled_and_for_how_long(
    shelf: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk.log, "propagate", True)
    caplog.set_level(logging.INFO, logger="fluidgate")
    kept(made("def f(x):\n    return x - 1\n"), "the kernel of a test", seconds=3)(1)
    kept(made("def f(x):\n    return x - 1\n"), "the kernel of a test", seconds=3)(1)
    first, second = (record.getMessage() for record in caplog.records)
    assert first == f"compiling the kernel of a test (once, it is kept in {shelf}), some 3 s ..."
    assert re.fullmatch(r"compiled in \d+\.\d s", second)


def test_code_of_another_user_is_used_as_it_is(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError

    kept(made("def f(x):\n    return x * 5\n"))(1)
    for act in ("unlink", "write_bytes"):
        monkeypatch.setattr(Path, act, refused)
    monkeypatch.setattr(disk.os, "utime", refused)
    found = kept(made("def f(x):\n    return x * 5\n"))
    assert found(2) == 10
    assert sum(found.stats.cache_hits.values()) == 1


def test_what_cannot_be_kept_is_made_all_the_same_and_told(
    shelf: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError

    kept(made("def f(x):\n    return x * 6\n"))(1)
    (file,) = shelf.iterdir()
    file.write_bytes(b"half a file")
    for act in ("unlink", "write_bytes"):
        monkeypatch.setattr(Path, act, refused)
    monkeypatch.setattr(disk.os, "access", lambda path, mode: False)
    monkeypatch.setattr(disk.log, "propagate", True)
    caplog.set_level(logging.INFO, logger="fluidgate")
    assert kept(made("def f(x):\n    return x * 6\n"), "a test")(2) == 12
    assert "it can't be kept, give XDG_CACHE_HOME a folder" in caplog.records[0].getMessage()


def test_a_read_only_disk_has_the_folder_that_was_made_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container: nothing can be written, temporary files neither."""

    def no_folder() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(disk.tempfile, "gettempdir", no_folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "fluidgate" / "kernels").mkdir(parents=True)
    assert disk.folder.__wrapped__() == tmp_path / "fluidgate" / "kernels"
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/self/status")
    assert disk.folder.__wrapped__() is None


COMPILING = """
import sys
from fluidgate.compiled import disk
from pathlib import Path
from tests.compiled.test_disk import made
from fluidgate.compiled import kept

disk.folder = lambda: Path(sys.argv[1])
sys.stdin.readline()
function = kept(made("def f(x):\\n    return x + 1\\n"), seconds=20)
print(function(1), sum(function.stats.cache_hits.values()))
"""


@pytest.mark.skipif(disk.fcntl is None, reason="needs locks of files")
def test_of_processes_that_start_together_one_compiles(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COMPILING, str(tmp_path)]
    both = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    found = sorted(process.communicate(timeout=100)[0] for process in both)
    assert found == ["2 0\n", "2 1\n"]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_process_waits_no_longer_than_compilation_may_take(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(*_: Any) -> None:
        raise BlockingIOError

    monkeypatch.setattr(disk, "PATIENCE", 0.1)
    monkeypatch.setattr(disk.fcntl, "lockf", held)
    assert kept(made("def f(x):\n    return x + 9\n"), seconds=1)(1) == 10
