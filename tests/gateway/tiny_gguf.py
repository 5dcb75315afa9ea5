"""A tiny Llama of random weights with its tokenizer, as a GGUF file: a real model for a real server, made at once."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

WIDTH, HEADS, KV_HEADS, LAYERS, INNER = 64, 4, 2, 2, 128
HEAD = WIDTH // HEADS
CONTEXT = 4096
SPECIAL = ("<s>", "</s>")
MERGES = ("t h", "th e", "i n", "a n", "e r", "Ġ t", "Ġt h", "Ġ a")
CHAT = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)

Tensor = NDArray[np.float32]


def write_tiny(path: Path, seed: int = 0) -> None:
    """Write the model. It always answers in printable ASCII, and never ends an answer of its own accord."""
    words = _words()
    file = gguf.GGUFWriter(path, "llama")
    file.add_context_length(CONTEXT)
    file.add_embedding_length(WIDTH)
    file.add_block_count(LAYERS)
    file.add_feed_forward_length(INNER)
    file.add_head_count(HEADS)
    file.add_head_count_kv(KV_HEADS)
    file.add_layer_norm_rms_eps(1e-5)
    file.add_rope_dimension_count(HEAD)
    file.add_vocab_size(len(words))
    file.add_file_type(gguf.LlamaFileType.ALL_F32)
    file.add_tokenizer_model("gpt2")
    file.add_tokenizer_pre("gpt-2")
    file.add_token_list(words)
    file.add_token_types([_kind(word) for word in words])
    file.add_token_merges(MERGES)
    file.add_bos_token_id(words.index("<s>"))
    file.add_eos_token_id(words.index("</s>"))
    file.add_add_bos_token(False)
    file.add_chat_template(CHAT)
    for name, tensor in _tensors(words, np.random.default_rng(seed)).items():
        file.add_tensor(name, tensor)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


def _words() -> list[str]:
    """Every byte as byte-level BPE spells it, in the order of the bytes, then what is merged of them."""
    others = iter(range(256, 512))
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    letters = [chr(byte if byte in printable else next(others)) for byte in range(256)]
    return [*SPECIAL, *letters, *(merge.replace(" ", "") for merge in MERGES)]


def _kind(word: str) -> gguf.TokenType:
    return gguf.TokenType.CONTROL if word in SPECIAL else gguf.TokenType.NORMAL


def _tensors(words: list[str], rng: np.random.Generator) -> dict[str, Tensor]:
    def random(rows: int, columns: int, gain: float = 1.0) -> Tensor:
        return (rng.standard_normal((rows, columns)) * gain / np.sqrt(columns)).astype(np.float32)

    ones = np.ones(WIDTH, np.float32)
    output = random(len(words), WIDTH, 4.0)
    output[[not (word.isascii() and word not in SPECIAL) for word in words]] = 0.0
    tensors = {"token_embd.weight": random(len(words), WIDTH, 8.0), "output_norm.weight": ones, "output.weight": output}
    for layer in range(LAYERS):
        shapes = {
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (KV_HEADS * HEAD, WIDTH),
            "attn_v": (KV_HEADS * HEAD, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_gate": (INNER, WIDTH),
            "ffn_up": (INNER, WIDTH),
            "ffn_down": (WIDTH, INNER),
        }
        tensors |= {f"blk.{layer}.{name}.weight": random(*shape, gain=2.0) for name, shape in shapes.items()}
        tensors |= {f"blk.{layer}.{name}.weight": ones for name in ("attn_norm", "ffn_norm")}
    return tensors
