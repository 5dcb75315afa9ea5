"""What a client asks for: its body read and checked, as far as the gateway must."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import orjson

from fluidgate.gateway.client.api_error import invalid
from fluidgate.gateway.client.end_points import CHAT as CHAT
from fluidgate.gateway.client.end_points import COMPLETIONS as COMPLETIONS
from fluidgate.gateway.client.end_points import END_POINTS, EndPoint, Work
from fluidgate.gateway.client.json_body import parsed_object
from fluidgate.gateway.client.prompt_meter import PromptMeter

GATEWAYS_OWN = ("kv_transfer_params", "id_slot")
"""Keys of the body with which the gateway speaks to engines: from a client they could reach into other requests."""

OUTPUT_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


@dataclass(frozen=True)
class CompletionRequest:
    """A request, whichever end point it is for.

    Attributes:
        path: of its end point.
        body: as parsed; `raw`, written from it, so that an engine reads no other request than was checked here.
        model: "" where the end point can do without, and none is named.
        prompt_tokens: estimated, or counted where the prompt is token ids; 0 where nothing is counted.
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
    def end_point(self) -> EndPoint:
        return END_POINTS[self.path]

    @property
    def wants_usage(self) -> bool:
        """Whether the client wants a stream's last event to state its tokens; in other APIs than OpenAI's first two it
        always does."""
        options = self.body.get("stream_options")
        asked = isinstance(options, dict) and bool(options.get("include_usage"))
        return asked or self.path not in (COMPLETIONS, CHAT)

    @property
    def longest_ids(self) -> int | None:
        """Tokens of the longest prompt that is given as token ids; None where it is given otherwise."""
        prompt = self.body.get("prompt")
        if self.path != COMPLETIONS or not isinstance(prompt, list) or not prompt or isinstance(prompt[0], str):
            return None
        return max(map(len, prompt)) if isinstance(prompt[0], list) else len(prompt)

    @property
    def answers(self) -> int:
        """How many answers it asks for, of all its prompts."""
        prompt = self.body.get("prompt") if self.path == COMPLETIONS else None
        prompts = len(prompt) if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list) else 1
        return prompts * max(self.body.get("n") or 1, self.body.get("best_of") or 1)

    def with_usage(self) -> CompletionRequest:
        """The same, its stream asked to state its tokens in its last event, and in no other."""
        options = self.body.get("stream_options")
        asked = {name: value for name, value in options.items() if name != "continuous_usage_stats"} if options else {}
        body = self.body | {"stream_options": asked | {"include_usage": True}}
        return replace(self, body=body, raw=orjson.dumps(body))

    def of_model(self, model: str) -> CompletionRequest:
        """The same, for a model by the name that the engines have for it."""
        body = self.body | {"model": model}
        return replace(self, model=model, body=body, raw=orjson.dumps(body))

    async def measured(self, meter: PromptMeter) -> CompletionRequest:
        """The same, its prompt counted; off the event loop, if that takes long.

        Raises:
            ApiError: it has no prompt of a form that engines take.
        """
        kind = self.end_point.prompt
        if kind is None:
            return self
        return replace(self, prompt_tokens=await meter.measured(kind, self.body, len(self.raw)))

    @staticmethod
    def parsed(path: str, raw: bytes) -> CompletionRequest:
        """The request in a body; its prompt is not counted yet.

        Raises:
            ApiError: the body is no request for the end point.
        """
        return _checked(END_POINTS[path], parsed_object(raw))


def _checked(point: EndPoint, body: dict[str, Any]) -> CompletionRequest:
    for key in GATEWAYS_OWN:
        if body.get(key) is not None:
            raise invalid(f"'{key}' is not for clients to give", key)
    model, stream, options = body.get("model"), body.get("stream"), body.get("stream_options")
    if model is None and point.work is Work.NONE:
        model = ""
    elif not isinstance(model, str) or not model:
        raise invalid("'model' must be the name of a model", "model")
    if stream is not None and not isinstance(stream, bool):
        raise invalid("'stream' must be true or false", "stream")
    if stream and point.work is not Work.GENERATE:
        raise invalid(f"{point.path} has no streams", "stream")
    if options is not None and not isinstance(options, dict):
        raise invalid("'stream_options' must be an object", "stream_options")
    for key in ("n", "best_of"):
        _positive(body, key)
    given = [limit for key in OUTPUT_LIMITS if (limit := _positive(body, key)) is not None]
    return CompletionRequest(
        path=point.path,
        body=body,
        raw=_rewritten(body),
        model=model,
        stream=bool(stream),
        prompt_tokens=0,
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
