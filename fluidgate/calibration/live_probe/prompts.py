"""Prompts of any length that no prefix cache knows."""

from __future__ import annotations

from random import Random

from fluidgate.calibration.live_probe.client import Client, Prompt, Refused
from fluidgate.errors import FluidgateError

RANGES = ((300, 1000), (30, 250))
"""Token ids that most vocabularies have as plain ones, and those of a tiny one; the first that is taken."""

WORDS = ("river", "stone", "cloud", "seven", "paper", "light", "green", "table", "water", "night", "music", "house")
TRIAL = 64
"""Tokens, or words, of the prompt that tries them."""


class Prompts:
    """Draws prompts: token ids, or words where an engine takes no ids.

    Args:
        seed: of what is drawn; None for any.

    Attributes:
        ids: the range of the token ids; None for words.
        tokens_per_word: where it is words.
    """

    def __init__(self, seed: int | None, ids: tuple[int, int] | None = RANGES[0], tokens_per_word: float = 1.0) -> None:
        self.ids = ids
        self.tokens_per_word = tokens_per_word
        self._random = Random(seed)

    def draw(self, tokens: int) -> Prompt:
        """A prompt of so many tokens; about so many where it is words."""
        if self.ids is not None:
            return [self._random.randrange(*self.ids) for _ in range(tokens)]
        count = max(1, round(tokens / self.tokens_per_word))
        return " ".join(self._random.choice(WORDS) for _ in range(count))


async def try_prompts(client: Client, seed: int | None) -> Prompts:
    """Prompts of the first kind that the engine takes, each tried with one request.

    Raises:
        FluidgateError: it takes none, or does not stream.
    """
    refused: Refused | None = None
    for ids in RANGES:
        prompts = Prompts(seed, ids)
        try:
            await _streamed(client, prompts, TRIAL)
        except Refused as error:
            if error.status not in (400, 422, 500):
                raise
            refused = refused or error
        else:
            return prompts
    prompts = Prompts(seed, None)
    try:
        stated = await _streamed(client, prompts, TRIAL)
    except Refused:
        raise refused or FluidgateError("--url: the engine takes no prompt") from None
    return Prompts(seed, None, stated / TRIAL)


async def _streamed(client: Client, prompts: Prompts, tokens: int) -> int:
    """Tokens that the engine counts in a prompt.

    Raises:
        FluidgateError: it refuses it, or answers nothing.
    """
    stream = client.complete(prompts.draw(tokens), tokens, 2)
    await stream.finish()
    if stream.tokens == 0:
        raise FluidgateError(f"--url: {client.url} streams no tokens; the probe reads streams of /v1/completions only")
    return stream.prompt
