"""Prefixes and sessions of a class of requests, in a scenario file and in a `RequestClass`.

Each key stands here alone: its type, its range, its default, what an error says of it, and what it goes with. The
table is the form that a file is checked against; the noun, which inherits it, is the one that a `Scenario` holds.

A session sends its requests, the turns, one after the other: each prompt is the last one, its answer, and new tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fluidgate.shown import Brief
from fluidgate.toml_file import LARGEST_WHOLE, Table, absent

PrefixLaw = Literal["uniform", "zipf"]
TurnsLaw = Literal["geometric", "fixed"]
ThinkLaw = Literal["fixed", "exponential"]

MOST_PREFIXES = 1_000_000
"""Of a class; each has its share of the sessions."""
ROUNDING = 1e-6
"""Share of a rate that is no more than its rounding."""


class SessionTable(Table):
    prefix_tokens: int = Field(
        default=0,
        ge=0,
        le=LARGEST_WHOLE,
        repr=False,
        description="the tokens with which the prompts of many sessions begin",
    )
    prefixes: int = Field(
        default=1, ge=1, le=MOST_PREFIXES, repr=False, description="how many such beginnings there are, one a session"
    )
    prefix_law: PrefixLaw = Field(
        default="uniform", repr=False, description="the law by which a session has one of the beginnings"
    )
    prefix_exponent: float = Field(
        default=1.0, gt=0, le=100, repr=False, description="the exponent s of zipf: beginning k has a share like k^-s"
    )
    turns: float = Field(default=1.0, ge=1, le=1e6, repr=False, description="the mean number of requests of a session")
    turns_law: TurnsLaw = Field(default="geometric", repr=False, description="the law of that number")
    turn_tokens: float | None = absent(
        "the mean number of new prompt tokens of each further request of a session", ge=1, examples=[300], repr=False
    )
    think: float = Field(
        default=0.0, ge=0, repr=False, description="the mean time from an answer to the next request of its session, s"
    )
    think_law: ThinkLaw = Field(default="fixed", repr=False, description="the law of that time, and of tool_seconds")
    tool_share: float = Field(
        default=0.0, ge=0, le=1, repr=False, description="the share of the further requests that answer a tool call"
    )
    tool_seconds: float = Field(
        default=0.0,
        ge=0,
        repr=False,
        description="the mean time of a tool, s, in the place of think before such a request",
    )
    subagents: float = Field(
        default=0.0, ge=0, le=1e6, repr=False, description="the mean number of sub-agents that a session sets off"
    )
    subagent_class: str | None = absent("the class whose sessions these are", examples=["sub-agent"], repr=False)

    @property
    def has_sessions(self) -> bool:
        """Whether its sessions have more than one request, or set others off."""
        return self.turns > 1 or self.subagents > 0

    @property
    def shares_text(self) -> bool:
        """Whether prompts begin like others."""
        return self.prefix_tokens > 0 or self.turns > 1

    @property
    def prefix_shares(self) -> NDArray[np.float64]:
        """Share of the sessions that begin with each prefix, shape (prefixes,)."""
        exponent = self.prefix_exponent if self.prefix_law == "zipf" else 0.0
        weight = np.arange(1.0, self.prefixes + 1.0) ** -exponent
        return np.asarray(weight / weight.sum())

    @property
    def further_tokens(self) -> float:
        """Mean new prompt tokens of a further request."""
        return self.turn_tokens if self.turn_tokens is not None else 0.0

    @property
    def think_mean(self) -> float:
        """Mean time from an answer to the session's next request, s, tools counted."""
        return (1.0 - self.tool_share) * self.think + self.tool_share * self.tool_seconds

    @property
    def earlier_turns(self) -> float:
        """Mean number of turns before a request: `E[K (K - 1) / 2] / E[K]` where `K` is that of a session.

        `(m - 1) / 2` where each has `m`; `m - 1` where `K` is geometric on 1, 2, ..., of which `E[K^2] = 2 m^2 - m`.
        """
        return (self.turns - 1.0) * (0.5 if self.turns_law == "fixed" else 1.0)

    @property
    def squared_turns(self) -> float:
        """`E[K^2]`."""
        return self.turns * (1.0 + 2.0 * self.earlier_turns)

    def grown_tokens(self, output_tokens: float) -> float:
        """Tokens of a prompt, on average over all requests, beyond those with which its session's first one begins.

        The prompt of turn `k` (from 0) is the first one and `k` times an answer and new tokens, drawn independently of
        how many turns there are.
        """
        return self.earlier_turns * (self.further_tokens + output_tokens)

    def session_problems(self, prompt_tokens: float, output_tokens: float) -> Iterator[str]:
        """One "KEY: REASON; MEND" for each key that does not go with the others."""
        given = {name: getattr(self, name) for name in SessionTable.model_fields}
        changed = {name for name, value in given.items() if value != SessionTable.model_fields[name].default}
        for key in ("prefixes", "prefix_law", "prefix_exponent"):
            if key in changed and self.prefix_tokens == 0:
                yield f"{key}: only with prefix_tokens; remove this key, or give the tokens that prompts begin with"
        if "prefix_exponent" in changed and self.prefix_law != "zipf":
            yield 'prefix_exponent: only with prefix_law = "zipf"; remove this key, or give that law'
        for key in ("turns_law", "turn_tokens", "think", "think_law", "tool_share", "tool_seconds"):
            if key in changed and self.turns == 1:
                yield f"{key}: only with turns above 1; remove this key, or give the mean number of turns of a session"
        if self.turns > 1 and self.turn_tokens is None:
            yield "turn_tokens: missing; add 'turn_tokens = 300', the mean number of new prompt tokens of a turn"
        if self.turns_law == "fixed" and self.turns != round(self.turns):
            yield f'turns: must be whole with turns_law = "fixed", but is {self.turns:g}; give one, or geometric'
        if self.tool_seconds > 0 and self.tool_share == 0:
            yield "tool_seconds: only with tool_share; remove this key, or give the share of turns that are tool calls"
        if self.subagents > 0 and self.subagent_class is None:
            yield "subagent_class: missing; add the name of the class whose sessions the sub-agents are"
        if self.subagent_class is not None and self.subagents == 0:
            yield "subagent_class: only with subagents; remove this key, or give how many a session sets off"
        least = self.prefix_tokens + self.grown_tokens(output_tokens) + 1.0
        if self.shares_text and (self.turns == 1 or self.turn_tokens is not None) and prompt_tokens < least:
            yield f"prompt_tokens: {self._too_short(prompt_tokens, output_tokens, least)}"

    def _too_short(self, prompt_tokens: float, output_tokens: float, least: float) -> str:
        parts = [f"prefix_tokens of {self.prefix_tokens}"] if self.prefix_tokens else []
        if self.turns > 1:
            each = f"{self.further_tokens:g} new tokens and an answer of {output_tokens:g}"
            parts.append(f"{self.earlier_turns:g} earlier turns of {each}")
        lower = " or ".join(name for name in ("prefix_tokens", "turns", "turn_tokens") if self._is_given(name))
        return (
            f"the mean over all requests must be at least {least:.10g}, one token more than {' and '.join(parts)}, but "
            f"is {prompt_tokens:g}; raise it, or lower {lower}"
        )

    def _is_given(self, name: str) -> bool:
        return bool(getattr(self, name) != SessionTable.model_fields[name].default)


