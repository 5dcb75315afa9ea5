"""The virtual queues of limits in plain Python: what the compiled ones must agree with, written from the rules.

Of a gap: a class gains what it has more than the least of the classes without excess. Up to its rest, half of its
grace, it loses nothing of that; beyond, it loses the limit. No excess is below 0; between two changes all is linear.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

PREFILL_GAP, SOLO_GAP, SLOTS, TPOT, SHARE = range(5)
CLOSE = 1e-12


@dataclass
class Pace:
    """What the iterations under way come to, or would if all GPUs of a mode were alike.

    Attributes:
        slot_seconds: s per token of every slot, summed, idle GPUs as solo ones; `slots`, how many.
        decodes: in an iteration; `tokens`, 1/s that they gain.
    """

    slot_seconds: float
    slots: float
    decodes: float
    tokens: float

    @staticmethod
    def of_counts(tables: Any, gpus: int, size: int, prefilling: Any, mixed: Any, solo: Any) -> Pace:
        (mixed_base, mixed_slope), (solo_base, solo_slope) = tables.token_seconds
        prefills, beside, apart = int(np.sum(prefilling)), int(np.sum(mixed)), int(np.sum(solo))
        tokens = 0.0
        if beside:
            tokens += beside / (mixed_base + mixed_slope * beside / max(prefills, 1))
        if apart:
            tokens += apart / (solo_base + solo_slope * apart / max(gpus - prefills, 1))
        seconds = mixed_base * (size - 1) * prefills + solo_base * size * (gpus - prefills)
        return Pace(seconds, size * gpus - prefills, beside + apart, tokens)


@dataclass
class VirtualQueues:
    """The excess over each limit, by class."""

    tables: Any
    classes: int
    excess: Any = field(init=False)

    def __post_init__(self) -> None:
        self.excess = np.zeros((5, self.classes))

    def pass_time(self, seconds: float, prefilling: Any, solo: Any, pace: Pace, late_tokens: float = 0.0) -> None:
        """So long nothing changes; `late_tokens` were gained before without having been counted."""
        tables = self.tables
        if not tables.limited or seconds <= 0.0:
            return
        for row, members in ((PREFILL_GAP, prefilling), (SOLO_GAP, solo)):
            if math.isfinite(tables.limit[row]):
                after = gap_after(
                    list(self.excess[row]), list(members), float(tables.limit[row]), list(tables.grace[row]), seconds
                )
                self.excess[row] = after
        for row in (SLOTS, TPOT):
            if math.isfinite(tables.limit[row]):
                self.excess[row] = max(0.0, self.excess[row, 0] + self.rate(row, pace) * seconds)
                if row == TPOT:
                    self.excess[row] = max(0.0, self.excess[row, 0] - tables.limit[row] * late_tokens)
        target = tables.target_prefill
        had = [
            self.excess[SHARE, i] + (prefilling[i] * seconds / target[i] if target[i] > 0 else 100.0)
            for i in range(self.classes)
        ]
        self.excess[SHARE] = [min(each - min(had), 100.0) for each in had]

    def rate(self, row: int, pace: Pace) -> float:
        """Of an excess of all classes."""
        if row == SLOTS:
            return pace.slot_seconds / float(self.tables.limit[SLOTS]) - pace.slots
        return pace.decodes - float(self.tables.limit[TPOT]) * pace.tokens

    def release(self, waiting: Any, prefilling: Any, solo: Any, mixed: Any, beside: int, pace: Pace) -> float:
        """s until a class that waits may start, if nothing happens; inf for never."""
        found = [self._release(i, prefilling, solo, mixed, beside, pace) for i in range(self.classes) if waiting[i] > 0]
        return min((each for each in found if each > 0.0), default=math.inf)

    def _release(self, cls: int, prefilling: Any, solo: Any, mixed: Any, beside: int, pace: Pace) -> float:
        tables, latest = self.tables, 0.0
        decodes = int(np.sum(solo) + np.sum(mixed))
        for row in range(4):
            most = float(tables.grace[row, cls])
            if row == SOLO_GAP and tables.beside[cls] and beside > 0:
                most *= 4.0
            if self.excess[row, cls] <= most * (1.0 + 1e-6):
                continue
            idle = decodes + int(np.sum(prefilling)) == 0
            if (row == TPOT and decodes == 0) or (idle and row < TPOT and self._never(row)):
                continue
            if row in (PREFILL_GAP, SOLO_GAP):
                members = prefilling if row == PREFILL_GAP else solo
                free = [members[j] for j in range(self.classes) if self.excess[row, j] == 0.0]
                rate = float(members[cls] - min(free) - tables.limit[row])
            else:
                rate = self.rate(row, pace)
            latest = max(latest, (float(self.excess[row, cls]) - most) / -rate if rate < 0.0 else math.inf)
        return latest

    def _never(self, row: int) -> bool:
        """Whether not even an idle cluster wears the excess down."""
        return bool(self.tables.limit[row] <= (self.tables.token_seconds[1, 0] if row == SLOTS else 0.0))


def gap_after(
    excess: Sequence[float], members: Sequence[float], limit: float, grace: Sequence[float], seconds: float
) -> list[float]:
    """The excesses after a time in which the members stay as they are."""
    now, left = list(excess), seconds
    rest = [0.5 * each for each in grace]
    while left > 0.0:
        least = min(m for e, m in zip(now, members, strict=True) if e == 0.0)
        slopes = []
        for e, m, r in zip(now, members, rest, strict=True):
            more = m - least
            at_rest = e == r and 0.0 < more <= limit
            slopes.append(0.0 if at_rest else more - limit if e > r or (e == r and more > limit) else more)
        steps = [left]
        for e, s, r in zip(now, slopes, rest, strict=True):
            if s < 0.0 and e > 0.0:
                steps.append((e - r if e > r else e) / -s)
            elif s > 0.0 and e < r:
                steps.append((r - e) / s)
        step = min(steps)
        for i, (slope, r) in enumerate(zip(slopes, rest, strict=True)):
            after = now[i] + slope * step
            if abs(after - r) <= CLOSE * r:
                after = r
            now[i] = 0.0 if after <= CLOSE * r else after
        left -= step
    return now
