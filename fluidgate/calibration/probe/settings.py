"""What a probe measures, and the checks that need no PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fluidgate.calibration.probe.shape import Shape, option
from fluidgate.errors import FluidgateError, nearest
from fluidgate.shown import Brief

CACHES = ("paged", "contiguous")
DTYPES = ("bfloat16", "float16", "float32")
DEVICES = ("auto", "cpu", "cuda")
LARGEST = 1_000_000


@dataclass(frozen=True, repr=False)
class Settings(Brief):
    """What is measured and how; the options of `fluidgate probe`.

    Attributes:
        batch_sizes: requests in a batch, ascending; a mixed one has one prefill among them.
        chunk_sizes: prompt tokens of a chunk, ascending; none for solo iterations only.
        context: tokens that each decode has in the cache before its new one.
        chunk_context: tokens of the prompt read before the chunk.
        block_size: tokens of a block of the paged cache.
        warmup: iterations before each timed one, of the same kind and not timed.
        repeats: timed iterations of each kind.
        threads: of the CPU; None leaves them to PyTorch.
        share_layers: all layers use the weights of one.
        cuda_graphs: iterations are recorded once and replayed.
    """

    shape: Shape
    batch_sizes: tuple[int, ...]
    chunk_sizes: tuple[int, ...]
    context: int
    chunk_context: int
    cache: str
    block_size: int
    dtype: str
    device: str
    warmup: int
    repeats: int
    seed: int
    threads: int | None
    share_layers: bool
    cuda_graphs: bool

    def headline(self) -> str:
        sizes = f"batches {self.batch_sizes}, chunks {self.chunk_sizes}"
        return f"for {self.shape.name}: {sizes}, context {self.context}, {self.dtype} on {self.device}"

    def check(self) -> None:
        """Refuse settings that cannot be measured.

        Raises:
            FluidgateError: the first such setting and its mend.
        """
        self.shape.check()
        if not self.batch_sizes:
            raise FluidgateError("--batch-sizes: is empty; give sizes such as 1,8,16")
        for key in ("batch_sizes", "chunk_sizes"):
            for size in getattr(self, key):
                _within(key, size, 1)
        for key, least in (("context", 0), ("chunk_context", 0), ("block_size", 1), ("warmup", 0), ("repeats", 1)):
            _within(key, getattr(self, key), least)
        if self.threads is not None:
            _within("threads", self.threads, 1)
        if not 0 <= self.seed < 2**63:
            raise FluidgateError(f"--seed: is {self.seed}; give a whole number from 0 to {2**63 - 1}")
        for key, known in (("cache", CACHES), ("dtype", DTYPES), ("device", DEVICES)):
            _one_of(key, getattr(self, key), known)

    @property
    def cases(self) -> list[Case]:
        """Solo iterations of every batch size, then mixed ones of every batch and chunk size."""
        solo = [Case(size, 0) for size in self.batch_sizes]
        return solo + [Case(size, chunk) for chunk in self.chunk_sizes for size in self.batch_sizes]

    @property
    def capacities(self) -> list[int]:
        """Tokens that each row of the cache must hold: a decode's in all of them, a prompt's in the last."""
        rows = [self.context + 1] * max(self.batch_sizes)
        if self.chunk_sizes:
            rows[-1] = max(rows[-1], self.chunk_context + max(self.chunk_sizes))
        return rows


@dataclass(frozen=True, repr=False)
class Case(Brief):
    """One kind of iteration.

    Attributes:
        requests: in the batch, the one in prefill included.
        chunk_size: prompt tokens read; 0 in a solo iteration.
    """

    requests: int
    chunk_size: int

    @property
    def decodes(self) -> int:
        """Requests that gain a token: all but the one in prefill."""
        return self.requests - (1 if self.chunk_size else 0)


def sizes(key: str, given: Sequence[int]) -> tuple[int, ...]:
    """Sizes in ascending order, each once.

    Raises:
        FluidgateError: one is no whole number.
    """
    for size in given:
        if isinstance(size, bool) or not isinstance(size, int):
            raise FluidgateError(f"{option(key)}: {size!r} is no whole number; give sizes such as 1,8,16")
    return tuple(sorted(set(given)))


def _within(key: str, value: int, least: int) -> None:
    if not least <= value <= LARGEST:
        raise FluidgateError(f"{option(key)}: is {value}; give a whole number from {least} to {LARGEST}")


def _one_of(key: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        mend = nearest(value, list(known)) or f"; give one of {', '.join(known)}"
        raise FluidgateError(f"{option(key)}: unknown {value!r}{mend}")
