"""The tokens that the KV memory of a GPU holds: from the card, the weights and the engine's share, or from its log."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from fluidgate.errors import FluidgateError, nearest
from fluidgate.profiles.facts import CARDS, GIB
from fluidgate.profiles.profile import Profile
from fluidgate.toml_file import shown

UTILIZATION = 0.9
"""The share of a GPU's memory that vLLM takes by default."""

OVERHEAD = 1.25 * GIB
"""What activations, CUDA graphs and the engine itself take of a GPU's share, bytes.

Left over in a run of vLLM 0.19.0 with Llama 3.1 8B on an RTX 4090, whose KV memory holds 41,408 tokens.
"""

UNLIMITED = "unlimited"
LOGGED = (r"GPU KV cache size:\s*([\d,]+)\s*tokens", r"max_total_num_tokens=([\d,]+)")
"""What vLLM and SGLang write as they start."""

SIZE = r"(\d+(?:\.\d+)?)\s*([KMGT]i?B)"
UNITS: dict[str, int] = {
    f"{prefix}{i}B": (1024 if i else 1000) ** power for power, prefix in enumerate("KMGT", 1) for i in ("i", "")
}


class KvMemory(NamedTuple):
    """The KV memory of a GPU, or of a tensor-parallel group.

    Attributes:
        tokens: that it holds, whole blocks; None for no limit.
        reason: how they follow, in words; empty where they were read off.
    """

    tokens: int | None
    reason: str = ""


def kv_memory(profile: Profile, given: str | None, utilization: float = UTILIZATION, block: int = 1) -> KvMemory:
    """`(memory * utilization - weights - overhead) / KV bytes a token`, or what the engine's log says.

    Args:
        profile: with the weights and the KV bytes of a token, where they are needed.
        given: "unlimited"; a line of the engine's log; the name of a card, or its memory, such as "80 GiB". None for
            the profile's own memory, and no limit where the profile does not say all of it.
        utilization: share of each GPU's memory that the engine takes, weights included.
        block: tokens of a block.

    Raises:
        FluidgateError: `given` is none of these, the profile does not say what is needed, or no block would fit.
    """
    if given == UNLIMITED:
        return KvMemory(None)
    if given is not None and (logged := _logged(given)) is not None:
        if logged < block:
            raise FluidgateError(f"the engine's log says {logged} tokens; give a line with a block of {block} or more")
        return KvMemory(logged)
    gpus = profile.gpus or 1
    memory = profile.memory_bytes if given is None else gpus * _memory(given)
    weights, kv = profile.weights_bytes, profile.kv_bytes_per_token
    if memory is None or weights is None or kv is None:
        if given is None:
            return KvMemory(None)
        raise FluidgateError(
            "how many tokens fit depends on weights_bytes and kv_bytes_per_token, which only a profile says, and "
            "none here does; give kv_tokens, or the line of the engine's log, 'GPU KV cache size: N tokens'"
        )
    free = memory * utilization - weights - gpus * OVERHEAD
    tokens = math.floor(free / kv / block) * block if free > 0 else 0
    taken = f"{_gib(weights)} of weights and {_gib(gpus * OVERHEAD)}"
    parts = f"{utilization:g} x {_gib(memory)} GiB of memory less {taken}"
    if tokens < block:
        raise FluidgateError(f"{parts} leave nothing for KV; give more memory, or kv_tokens")
    return KvMemory(tokens, f"{parts} for the engine, at {kv:,.0f} bytes a token")


def _logged(given: str) -> int | None:
    """The tokens in a line of an engine's log; None where it is none."""
    for pattern in LOGGED:
        if found := re.search(pattern, given):
            return int(found[1].replace(",", ""))
    return None


def _memory(given: str) -> float:
    """Bytes of a card, by its name or by their number.

    Raises:
        FluidgateError: it is neither.
    """
    if card := CARDS.get(given.lower()):
        return card.memory
    if found := re.fullmatch(SIZE, given.strip()):
        return float(found[1]) * UNITS[found[2]]
    raise FluidgateError(
        f"must be a card ({', '.join(CARDS)}), its memory such as '80 GiB', '{UNLIMITED}', or the line of the engine's "
        f"log 'GPU KV cache size: N tokens', but is {shown(given)}{nearest(given, [*CARDS, UNLIMITED])}"
    )


def _gib(value: float) -> str:
    return f"{value / GIB:.4g}"
