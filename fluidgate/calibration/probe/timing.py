"""How long a step takes on a device."""
# mypy: disable-error-code="import-not-found,no-untyped-call,no-any-return"

from __future__ import annotations

import time
from collections.abc import Callable

import torch

Step = Callable[[], object]


def seconds_of(step: Step, device: torch.device, *, warmup: int) -> float:
    """Seconds of one run of `step`, right after `warmup` runs that are not timed."""
    for _ in range(warmup):
        step()
    return _timed_on_cuda(step) if device.type == "cuda" else _timed_on_cpu(step)


def recorded(step: Step, warmup: int = 3) -> Step:
    """`step` as a CUDA graph: recorded once, then replayed without the cost of launching its kernels one by one."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(warmup):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    replay: Step = graph.replay
    return replay


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
