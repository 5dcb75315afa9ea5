"""Draw the sessions of `examples/agents-sessions.jsonl`: coding agents whose tools answer at length.

    python scripts/draw_agent_sessions.py > examples/agents-sessions.jsonl

The format is that of docs/reference/traces.md, "Sessions".
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

SEED = 16
SESSIONS = 60
BLOCK = 64
SYSTEM = 6000  # tokens of system prompt and tools
TURNS = 16  # mean
LEAST = 3
NEW = (7.0, 0.9)  # log mean and deviation of the new tokens of a turn
ANSWER = (5.6, 0.7)
TASK = (7.6, 0.6)  # of the first prompt beyond the system's
TOOL, TOOL_SECONDS, PERSON_SECONDS = 0.85, 4.0, 40.0
SUBAGENTS, SUBAGENT_TURNS = 0.3, 5
TOKEN_SECONDS = 0.02  # of an answer, as the file has it


def turns(draw: Random, mean: int) -> int:
    return LEAST + int(draw.expovariate(1 / (mean - LEAST)))


def tokens(draw: Random, law: tuple[float, float]) -> int:
    return 1 + int(draw.lognormvariate(*law))


def requests(draw: Random, count: int, system: int) -> list[list[float]]:
    """Start, prompt, output, found in the last prompt, think, engine's time; s and tokens."""
    drawn: list[list[float]] = []
    prompt, found, start, think = system + tokens(draw, TASK), 0, 0.0, 0.0
    for _ in range(count):
        answer = tokens(draw, ANSWER)
        busy = round(answer * TOKEN_SECONDS, 2)
        drawn.append([round(start, 1), prompt, answer, found, think, busy])
        think = round(draw.expovariate(1 / (TOOL_SECONDS if draw.random() < TOOL else PERSON_SECONDS)), 1)
        start += busy + think
        found = prompt // BLOCK * BLOCK
        prompt += answer + tokens(draw, NEW)
    return drawn


def session(draw: Random, number: int) -> dict[str, Any]:
    own = requests(draw, turns(draw, TURNS), SYSTEM)
    agents = []
    if draw.random() < SUBAGENTS:
        begun = draw.choice(own)[0]
        agents.append({"t": begun, "requests": requests(draw, turns(draw, SUBAGENT_TURNS), SYSTEM // 2)})
    return {
        "id": f"session-{number}",
        "block": BLOCK,
        "shared_prefix": SYSTEM,
        "requests": own,
        "subagents": agents,
    }


def lines() -> list[str]:
    draw = Random(SEED)
    return [json.dumps(session(draw, number), separators=(",", ":")) for number in range(1, SESSIONS + 1)]


if __name__ == "__main__":
    print("\n".join(lines()))
