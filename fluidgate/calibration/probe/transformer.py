"""One forward pass of a decoder-only transformer over a batch of decodes and one prefill chunk."""
# mypy: disable-error-code="import-not-found,no-untyped-call,no-any-return"

from __future__ import annotations

import torch
from torch.nn import functional
from torch.nn.attention.bias import causal_lower_right

from fluidgate.calibration.probe.batch import Batch
from fluidgate.calibration.probe.cache import Cache
from fluidgate.calibration.probe.shape import Shape
from fluidgate.calibration.probe.weights import Layer, Weights

Turn = tuple[torch.Tensor, torch.Tensor]
"""Cosines and sines of the rotary embedding, each [tokens, 1, head_dim / 2]."""


def logits(shape: Shape, weights: Weights, batch: Batch, cache: Cache) -> torch.Tensor:
    """Logits [requests, vocabulary] of each request's next token; the cache gains the tokens of the batch.

    Linear layers run once over the tokens of decodes and chunk together; only attention tells them apart.
    """
    hidden = functional.embedding(batch.tokens, weights.embedding)
    turn = rotary(shape, batch.positions, hidden.dtype)
    for number, layer in enumerate(weights.layers):
        hidden = hidden + _attention(
            shape, layer, _norm(shape, hidden, layer.attention_norm), turn, number, batch, cache
        )
        hidden = hidden + _swiglu(layer, _norm(shape, hidden, layer.feed_forward_norm))
    last = hidden.index_select(0, batch.outputs)
    return functional.linear(_norm(shape, last, weights.norm), weights.head)


def rotary(shape: Shape, positions: torch.Tensor, dtype: torch.dtype) -> Turn:
    """Cosines and sines for tokens at `positions` [tokens]."""
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float32, device=positions.device) / shape.head_dim
    angles = positions[:, None, None] * shape.rotary_base**-exponents
    return angles.cos().to(dtype), angles.sin().to(dtype)


def turned(heads: torch.Tensor, turn: Turn) -> torch.Tensor:
    """Heads [tokens, heads, head_dim] turned: the first and the second half of each are the pairs' coordinates."""
    cosine, sine = turn
    first, second = heads.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


def attend_decodes(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """Attention of one token a request, [requests, heads, head_dim].

    `queries` is [requests, heads, head_dim], `keys` and `values` [requests, length, kv_heads, head_dim]. The query
    heads that share a key head stand in the place of successive queries, so that keys are not repeated.
    """
    grouped = queries.unflatten(1, (keys.shape[2], -1))
    read = functional.scaled_dot_product_attention(grouped, keys.transpose(1, 2), values.transpose(1, 2), mask)
    return read.flatten(1, 2)


def attend_chunk(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Attention of the last tokens of one request, [tokens, heads, head_dim], each to itself and to what came before.

    `queries` is [tokens, heads, head_dim], `keys` and `values` [1, length, kv_heads, head_dim]. The mask is a shape,
    no tensor, and no key is repeated for the query heads that share it: on a GPU that is FlashAttention.
    """
    read = functional.scaled_dot_product_attention(
        queries.transpose(0, 1)[None],
        keys.transpose(1, 2),
        values.transpose(1, 2),
        attn_mask=causal_lower_right(len(queries), keys.shape[1]),
        enable_gqa=True,
    )
    return read[0].transpose(0, 1)


def _attention(
    shape: Shape, layer: Layer, hidden: torch.Tensor, turn: Turn, number: int, batch: Batch, cache: Cache
) -> torch.Tensor:
    """The attention block of layer `number`; `hidden` and the result are [tokens, hidden]."""
    heads = functional.linear(hidden, layer.qkv).unflatten(1, (-1, shape.head_dim))
    queries, keys, values = heads.split((shape.heads, shape.kv_heads, shape.kv_heads), dim=1)
    if layer.query_norm is not None and layer.key_norm is not None:
        queries, keys = _norm(shape, queries, layer.query_norm), _norm(shape, keys, layer.key_norm)
    queries = turned(queries, turn)
    cache.write(number, batch.slots, turned(keys, turn), values)

    parts = []
    if batch.decodes is not None:
        kept = cache.read(number, batch.decodes.rows, batch.decodes.length)
        parts.append(attend_decodes(queries[: batch.decodes.count], *kept, batch.decodes.mask))
    if batch.chunk is not None:
        row = batch.chunk.row
        kept = cache.read(number, slice(row, row + 1), batch.chunk.length)
        parts.append(attend_chunk(queries[-batch.chunk.size :], *kept))
    read = parts[0] if len(parts) == 1 else torch.cat(parts)
    return functional.linear(read.flatten(1), layer.output)


def _swiglu(layer: Layer, hidden: torch.Tensor) -> torch.Tensor:
    gate, up = functional.linear(hidden, layer.gate_up).chunk(2, dim=-1)
    return functional.linear(functional.silu(gate) * up, layer.down)


def _norm(shape: Shape, values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(values, weight.shape, weight, shape.norm_epsilon)
