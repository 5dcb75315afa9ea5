"""The weights of a transformer: random numbers in tensors of the right shapes."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch

from fluidgate.calibration.probe.shape import Shape

SCALE = 0.02
"""Standard deviation of the weights, as at the start of a training."""


@dataclass(frozen=True)
class Layer:
    """Weights of one layer; matrices are [out, in].

    Attributes:
        qkv: queries, keys and values in one matrix, [(heads + 2 kv_heads) head_dim, hidden].
        gate_up: both inner matrices of SwiGLU in one, [2 feed_forward, hidden].
    """

    attention_norm: torch.Tensor
    qkv: torch.Tensor
    query_norm: torch.Tensor | None
    key_norm: torch.Tensor | None
    output: torch.Tensor
    feed_forward_norm: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


@dataclass(frozen=True)
class Weights:
    """All weights: `embedding` and `head` are [vocabulary, hidden]."""

    embedding: torch.Tensor
    layers: tuple[Layer, ...]
    norm: torch.Tensor
    head: torch.Tensor

    def count(self) -> int:
        """Numbers held in memory; those that layers share count once."""
        return sum(tensor.numel() for tensor in (self.embedding, self.norm, self.head, *self._of_layers()))

    def _of_layers(self) -> Iterator[torch.Tensor]:
        for layer in {id(layer): layer for layer in self.layers}.values():
            for field in fields(layer):
                tensor = getattr(layer, field.name)
                if tensor is not None:
                    yield tensor


def random_weights(
    shape: Shape,
    dtype: torch.dtype,
    device: torch.device,
    generator: torch.Generator | None = None,
    *,
    share_layers: bool = False,
) -> Weights:
    """Weights on `device`; `share_layers` lets all layers use the memory of one."""

    def matrix(rows: int, columns: int) -> torch.Tensor:
        made = torch.empty(rows, columns, dtype=dtype, device=device)
        return made.normal_(0.0, SCALE, generator=generator)

    def ones(size: int) -> torch.Tensor:
        return torch.ones(size, dtype=dtype, device=device)

    def layer() -> Layer:
        inner = shape.heads * shape.head_dim
        return Layer(
            attention_norm=ones(shape.hidden),
            qkv=matrix(inner + 2 * shape.kv_heads * shape.head_dim, shape.hidden),
            query_norm=ones(shape.head_dim) if shape.qk_norm else None,
            key_norm=ones(shape.head_dim) if shape.qk_norm else None,
            output=matrix(shape.hidden, inner),
            feed_forward_norm=ones(shape.hidden),
            gate_up=matrix(2 * shape.feed_forward, shape.hidden),
            down=matrix(shape.hidden, shape.feed_forward),
        )

    embedding = matrix(shape.vocabulary, shape.hidden)
    layers = (layer(),) * shape.layers if share_layers else tuple(layer() for _ in range(shape.layers))
    return Weights(embedding, layers, ones(shape.hidden), matrix(shape.vocabulary, shape.hidden))


def parameter_count(shape: Shape, *, share_layers: bool = False) -> int:
    """Parameters of the shape, counted on tensors that hold no memory."""
    return random_weights(shape, torch.float32, torch.device("meta"), share_layers=share_layers).count()
