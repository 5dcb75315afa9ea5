"""What a probe of a live engine is asked for, and the checks that need no engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fluidgate.errors import FluidgateError
from fluidgate.shown import Brief

LARGEST = 1_000_000


@dataclass(frozen=True, repr=False)
class Settings(Brief):
    """The options of `fluidgate probe --url`.

    Attributes:
        url: of the engine.
        key: for its API; empty for none.
        model: name that is asked; empty for the first that the engine has.
        batch_size: most decodes that are held; None for what the engine says, or 32.
        batch_sizes: the numbers of decodes, in the place of powers of two.
        chunk_size: prompt tokens of an iteration; None to find it.
        chunk_sizes: of the prompts sent beside decodes, in the place of powers of two.
        contexts: tokens of context of each decode; none for what the engine's lengths allow.
        read_before: tokens of a prompt read before its last chunk, at most.
        repeats: of each kind of iteration.
        max_tokens: of prompts and answers together.
        max_seconds: s.
        seed: of the prompts; None for another in each probe, as an engine may remember those of the last.
        gpu, engine, dtype, tensor_parallel: for the file's header, where the engine does not say.
    """

    url: str
    key: str = field(default="", repr=False)
    model: str = ""
    batch_size: int | None = None
    batch_sizes: tuple[int, ...] = ()
    chunk_size: int | None = None
    chunk_sizes: tuple[int, ...] = ()
    contexts: tuple[int, ...] = ()
    read_before: int = 8192
    repeats: int = 5
    max_tokens: int = 2_000_000
    max_seconds: float = 600.0
    seed: int | None = None
    gpu: str = ""
    engine: str = ""
    dtype: str = ""
    tensor_parallel: int | None = None

    def check(self) -> None:
        """Refuse what cannot be measured.

        Raises:
            FluidgateError: the first such setting and its mend.
        """
        for key in ("batch_sizes", "chunk_sizes", "contexts"):
            _check_all(key, getattr(self, key))
        for key, least in (("batch_size", 1), ("chunk_size", 2), ("tensor_parallel", 1)):
            if (value := getattr(self, key)) is not None:
                _check_all(key, [value], least)
        _check_all("read_before", [self.read_before], 0)
        _check_all("repeats", [self.repeats], 1)
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise FluidgateError(f"--seed: is {self.seed}; give a whole number from 0 to {2**63 - 1}")
        if self.max_tokens < 1:
            raise FluidgateError(f"--max-tokens: is {self.max_tokens}; give a number of tokens above 0")
        if not 0.0 < self.max_seconds < float("inf"):
            raise FluidgateError(f"--max-seconds: is {self.max_seconds:g}; give seconds above 0")


def _check_all(key: str, values: Sequence[int], least: int = 1) -> None:
    for value in values:
        if not least <= value <= LARGEST:
            option = "--" + key.replace("_", "-")
            raise FluidgateError(f"{option}: is {value}; give a whole number from {least} to {LARGEST}")
