"""The probe: settings in, measured iteration times out."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from fluidgate.calibration.probe.measurements import Measurement, Measurements
from fluidgate.calibration.probe.settings import Case, Settings, sizes
from fluidgate.calibration.probe.shape import Shape
from fluidgate.errors import FluidgateError

Progress = Callable[[int, int], None]
MEMORY_RAN_OUT = ("out of memory", "not enough memory", "can't allocate memory")
"""Words of PyTorch's errors, on CUDA and on the CPU."""


def probe(
    shape: Shape,
    *,
    batch_sizes: Sequence[int] = (1, 8, 16, 32),
    chunk_sizes: Sequence[int] = (64, 128, 256, 512, 1024),
    context: int = 1024,
    chunk_context: int | None = None,
    cache: str = "paged",
    block_size: int = 16,
    dtype: str = "bfloat16",
    device: str = "auto",
    warmup: int = 1,
    repeats: int = 10,
    seed: int = 0,
    threads: int | None = None,
    share_layers: bool = False,
    cuda_graphs: bool = False,
    progress: Progress | None = None,
) -> Measurements:
    """Time iterations of a transformer with random weights, in plain PyTorch.

    Args:
        batch_sizes: requests in a batch: so many decodes in a solo iteration, one less beside a prefill chunk.
        chunk_sizes: prompt tokens of a chunk; empty for solo iterations only.
        context: tokens that each decode has in the cache before its new one.
        chunk_context: tokens of the prompt read before the chunk; by default half of `context`.
        cache: `paged` or `contiguous`.
        block_size: tokens of a block of the paged cache.
        dtype: `bfloat16`, `float16` or `float32`.
        device: `auto`, `cpu` or `cuda`.
        warmup: iterations before each timed one, of the same kind and not timed.
        repeats: timed iterations of each kind.
        seed: of weights, cache and tokens.
        threads: of PyTorch on the CPU; by default its own choice, one a core.
        share_layers: let all layers use the weights of one.
        cuda_graphs: record iterations as CUDA graphs.
        progress: called with the iterations timed so far and their number.

    Raises:
        FluidgateError: a setting is bad, PyTorch or the device is missing, or memory is too small.
    """
    settings = Settings(
        shape=shape,
        batch_sizes=sizes("batch_sizes", batch_sizes),
        chunk_sizes=sizes("chunk_sizes", chunk_sizes),
        context=context,
        chunk_context=context // 2 if chunk_context is None else chunk_context,
        cache=cache,
        block_size=block_size,
        dtype=dtype,
        device=device,
        warmup=warmup,
        repeats=repeats,
        seed=seed,
        threads=threads,
        share_layers=share_layers,
        cuda_graphs=cuda_graphs,
    )
    settings.check()
    require_torch()
    with _memory_errors():
        return _measured(settings, progress or (lambda done, total: None))


def require_torch() -> None:
    """Refuse to go on without PyTorch.

    Raises:
        FluidgateError: it is not installed.
    """
    if importlib.util.find_spec("torch") is None:
        raise FluidgateError("probe: PyTorch is not installed; run pip install 'fluidgate[probe]'")


def _measured(settings: Settings, progress: Progress) -> Measurements:
    """Rounds over all cases, so that a machine that slows down for a while slows all of them alike."""
    import torch

    from fluidgate.calibration.probe.bench import Bench, cpu_threads, device_name
    from fluidgate.calibration.probe.weights import parameter_count

    done, total = 0, len(settings.cases) * settings.repeats
    progress(done, total)
    with cpu_threads(settings.threads):
        bench = Bench(settings)
        device = device_name(bench.device)
        steps = {case: bench.step(case) for case in settings.cases}
        for step in steps.values():
            step()
        times: dict[Case, list[float]] = {case: [] for case in steps}
        for _ in range(settings.repeats):
            for case, step in steps.items():
                times[case].append(bench.seconds(step))
                done += 1
                progress(done, total)
    return Measurements(
        settings=settings,
        device=device,
        torch=torch.__version__,
        parameters=parameter_count(settings.shape),
        measurements=tuple(Measurement(case, tuple(taken)) for case, taken in times.items()),
    )


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Memory that runs out despite the check beforehand ends in one line too."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in MEMORY_RAN_OUT):
            raise
        raise FluidgateError(
            "probe: memory ran out; take smaller --batch-sizes, --chunk-sizes or --context, or --share-layers"
        ) from error
