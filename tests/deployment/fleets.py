"""Answers as `size` gives them, without its search."""

from __future__ import annotations

from typing import Any

from fluidgate.deployment import save
from fluidgate.deployment.fleet import Fleet
from fluidgate.model import Scenario
from fluidgate.scenario_file import parse_scenario
from fluidgate.sizing.answer import Answer, Pool, Sizing
from fluidgate.sizing.choices import choices_of
from fluidgate.sizing.mix import Mix
from tests.sizing.instances import CHAT, KEYS, chat

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


TYPES = """
[[options]]
profile = "h100/llama-3.1-8b"
gpu_hour = 2.5
[[options]]
profile = "rtx4090/llama-3.1-8b"
batch_sizes = [64]
gpu_hour = 0.4
[[classes]]
name = "document"
prompt_tokens = 6000
output_tokens = 40
total_arrival_rate = 2.0
patience_rate = 0.0
"""


def mixed(policy: str = "index-and-pool", engines: tuple[int, int] = (1, 2), rate: float = 20.0) -> Sizing:
    """Documents on H100s, chats on both types."""
    scenario: Scenario = parse_scenario(CHAT.format(**{**KEYS, "rate": rate, "more": TYPES}))
    choices = choices_of(scenario, policies=[] if policy == "index-and-pool" else [policy])
    if len(choices) == 1:
        choices = choices_of(scenario, profiles=["h100/llama-3.1-8b", "rtx4090/llama-3.1-8b"], policies=[policy])
    shares = ({"chat": 0.25, "document": 1.0}, {"chat": 0.75, "document": 0.0})
    fleet = tuple(Pool(*each) for each in zip(choices, engines, shares, strict=True))
    whole = Answer(Mix(tuple(choices)), "met", sum(engines), 0, 2, None, None, None, None, None, (), fleet=fleet)
    return Sizing("chat", (), (whole,), (), 7, 1.0)
