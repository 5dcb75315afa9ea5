"""What an item of the published evaluation is, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from fluidgate.execution import Executor

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Setting:
    """How an item is run.

    Attributes:
        quick: a smaller experiment of the same shape, for a smoke test; its verdicts say less.
        data: folder of files that can't be shipped (dolly, traces), or None.
        progress: called with the steps done and their number.
        executor, workers: where simulations run, as in `fluidgate.simulate`.
    """

    quick: bool = False
    data: str | None = None
    progress: Progress | None = None
    executor: Executor | None = None
    workers: int | None = None

    @property
    def where(self) -> dict[str, Any]:
        """Where simulations run, as keywords of those who run them."""
        return {"executor": self.executor, "workers": self.workers}

    def sized(self, full: Any, quick: Any) -> Any:
        """`full`, or `quick` in a quick run."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Verdict:
    """A claim of the paper against what we measured.

    Attributes:
        claim: in the paper's sense, our words.
        measured: numbers, with 95 % confidence intervals where they are random.
        holds: None where it can't be judged here.
    """

    claim: str
    measured: str
    holds: bool | None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "holds": None if self.holds is None else bool(self.holds)}


@dataclass(frozen=True)
class Outcome:
    """What an item found.

    Attributes:
        data: the numbers behind the picture, written as CSV.
        verdicts: claims and measurements.
        figure: None for tables.
        notes: what a reader should know, a paragraph each.
    """

    data: pd.DataFrame
    verdicts: tuple[Verdict, ...]
    figure: Figure | None = None
    notes: tuple[str, ...] = ()


class Item(Protocol):
    """A module of `fluidgate.paper`: `TITLE`, and `run(setting)`."""

    TITLE: str

    def run(self, setting: Setting) -> Outcome: ...
