"""How long a step takes on a device."""
# mypy: disable-error-code="import-not-found,no-untyped-call,no-any-return"

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

Step = Callable[[], object]


def seconds_of(step: Step, device: torch.device, *, warmup: int) -> float:
    """Seconds of one run of `step`, right after `warmup` runs that are not timed."""
    for _ in range(warmup):
        step()
    return _timed_on_cuda(step) if device.type == "cuda" else _timed_on_cpu(step)


@dataclass(frozen=True)
class Recorded:
    """A step as a CUDA graph, replayed without the cost of launching its kernels one by one.

    Attributes:
        step: what was recorded. The graph reads its tensors where they lay, so they must live as long as the graph.
        result: the tensor that each replay fills.
    """

    step: Step
    graph: torch.cuda.CUDAGraph
    result: object

    def __call__(self) -> object:
        self.graph.replay()
        return self.result


def recorded(step: Step, pool: tuple[int, int] | None = None, warmup: int = 3) -> Step:
    """`step` recorded once as a CUDA graph, after `warmup` runs on a stream of its own.

    Graphs of one `pool` (`torch.cuda.graph_pool_handle()`) share the memory of what they compute on the way.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(warmup):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        result = step()
    return Recorded(step, graph, result)


def _timed_on_cpu(step: Step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _timed_on_cuda(step: Step) -> float:
    """Seconds between two events of the stream, from an idle device on."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    step()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000.0
