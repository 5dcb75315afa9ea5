"""The transformer set up on a device, and its iterations as steps that can be run again and again."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import platform
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from fluidgate.calibration.probe.batch import Batch, make_batch
from fluidgate.calibration.probe.cache import Cache, ContiguousCache, PagedCache
from fluidgate.calibration.probe.memory import check_memory
from fluidgate.calibration.probe.settings import Case, Settings
from fluidgate.calibration.probe.timing import Step, recorded, seconds_of
from fluidgate.calibration.probe.transformer import logits
from fluidgate.calibration.probe.weights import random_weights
from fluidgate.errors import FluidgateError


class Bench:
    """Weights and a cache full of random numbers, drawn from the seed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.device = find_device(settings.device)
        if settings.cuda_graphs and self.device.type != "cuda":
            raise FluidgateError("--cuda-graphs: there are none on the CPU; leave it out, or give --device cuda")
        check_memory(settings, self.device)
        self.dtype: torch.dtype = getattr(torch, settings.dtype)
        generator = torch.Generator(self.device).manual_seed(settings.seed)
        self.weights = random_weights(
            settings.shape, self.dtype, self.device, generator, share_layers=settings.share_layers
        )
        self.cache = make_cache(settings, self.dtype, generator)
        self.graph_pool = torch.cuda.graph_pool_handle() if settings.cuda_graphs else None

    def step(self, case: Case) -> Step:
        """One iteration of a case, up to the choice of each next token; it leaves the cache as the last one did."""
        batch = self._batch(case)

        def step() -> torch.Tensor:
            with torch.inference_mode():
                return logits(self.settings.shape, self.weights, batch, self.cache).argmax(dim=-1)

        return recorded(step, self.graph_pool) if self.settings.cuda_graphs else step

    def seconds(self, step: Step) -> float:
        """Seconds of one iteration."""
        return seconds_of(step, self.device, warmup=self.settings.warmup)

    def _batch(self, case: Case) -> Batch:
        """Decodes in the first rows of the cache, the prefill in its last; the tokens are drawn from the seed."""
        draw = random.Random(self.settings.seed)
        words = range(self.settings.shape.vocabulary)
        return make_batch(
            self.cache,
            self.dtype,
            decodes=[(draw.choice(words), self.settings.context) for _ in range(case.decodes)],
            chunk=[draw.choice(words) for _ in range(case.chunk_size)],
            chunk_row=max(self.settings.batch_sizes) - 1,
            chunk_start=self.settings.chunk_context,
        )


def find_device(name: str) -> torch.device:
    """The device of this name; `auto` is CUDA where there is one.

    Raises:
        FluidgateError: CUDA was asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise FluidgateError("--device: PyTorch finds no CUDA device; give --device cpu, or install PyTorch for CUDA")
    return torch.device(name)


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """PyTorch with so many threads on the CPU, and as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def device_name(device: torch.device) -> str:
    """What the device is, for provenance."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    processor = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        processor = next(line for line in lines if line.startswith("model name")).partition(":")[2].strip()
    threads = torch.get_num_threads()
    return f"{processor} ({threads} thread{'s' if threads > 1 else ''})"


def make_cache(settings: Settings, dtype: torch.dtype, generator: torch.Generator) -> Cache:
    """The cache that the settings ask for."""
    if settings.cache == "paged":
        return PagedCache(settings.shape, settings.capacities, dtype, generator, settings.block_size)
    return ContiguousCache(settings.shape, settings.capacities, dtype, generator)