@dataclass(frozen=True, repr=False)
class ClassOfSessions(Brief):
    """What tells how many sessions of a class start, and who sets them off; `rate` is that of its requests."""

    name: str
    rate: float
    keys: SessionTable

    @property
    def starts(self) -> float:
        """Sessions, in the unit of `rate`."""
        return self.rate / self.keys.turns


def brought(classes: Sequence[ClassOfSessions]) -> list[float]:
    """Sessions of each class that others set off as sub-agents, in the unit of the rates."""
    return [sum(c.starts * c.keys.subagents for c in classes if c.keys.subagent_class == k.name) for k in classes]


def own_starts(classes: Sequence[ClassOfSessions]) -> list[float]:
    """Sessions of each class that start by themselves, in the unit of the rates: what sub-agents leave of them."""
    left = [c.starts - by_others for c, by_others in zip(classes, brought(classes), strict=True)]
    return [own if own > ROUNDING * c.starts else 0.0 for c, own in zip(classes, left, strict=True)]


def cluster_size(classes: Sequence[ClassOfSessions]) -> float:
    """Requests in the cluster of a request, on average over all: `E[N^2] / E[N]`, where `N` are those of a session that
    starts by itself and of its sub-agents. 1 where each request comes by itself.

    Sessions that start by a Poisson process bring as many times the variance of requests that come by one.

    With `K` turns and a Poisson number of mean `a` of sub-agents of `K'` turns, `N` has the mean `E[K] + a E[K']` and
    the variance `Var[K] + a E[K'^2]`.
    """
    by_name = {c.name: c.keys for c in classes}
    requests = squares = 0.0
    for each, starts in zip(classes, own_starts(classes), strict=True):
        keys = each.keys
        sub = by_name.get(keys.subagent_class or "", keys)
        mean = keys.turns + keys.subagents * sub.turns
        variance = keys.squared_turns - keys.turns**2 + keys.subagents * sub.squared_turns
        requests += starts * mean
        squares += starts * (variance + mean**2)
    return squares / requests


def subagent_problems(classes: Sequence[ClassOfSessions], rate_key: str) -> Iterator[tuple[int, str]]:
    """The place of a class and "KEY: REASON; MEND" for each whose sub-agents are not those of another.

    Args:
        rate_key: that of the requests of a class.
    """
    names = [c.name for c in classes]
    with_own = {c.name for c in classes if c.keys.subagents > 0}
    for index, each in enumerate(classes):
        of = each.keys.subagent_class
        if of is None or each.keys.subagents == 0:
            continue
        if of not in names:
            yield index, f"subagent_class: '{of}' is no class; give one of {', '.join(repr(name) for name in names)}"
        elif of in with_own:
            yield index, f"subagent_class: '{of}' has sub-agents itself; give a class without, or remove its subagents"
    for index, (each, by_others) in enumerate(zip(classes, brought(classes), strict=True)):
        if by_others > each.starts * (1.0 + ROUNDING):
            yield (
                index,
                f"{rate_key}: is that of all its requests, and sub-agents alone bring "
                f"{by_others * each.keys.turns:.10g} of them a second, but it is {each.rate:.10g}; raise it to that, "
                "or set off fewer",
            )
