"""What a reader of a plan should know."""

from __future__ import annotations

from fluidgate.model import Gpu
from fluidgate.planning.partition import Partition

_FULL = 0.9


def advice(gpu: Gpu, partition: Partition | None) -> tuple[str, ...]:
    """Warnings about the GPU's sizes and speeds (Proposition 3.2) and about the partition's margin, a sentence each."""
    sentences = []
    for key, size in {"batch_size": gpu.batch_size, "chunk_size": gpu.chunk_size}.items():
        ends = getattr(gpu.calibrated, f"{key}s")
        if ends is not None and not ends[0] <= size <= ends[1]:
            sentences.append(
                f"{key} {size} lies outside the profile's range, {ends[0]} to {ends[1]}: "
                "its iteration times were not measured there"
            )
    least_kappa = (gpu.batch_size - 1) / gpu.batch_size
    if gpu.kappa < least_kappa:
        sentences.append(
            f"kappa {gpu.kappa:.4g} is less than (B-1)/B = {least_kappa:.4g}: a plan may keep a decode "
            "buffer on purpose, and gate-and-route is then not optimal"
        )
    if gpu.kappa < 1:
        sentences.append(
            f"a mixed iteration ({gpu.tau * 1e3:.4g} ms) is faster than a solo one "
            f"({gpu.solo * 1e3:.4g} ms): is chunk_size {gpu.chunk_size} below the calibrated range?"
        )
    if partition is not None and partition.prefill_utilisation > _FULL:
        sentences.append(
            f"prefill utilisation is {partition.prefill_utilisation:.1%} on {partition.mixed} mixed GPUs: "
            "the bare partition leaves no margin"
        )
    return tuple(sentences)
