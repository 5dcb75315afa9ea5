"""What a shell completes."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class
from command import Command

from fluidgate.cli.app import app
from fluidgate.cli.completion import VARIABLE


def completions(*words: str) -> list[CompletionItem]:
    """Of the last word of a line."""
    return ShellComplete(app, {}, "fluidgate", VARIABLE).get_completions(list(words[:-1]), words[-1])


def values(*words: str) -> list[str]:
    return [item.value for item in completions(*words)]


def test_commands_and_options() -> None:
    assert values("pro") == ["probe", "profiles"]
    assert "--policy" in values("compare", "s.toml", "--po")
    assert "--policies" not in values("compare", "s.toml", "--po")
    assert values("policies", "--format", "l") == ["latex"]


def test_policies_also_within_lists() -> None:
    assert values("simulate", "s.toml", "--policy", "fi-") == ["fi-wsp"]
    assert values("compare", "s.toml", "--policy", "gate-and-route,fi-") == ["gate-and-route,fi-wsp"]
    again = values("replay", "s.toml", "t.csv", "--policy", "fi-wsp,")
    assert "fi-wsp,gate-and-route" in again
    assert "fi-wsp,fi-wsp" not in again
    assert [item.type for item in completions("compare", "s.toml", "--policy", "mine.t")] == ["file"]


def test_bash_takes_an_equals_sign_for_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_WORDS", "fluidgate compare s.toml --policy = fi-wsp,gate-and")
    monkeypatch.setenv("COMP_CWORD", "5")
    bash = get_completion_class("bash")
    assert bash is not None
    assert bash(app, {}, "fluidgate", VARIABLE).complete() == "plain,fi-wsp,gate-and-route"


def test_profiles_and_indicators() -> None:
    assert values("engine", "--profile", "a100-40gb/qwen-8") == ["a100-40gb/qwen-8b"]
    assert values("size", "s.toml", "--profile", "a100-40gb/qwen-8b,a100-40gb/qwen-4") == [
        "a100-40gb/qwen-8b,a100-40gb/qwen-4b"
    ]
    assert values("frontier", "s.toml", "--indicator", "max_t") == ["max_tpot"]


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("plan", "s"), "file"),
        (("replay", "s.toml", "tr"), "file"),
        (("serve", "g"), "file"),
        (("calibrate", "m"), "file"),
        (("engine", "s"), "file"),
        (("plan", "s.toml", "--trace", "t"), "file"),
        (("plan", "s.toml", "--plot", "p"), "file"),
        (("calibrate", "--from-log", "l"), "file"),
        (("size", "s.toml", "--save", "f"), "dir"),
    ],
)
def test_files_and_folders(words: tuple[str, ...], kind: str) -> None:
    assert [item.type for item in completions(*words)] == [kind]


def test_scripts(fluidgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "compdef" in fluidgate("completion", "zsh").output
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert "complete --no-files --command fluidgate" in fluidgate("completion").output
    monkeypatch.delenv("SHELL")
    refused = fluidgate("completion")
    assert refused.status == 2
    assert "bash, zsh, fish" in refused.notices[0]


def test_the_command_answers_a_shell() -> None:
    asked = {VARIABLE: "bash_complete", "COMP_WORDS": "fluidgate profi", "COMP_CWORD": "1", "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(
        [sys.executable, "-c", "from fluidgate.cli import main; main()"],
        capture_output=True, text=True, check=True, env=asked | {"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert ran.stdout.splitlines() == ["plain,profiles"]
