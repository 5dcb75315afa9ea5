"""The end points that take a body, and what is particular about each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from fluidgate.gateway.client.dialect import Dialect

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
EMBEDDINGS = "/v1/embeddings"

Prompt = Literal["completion", "chat", "responses", "messages", "embeddings"]
"""Where in the body a prompt stands."""


class Work(Enum):
    """What an engine has to do for a request."""

    GENERATE = "generate"  # read the prompt, write the answer
    READ = "read"  # read the prompt
    NONE = "none"  # next to nothing: no slot is held


@dataclass(frozen=True)
class EndPoint:
    """One end point.

    Attributes:
        name: how rules call it; "" for one that has no class.
        prompt: where its prompt stands; None where nothing is counted.
        dialect: of its errors.
        headers: of clients that engines get too.
        everywhere: whether every engine has it; else 404, 405 and 501 say that one has it not.
    """

    path: str
    name: str
    work: Work
    prompt: Prompt | None
    dialect: Dialect = Dialect.OPENAI
    headers: tuple[str, ...] = ()
    everywhere: bool = False


ANTHROPIC_HEADERS = ("anthropic-version", "anthropic-beta")

END_POINTS = {
    point.path: point
    for point in (
        EndPoint(COMPLETIONS, "completions", Work.GENERATE, "completion", everywhere=True),
        EndPoint(CHAT, "chat", Work.GENERATE, "chat", everywhere=True),
        EndPoint(RESPONSES, "responses", Work.GENERATE, "responses", Dialect.RESPONSES),
        EndPoint(MESSAGES, "messages", Work.GENERATE, "messages", Dialect.ANTHROPIC, ANTHROPIC_HEADERS),
        EndPoint(EMBEDDINGS, "embeddings", Work.READ, "embeddings"),
        EndPoint(f"{MESSAGES}/count_tokens", "", Work.NONE, None, Dialect.ANTHROPIC, ANTHROPIC_HEADERS),
        EndPoint("/tokenize", "", Work.NONE, None),
        EndPoint("/detokenize", "", Work.NONE, None),
    )
}
"""By path."""

MISSING = (404, 405, 501)
"""What an engine answers that does not have an end point."""
