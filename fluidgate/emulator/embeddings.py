"""Embeddings: a prompt is read and answered by a vector, the same for the same prompt."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from fluidgate.emulator.bodies import Body, Prompts, bad_request, prompts_of
from fluidgate.emulator.prompt import Prompt
from fluidgate.emulator.request import EngineRequest
from fluidgate.emulator.wire import Form, packed

WIDTH = 64
"""Numbers of a vector."""


class EmbeddingBody(Body):
    """`POST /v1/embeddings`."""

    prefix: ClassVar[str] = "embd-"
    embeds: ClassVar[bool] = True
    input: Prompts
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None

    def prompts(self) -> list[Prompt]:
        return prompts_of(self.input)

    def check(self) -> None:
        if self.dimensions not in (None, WIDTH):
            raise bad_request(f"dimensions: the engine's vectors have {WIDTH} numbers; leave it out", "dimensions")
        self.stream = False

    def form(self, requests: Sequence[EngineRequest], model: str) -> Form:
        return EmbeddingForm(requests, model, base64=self.encoding_format == "base64")


class EmbeddingForm(Form):
    """A list of vectors, never a stream.

    Args:
        base64: whether a vector is its float32 numbers, little-endian, in base64.
    """

    def __init__(self, requests: Sequence[EngineRequest], model: str, *, base64: bool) -> None:
        super().__init__(requests, model)
        self._base64 = base64

    def tokens(self, choice: int, after: int, upto: int) -> bytes:
        return b""

    def closing(self) -> bytes:
        return b""

    def whole(self, transfer: dict[str, Any] | None) -> bytes:
        read = sum(request.prompt for request in self.requests)
        data = [
            {"index": index, "object": "embedding", "embedding": self._written(vector(request))}
            for index, request in enumerate(self.requests)
        ]
        usage = {"prompt_tokens": read, "total_tokens": read, "completion_tokens": 0}
        known = {"id": self.id, "object": "list", "created": self.created, "model": self.model}
        return packed(known | {"data": data, "usage": usage})

    def _written(self, numbers: np.ndarray) -> str | list[float]:
        return b64encode(numbers.astype("<f4").tobytes()).decode() if self._base64 else numbers.tolist()


def vector(request: EngineRequest) -> np.ndarray:
    """Of length 1, float32[WIDTH]."""
    drawn = np.random.default_rng(int.from_bytes(request.key)).standard_normal(WIDTH)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)
