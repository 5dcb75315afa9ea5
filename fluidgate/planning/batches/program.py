"""The program in token rates: what a GPU can do in a second of the iterations that it really runs.

The time of an iteration is `alpha + beta chunk + delta decodes + epsilon context`. Summed over all iterations of a long
run and divided by its length that is an identity in rates, whatever the policy and the laws of lengths. So every policy
that does not know the length of an answer obeys these rows, per GPU and second:

- time: what iterations, prompt tokens and decode tokens take is a second;
- mixed_slots, solo_slots: decode tokens find room in the iterations, B - 1 beside a chunk and B without;
- prompts_fit (token budget): decodes and the prompts of an iteration are B at most;
- chunks: there is a mixed iteration for each chunk, or the budget holds the tokens of both;
- prompt_tokens (tables): the kinds of iterations that run hold all prompt tokens;
- chunks_end, where a mixed iteration may be the faster one: there are no more of them than chunks;
- memory_mixed, memory_solo, memory_waiting: KV of decodes, of prompts under way, and of those who wait for decode.

Requests/s `p` prefilled and `l` lost in the decode buffer, decode tokens/s `d_m` beside chunks and `d_s` without them
obey `d_m + d_s = S (p - l)`, `p <= lambda`, class by class. With the three numbers of [LDHZ] alone, and full chunks, it
is (40) and (42).
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluidgate.batching import Batching
from fluidgate.model import Array
from fluidgate.planning.batches.instance import BatchInstance
from fluidgate.planning.batches.iterations import Iterations
from fluidgate.planning.class_blocks import ClassBlocks
from fluidgate.planning.linear_program import LinearProgram, Vertex

_SOLVED = 1e-6
"""Relative excess over a limit that is rounding."""

_STEP = 1e-4
"""Of the tokens that are read, by how much fewer a hit rate is priced."""

_ZERO = 1e-9
"""Share of the dearest column's value below which a price is rounding."""


@dataclass(frozen=True, eq=False)
class Limits:
    """Indicators as rows, at the iteration times that a solution before had.

    Attributes:
        tpot: most seconds per output token; inf for no limit.
        chunk: prompt tokens of a mixed iteration.
        mixed_seconds, solo_seconds: of an iteration of each kind, s; shape (kinds,).
        fed_slope, mixed_slope, solo_slope: by how much one more request/s or token/s of a class changes what the others
            feel, its chunks and its context being larger than the mean, s; shape (classes,).
        prefill_seconds: that a prefill takes, s, shape (classes,).
        decode_seconds: of a solo iteration, s.
    """

    tpot: float
    chunk: float
    mixed_seconds: Array
    solo_seconds: Array
    fed_slope: Array
    mixed_slope: Array
    solo_slope: Array
    prefill_seconds: Array
    decode_seconds: float


