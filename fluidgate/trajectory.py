"""Occupancies and queues over time, fluid or simulated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluidgate.model import Array
from fluidgate.shown import Drawn, rate, several
from fluidgate.toml_file import SCHEMA

if TYPE_CHECKING:
    import pandas as pd


STAGES = ("prefill_queue", "prefill", "decode_queue", "mixed_decode", "solo_decode")


@dataclass(frozen=True, repr=False)
class Trajectory(Drawn):
    """A path of the cluster, per GPU.

    Attributes:
        time: s, shape (points,).
        prefill_queue, prefill, decode_queue, mixed_decode, solo_decode: requests, shape (points, classes).
        names: of the classes; empty where they are not known.
    """

    time: Array
    prefill_queue: Array
    prefill: Array
    decode_queue: Array
    mixed_decode: Array
    solo_decode: Array
    names: tuple[str, ...] = ()

    def headline(self) -> str:
        points, classes = self.prefill.shape
        return f"of {several(classes, 'class')}, {points} times up to {rate(float(self.time[-1]))} s"

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names, or numbers in their place."""
        return self.names or tuple(f"class {k}" for k in range(self.prefill.shape[1]))

    def to_dict(self) -> dict[str, Any]:
        """Times, s, and for each class the requests at each stage, per GPU."""
        found = {stage: getattr(self, stage) for stage in STAGES}
        classes = [
            {"name": name, **{stage: values[:, k].tolist() for stage, values in found.items()}}
            for k, name in enumerate(self.class_names)
        ]
        return {"schema": SCHEMA, "time": self.time.tolist(), "classes": classes}

    def to_dataframe(self) -> pd.DataFrame:
        """A row a class and time: class, time (s), and the requests at each stage, per GPU."""
        import pandas as pd

        time = self.to_dict()["time"]
        frames = [pd.DataFrame({"class": each.pop("name"), "time": time, **each}) for each in self.to_dict()["classes"]]
        return pd.concat(frames, ignore_index=True)
