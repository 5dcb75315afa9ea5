"""Which class a request is of: the first rule of the gateway file that it meets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fluidgate.gateway.gateway_tables import RuleTable

Header = Callable[[str], Sequence[str]]
"""Gives the values of a header of a request by its lower-case name."""


@dataclass(frozen=True)
class Traits:
    """What rules look at.

    Attributes:
        key: name of the API key, if one was given.
        path: name of the end point, such as "chat".
    """

    header: Header
    key: str | None
    model: str
    path: str
    prompt_tokens: int


class Classifier:
    """Rules in the order of the file. A header that comes twice meets a rule only if both values are the rule's."""

    def __init__(self, rules: Sequence[RuleTable], names: Sequence[str], default: int) -> None:
        self._rules = [(rule, names.index(rule.cls)) for rule in rules]
        self._default = default

    def class_of(self, traits: Traits) -> int:
        """Index of the class."""
        return next((cls for rule, cls in self._rules if meets(traits, rule)), self._default)


def meets(traits: Traits, rule: RuleTable) -> bool:
    """Whether a request meets every condition of a rule."""
    if rule.key is not None and rule.key != traits.key:
        return False
    if rule.model is not None and rule.model != traits.model:
        return False
    if rule.path is not None and rule.path != traits.path:
        return False
    if rule.min_prompt_tokens is not None and traits.prompt_tokens < rule.min_prompt_tokens:
        return False
    if rule.max_prompt_tokens is not None and traits.prompt_tokens > rule.max_prompt_tokens:
        return False
    for name, value in (rule.header or {}).items():
        given = traits.header(name.lower())
        if not given or any(each != value for each in given):
            return False
    return True
