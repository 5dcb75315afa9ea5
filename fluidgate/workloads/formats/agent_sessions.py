"""Sessions of agents: a session a line, as JSON, with its requests and those of its sub-agents; no times of starts.

A line has `requests`, each a list of `start, prompt tokens, output tokens, found, think, ...` (s from the session's
start; tokens; leading tokens of the prompt that are those of the session's last prompt; s from the end of the last
answer), and `subagents`, each with `t` (s from the session's start) and its own `requests`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from fluidgate.toml_file import LARGEST_WHOLE, decoded, fail, shown

NAME = "sessions of agents"
LONGEST = 2**31 - 1
ITEMS = ("start", "prompt tokens", "output tokens", "found", "think")
MARKS = {"subagents", "shared_prefix"}
"""Keys of a session beside `requests`, of which it has one."""


@dataclass
class AgentRequests:
    """The requests of a file, session by session, each followed by its sub-agents; a list an attribute.

    Attributes:
        prompt, output, found: tokens.
        think: s.
        after: the request before it in its session, -1 for a first one.
        spawner: of a sub-agent's first request, the one that was sent last before; else -1.
        delay: s from when that one was sent; else 0.
        empty: requests without tokens, which are left out; the next of their session follows on the one before.
    """

    prompt: list[int] = field(default_factory=list)
    output: list[int] = field(default_factory=list)
    found: list[int] = field(default_factory=list)
    think: list[float] = field(default_factory=list)
    after: list[int] = field(default_factory=list)
    spawner: list[int] = field(default_factory=list)
    delay: list[float] = field(default_factory=list)
    empty: int = 0


def agent_requests(content: bytes, source: str) -> AgentRequests | None:
    """The requests of a file of agents' sessions; None of any other file.

    Raises:
        FluidgateError: it is one, and wrong; the message names line, key and mend.
    """
    begun = content.lstrip()
    line = begun[: begun.index(b"\n")] if b"\n" in begun else begun
    if not line.startswith(b"{") or b'"requests"' not in line or not _is_session(line):
        return None
    found = AgentRequests()
    for number, text in enumerate(decoded(content, source).split("\n"), start=1):
        if text.strip():
            _Session(source, number).read(text, found)
    if not found.prompt:
        fail(source, ["every request is empty; give sessions with prompt and output tokens"])
    return found


def _is_session(line: bytes) -> bool:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and isinstance(found.get("requests"), list) and bool(MARKS & set(found))


@dataclass(frozen=True)
class _Session:
    """A line of the file."""

    source: str
    line: int

    def read(self, text: str, found: AgentRequests) -> None:
        try:
            session = json.loads(text)
        except (ValueError, RecursionError) as error:
            self._refuse(f"not JSON ({getattr(error, 'msg', error)}); give one object a line")
        if not isinstance(session, dict):
            self._refuse(f"must be an object, but is {shown(session)}; give one session a line")
        starts = list(self._add(session.get("requests"), "requests", found))
        agents = session.get("subagents", [])
        if not isinstance(agents, list):
            self._refuse(f"subagents: must be an array, but is {shown(agents)}; give one")
        for k, agent in enumerate(agents):
            key = f"subagents[{k}]"
            if not isinstance(agent, dict):
                self._refuse(f"{key}: must be an object, but is {shown(agent)}; give t and requests")
            begin = self._time(agent.get("t"), f"{key}.t")
            own = list(self._add(agent.get("requests"), f"{key}.requests", found))
            if own and starts:
                before = [pair for pair in starts if pair[1] <= begin] or starts[:1]
                found.spawner[own[0][0]] = before[-1][0]
                found.delay[own[0][0]] = max(0.0, begin - before[-1][1])

    def _add(self, requests: Any, key: str, found: AgentRequests) -> Iterator[tuple[int, float]]:
        """Adds a chain of requests; the number and the start of each."""
        if not isinstance(requests, list) or not requests:
            given = "missing" if requests is None else f"must be an array of requests, but is {_kind(requests)}"
            self._refuse(f"{key}: {given}; give one with at least a request")
        before, last, shared, thought = -1, 0, LONGEST, 0.0
        for k, request in enumerate(requests):
            place = f"{key}[{k}]"
            if not isinstance(request, list) or len(request) < len(ITEMS):
                self._refuse(f"{place}: must be an array, but is {_kind(request)}; give {', '.join(ITEMS)}")
            start = self._time(request[0], f"{place}[0]")
            prompt, output, again = (self._tokens(request[i], f"{place}[{i}]") for i in (1, 2, 3))
            think = self._time(request[4], f"{place}[4]")
            for most, whose in ((prompt, "a prompt"), (last, "a last prompt" if k else "no prompt before, so")):
                if again > most:
                    reason = f"{again} tokens found of {whose} of {most}; give the tokens that the two begin with alike"
                    self._refuse(f"{place}[3]: {reason}")
            shared, thought, last = min(shared, again), thought + think, prompt
            if prompt == 0 or output == 0:
                found.empty += 1
                continue
            first = before < 0
            number = len(found.prompt)
            found.prompt.append(prompt)
            found.output.append(output)
            found.found.append(0 if first else shared)
            found.think.append(0.0 if first else thought)
            found.after.append(before)
            found.spawner.append(-1)
            found.delay.append(0.0)
            before, shared, thought = number, LONGEST, 0.0
            yield number, start

    def _tokens(self, value: Any, key: str) -> int:
        whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LONGEST
        if not whole:
            self._refuse(f"{key}: must be a whole number from 0 to {LONGEST}, but is {shown(value)}; correct it")
        return int(value)

    def _time(self, value: Any, key: str) -> float:
        number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LARGEST_WHOLE
        if not number or math.isnan(value):
            self._refuse(f"{key}: must be a time of at least 0 s, but is {shown(value)}; correct it")
        return float(value)

    def _refuse(self, reason: str) -> NoReturn:
        fail(self.source, [f"line {self.line}: {reason}"])


def _kind(value: Any) -> str:
    return f"an array of {len(value)}" if isinstance(value, list) else shown(value)
