"""A policy as data: what the decision functions look up."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple, Self

import numpy as np

from fluidgate.errors import FluidgateError

SAME = 1e-6
"""Indices of a gate closer than this, relatively, are equal."""

# Limits that virtual queues hold: entries of `Tables.limit`, rows of `Tables.grace` and `View.excess`.
PREFILL_GAP = 0  # (43)
SOLO_GAP = 1  # (45)
SLOTS = 2  # (47): time per output token of all slots, were they busy
TPOT = 3  # time per output token of the decodes that there are
LIMITS = 4
SHARE = LIMITS  # row of `View.excess`: beyond the part of the plan's prefills that the least served class has had
EXCESSES = 5

ANY = np.iinfo(np.int64).max
"""Of something counted: as many as may be."""


class Named(IntEnum):
    """Numbers for compiled code that go by name elsewhere."""

    @classmethod
    def named(cls, name: str) -> Self:
        """That of a name as users type it."""
        return cls[name.upper().replace("-", "_")]


class Placement(Named):
    """Which GPU a request is placed on as it arrives."""

    ROUND_ROBIN = 0
    LEAST_LOADED = 1  # fewest requests, waiting or in the batch; ties to the lowest number
    POWER_OF_TWO = 2  # the less loaded of two drawn; ties to the one drawn first
    LMETRIC = 3  # least (unread prompt tokens with its own) * (requests with itself); ties to the lowest number
    POOLS = 4  # prompts on one pool of GPUs, decodes on another (DistServe, Splitwise)
    LEAST_PREFILL = 5  # least unread prompt tokens with its own; ties to the fewest requests, then the lowest number
    STICKY = 6  # LEAST_PREFILL among those that have most of the prompt, until they are saturated (llm-d)
    PRECISE = 7  # greatest weighted sum of cached share, short queue and free memory (llm-d); ties as in LMETRIC
    CACHE_AWARE = 8  # the one that has most of the prompt while loads are balanced, else LEAST_LOADED (SGLang)


class GateRule(IntEnum):
    """Which waiting class starts its prefill first."""

    OCCUPANCY = 0  # least X_i / x*_i, ties by largest Q_p,i - n q*_p,i
    FCFS = 1  # oldest request
    PRIORITY = 2  # largest index
    VALUE = 3  # largest index, ties by OCCUPANCY; those of index 0 by their deadlines


class RouteRule(IntEnum):
    """Where a decode goes when its prefill ends."""

    SOLO_FIRST = 0  # a free slot of the solo group, else of the mixed group, else the buffer
    SPLIT = 1  # to the solo side with probability p_s,i, else to the mixed side, each with its own buffer
    STAY = 2  # in the slot of its prefill
    BUFFER = 3  # into the buffer: waiting prefills take a freed slot first
    POOL = 4  # any free slot of the mixed group, its prefill's own among them: it never waits
    APART = 5  # as SOLO_FIRST, but for classes with too many solo decodes, see `fluidgate.policies.decisions.apart`


class RefillRule(IntEnum):
    """Which buffered class takes a free decode slot."""

    FCFS = 0  # oldest request of the buffer
    WEIGHTED = 1  # class drawn by weight among those that wait


class Tables(NamedTuple):
    """Everything a policy reads off its plan, for a cluster of n GPUs.

    Attributes:
        mixed_gpus: size of the mixed group M; n where the cluster is not partitioned.
        reserve: whether each GPU of the mixed group keeps one slot free for a prefill.
        max_prefills: no prefill starts while this many run.
        gate_rule, route_rule, refill_rule: see the enumerations.
        target_prefill: n x*; float64, shape (classes,).
        target_queue: n q_p*; float64, shape (classes,).
        cap: no prefill of the class starts while this many of it run; int64, shape (classes,).
        priority: index of the PRIORITY and VALUE gates, larger first; float64, shape (classes,).
        deadline: time from arrival within which a request's first token is due, s, inf for none. The VALUE gate starts
            the earliest due first among classes of index 0, the oldest where nothing is due; float64, shape (classes,).
        solo_probability: p_s of the SPLIT route; float64, shape (classes,).
        split_buffers: whether each group has a decode buffer of its own.
        weights: class weights of the WEIGHTED refill; float64, shape (2 groups, classes).
        hold: a prefill of the class starts only while more than so many slots of the cluster are free; int64, shape
            (classes,).
        ready: GPUs that could start a prefill, which waiting decodes leave so.
        spare: decodes go beside prefills while at most so many GPUs could start one, otherwise to GPUs without one;
            -1: to any GPU with a free slot.
        fewest: whether a prefill starts on the GPU with the fewest requests of those that could.
        expected_output: mean output of a request, tokens, by which memory is kept free for decodes that grow; 0 to keep
            none; float64, shape (classes,).
        limited: whether virtual queues hold limits, see `fluidgate.policies.decisions.limits`.
        limit: of the whole cluster, inf for none: most prefills, and most solo decodes, that a class has more than
            another; most s per output token, of all slots and of the decodes; float64, shape (4,).
        grace: excess over each limit up to which a class need not wait; float64, shape (4, classes).
        room: with limits, decode slots to be free for each prefill under way before one more starts; -1: any number.
        most_buffered: a class that goes beside prefills starts nothing while more of its decodes wait.
        beside: whether decodes of the class go beside prefills under APART once it has too many solo ones; bool, shape
            (classes,).
        token_seconds: s per output token on mixed and solo GPUs: with no decode, and more for each one of the batch;
            float64, shape (2 groups, 2).
        homing: whether gate and placement decide together, by what is still to be read where, unless a user's gate is
            asked; see `fluidgate.policies.decisions.homes`, as are the following.
        chunk: prompt tokens of an iteration.
        seconds: terms of an iteration's time; float64, shape (6,).
        worth: of a second that a request waits for its first token, and for the rest; float64, shape (2, classes).
        usual_prompt: mean prompt, tokens.
        toll: requests to come that a second of reading puts off by one.
        most_seconds: longest iteration of decodes alone, s, inf for any.
    """

    mixed_gpus: int
    reserve: bool
    max_prefills: int
    gate_rule: int
    route_rule: int
    refill_rule: int
    target_prefill: Any
    target_queue: Any
    cap: Any
    priority: Any
    deadline: Any
    solo_probability: Any
    split_buffers: bool
    weights: Any
    hold: Any
    ready: int
    spare: int
    fewest: bool
    expected_output: Any
    limited: bool
    limit: Any
    grace: Any
    room: float
    most_buffered: int
    beside: Any
    token_seconds: Any
    homing: bool
    chunk: int
    seconds: Any
    worth: Any
    usual_prompt: float
    toll: float
    most_seconds: float

    @staticmethod
    def nothing(classes: int) -> Tables:
        """Tables under which nothing starts, to change with `_replace`."""
        return Tables(
            mixed_gpus=0,
            reserve=False,
            max_prefills=0,
            gate_rule=0,
            route_rule=0,
            refill_rule=0,
            target_prefill=np.zeros(classes),
            target_queue=np.zeros(classes),
            cap=np.zeros(classes, np.int64),
            priority=np.zeros(classes),
            deadline=np.full(classes, np.inf),
            solo_probability=np.zeros(classes),
            split_buffers=False,
            weights=np.zeros((2, classes)),
            hold=np.zeros(classes, np.int64),
            ready=0,
            spare=-1,
            fewest=False,
            expected_output=np.zeros(classes),
            **no_limits(classes),
            **no_homes(classes),
        )

    def checked(self, classes: int, gpus: int) -> Tables:
        """The same with every field of its type; lists become arrays.

        Raises:
            FluidgateError: a field has another shape, is no number, or out of range; the message names it.
        """
        right = Tables.nothing(classes)
        found = Tables(*map(_checked, self._fields, self, right))
        most = {
            "mixed_gpus": gpus,
            "gate_rule": max(GateRule),
            "route_rule": max(RouteRule),
            "refill_rule": max(RefillRule),
        }
        for name, limit in most.items():
            value = getattr(found, name)
            if not 0 <= value <= limit:
                raise FluidgateError(f"tables.{name}: must be from 0 to {int(limit)}, but is {value}")
        return found


def no_homes(classes: int) -> dict[str, Any]:
    """The fields of tables of a policy that asks for a GPU apart from the gate."""
    return {
        "homing": False,
        "chunk": 1,
        "seconds": np.zeros(6),
        "worth": np.ones((2, classes)),
        "usual_prompt": 0.0,
        "toll": 0.0,
        "most_seconds": np.inf,
    }


def no_limits(classes: int) -> dict[str, Any]:
    """The fields of tables that hold no limits."""
    return {
        "limited": False,
        "limit": np.full(LIMITS, np.inf),
        "grace": np.zeros((LIMITS, classes)),
        "room": -1.0,
        "most_buffered": ANY,
        "beside": np.zeros(classes, np.bool_),
        "token_seconds": np.zeros((2, 2)),
    }


def _checked(name: str, value: Any, right: Any) -> Any:
    """A field in the form of the one that is right."""
    if isinstance(right, np.ndarray):
        wanted = f"{right.dtype} of shape {right.shape}"
        try:
            array = np.ascontiguousarray(value, right.dtype)
        except (TypeError, ValueError):
            raise FluidgateError(f"tables.{name}: {value!r} is no array of numbers; give {wanted}") from None
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise FluidgateError(f"tables.{name}: holds nan; give numbers")
        if array.shape != right.shape:
            raise FluidgateError(f"tables.{name}: an array of shape {array.shape}; give {wanted}")
        return array
    try:
        number = type(right)(value)
    except (OverflowError, TypeError, ValueError):
        raise FluidgateError(f"tables.{name}: {value!r} is no number; give one") from None
    if number != number:
        raise FluidgateError(f"tables.{name}: is nan; give a number")
    return number


def paired(tables: Tables) -> Tables:
    """The form of a policy on engines that either read prompts or write answers: the order of its gate. How many of
    them read is not its to say, nor where a decode goes that has one place only."""
    return tables._replace(
        homing=False,
        reserve=True,
        max_prefills=ANY,
        cap=np.full_like(tables.cap, ANY),
        route_rule=int(RouteRule.SOLO_FIRST),
        split_buffers=False,
        hold=np.zeros_like(tables.hold),
        ready=0,
        spare=-1,
        room=-1.0,
        most_buffered=ANY,
        beside=np.zeros_like(tables.beside),
    )


def coupled(tables: Tables, gpus: int) -> Tables:
    """The form of a policy on engines whose decodes stay where their prompt was read: its gate, without partition."""
    return tables._replace(
        mixed_gpus=gpus,
        reserve=False,
        route_rule=int(RouteRule.STAY),
        split_buffers=False,
        room=-1.0,
        most_buffered=ANY,
        beside=np.zeros_like(tables.beside),
    )
