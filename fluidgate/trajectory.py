"""Occupancies and queues over time, fluid or simulated."""

from __future__ import annotations

from dataclasses import dataclass

from fluidgate.model import Array
from fluidgate.shown import rate, several


@dataclass(frozen=True, repr=False)
class Trajectory:
    """A path of the cluster, per GPU.

    Attributes:
        time: s, shape (points,).
        prefill_queue, prefill, decode_queue, mixed_decode, solo_decode: shape (points, classes).
    """

    time: Array
    prefill_queue: Array
    prefill: Array
    decode_queue: Array
    mixed_decode: Array
    solo_decode: Array

    def __repr__(self) -> str:
        points, classes = self.prefill.shape
        return f"<Trajectory of {several(classes, 'class')}, {points} times up to {rate(float(self.time[-1]))} s>"
