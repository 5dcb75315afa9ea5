"""The core, `pip install fluidgate` without extras: it plans, simulates and serves, and says which extra is missing."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from time import monotonic, sleep

import pytest
from packaging.requirements import Requirement

from fluidgate.extras import EXTRAS
from tests.distribution.bare import ROOT, Bare
from tests.distribution.conftest import Built
from tests.distribution.test_packages import COMMANDS

HIDING = f"""
import sys
from importlib.machinery import PathFinder

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in {tuple(EXTRAS)} else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
"""
LIBRARY = """
import sys
from fluidgate import FluidgateError, Scenario, plan

try:
    plan(Scenario.load("examples/azure.toml")).to_dataframe()
except FluidgateError as error:
    print(error)
try:
    import matplotlib
except ImportError as error:
    print(type(error).__name__)
"""
HTML = """
from fluidgate import Scenario, plan

print(plan(Scenario.load("examples/azure.toml"))._repr_html_())
"""
TRACES = "traces and data frames need pandas, which is not installed; pip install 'fluidgate[traces]'"
PICTURES = "pictures need matplotlib, which is not installed; pip install 'fluidgate[plot]'"
SECONDS = 60.0


@pytest.fixture(scope="module")
def core(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Bare:
    """An environment with the wheel, in which what the extras bring can't be imported."""
    made = Bare.made(tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("elsewhere"))
    made.install(built.wheel)
    (made.packages / "sitecustomize.py").write_text(HIDING, "utf-8")
    made.run("fluidgate", "examples", ".")
    return made


def refusal(bare: Bare, *words: str) -> str:
    """The one line that a command ends with."""
    ended = bare.ended(bare.folder / "bin" / "fluidgate", *words)
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.splitlines()
    return line


def test_what_the_extras_bring_is_no_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = {Requirement(text).name for text in project["dependencies"]}
    assert needed.isdisjoint(EXTRAS)
    for package, (extra, _) in EXTRAS.items():
        assert package in {Requirement(text).name for text in project["optional-dependencies"][extra]}


def test_the_readmes_commands_need_no_extra(core: Bare) -> None:
    for command in COMMANDS:
        assert core.run(*shlex.split(command))


def test_tables_of_what_could_be_drawn_need_no_extra(core: Bare) -> None:
    assert core.run("fluidgate", "calibrate", "examples/measurements.csv")
    assert "<table" in core.run("python", "-c", HTML)


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("workload examples/chat-and-code.csv --gpus 2", TRACES),
        ("plan examples/azure.toml --plot plan.png", PICTURES),
        ("compare examples/two-class.toml --gpus 20 --plot policies.svg", PICTURES),
    ],
)
def test_a_missing_extra_is_one_line(core: Bare, command: str, line: str) -> None:
    assert refusal(core, *command.split()) == f"fluidgate: {line}"


def test_the_library_says_so_too_and_others_see_nothing_of_it(core: Bare) -> None:
    assert core.run("python", "-c", LIBRARY).splitlines() == [TRACES, "ModuleNotFoundError"]


def test_it_serves(core: Bare) -> None:
    """A gateway before an emulated engine."""
    engine, port = free_port(), free_port()
    gateway = (core.place / "examples" / "gateway.toml").read_text()
    others = "".join(f'    "http://127.0.0.1:{each}",\n' for each in (8001, 8002, 8003, 8004))
    assert others in gateway
    one = core.place / "examples" / "one-engine.toml"
    one.write_text(gateway.replace(others, f'    "http://127.0.0.1:{engine}",\n'))
    with (
        running(core, "engine", "examples/two-class.toml", "--port", str(engine)) as emulated,
        running(core, "serve", "examples/one-engine.toml", "--port", str(port)) as serving,
    ):
        answer(f"http://127.0.0.1:{engine}/health", emulated)
        plan = json.loads(answer(f"http://127.0.0.1:{port}/v1/plan", serving))
    assert plan["policy"] == "gate-and-route"


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        return free.getsockname()[1]


@contextmanager
def running(core: Bare, *words: str) -> Iterator[subprocess.Popen[str]]:
    command = [core.folder / "bin" / "fluidgate", *words]
    with subprocess.Popen(
        command, cwd=core.place, env=core.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as started:
        try:
            yield started
        finally:
            started.terminate()


def answer(url: str, serving: subprocess.Popen[str]) -> str:
    end = monotonic() + SECONDS
    while monotonic() < end:
        assert serving.poll() is None, serving.stderr.read() if serving.stderr else ""
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return response.read().decode()
        except urllib.error.URLError:
            sleep(0.2)
    raise AssertionError(f"nothing answers at {url} within {SECONDS:g} s")
