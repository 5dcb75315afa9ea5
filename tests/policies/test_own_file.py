"""Policies in Python files: `PATH.py:NAME`."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fluidgate import find_policy
from fluidgate.errors import FluidgateError
from fluidgate.execution import LocalProcesses
from fluidgate.policies import PLACED, Policy, find_any_policy
from fluidgate.replanning import Replanning, find_replanned_policy

MINE = """
import math

from fluidgate import find_policy
from fluidgate.policies import PLACED
from words import NOBODY

def gate(view, tables):
    return NOBODY

def tabulate(plan, gpus):
    return math.nan

MINE = find_policy("gate-and-route").with_functions("mine", gate=gate)
OTHER = MINE.with_functions("other", tabulate=tabulate)
PLACED_ONE = PLACED["slai"]
NUMBER = 3
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A file with policies, which imports a module that lies beside it."""
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    (tmp_path / "words.py").write_text("NOBODY = -1\n")
    sys.modules.pop("words", None)
    return path


def test_a_policy_goes_by_path_and_name(mine: Path) -> None:
    before = list(sys.path)
    policy = find_policy(f"{mine}:MINE")
    assert policy.name == f"{mine}:MINE"
    assert policy.origin == "user"
    assert not policy.is_data
    assert policy.gate is not None
    assert policy.gate(None, None) == -1
    assert sys.path == before
    assert not (mine.parent / "__pycache__" / f"mine.{sys.implementation.cache_tag}.pyc").exists()


def test_relative_paths_start_at_the_folder(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_any_policy("mine.py:MINE", mine.parent).name == f"{mine}:MINE"
    monkeypatch.chdir(mine.parent)
    assert find_any_policy("mine.py:MINE").name == "mine.py:MINE"


def test_a_file_runs_once_until_it_changes(mine: Path) -> None:
    first, again = find_policy(f"{mine}:MINE"), find_policy(f"{mine}:OTHER")
    assert first.gate is again.gate
    mine.write_text(MINE.replace("return NOBODY", "return 5"))
    changed = find_policy(f"{mine}:MINE")
    assert changed.gate is not None
    assert changed.gate(None, None) == 5


def test_what_names_stand_for(mine: Path) -> None:
    assert find_any_policy(f"{mine}:PLACED_ONE").placement == PLACED["slai"].placement  # type: ignore[union-attr]
    with pytest.raises(FluidgateError, match="batches in its own way"):
        find_policy(f"{mine}:PLACED_ONE")
    followed = find_replanned_policy(f"{mine}:MINE+replan", Replanning())
    assert followed.name == f"{mine}:MINE+replan"
    with pytest.raises(FluidgateError, match="only the fidelity of iterations does"):
        find_policy(f"{mine}:MINE+replan")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (":MINEE", ("no policy 'MINEE'; did you mean 'MINE'?", "it has MINE, OTHER, PLACED_ONE")),
        (":zzz", ("no policy 'zzz'; name another",)),
        (":NUMBER", ("'NUMBER' is no policy but of type int; name a policy",)),
        (":gate", ("'gate' is no policy but of type function",)),
        ("", ("which of its policies is not said", "mine.py:NAME", "it has MINE, OTHER")),
        (":", ("which of its policies is not said",)),
    ],
)
def test_wrong_names_are_told(mine: Path, name: str, words: tuple[str, ...]) -> None:
    with pytest.raises(FluidgateError) as error:
        find_any_policy(f"{mine}{name}")
    assert str(error.value).startswith(f"{mine}: ")
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\ny = 1 / 0\n", ("line 2: raises ZeroDivisionError: division by zero",)),
        ("def f():\n    raise ValueError('a\\nb')\nf()\n", ("line 2: raises ValueError: a b",)),
        ("x = (\n", ("line 1: raises SyntaxError",)),
        ("import nothing_of_that_name\n", ("line 1: raises ModuleNotFoundError",)),
        ("import sys\nsys.exit(3)\n", ("line 2: raises SystemExit: 3",)),
        ("x = 1\n", ("no policy 'MINE'", "it has none; make one with")),
    ],
)
def test_files_that_fail_are_told_in_one_line(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    path = tmp_path / "bad.py"
    path.write_text(text)
    for _ in range(2):
        with pytest.raises(FluidgateError) as error:
            find_any_policy(f"{path}:MINE")
        message = str(error.value)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        for word in words:
            assert word in message
    with pytest.raises(FluidgateError, match=r"nobody\.py: no such file; give the path of a Python file"):
        find_any_policy(str(tmp_path / "nobody.py:MINE"))


def asked(policy: Policy) -> Any:
    assert policy.gate is not None
    return policy.gate(None, None)


def test_workers_run_it(mine: Path) -> None:
    policy = find_policy(f"{mine}:MINE").for_worker()
    assert list(LocalProcesses(2).map(asked, [policy, policy])) == [-1, -1]


def test_another_process_imports_the_file_anew(mine: Path) -> None:
    content = pickle.dumps(find_policy(f"{mine}:OTHER"))
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).gate(None, None))"
    found = subprocess.run([sys.executable, "-c", code], input=content, capture_output=True, check=True)
    assert found.stdout.decode().split() == ["-1"]
