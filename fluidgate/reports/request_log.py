"""A log of requests as a file, written block by block: CSV, or Parquet through pyarrow."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from fluidgate.errors import FluidgateError
from fluidgate.simulation.iteration.kernel.cluster import COMPLETED, LEFT_DECODE_BUFFER, LEFT_PREFILL_QUEUE, REJECTED

if TYPE_CHECKING:
    import pandas as pd

OUTCOMES = {
    COMPLETED: "completed",
    LEFT_PREFILL_QUEUE: "left before prefill",
    LEFT_DECODE_BUFFER: "left before decode",
    REJECTED: "rejected",
}
COLUMNS = (
    *("number", "arrival", "scheduled", "first_token", "last_token", "prompt", "output"),
    *("prefill_gpu", "decode_gpu", "preemptions"),
)


class Writer(Protocol):
    """Appends rows to a file."""

    def add(self, rows: pd.DataFrame) -> None: ...

    def close(self) -> None: ...


class CsvWriter:
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._begun = False

    def add(self, rows: pd.DataFrame) -> None:
        rows.to_csv(self._file, header=not self._begun, index=False)
        self._begun = True

    def close(self) -> None:
        self._file.close()


class ParquetWriter:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None

    def add(self, rows: pd.DataFrame) -> None:
        import pyarrow.parquet

        arrow: Any = pyarrow
        table = arrow.Table.from_pandas(rows, preserve_index=False)
        if self._writer is None:
            self._writer = arrow.parquet.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


WRITERS: dict[str, type[CsvWriter] | type[ParquetWriter]] = {".csv": CsvWriter, ".parquet": ParquetWriter}


def check_log_path(path: Path) -> None:
    """Refuse a log that could not be written, before the work for it begins.

    Raises:
        FluidgateError: its suffix is unknown, its folder is missing, or Parquet can't be written here.
    """
    if path.suffix.lower() not in WRITERS:
        raise FluidgateError(f"--log: '{path}' must end in {' or '.join(WRITERS)}")
    if not path.parent.is_dir():
        raise FluidgateError(f"--log: the folder of '{path}' does not exist; make it first")
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise FluidgateError(
                f"--log: '{path}' needs pyarrow, which is not installed; "
                "install fluidgate[parquet], or give a file that ends in .csv"
            ) from None


class RequestLog:
    """A context in which requests are logged; the file is there whole when it ends well, and not at all otherwise.

    A row a request, in the order in which they ended: policy, replication, number (in the stream, from 0), class,
    arrival, scheduled (start of the iteration that read its first chunk), first_token, last_token (when it left,
    whatever way), s; prompt and output tokens; the GPUs of prefill and decode; preemptions; outcome; the user who has
    sent it in a closed loop, else -1.
    """

    def __init__(self, path: str | Path, classes: Sequence[str]) -> None:
        """
        Args:
            path: ends in .csv or .parquet.
            classes: names, by number.

        Raises:
            FluidgateError: as `check_log_path`.
        """
        self._path = Path(path)
        self._classes = np.array(classes, dtype=object)
        check_log_path(self._path)

    def __enter__(self) -> Self:
        try:
            self._folder = tempfile.TemporaryDirectory(dir=self._path.parent, prefix=".log")
        except OSError as error:
            raise self._refusal(error) from error
        self._draft = Path(self._folder.name) / self._path.name
        self._writer: Writer = WRITERS[self._path.suffix.lower()](self._draft)
        self.add("", 0, None)
        return self

    def add(self, policy: str, replication: int, rows: Any) -> None:
        """Write a block of rows of dtype LOG."""
        try:
            self._writer.add(self._table(policy, replication, rows))
        except OSError as error:
            raise self._refusal(error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._writer.close()
            if kind is None:
                self._draft.replace(self._path)
        except OSError as fault:
            raise self._refusal(fault) from fault
        finally:
            self._folder.cleanup()

    def _table(self, policy: str, replication: int, rows: Any) -> pd.DataFrame:
        import pandas as pd

        from fluidgate.simulation.iteration.kernel.cluster import LOG

        block = np.zeros(0, LOG) if rows is None else rows
        table = pd.DataFrame({name: block[name] for name in COLUMNS})
        table.insert(0, "policy", np.full(len(block), policy, dtype=object))
        table.insert(1, "replication", np.full(len(block), replication))
        table.insert(3, "class", self._classes[block["cls"]])
        table["outcome"] = np.array([OUTCOMES[code] for code in block["outcome"].tolist()], dtype=object)
        table["user"] = block["user"]
        texts = ("policy", "class", "outcome")
        return table.astype(dict.fromkeys(texts, "string"))

    def _refusal(self, error: OSError) -> FluidgateError:
        return FluidgateError(f"--log: {self._path}: can't be written ({error}); name another file")
