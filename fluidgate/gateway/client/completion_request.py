"""What a client asks for: its body read and checked, as far as the gateway must."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import orjson

from fluidgate.gateway.client.api_error import invalid
from fluidgate.gateway.client.prompt_meter import PromptMeter

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"

GATEWAYS_OWN = ("kv_transfer_params", "id_slot")
"""Keys of the body with which the gateway speaks to engines: from a client they could reach into other requests."""


@dataclass(frozen=True)
class CompletionRequest:
    """A request for a completion.

    Attributes:
        path: COMPLETIONS or CHAT.
        body: as parsed; `raw`, written from it, so that an engine reads no other request than was checked here.
        prompt_tokens: estimated, or counted where the prompt is token ids.
        output_limit: tokens, None where the request names none.
    """

    path: str
    body: dict[str, Any]
    raw: bytes
    model: str
    stream: bool
    prompt_tokens: int
    output_limit: int | None

    @property
    def counted(self) -> bool:
        """Whether the prompt is given as token ids, so that its length is known."""
        prompt = self.body.get("prompt")
        return isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], int)

    @property
    def wants_usage(self) -> bool:
        """Whether the client wants a stream's last event to state its tokens."""
        options = self.body.get("stream_options")
        return isinstance(options, dict) and bool(options.get("include_usage"))

    def with_usage(self) -> CompletionRequest:
        """The same, its stream asked to state its tokens in its last event."""
        options = self.body.get("stream_options")
        told = (options if isinstance(options, dict) else {}) | {"include_usage": True}
        body = self.body | {"stream_options": told}
        return replace(self, body=body, raw=orjson.dumps(body))

    def of_model(self, model: str) -> CompletionRequest:
        """The same, for a model by the name that the engines have for it."""
        body = self.body | {"model": model}
        return replace(self, model=model, body=body, raw=orjson.dumps(body))

    @staticmethod
    def of(path: str, raw: bytes, meter: PromptMeter) -> CompletionRequest:
        """
        Raises:
            ApiError: the body is no request for a completion.
        """
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise invalid(f"the body is not JSON: {error}", reason="invalid_json") from None
        if not isinstance(body, dict):
            raise invalid("the body must be a JSON object", reason="invalid_json")
        for key in GATEWAYS_OWN:
            if body.get(key) is not None:
                raise invalid(f"'{key}' is not for clients to give", key)
        raw = _rewritten(body)
        model, stream = body.get("model"), body.get("stream")
        if not isinstance(model, str) or not model:
            raise invalid("'model' must be the name of a model", "model")
        if stream is not None and not isinstance(stream, bool):
            raise invalid("'stream' must be true or false", "stream")
        for key in ("n", "best_of"):
            if isinstance(body.get(key), bool) or body.get(key) not in (None, 1):
                raise invalid(f"'{key}' must be 1; send a request for each answer", key)
        limits = [_positive(body, key) for key in ("max_tokens", "max_completion_tokens")]
        given = [limit for limit in limits if limit is not None]
        return CompletionRequest(
            path=path,
            body=body,
            raw=raw,
            model=model,
            stream=bool(stream),
            prompt_tokens=meter.chat(body) if path == CHAT else meter.completion(body.get("prompt")),
            output_limit=min(given) if given else None,
        )


def _rewritten(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError as error:
        raise invalid(f"the body can't be passed on: {error}", reason="invalid_json") from None


def _positive(body: dict[str, Any], key: str) -> int | None:
    value = body.get(key)
    if value is None:
        return None
    if type(value) is not int or value < 1:
        raise invalid(f"'{key}' must be a whole number, at least 1", key)
    return value
