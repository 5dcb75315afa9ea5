"""The shape of a decoder-only transformer: its sizes, and the presets that carry published ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fluidgate.errors import FluidgateError, nearest
from fluidgate.shown import Brief

SIZES = ("layers", "hidden", "heads", "kv_heads", "head_dim", "feed_forward", "vocabulary")
LARGEST_SIZE = 10_000_000


@dataclass(frozen=True, repr=False)
class Shape(Brief):
    """Sizes of a transformer with RMSNorm, rotary embedding, grouped-query attention, SwiGLU and an untied head.

    Attributes:
        name: of the model, for provenance.
        hidden: width of the residual stream.
        heads: query heads; `kv_heads` divides it.
        head_dim: width of one head, even (rotary embedding turns pairs).
        feed_forward: inner width of SwiGLU.
        qk_norm: RMSNorm over each query and key head, as in Qwen3.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    vocabulary: int
    qk_norm: bool = False
    rotary_base: float = 500_000.0
    norm_epsilon: float = 1e-5

    def headline(self) -> str:
        return f"{self.name}: {self.layers} layers of width {self.hidden}, {self.heads} and {self.kv_heads} heads"

    @property
    def queries_per_kv(self) -> int:
        """Query heads that share one key and value head."""
        return self.heads // self.kv_heads

    def changed(self, sizes: Mapping[str, int | None]) -> Shape:
        """This shape with other sizes; those that are None stay. The name tells what was changed."""
        new = {key: size for key, size in sizes.items() if size is not None and size != getattr(self, key)}
        name = " ".join([self.name, *(f"{key}={size}" for key, size in new.items())])
        return replace(self, name=name, **new)  # type: ignore[arg-type]

    def check(self) -> None:
        """Refuse sizes that make no transformer.

        Raises:
            FluidgateError: the first such size and its mend.
        """
        for key in SIZES:
            size = getattr(self, key)
            if not 1 <= size <= LARGEST_SIZE:
                raise FluidgateError(f"{option(key)}: is {size}; give a whole number from 1 to {LARGEST_SIZE}")
        if self.heads % self.kv_heads:
            raise FluidgateError(
                f"--kv-heads: {self.kv_heads} does not divide {self.heads} heads; give a divisor of {self.heads}"
            )
        if self.head_dim % 2:
            raise FluidgateError(f"--head-dim: is {self.head_dim}; the rotary embedding needs an even number")


def option(key: str) -> str:
    """The command's option for a keyword, `--kv-heads` for `kv_heads`."""
    return "--" + key.replace("_", "-")


PRESETS = {
    shape.name: shape
    for shape in (
        Shape("llama-3.1-8b", 32, 4096, 32, 8, 128, 14_336, 128_256),
        Shape("qwen3-8b", 36, 4096, 32, 8, 128, 12_288, 151_936, True, 1_000_000.0, 1e-6),
        Shape("tiny", 4, 256, 8, 2, 32, 768, 4096),
    )
}


def preset(name: str) -> Shape:
    """The preset with this name.

    Raises:
        FluidgateError: there is none.
    """
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise FluidgateError(f"--preset: unknown {name!r}{nearest(name, list(PRESETS)) or f'; give one of {known}'}")
    return PRESETS[name]
