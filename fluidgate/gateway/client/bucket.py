"""A rate held over time: a minute's may come at once, and comes back evenly."""

from __future__ import annotations

MINUTE = 60.0
ROUNDING = 1e-9
"""Share of a minute's amount that does not count."""


class Bucket:
    """The generic cell rate algorithm in its form of a leaky bucket (ITU-T I.371, annex A): O(1), no timers.

    Attributes:
        per_minute: what it holds, and what leaks out in a minute.
    """

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._level = 0.0
        self._looked = 0.0

    def wait(self, amount: float, now: float) -> float:
        """How long until it takes so much, s; inf for ever."""
        if amount > self.per_minute:
            return float("inf")
        beyond = self._level_at(now) + amount - self.per_minute
        return beyond * MINUTE / self.per_minute if beyond > ROUNDING * self.per_minute else 0.0

    def take(self, amount: float, now: float) -> None:
        """More than it holds, or less than nothing, where what was taken before is set right."""
        self._level = max(0.0, self._level_at(now) + amount)

    def remaining(self, now: float) -> int:
        return max(0, int(self.per_minute * (1.0 + ROUNDING) - self._level_at(now)))

    def reset(self, now: float) -> float:
        """How long until it is whole again, s."""
        return self._level_at(now) * MINUTE / self.per_minute

    def _level_at(self, now: float) -> float:
        self._level = max(0.0, self._level - (now - self._looked) * self.per_minute / MINUTE)
        self._looked = now
        return self._level
