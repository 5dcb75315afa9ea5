"""Faults on demand: what goes wrong with a request, and what stands against those to come."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from random import Random
from typing import Literal, get_args

from fluidgate.errors import nearest

Kind = Literal["refuse", "fail", "stall", "die", "lose-kv", "slow", "slow-metrics"]
DEFAULTS: dict[Kind, float] = {
    "refuse": 503.0, "fail": 1.0, "stall": math.inf, "die": 1.0, "lose-kv": 0.0, "slow": 10.0, "slow-metrics": 10.0,
}  # fmt: skip


class BadFault(ValueError):
    """A fault that does not exist, or a value out of its range."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong with one request.

    Attributes:
        refuse: HTTP status that it is refused with; None if it is not.
        fail: probability that it is refused with 500.
        stall: s of the engine for which nothing is answered; inf for ever.
        die: tokens after which the connection is cut; None for never.
        lose_kv: whether its KV is lost between two engines.
        slow: factor of the iterations that it is part of.
    """

    refuse: int | None = None
    fail: float = 0.0
    stall: float = 0.0
    die: int | None = None
    lose_kv: bool = False
    slow: float = 1.0

    def plus(self, kind: Kind, value: float | None) -> Faults:
        """With one more.

        Raises:
            BadFault: the value is out of its range, or the fault strikes no requests.
        """
        value = DEFAULTS[kind] if value is None else value
        _check(kind, value)
        match kind:
            case "refuse":
                return replace(self, refuse=int(value))
            case "fail":
                return replace(self, fail=1.0 - (1.0 - self.fail) * (1.0 - value))
            case "stall":
                return replace(self, stall=max(self.stall, value))
            case "die":
                return replace(self, die=int(value))
            case "lose-kv":
                return replace(self, lose_kv=True)
            case "slow":
                return replace(self, slow=self.slow * value)
            case "slow-metrics":
                raise BadFault("slow-metrics strikes no request; POST it to /admin/fault")


@dataclass
class Standing:
    """A fault for the next `left` requests, or readings of the metrics; for all if None."""

    kind: Kind
    value: float
    left: int | None


class FaultBook:
    """The faults that stand against the requests to come.

    Args:
        seed: of what is left to chance.
    """

    def __init__(self, seed: int = 0) -> None:
        self._random = Random(seed)
        self._standing: list[Standing] = []

    def add(self, kind: str, value: float | None = None, requests: int | None = None) -> None:
        """Let a fault stand against the next requests, or against all if None.

        Raises:
            BadFault: no such fault, or a value out of its range.
        """
        known = kind_of(kind)
        value = DEFAULTS[known] if value is None else value
        _check(known, value)
        if requests is not None and requests < 1:
            raise BadFault(f"count must be at least 1, but is {requests}")
        self._standing.append(Standing(known, value, requests))

    def clear(self) -> None:
        self._standing.clear()

    @property
    def slowdown(self) -> float:
        """Factor of every iteration, by what stands against all requests."""
        return math.prod(each.value for each in self._standing if each.kind == "slow" and each.left is None)

    def metrics_delay(self) -> float:
        """Seconds of the engine that the next reading of the metrics takes."""
        slow = [each for each in self._standing if each.kind == "slow-metrics"]
        self._count(slow)
        return sum(each.value for each in slow)

    def draw(self, header: str | None) -> Faults:
        """What goes wrong with the next request: what its header asks for, and what stands.

        Raises:
            BadFault: the header is wrong.
        """
        faults = parse_faults(header) if header else Faults()
        # one that slows all iterations is in them already
        struck = [
            each
            for each in self._standing
            if each.kind != "slow-metrics" and not (each.kind == "slow" and each.left is None)
        ]
        for each in struck:
            faults = faults.plus(each.kind, each.value)
        self._count(struck)
        if faults.fail > 0.0 and self._random.random() < faults.fail:
            faults = replace(faults, refuse=500)
        return faults

    def _count(self, struck: list[Standing]) -> None:
        """These have struck once more."""
        for each in struck:
            if each.left is not None:
                each.left -= 1
        self._standing = [each for each in self._standing if each.left != 0]


def parse_faults(header: str) -> Faults:
    """`die=5, slow=3` as faults.

    Raises:
        BadFault: no such fault, or a value that is no number or out of its range.
    """
    faults = Faults()
    for part in header.split(","):
        word, equals, text = part.partition("=")
        try:
            value = float(text) if equals else None
        except ValueError:
            raise BadFault(f"{text.strip()!r} is no number") from None
        faults = faults.plus(kind_of(word.strip()), value)
    return faults


def kind_of(word: str) -> Kind:
    """The fault of that name.

    Raises:
        BadFault: there is none.
    """
    for kind in get_args(Kind):
        if word == kind:
            return kind  # type: ignore[no-any-return]
    known = list(get_args(Kind))
    raise BadFault(f"unknown fault {word!r}{nearest(word, known)} (known: {', '.join(known)})")


def _check(kind: Kind, value: float) -> None:
    good = {
        "refuse": value in range(400, 600),
        "fail": 0.0 <= value <= 1.0,
        "stall": value >= 0.0,
        "die": 0 <= value < math.inf,
        "lose-kv": True,
        "slow": 0.0 < value < math.inf,
        "slow-metrics": 0.0 <= value < math.inf,
    }[kind]
    if not good:
        raise BadFault(f"{kind}={value:g} is out of range")
