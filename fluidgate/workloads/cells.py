"""Cells of a trace: texts in, numbers out, or the place of the first that is none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import NDArray

from fluidgate.model import Array
from fluidgate.toml_file import fail, shown

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Cells:
    """Columns of texts, an empty one where there is no value.

    Attributes:
        rows: by the number of the row in the file.
        source: the file, for errors.
        place: what a row is called there, such as `line`.
    """

    rows: pd.DataFrame
    source: str
    place: str

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, kept: NDArray[np.bool_]) -> Cells:
        return replace(self, rows=self.rows[kept])

    def texts(self, column: str) -> pd.Series[str]:
        """The cells of a column without blanks around them."""
        found: pd.Series[str] = self.rows[column].str.strip()
        return found

    def blank(self, column: str) -> NDArray[np.bool_]:
        """Which cells of a column hold nothing."""
        return (self.texts(column) == "").to_numpy(bool)

    def numbers(self, column: str) -> Array:
        """The numbers of a column.

        Raises:
            FluidgateError: a cell is no finite number.
        """
        import pandas as pd

        found: Array = pd.to_numeric(self.texts(column), errors="coerce").to_numpy(float)
        self.refuse_any(~np.isfinite(found), column, "a finite number")
        return found

    def refuse_any(self, wrong: NDArray[np.bool_], column: str, wanted: str, missing: str = "") -> None:
        """Refuse the first of the cells that are not what is wanted.

        Args:
            missing: how else a cell that holds nothing can be mended.

        Raises:
            FluidgateError: there is one.
        """
        if wrong.any():
            text = self.texts(column).iloc[int(wrong.argmax())]
            reason = (
                f"must be {wanted}, but is {shown(text)}; correct it" if text else f"missing; give {wanted}{missing}"
            )
            self.fail(wrong, column, reason)

    def fail(self, wrong: NDArray[np.bool_], column: str, reason: str) -> NoReturn:
        """Refuse the first of the cells that are wrong; `reason` ends with the mend."""
        fail(self.source, [f"{self.place} {self.rows.index[int(wrong.argmax())]}: {column}: {reason}"])
