"""The batch that runs where a plan is followed."""

from __future__ import annotations

from dataclasses import dataclass

from fluidgate.shown import Brief, rate


@dataclass(frozen=True, eq=False, repr=False)
class OperatingPoint(Brief):
    """The batch that runs, per GPU; engines that have work never idle.

    Attributes:
        mixed_iteration, solo_iteration: mean seconds of an iteration; None where there are none.
        iteration_rate: iterations/s.
        decodes: in the batch of an iteration, on average.
        kv_tokens: held, on average over time.
        kv_share: of the memory; None without a limit.
        busy: share of the time in which an iteration runs.
        tpot: seconds per output token that the decodes feel where those in solo iterations are kept apart from
            prefills as far as may be; of an empty GPU's first where nobody decodes.
        pooled_tpot: the same where prefills and decodes are spread evenly over all GPUs, as policies without a
            partition do; never less than what is possible at all.
    """

    mixed_iteration: float | None
    solo_iteration: float | None
    iteration_rate: float
    decodes: float
    kv_tokens: float
    kv_share: float | None
    busy: float
    tpot: float
    pooled_tpot: float

    def headline(self) -> str:
        memory = f"{rate(self.kv_tokens)} KV tokens"
        return f"{rate(self.decodes)} decodes in a batch, {memory}, TPOT {1000 * self.tpot:.4g} ms"

    def to_dict(self) -> dict[str, float | None]:
        """The contract's `operating_point`."""
        return {
            "mixed_iteration": self.mixed_iteration,
            "solo_iteration": self.solo_iteration,
            "iteration_rate": self.iteration_rate,
            "decodes": self.decodes,
            "kv_tokens": self.kv_tokens,
            "kv_share": self.kv_share,
            "busy": self.busy,
            "pooled_tpot": self.pooled_tpot,
        }
