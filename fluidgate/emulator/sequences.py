"""What a request to the API asks of an engine: sequences, one for each choice of each prompt."""

from __future__ import annotations

from fluidgate.emulator.bodies import ApiError, Body, bad_request
from fluidgate.emulator.engine import Engine
from fluidgate.emulator.prompt import Prompt
from fluidgate.emulator.request import Bell, EngineRequest, Finish

LENGTH: Finish = "length"


def sequences(engine: Engine, body: Body, name: str, arrival: float) -> list[EngineRequest]:
    """The choices of the answer: the first prompt's, the second's, and so on.

    Raises:
        ApiError: 404 for another model, 400 for a request that is empty, too long or at odds with itself.
    """
    require_model(engine, body.model)
    adapter = body.model if body.model in engine.adapters else None
    prompts = [prompt.under(adapter) for prompt in body.prompts()]
    if not prompts or any(prompt.tokens < 1 for prompt in prompts):
        raise bad_request("prompt: must not be empty", "prompt")
    reads = engine.settings.role == "prefill" or (engine.settings.kind == "vllm" and body.remote_decode)
    bell = Bell()
    found = []
    for prompt in prompts:
        limit = _limit(engine, body, prompt)
        if reads:
            limit = 1
        for choice in range(body.choices):
            output, ends = (limit, LENGTH) if reads else _end(engine, body, prompt, choice, limit)
            found.append(
                EngineRequest(
                    name,
                    prompt.key,
                    prompt.tokens,
                    output,
                    ends,
                    arrival,
                    choice=choice,
                    remote_decode=reads,
                    embeds=body.embeds,
                    text=prompt,
                    bell=bell,
                )
            )
    return found


def require_model(engine: Engine, model: str | None) -> None:
    """
    Raises:
        ApiError: 404 for a model that the engine does not serve.
    """
    if model and not engine.serves(model):
        raise ApiError(404, "NotFoundError", f"The model `{model}` does not exist.", "model")


def _limit(engine: Engine, body: Body, prompt: Prompt) -> int:
    """Most tokens of an answer."""
    longest = engine.settings.max_model_len
    room = longest - prompt.tokens
    if body.embeds:
        if room < 0:
            raise bad_request(
                f"This model's maximum context length is {longest} tokens. However, you requested {prompt.tokens} "
                "tokens in the input for embedding generation. Please reduce the length of the input.",
                "input",
            )
        return 0
    limit = body.token_limit(room)
    if limit > room or room < 1:
        raise bad_request(
            f"This model's maximum context length is {longest} tokens. However, you requested "
            f"{limit} output tokens and your prompt contains {prompt.tokens} input tokens. Please reduce the length of "
            "the input prompt or the number of requested output tokens.",
            "max_tokens",
        )
    if body.remote_decode and limit != 1 and engine.settings.kind == "vllm":
        raise bad_request("kv_transfer_params: do_remote_decode needs max_tokens = 1", "max_tokens")
    return limit


def _end(engine: Engine, body: Body, prompt: Prompt, choice: int, limit: int) -> tuple[int, Finish]:
    """Tokens of an answer, and why it ends there."""
    if body.ignore_eos or body.embeds:
        return limit, LENGTH
    stop = max(engine.output_length(prompt, body.seed, choice), body.min_tokens)
    return (stop, "stop") if stop <= limit else (limit, LENGTH)
