"""Public facts of cards and of language models: what KV memory and the reading of it follow from.

Memory is what CUDA reports as total (the capacity in an out-of-memory error of PyTorch), some percent less than what
the card is sold by. Bandwidth is that of NVIDIA's data sheets. Shapes of models are those of their `config.json`,
parameters those of their weights on Hugging Face.
"""

from __future__ import annotations

from typing import NamedTuple

GIB = 2**30
BYTES = {"bf16": 2, "fp16": 2, "fp8": 1}
"""Bytes of a number by its type."""


class Card(NamedTuple):
    """A GPU.

    Attributes:
        title: its name.
        memory: bytes, as CUDA reports them.
        bandwidth: of its memory, bytes/s.
    """

    title: str
    memory: float
    bandwidth: float


CARDS: dict[str, Card] = {
    "a100-40gb": Card("NVIDIA A100 SXM 40 GB", 39.39 * GIB, 1.555e12),
    "a100-80gb": Card("NVIDIA A100 SXM 80 GB", 79.25 * GIB, 2.039e12),
    "h100": Card("NVIDIA H100 SXM", 79.19 * GIB, 3.35e12),
    "h200": Card("NVIDIA H200 SXM", 139.80 * GIB, 4.8e12),
    "b200": Card("NVIDIA B200 SXM", 178.35 * GIB, 7.7e12),
    "l40s": Card("NVIDIA L40S", 44.39 * GIB, 8.64e11),
    "rtx4090": Card("NVIDIA RTX 4090", 23.64 * GIB, 1.008e12),
}
"""By the name of the folder of its profiles, which is also that of `[engine] kv_memory`."""


class LanguageModel(NamedTuple):
    """A decoder whose attention has grouped queries.

    Attributes:
        title: its name.
        parameters: all of them, of a mixture of experts too.
        layers, kv_heads, head_dim: of its attention.
        heads: of its queries.
        repository: of its instruction-tuned weights on Hugging Face.
        active: parameters that a token meets; all of them where that is None.
    """

    title: str
    parameters: int
    layers: int
    kv_heads: int
    head_dim: int
    heads: int
    repository: str
    active: int | None = None

    def weights_bytes(self, dtype: str) -> int:
        """Memory of the weights."""
        return self.parameters * BYTES[dtype]

    def kv_bytes_per_token(self, dtype: str) -> int:
        """Memory of the keys and values of a token, over all GPUs of a group that has no more GPUs than KV heads."""
        return 2 * self.layers * self.kv_heads * self.head_dim * BYTES[dtype]

    @property
    def pair_share(self) -> float:
        """Work of the attention of a token to another over the work of a token in the weights: both in multiplications.

        A pair takes two of them, of the key and of the value, for each number of the queries.
        """
        return 2.0 * self.layers * self.heads * self.head_dim / (self.active or self.parameters)


LANGUAGE_MODELS: dict[str, LanguageModel] = {
    "llama-3.1-8b": LanguageModel("Llama 3.1 8B", 8_030_261_248, 32, 8, 128, 32, "meta-llama/Llama-3.1-8B-Instruct"),
    "llama-3.1-70b": LanguageModel(
        "Llama 3.1 70B", 70_553_706_496, 80, 8, 128, 64, "meta-llama/Llama-3.1-70B-Instruct"
    ),
    "llama2-70b": LanguageModel("Llama 2 70B", 68_976_648_192, 80, 8, 128, 64, "meta-llama/Llama-2-70b-chat-hf"),
    "qwen3-8b": LanguageModel("Qwen3 8B", 8_190_735_360, 36, 8, 128, 32, "Qwen/Qwen3-8B"),
    "qwen3-32b": LanguageModel("Qwen3 32B", 32_762_123_264, 64, 8, 128, 64, "Qwen/Qwen3-32B"),
    "qwen3-30b-a3b": LanguageModel(
        "Qwen3 30B A3B", 30_532_122_624, 48, 4, 128, 32, "Qwen/Qwen3-30B-A3B", 3_345_000_000
    ),
}
"""By the name that their profiles have."""

OTHER_WEIGHTS = ("awq", "gptq", "fp8", "fp4", "int4", "int8", "w4a16", "w8a8", "gguf", "bnb", "quantized")
"""Words in the name of a model whose weights are of another type than they were trained in."""
OTHER_BOARDS = ("pcie", "nvl")
"""Words in the name of a card that has less bandwidth than those above."""


def card_of(text: str) -> Card | None:
    """The card of a name such as `h100`, or `NVIDIA GeForce RTX 4090` as CUDA says it; None for no card above."""
    said = _plain(text)
    if any(word in said for word in OTHER_BOARDS):
        return None
    found = [key for key in CARDS if all(part in said for part in key.replace("rtx", "rtx-").split("-"))]
    return CARDS[found[0]] if len(found) == 1 else None


def language_model_of(text: str) -> LanguageModel | None:
    """The model of a name such as `llama-3.1-8b`, or `meta-llama/Llama-3.1-8B-Instruct`; None for none above."""
    said = _plain(text)
    found = [key for key in LANGUAGE_MODELS if _plain(key) in said]
    return LANGUAGE_MODELS[max(found, key=len)] if found else None


def type_of(text: str, model: str = "") -> str | None:
    """`bf16` for `bfloat16` and the like; that of most models where no text says it; None for a type not above."""
    said = _plain(text)
    if not said or said == "auto":
        return None if any(word in _plain(model) for word in OTHER_WEIGHTS) else "bf16"
    names = {"bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16", "float16": "fp16", "half": "fp16", "fp8": "fp8"}
    return names.get(said.removeprefix("torch"))


def _plain(text: str) -> str:
    """Letters and digits only."""
    return "".join(letter for letter in text.lower() if letter.isalnum())
