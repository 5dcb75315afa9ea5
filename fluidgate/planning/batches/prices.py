"""What everything that is scarce is worth at an optimum, and what a request takes of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fluidgate.model import Array
from fluidgate.planning.batches.program import BatchProgram
from fluidgate.planning.linear_program import Vertex

_ZERO = 1e-9
"""Share of the dearest column's value below which a price is rounding."""


@dataclass(frozen=True, eq=False)
class Prices:
    """Shadow prices, money, and costs at these prices.

    Attributes:
        rows: d objective / d right-hand side of each row of the program but for the balances, by its name.
        memory: d objective / d KV memory, per token.
        flow: d objective / d lambda, for one request/s more, shape (classes,).
        prefill: of reading a prompt, shape (classes,).
        decode: of a request's decode, each token where it is cheaper, shape (classes,).
        hits: d objective / d hit rate of each class, shape (classes,); None without prefix caching.
    """

    rows: dict[str, float]
    memory: float
    flow: Array
    prefill: Array
    decode: Array
    hits: Array | None

    @staticmethod
    def of(program: BatchProgram, vertex: Vertex) -> Prices:
        """The prices at a vertex that solves the program as it stands."""
        instance, taken = program.instance, program.column_costs(vertex)
        flow = vertex.column_prices[program.fed]
        flow = np.where(instance.waits_for_ever, flow, np.maximum(flow, 0.0))
        flow = np.where(np.abs(flow) * program.column_unit[program.fed] > _ZERO * vertex.worth, flow, 0.0)
        rows = {name: program.price(vertex, name) for name in program.names}
        memory = (
            rows.get("memory_mixed", 0.0) * float(vertex.columns[program.mixed_kinds].sum())
            + rows.get("memory_solo", 0.0) * float(vertex.columns[program.solo_kinds].sum())
            + rows.get("memory_waiting", 0.0)
        )
        decode = instance.decodes * np.minimum(taken[program.mixed], taken[program.solo])
        hits = program.hit_prices(vertex) if instance.scenario.engine.prefix_caching else None
        return Prices(rows, memory, flow, taken[program.fed], decode, hits)