class BatchProgram(LinearProgram, ClassBlocks):
    """The program of one instance at a time, in a live solver.

    Its blocks are p and l in requests/s, d_m and d_s in decode tokens/s.
    """

    instance: BatchInstance
    iterations: Iterations
    limits: Limits | None

    def load(self, instance: BatchInstance, grid: Array | None = None, limits: Limits | None = None) -> None:
        """Make `instance` the program's.

        Args:
            grid: decodes of the kinds of iterations; None for as few kinds as will do.
            limits: indicators, or None for none.
        """
        before = (self.column_count, self.row_count) if self._columns.size else (0, 0)
        basis = self._highs.getBasis() if self._columns.size else None
        self.instance, self.limits = instance, limits
        self.iterations = instance.iterations(grid, None if limits is None else limits.chunk)
        self._rows: dict[str, int] = {}
        self._matrix = np.zeros((0, 0))
        self._build()
        entries = np.nonzero(self._matrix)
        self._pass_matrix([(entries[0], entries[1], self._matrix[entries])])
        self.restore()
        if basis is not None and basis.valid and before == (self.column_count, self.row_count):
            self._highs.setBasis(basis)

    # Columns.

    @property
    def class_count(self) -> int:
        return self.instance.classes

    @property
    def mixed_kinds(self) -> slice:
        """Mixed iterations/s of each kind."""
        start = self.solo.stop
        return slice(start, start + len(self.iterations.mixed.seconds))

    @property
    def solo_kinds(self) -> slice:
        """Solo iterations/s of each kind."""
        start = self.mixed_kinds.stop
        return slice(start, start + len(self.iterations.solo.seconds))

    @property
    def capacity(self) -> int:
        """GPUs for each GPU there is, fixed at 1 (freed to measure a shortage)."""
        return int(self.solo_kinds.stop)

    @property
    def gaps(self) -> dict[str, tuple[int, int]]:
        """Columns of the largest and the least value of each fairness indicator."""
        return {
            "prefill_gap": (self.capacity + 1, self.capacity + 2),
            "solo_gap": (self.capacity + 3, self.capacity + 4),
        }

    @property
    def column_count(self) -> int:
        return self.capacity + 5

    @property
    def row_count(self) -> int:
        return len(self._matrix)

    @property
    def matrix(self) -> Array:
        """Shape (rows, columns)."""
        return self._matrix

    def row(self, name: str) -> int | None:
        """Where a row stands; None if the program has no such row."""
        return self._rows.get(name)

    @property
    def names(self) -> list[str]:
        """Of the rows but for the balances, each of which may stand for several."""
        return [name for name in self._rows if name != "balance"]

    # Rows.

    def _build(self) -> None:
        instance, each = self.instance, np.arange(self.instance.classes)
        self._own_lower, self._own_upper = np.empty(0), np.empty(0)
        self._matrix = np.zeros((0, self.column_count))
        self.column_unit = self._units()
        balance = np.zeros((instance.classes, self.column_count))
        balance[each, each + self.fed.start] = -instance.decodes
        balance[each, each + self.lost.start] = instance.decodes
        balance[each, each + self.mixed.start] = balance[each, each + self.solo.start] = 1.0
        self._add("balance", balance, 0.0, 0.0)
        self._add("time", self._time())
        self._add_slots()
        self._add_chunks()
        if math.isfinite(instance.memory):
            self._add_memory()
        if self.limits is not None:
            self._add_limits(self.limits)
        largest = np.abs(self._matrix * self.column_unit).max(axis=1)
        self.row_unit = np.where(largest > 0.0, largest, 1.0)

    def _add(self, name: str, rows: Array, low: float = -math.inf, high: float = 0.0) -> None:
        rows = np.atleast_2d(rows)
        self._rows[name] = len(self._matrix)
        self._matrix = np.concatenate([self._matrix, rows])
        self._own_lower = np.append(self._own_lower, np.full(len(rows), low))
        self._own_upper = np.append(self._own_upper, np.full(len(rows), high))

    def _empty(self) -> Array:
        return np.zeros(self.column_count)

    def _time(self) -> Array:
        instance, kinds, row = self.instance, self.iterations, self._empty()
        row[self.mixed_kinds], row[self.solo_kinds] = kinds.mixed.seconds, kinds.solo.seconds
        row[self.fed] = kinds.prompt_token * instance.reading + kinds.pair * instance.read_pairs
        row[self.mixed] = kinds.mixed_decode + kinds.mixed_context * instance.context
        row[self.solo] = kinds.solo_decode + kinds.solo_context * instance.context
        row[self.capacity] = -1.0
        return row

    def _add_slots(self) -> None:
        instance, kinds = self.instance, self.iterations
        mixed, solo = self._empty(), self._empty()
        mixed[self.mixed], solo[self.solo] = 1.0, 1.0
        mixed[self.mixed_kinds], solo[self.solo_kinds] = -kinds.mixed.decodes, -kinds.solo.decodes
        if instance.batching == Batching.PREFILL_FIRST:
            mixed[self.mixed_kinds] = 0.0
        self._add("mixed_slots", mixed)
        self._add("solo_slots", solo)
        if not instance.discipline.by_policy:
            fit = self._empty()
            fit[self.mixed], fit[self.fed] = 1.0, instance.least_chunks
            fit[self.mixed_kinds] = -float(instance.batch_size)
            self._add("prompts_fit", fit)

    def _add_chunks(self) -> None:
        instance, kinds = self.instance, self.iterations
        chunks, end = self._empty(), self._empty()
        if instance.discipline.by_policy:
            chunks[self.fed], chunks[self.mixed_kinds] = instance.least_chunks, -1.0
        else:
            chunks[self.fed], chunks[self.mixed] = instance.capped_prompt, 1.0
            chunks[self.mixed_kinds] = -float(instance.tokens)
            if instance.discipline.holds_decodes:
                chunks[self.fed] = instance.reading
        end[self.mixed_kinds], end[self.fed] = 1.0, -instance.most_chunks
        self._add("chunks", chunks)
        if instance.chunks_end:
            self._add("chunks_end", end)
        if kinds.by_node:
            tokens = self._empty()
            tokens[self.fed], tokens[self.mixed_kinds] = instance.reading, -kinds.mixed.chunk
            self._add("prompt_tokens", tokens)
        self._add_context()

    def _add_context(self) -> None:
        """What decodes and chunks find read before, where the kinds of iterations differ in it."""
        instance, kinds = self.instance, self.iterations
        if kinds.by_context[0]:
            mixed = self._empty()
            mixed[self.mixed], mixed[self.mixed_kinds] = instance.context, -kinds.mixed.context
            self._add("context_mixed", mixed)
        if kinds.by_context[1]:
            solo = self._empty()
            solo[self.solo], solo[self.solo_kinds] = instance.context, -kinds.solo.context
            self._add("context_solo", solo)
        if kinds.by_read:
            read = self._empty()
            read[self.fed], read[self.mixed_kinds] = instance.read_pairs, -kinds.mixed.read
            self._add("read_before", read)

    def _add_memory(self) -> None:
        instance = self.instance
        mixed, solo, waiting = self._empty(), self._empty(), self._empty()
        mixed[self.mixed], mixed[self.fed] = instance.held, instance.held_reading
        mixed[self.mixed_kinds] = -instance.room
        solo[self.solo], solo[self.solo_kinds] = instance.held, -instance.room
        waits = ~instance.waits_for_ever
        waiting[self.lost][waits] = np.minimum(instance.own_prompt, instance.memory)[waits] / instance.patience[waits]
        waiting[self.capacity] = -instance.memory
        self._add("memory_mixed", mixed)
        self._add("memory_solo", solo)
        self._add("memory_waiting", waiting)

    def _add_limits(self, limits: Limits) -> None:
        instance, kinds, indicators = self.instance, self.iterations, self.instance.indicators
        if math.isfinite(limits.tpot):
            row = self._empty()
            row[self.fed] = limits.fed_slope
            row[self.mixed] = limits.mixed_slope - limits.tpot
            row[self.solo] = limits.solo_slope - limits.tpot
            row[self.mixed_kinds] = kinds.mixed.decodes * limits.mixed_seconds
            row[self.solo_kinds] = kinds.solo.decodes * limits.solo_seconds
            self._add("max_tpot", row)
        values = {
            "prefill_gap": (self.fed, limits.prefill_seconds),
            "solo_gap": (self.solo, np.full(instance.classes, limits.decode_seconds)),
        }
        each = np.arange(instance.classes)
        for name, (columns, seconds) in values.items():
            limit, weight = getattr(indicators, f"max_{name}"), getattr(indicators, f"{name}_weight")
            if limit is None and not weight:
                continue
            high, low = self.gaps[name]
            gap, (above, below) = self._empty(), np.zeros((2, instance.classes, self.column_count))
            above[each, each + columns.start], above[:, high] = seconds, -1.0
            below[each, each + columns.start], below[:, low] = -seconds, 1.0
            gap[high], gap[low] = 1.0, -1.0
            self._add(f"{name}_above", above)
            self._add(f"{name}_below", below)
            self._add(f"max_{name}", gap, high=math.inf if limit is None else limit)

    def _units(self) -> Array:
        """Each class's load, or what a GPU can do of it if that is less; iterations in their share of the time."""
        instance, kinds, unit = self.instance, self.iterations, np.ones(self.column_count)
        mixed = kinds.mixed_seconds(instance.tokens, 0.0, 0.0)
        solo = kinds.solo_seconds(instance.batch_size, float(instance.batch_size * instance.context.mean()))
        alone = self.request_seconds()
        fed = np.minimum(instance.arrival, 1.0 / np.where(alone > 0.0, alone, 1.0))
        unit[self.fed] = unit[self.lost] = fed
        unit[self.mixed] = unit[self.solo] = fed * np.where(instance.decodes > 0.0, instance.decodes, 1.0)
        unit[self.mixed_kinds] = 1.0 / np.maximum(np.abs(kinds.mixed.seconds), 0.1 * abs(mixed) + 1e-300)
        unit[self.solo_kinds] = 1.0 / np.maximum(np.abs(kinds.solo.seconds), 0.1 * abs(solo) + 1e-300)
        return unit

    def request_seconds(self) -> Array:
        """About the seconds of a GPU that a request takes, its decode in a full batch, shape (classes,)."""
        instance, kinds = self.instance, self.iterations
        mixed = kinds.mixed_seconds(instance.tokens, 0.0, 0.0)
        per_decode = kinds.solo_seconds(1.0, 0.0) / instance.batch_size + kinds.solo_context * instance.context
        return np.asarray(instance.least_chunks * abs(mixed) + instance.decodes * np.abs(per_decode))

    def column_bounds(self) -> tuple[Array, Array]:
        instance = self.instance
        lower, upper = np.zeros(self.column_count), np.full(self.column_count, np.inf)
        lower[self.fed] = np.where(instance.waits_for_ever, instance.arrival, 0.0)
        upper[self.fed] = instance.arrival
        upper[self.lost] = 0.0 if not instance.decode_buffer else np.inf
        upper[self.lost][instance.waits_for_ever] = 0.0
        no_decodes = instance.decodes <= 0.0
        for block in (self.mixed, self.solo):
            upper[block][no_decodes] = 0.0
        lower[self.capacity] = upper[self.capacity] = 1.0
        return lower, upper

    def row_bounds(self) -> tuple[Array, Array]:
        return self._own_lower.copy(), self._own_upper.copy()

    def objective(self) -> Array:
        """Costs of the objective, money/s, less the penalties of the gaps, shape (columns,)."""
        instance, cost = self.instance, self._empty()
        cost[self.fed] = instance.earned_reading + instance.earned_ending
        cost[self.lost] = -instance.earned_ending
        for name, (high, low) in self.gaps.items():
            weight = getattr(instance.indicators, f"{name}_weight") if self.limits is not None else 0.0
            cost[high], cost[low] = -weight, weight
        return cost

    def column_costs(self, vertex: Vertex) -> Array:
        """What a unit of each column takes of everything that is scarce, at its price, money; shape (columns,)."""
        prices = vertex.row_prices.copy()
        prices[: self.instance.classes] = 0.0
        return np.asarray(prices @ self._matrix)

    def hit_prices(self, vertex: Vertex) -> Array:
        """d objective / d hit rate at a vertex, shape (classes,): what is no longer read, at its price.

        Chunks are counted in whole ones, so their number is differenced over a small step.
        """
        hits = self.instance.scenario.hit_rates
        more = copy(self)
        more.instance = self.instance.with_more_hits(_STEP)
        more._rows = {}
        more._build()
        saved = ((self._matrix - more._matrix)[:, self.fed] / (_STEP * (1.0 - hits))) * vertex.columns[self.fed]
        return np.asarray(vertex.row_prices @ saved)

    def price(self, vertex: Vertex, row: str) -> float:
        """Price of a row's right-hand side; 0 for one that there is not, and for rounding."""
        place = self.row(row)
        if place is None:
            return 0.0
        price = float(vertex.row_prices[place])
        return price if abs(price) * self.row_unit[place] > _ZERO * vertex.worth else 0.0

    def has_empty_chunks(self, columns: Array) -> bool:
        """Whether there are more mixed iterations than chunks."""
        mixed = float(columns[self.mixed_kinds].sum())
        return mixed > float(self.instance.most_chunks @ columns[self.fed]) * (1.0 + _SOLVED)

    def check(self, columns: Array) -> None:
        """Hold a solution against its rows in their own units.

        Raises:
            ArithmeticError: a class is served that did not arrive, or a row is broken.
        """
        lower, upper = self.row_bounds()
        room = _SOLVED * np.maximum(self.row_unit, np.abs(self._matrix) @ np.abs(columns))
        values = self._matrix @ columns
        arrived = self.instance.arrival * (1.0 + _SOLVED)
        if np.any(values > upper + room) or np.any(values < lower - room) or np.any(columns[self.fed] > arrived):
            raise ArithmeticError(
                "the plan does not keep its own limits: the numbers lie too far apart for the solver; "
                "bring rates and lengths closer together"
            )

    def is_short(self, vertex: Vertex) -> NDArray[np.bool_]:
        """Which rows have a price."""
        return np.asarray(np.abs(vertex.row_prices) * self.row_unit > _ZERO * vertex.worth)
