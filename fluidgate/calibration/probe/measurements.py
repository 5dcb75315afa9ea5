"""What a probe measured: every repeat, the medians, and the file that `fluidgate calibrate` reads."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from fluidgate.arguments import checked
from fluidgate.calibration.probe.settings import Case, Settings
from fluidgate.shown import Brief, Drawn, rate, several
from fluidgate.toml_file import SCHEMA, write_whole

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class Measurement(Brief):
    """The iteration times of one case, s, in the order they were taken."""

    case: Case
    seconds: tuple[float, ...]

    def headline(self) -> str:
        case = self.case
        return f"of {several(case.requests, 'request')}, chunk {case.chunk_size}: {rate(1000 * self.median)} ms"

    @property
    def median(self) -> float:
        return median(self.seconds)

    def to_dict(self) -> dict[str, Any]:
        return {
            "requests": self.case.requests,
            "batch_size": self.case.decodes,
            "chunk_size": self.case.chunk_size,
            "median_seconds": self.median,
            "seconds": list(self.seconds),
        }


@dataclass(frozen=True, repr=False)
class Measurements(Drawn):
    """Iteration times by batch and chunk size.

    Attributes:
        settings: what was asked for.
        device: name of the device.
        torch: version of PyTorch.
        parameters: of the shape.
    """

    settings: Settings
    device: str
    torch: str
    parameters: int
    measurements: tuple[Measurement, ...]

    def headline(self) -> str:
        return f"of {self.settings.shape.name} on {self.device}: {several(len(self.measurements), 'case')}"

    def to_dataframe(self) -> pd.DataFrame:
        """A row a repeat: batch_size (decodes), chunk_size (tokens, 0 for solo), seconds, repeat, requests."""
        import pandas as pd

        columns = ["batch_size", "chunk_size", "seconds", "repeat", "requests"]
        return pd.DataFrame(
            [
                (each.case.decodes, each.case.chunk_size, seconds, repeat, each.case.requests)
                for each in self.measurements
                for repeat, seconds in enumerate(each.seconds)
            ],
            columns=columns,
        )

    def provenance(self) -> dict[str, Any]:
        """How the times were taken, the same for all."""
        settings = self.settings
        shared = " share_layers" if settings.share_layers else ""
        return {
            "context": settings.context,
            "chunk_context": settings.chunk_context,
            "cache": settings.cache + (f" {settings.block_size}" if settings.cache == "paged" else ""),
            "dtype": settings.dtype,
            "device": self.device,
            "model": settings.shape.name + shared,
            "engine": f"fluidgate probe, torch {self.torch}" + (", CUDA graphs" if settings.cuda_graphs else ""),
            "seed": settings.seed,
        }

    def to_dict(self) -> dict[str, Any]:
        """The measurements as plain numbers and texts, times in s."""
        return {
            "schema": SCHEMA,
            "parameters": self.parameters,
            **self.provenance(),
            "measurements": [each.to_dict() for each in self.measurements],
        }

    def to_csv(self) -> str:
        """One row a repeat: decodes in the batch, chunk (0 for solo), seconds, then where they come from."""
        text = io.StringIO()
        provenance = self.provenance()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["batch_size", "chunk_size", "seconds", "repeat", "requests", *provenance])
        writer.writerows([*row, *provenance.values()] for row in self._rows())
        return text.getvalue()

    @checked
    def write(self, path: str | Path) -> None:
        """Write the measurement file, whole or not at all."""
        write_whole(path, self.to_csv())

    def _rows(self) -> Iterator[list[Any]]:
        for each in self.measurements:
            for repeat, seconds in enumerate(each.seconds):
                yield [each.case.decodes, each.case.chunk_size, f"{seconds:.9g}", repeat, each.case.requests]
