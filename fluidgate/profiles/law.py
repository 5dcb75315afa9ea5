"""A law over the batch size: iteration times measured at several batch sizes, and between them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from pydantic import Field

from fluidgate.model import IterationTime, Noun, Positive


class LawRow(Noun):
    """The iteration time that was measured at one batch size."""

    batch_size: int = Field(ge=1, description="requests in the batch, B")
    alpha: float = Field(description="intercept of the mixed iteration time, s")
    beta: Positive = Field(description="slope of the mixed iteration time, s per prompt token")
    gamma: Positive = Field(description="speed of one decode on a solo GPU, tokens/s")
    r_squared: float | None = Field(None, le=1, description="R^2 of the line at this batch size")

    @property
    def iteration(self) -> IterationTime:
        return IterationTime(alpha=self.alpha, beta=self.beta, gamma=self.gamma)


def between(rows: Sequence[LawRow], batch_size: int) -> IterationTime:
    """The iteration time at a batch size within the rows, which ascend by batch size.

    Mixed and solo iteration times are each linear in the batch size between two rows: `alpha`, `beta` and the
    solo time `1/gamma` are interpolated.
    """
    index = bisect_left([row.batch_size for row in rows], batch_size)
    above = rows[index]
    if above.batch_size == batch_size:
        return above.iteration
    below = rows[index - 1]
    share = (batch_size - below.batch_size) / (above.batch_size - below.batch_size)
    return IterationTime(
        alpha=below.alpha + share * (above.alpha - below.alpha),
        beta=below.beta + share * (above.beta - below.beta),
        gamma=1.0 / ((1.0 - share) / below.gamma + share / above.gamma),
    )
