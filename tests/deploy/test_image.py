"""The Dockerfile names what is there, and lets no more into the image."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fluidgate import __version__
from fluidgate.cli.app import app

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
TEXT = DOCKERFILE.read_text("utf-8").replace("\\\n", " ")


def instructions(word: str) -> list[str]:
    return re.findall(rf"^\s*{word}\s+(.*)$", TEXT, re.MULTILINE)


def let_in(path: str) -> bool:
    """Whether .dockerignore lets a file or folder into the build: the last line that fits counts."""
    found = True
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            pattern = line.lstrip("!")
            if fnmatch(path, pattern) or path.startswith(f"{pattern}/") or fnmatch(path, pattern.removeprefix("**/")):
                found = line.startswith("!")
    return found


def test_everything_that_is_copied_is_there_and_let_in() -> None:
    sources = [word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]]
    assert "fluidgate" in sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert let_in(source), source


@pytest.mark.parametrize("path", [".git", "docs", "tests", "out", ".venv", "fluidgate/__pycache__"])
def test_nothing_else_is_let_in(path: str) -> None:
    assert not let_in(path)


def test_the_requirements_pin_every_dependency_within_its_range() -> None:
    lines = (ROOT / "deploy" / "docker" / "requirements.txt").read_text("utf-8").split()
    pinned = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    for text in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]:
        needed = Requirement(text)
        assert pinned[canonicalize_name(needed.name)] in needed.specifier, text


def test_the_python_is_one_that_the_project_is_tested_with() -> None:
    assert set(instructions("FROM")) >= {"python:3.11-slim-bookworm"}
    assert {line.split()[0] for line in instructions("FROM")} == {"python:3.11-slim-bookworm"}
    assert sys.version_info >= (3, 11)


def test_code_is_compiled_and_found_under_the_same_settings() -> None:
    """By another user, from the same folder, for the same processor."""
    build, final = TEXT.split("\nFROM ")[1:]
    for setting in ("NUMBA_CPU_NAME=generic", "XDG_CACHE_HOME=/var/cache"):
        assert setting in build
        assert setting in final
    assert "RUN fluidgate warm" in build
    assert "COPY --from=build /var/cache/fluidgate /var/cache/fluidgate" in final
    assert "warm" in app.commands
    assert re.search(r"^USER 10001:10001$", final, re.MULTILINE)


def test_the_health_check_runs_and_tells_the_truth() -> None:
    """The very words of the image, before a server that answers and one that is not there."""
    import http.server
    import threading

    words = re.search(r"HEALTHCHECK .*?CMD (\[.*\])", TEXT)
    assert words is not None
    command = json.loads(words[1])

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    def status(path: str) -> int:
        environment = {"FLUIDGATE_HEALTH_URL": f"http://127.0.0.1:{server.server_port}{path}"}
        return subprocess.run(
            [sys.executable, *command[1:]], env=environment, stderr=subprocess.DEVNULL, timeout=60
        ).returncode

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        assert status("/health") == 0
        assert status("/ready") != 0
        server.shutdown()
        thread.join()
    assert status("/health") != 0


def test_the_version_that_is_built_is_the_version() -> None:
    assert f"fluidgate:{__version__}" in TEXT


@pytest.mark.skipif(shutil.which("hadolint", path=Path(sys.executable).parent) is None, reason="needs hadolint")
def test_hadolint_has_nothing_to_say() -> None:
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    found = subprocess.run([str(hadolint), str(DOCKERFILE)], stdout=subprocess.PIPE, text=True, timeout=60)
    assert (found.returncode, found.stdout) == (0, "")
