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
    """

    title: str
    parameters: int
    layers: int
    kv_heads: int
    head_dim: int

    def weights_bytes(self, dtype: str) -> int:
        """Memory of the weights."""
        return self.parameters * BYTES[dtype]

    def kv_bytes_per_token(self, dtype: str) -> int:
        """Memory of the keys and values of a token, over all GPUs of a group that has no more GPUs than KV heads."""
        return 2 * self.layers * self.kv_heads * self.head_dim * BYTES[dtype]


LANGUAGE_MODELS: dict[str, LanguageModel] = {
    "llama-3.1-8b": LanguageModel("Llama 3.1 8B", 8_030_261_248, 32, 8, 128),
    "llama-3.1-70b": LanguageModel("Llama 3.1 70B", 70_553_706_496, 80, 8, 128),
    "llama2-70b": LanguageModel("Llama 2 70B", 68_976_648_192, 80, 8, 128),
    "qwen3-8b": LanguageModel("Qwen3 8B", 8_190_735_360, 36, 8, 128),
    "qwen3-32b": LanguageModel("Qwen3 32B", 32_762_123_264, 64, 8, 128),
    "qwen3-30b-a3b": LanguageModel("Qwen3 30B A3B", 30_532_122_624, 48, 4, 128),
}
"""By the name that their profiles have."""
