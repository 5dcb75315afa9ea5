"""The probe on a GPU: tokens as on the CPU, graphs that outlive what they were recorded from, a whole run."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fluidgate.calibration.probe import Shape, probe
from fluidgate.calibration.probe.settings import Settings

torch = pytest.importorskip("torch", reason="PyTorch is not installed (fluidgate[probe])")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

SMALL = Shape("small", 3, 64, 6, 2, 16, 96, 512)
SETTINGS = Settings(
    SMALL, (1, 5), (8, 40), 32, 16, "paged", 16, "bfloat16", "cuda", 1, 2, 0, None, share_layers=False, cuda_graphs=True
)  # fmt: skip


def test_a_recorded_step_keeps_the_tensors_that_its_graph_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    from fluidgate.calibration.probe import timing

    @contextmanager
    def nothing(*arguments: object, **options: object) -> Iterator[None]:
        yield

    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, fake in {
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": nothing,
        "graph": nothing,
        "CUDAGraph": lambda: SimpleNamespace(replay=lambda: None),
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)

    def make_step() -> tuple[Any, Any]:
        tokens = torch.arange(4)
        return (lambda: tokens + 1), weakref.ref(tokens)

    step, tokens = make_step()
    replay = timing.recorded(step)
    del step
    gc.collect()
    assert tokens() is not None
    assert replay().tolist() == [1, 2, 3, 4]


@needs_cuda
@pytest.mark.parametrize("cache", ["paged", "contiguous"])
def test_graphs_give_the_tokens_of_the_steps_they_were_recorded_from(cache: str) -> None:
    from fluidgate.calibration.probe.bench import Bench

    settings = replace(SETTINGS, cache=cache)
    bench, plain = Bench(settings), Bench(replace(settings, cuda_graphs=False))
    recorded = {case: bench.step(case) for case in settings.cases}
    for case in settings.cases:
        plain.step(case)()  # what recording wrote into the cache, in the same order: the prompt's row is a decode's too
    gc.collect()
    torch.cuda.empty_cache()
    scratch = [torch.full((64,), 2**40, device="cuda") for _ in range(1000)]
    for case, step in recorded.items():
        assert step().tolist() == plain.step(case)().tolist()
    assert len(scratch) == 1000


@needs_cuda
def test_logits_on_cuda_are_those_on_the_cpu() -> None:
    from fluidgate.calibration.probe.batch import make_batch
    from fluidgate.calibration.probe.cache import PagedCache
    from fluidgate.calibration.probe.transformer import logits
    from fluidgate.calibration.probe.weights import Layer, Weights, random_weights

    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    weights = random_weights(SMALL, torch.float32, cpu, torch.Generator().manual_seed(1))

    def moved(layer: Any) -> Any:
        parts = {name: getattr(layer, name) for name in Layer.__dataclass_fields__}
        return Layer(**{name: part if part is None else part.to(cuda) for name, part in parts.items()})

    there = Weights(
        weights.embedding.to(cuda),
        tuple(moved(layer) for layer in weights.layers),
        weights.norm.to(cuda),
        weights.head.to(cuda),
    )
    got = []
    for device, made in ((cpu, weights), (cuda, there)):
        cache = PagedCache(SMALL, [50] * 4, torch.float32, torch.Generator(device).manual_seed(2), 16)
        for row, length in enumerate((20, 7, 31)):
            prompt = [(7 * row + 3 * k) % SMALL.vocabulary for k in range(length)]
            logits(SMALL, made, make_batch(cache, torch.float32, chunk=prompt, chunk_row=row), cache)
        ids = [(5, 20), (6, 7), (7, 31)]
        batch = make_batch(cache, torch.float32, decodes=ids, chunk=list(range(9)), chunk_row=3)
        got.append(logits(SMALL, made, batch, cache).cpu())
    torch.testing.assert_close(got[0], got[1], rtol=2e-3, atol=2e-4)


@needs_cuda
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_probe_runs_on_cuda(dtype: str, tmp_path: Path) -> None:
    made = probe(
        SMALL, batch_sizes=(1, 5), chunk_sizes=(8, 40), context=32, dtype=dtype, device="cuda", repeats=2,
        cuda_graphs=True,
    )  # fmt: skip
    assert all(0 < seconds < 1 for each in made.measurements for seconds in each.seconds)
    made.write(tmp_path / "m.csv")
    assert torch.cuda.get_device_name() in (tmp_path / "m.csv").read_text("utf-8")
