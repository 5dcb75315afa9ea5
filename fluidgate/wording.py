"""Who is spoken to: one message serves the command line and Python.

A message is written once, with options as the command spells them, `--rate-scale`, and commands in quotes, as
`fluidgate policies`: no other word of a sentence looks like these, so that they can be told apart in it. The command
leaves them as they are; who calls the library reads `rate_scale` and `list_policies()`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

KEYWORDS = {
    "classes": "clusters",
    "engine-log": "engine_log",
    "estimate-over": "replanning",
    "from": "low",
    "look-every": "replanning",
    "map": "columns",
    "max-num-batched-tokens": "max_batched_tokens",
    "max-num-queued-reqs": "max_queued",
    "policy": "policies",
    "replan-every": "replanning",
    "replan-moved": "replanning",
    "target": "targets",
    "to": "high",
    "trace": "traces",
}
"""Keywords of functions that options of other names set."""
SWITCHES = ("cuda-graphs", "force", "match-load", "pooled", "skip-empty", "sort")
"""Options without a value."""
ELSEWHERE = re.compile(
    "append-result|disable-|disaggregation-|enable-|exclude-|head|kv-transfer-|metrics|no-|save-detailed|slot"
)
"""How options of other programs begin."""
FUNCTIONS = {
    "compare": "compare",
    "policies": "list_policies",
    "profiles": "list_profiles",
    "replay": "replay",
    "simulate": "simulate",
    "size": "size",
    "tune": "tune",
    "workload": "workload",
}
"""Functions that do what a command does, by the command."""

WORD = (
    "cpu|cuda|drawn|exponential|fixed|iteration|linear|local|markov|ms|ns|once|paper|ray|repeat|resample|s|"
    "single-prefill|table|token-budget|us"
)
VALUE = rf"(?P<pair>[\w-]+=[\w.]+)|(?P<number>\d+(?:\.\d+)?(?:e[-+]?\d+)?)|(?P<name>[A-Z]+)|(?P<word>{WORD})"
OPTION = rf"(?<![\w-])--(?P<option>[a-z][a-z0-9-]*)(?:[ =](?:{VALUE})\b)?"
COMMAND = r"(?P<quote>[`'])fluidgate (?P<command>[a-z]+)(?P<rest>(?: [^`']*)?)(?P=quote)"
SPELLED = re.compile(f"{COMMAND}|{OPTION}")

_commands = 0


@contextmanager
def to_command_line() -> Iterator[None]:
    """Messages are for who typed a command."""
    global _commands
    _commands += 1
    try:
        yield
    finally:
        _commands -= 1


@contextmanager
def printed_aside() -> Iterator[None]:
    """What a user's function prints goes to standard error under a command, whose own standard output is, and in its
    workers; who calls the library, perhaps from several threads, reads it where it is printed."""
    from multiprocessing import parent_process

    with redirect_stdout(sys.stderr) if _commands or parent_process() else nullcontext():
        yield


class InSameWords(Generic[Job, Result]):
    """A function that speaks in another process to who is spoken to here."""

    def __init__(self, function: Callable[[Job], Result]) -> None:
        self._function = function
        self._commands = _commands > 0

    def __call__(self, job: Job) -> Result:
        with to_command_line() if self._commands else nullcontext():
            return self._function(job)


def worded(text: str) -> str:
    """A message for who is spoken to."""
    return text if _commands else in_python(text)


def all_worded(texts: Iterable[str]) -> tuple[str, ...]:
    """Several, each once."""
    return tuple(dict.fromkeys(map(worded, texts)))


def named(option: str, keyword: str) -> str:
    """An option, or the keyword that it sets, where the function calls it otherwise than most do."""
    return option if _commands else keyword


def in_python(text: str) -> str:
    """A message with keywords and functions in the place of options and commands."""
    if "--" not in text and "fluidgate" not in text:
        return text
    return SPELLED.sub(_spelled, text).replace("} columns={", ", ")


def _spelled(found: re.Match[str]) -> str:
    return _function(found) if found["command"] else _keyword(found)


def _function(found: re.Match[str]) -> str:
    if found["command"] not in FUNCTIONS:
        return found[0]
    given = ", ".join(in_python(found["rest"]).split())
    return f"`{FUNCTIONS[found['command']]}({f'..., {given}' if given else ''})`"


def _keyword(found: re.Match[str]) -> str:
    option = found["option"]
    if ELSEWHERE.match(option):
        return found[0]
    keyword = KEYWORDS.get(option, option.replace("-", "_"))
    if option in SWITCHES:
        rest = found[0].removeprefix(f"--{option}")
        names_it = found.start() == 0 and found.string[found.end() :].startswith(":")
        return f"{keyword}{'' if names_it else '=True'}{rest}"
    if found["pair"]:
        key, _, value = found["pair"].partition("=")
        return f"{keyword}=['{key}={value}']" if option == "target" else f"{keyword}={{'{key}': '{value}'}}"
    if found["word"]:
        return f"{keyword}='{found['word']}'"
    if value := found["number"] or found["name"]:
        return f"{keyword}={value}"
    return keyword
