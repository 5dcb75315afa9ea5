"""Answers as `size` gives them, without its search."""

from __future__ import annotations

from typing import Any

from fluidgate.deployment import save
from fluidgate.deployment.fleet import Fleet
from fluidgate.sizing.answer import Answer, Sizing
from fluidgate.sizing.choices import choices_of
from tests.sizing.instances import chat

TWO = """[[classes]]
name = "code: \\"é\\""
prompt_tokens = 600
output_tokens = 40
total_arrival_rate = 20.0
patience_rate = 0.0
"""
ENGINE = "[engine]\n"


def answer(engines: int = 2, policy: str = "index-and-pool", **keys: Any) -> Answer:
    (choice,) = choices_of(chat(**keys), policies=[policy])
    return Answer(choice, "met", engines, 0, 1, None, None, None, None, None, ())


def fleet(engines: int = 2, policy: str = "index-and-pool", **keys: Any) -> Fleet:
    return Fleet.of(answer(engines, policy, **keys))


def sizing(engines: int = 2, policy: str = "index-and-pool", **keys: Any) -> Sizing:
    return Sizing("chat", (), (answer(engines, policy, **keys),), (), 7, 1.0)


def saved(folder: Any, engines: int = 2, policy: str = "index-and-pool", **keys: Any) -> Any:
    """The folder, with what runs so many engines."""
    save(sizing(engines, policy, **keys), folder, command="fluidgate size chat.toml")
    return folder
