"""`scripts/release --dry-run`, in a copy of this checkout whose changelog has the section of the version."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fluidgate import __version__
from tests.distribution.bare import ROOT

pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")


def git(folder: Path, *words: str) -> str:
    command = ["git", *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=60).stdout


def release(folder: Path, *words: str) -> tuple[int, list[str], str]:
    """Exit status, the steps that were said, and the last line on standard error."""
    ended = subprocess.run(
        ["scripts/release", *words], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    steps = [line.removeprefix("release: ") for line in ended.stdout.splitlines() if line.startswith("release: ")]
    return ended.returncode, steps, (ended.stderr.splitlines() or [""])[-1]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What git has of the working tree, committed, with this process's Python in the place of `.venv`'s."""
    folder = tmp_path / "copy"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    changelog = folder / "CHANGELOG.md"
    changelog.write_text(
        f"# Changelog\n\n## [Unreleased]\n\n## [{__version__}] - 2026-01-01\n\n- All of it.\n", "utf-8"
    )
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', "utf-8")
    python.chmod(0o755)
    git(folder, "init", "--quiet")
    git(folder, "config", "user.name", "A")
    git(folder, "config", "user.email", "a@localhost")
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "A commit")


def test_it_says_each_step_and_leaves_nothing_behind(copy: Path) -> None:
    status, steps, last = release(copy, "--dry-run")
    assert status == 0, last
    assert [step.partition(" of 8, ")[0] for step in steps[:-1]] == [str(k) for k in range(1, 9)]
    words = ("clean tree", "version", "changelog", "tests", "build", "twine", "wheel", "tag")
    assert all(word in step for word, step in zip(words, steps, strict=False))
    assert steps[-1] == "all of it would do"
    assert git(copy, "tag") == ""
    assert git(copy, "status", "--porcelain") == ""
    assert not (copy / "dist").exists()


def test_what_passes_is_built_and_tagged(copy: Path) -> None:
    (copy / "scripts" / "test").write_text("#!/bin/sh\ntouch ../tested\n", "utf-8")
    commit(copy)
    status, steps, last = release(copy)
    assert status == 0, last
    assert (copy.parent / "tested").exists()
    names = {path.name for path in (copy / "dist" / __version__).iterdir()}
    assert names == {f"fluidgate-{__version__}.tar.gz", f"fluidgate-{__version__}-py3-none-any.whl"}
    assert git(copy, "tag", "--list", "--format=%(refname:short) %(contents)").split() == [
        f"v{__version__}", "fluidgate", __version__, "-", "All", "of", "it.",
    ]  # fmt: skip
    assert steps[-1].endswith(f"twine upload dist/{__version__}/*")


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        ("CITATION.cff", f"version: {__version__}", "version: 9.9", "CITATION.cff has another version"),
        ("deploy/helm/fluidgate/Chart.yaml", f'"{__version__}"', '"9.9"', "Chart.yaml has another version"),
        ("deploy/docker/Dockerfile", f"fluidgate:{__version__}", "fluidgate:9.9", "Dockerfile names another version"),
        ("CHANGELOG.md", f"[{__version__}]", "[9.9]", f"CHANGELOG.md has no '## [{__version__}] - DATE'"),
        ("CHANGELOG.md", "- All of it.\n", "", f"CHANGELOG.md has no '## [{__version__}] - DATE'"),
    ],
)
def test_what_does_not_fit_stops_it(copy: Path, file: str, old: str, new: str, reason: str) -> None:
    text = (copy / file).read_text("utf-8")
    assert old in text
    (copy / file).write_text(text.replace(old, new), "utf-8")
    commit(copy)
    status, _, last = release(copy, "--dry-run")
    assert status == 1
    assert reason in last


def test_a_tree_with_changes_and_a_version_that_is_out_stop_it(copy: Path) -> None:
    git(copy, "tag", f"v{__version__}")
    assert release(copy, "--dry-run")[::2] == (1, f"release: v{__version__} is a tag already; raise the version")
    (copy / "new.txt").write_text("new", "utf-8")
    status, steps, last = release(copy)
    assert (status, steps) == (1, ["1 of 8, clean tree"])
    assert last == "release: there are changes that are not committed; commit or stash them"
    assert release(copy, "--wet")[0] == 2
