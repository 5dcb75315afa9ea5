"""sdist and wheel: whole, as an index wants them, and all that the README needs once the wheel is installed."""

from __future__ import annotations

import doctest
import json
import re
import shlex
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from fluidgate import __version__
from tests.distribution.bare import ROOT, Bare
from tests.distribution.conftest import Built

README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = [
    line
    for block in re.findall(r"^```console\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    for line in re.findall(r"^\$ (fluidgate .*)$", block, re.MULTILINE)
]


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return message_from_bytes(archive.read(f"fluidgate-{__version__}.dist-info/METADATA"))


def files_below(folder: str) -> set[str]:
    """What the checkout tracks, so that nothing else has to be told from it."""
    listed = subprocess.run(["git", "ls-files", "-z", folder], cwd=ROOT, capture_output=True, check=True).stdout
    return {name for name in listed.decode().split("\0") if name and (ROOT / name).exists()}


needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")


@needs_git
def test_the_wheel_holds_the_package_the_examples_and_the_licence(built: Built) -> None:
    names = names_in(built.wheel)
    package = files_below("fluidgate")
    examples = {f"fluidgate/{name}" for name in files_below("examples")}
    assert len(package) > 500
    assert len(examples) > 30
    assert package | examples <= names
    assert {name.partition("/")[0] for name in names} == {"fluidgate", f"fluidgate-{__version__}.dist-info"}
    assert f"fluidgate-{__version__}.dist-info/licenses/LICENSE" in names
    assert not any("__pycache__" in name for name in names)


def test_the_wheel_of_the_checkout_is_that_of_the_sdist(built: Built, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "-o", tmp_path, ROOT]
    subprocess.run(command, check=True, timeout=300)
    assert next(tmp_path.glob("*.whl")).read_bytes() == built.wheel.read_bytes()


def test_the_sdist_is_what_tests_and_documents_need(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        tops = {name.split("/")[1] for name in archive.getnames()}
    assert {"fluidgate", "examples", "tests", "docs", "scripts", "LICENSE", "CHANGELOG.md", "CITATION.cff"} <= tops


def test_an_index_takes_them(built: Built) -> None:
    check = [sys.executable, "-m", "twine", "check", "--strict", built.sdist, built.wheel]
    ended = subprocess.run(check, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.count("PASSED") == 2
    contents = [sys.executable, "-m", "check_wheel_contents", built.wheel]
    ended = subprocess.run(contents, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout


def test_the_metadata_says_who_what_and_where(built: Built) -> None:
    metadata = metadata_of(built.wheel)
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert metadata["Version"] == __version__
    assert f"\nversion: {__version__}\n" in citation
    assert f"  - name: {metadata['Author']}\n" in citation
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("Project-URL")


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["dynamic"] == ["version"]
    assert "version" not in project


def test_the_readme_runs_in_a_bare_environment(bare: Bare) -> None:
    """With the wheel alone, once the examples are copied."""
    assert bare.run("fluidgate", "--version").split() == ["fluidgate,", "version", __version__]
    where = bare.run("python", "-c", "import fluidgate; print(fluidgate.__file__)").strip()
    assert Path(where).is_relative_to(bare.folder)
    bare.run("fluidgate", "examples", ".")
    assert len(COMMANDS) >= 3
    for command in COMMANDS:
        assert bare.run(*shlex.split(command))
    (bare.place / "README.md").write_text(README, "utf-8")
    assert doctest.DocTestParser().get_examples(README)
    assert bare.run("python", "-m", "doctest", "README.md") == ""


def test_the_small_trace_makes_a_scenario_in_a_bare_environment(bare: Bare) -> None:
    bare.run("fluidgate", "examples", "traces", "chat-and-code.csv")
    trace = bare.place / "traces" / "examples" / "chat-and-code.csv"
    bare.run("fluidgate", "workload", trace, "--gpus", "2", "--profile", "h100/llama-3.1-8b", "-o", "mine.toml")
    plan = json.loads(bare.run("fluidgate", "plan", "mine.toml", "--json"))
    assert [each["name"] for each in plan["classes"]] == ["code", "chat"]
