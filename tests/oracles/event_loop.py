"""The Markov network GPU by GPU as a plain-Python event loop, independent of the compiled kernel and of `network.py`.

Gillespie's method with counts: the next event is drawn from the total rate of each kind and class, then the
request is drawn uniformly among the members of that kind and class (lists with swap-removal; decodes beside
a prefill are found by rejection from the group's list). Waiting requests sit in one deque a class, stamped
with a serial number, so that FCFS across classes compares heads only. Time averages come from the jumps
alone: the integral of a step function over (0, T] is `value(T) T - sum(jump * time of jump)`, one
multiplication a jump.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fluidgate.model import Scenario

COUPLED = {"fi-wsp", "gi-wsp", "gi-wsp-uncapped"}
SHARED = {"gf-wsp", "gf-wsp-uncapped"}
SIDED = {"sli-aware", "sli-aware-general"}
ROUTED = {"gate-and-route", "gg-sp", "capped-gate-and-route", "prioritize-and-route", "fg-sp"}
FCFS = {"fi-wsp", "fg-sp"}
POLICIES = sorted(COUPLED | SHARED | SIDED | ROUTED)

X, Y_M, Y_S, Q_P, Q_D = range(5)


@dataclass(frozen=True)
class Measured:
    """Statistics over (warmup, horizon]; occupancies and rates per GPU, one entry a class.

    Attributes:
        revenue_rate: in the scenario's scheme.
        ttft: mean time from arrival to prefill completion, over prefills completed in the window.
    """

    revenue_rate: float
    prefill: list[float]
    mixed_decode: list[float]
    solo_decode: list[float]
    prefill_queue: list[float]
    decode_queue: list[float]
    arrival_rate: list[float]
    prefill_completion_rate: list[float]
    completion_rate: list[float]
    prefill_abandonment_rate: list[float]
    decode_abandonment_rate: list[float]
    ttft: list[float]


class IndexSet:
    """A subset of 0..size-1 with insertion, removal and indexing (for uniform draws) in constant time."""

    __slots__ = ("items", "place")

    def __init__(self, size: int, items: Sequence[int] = ()) -> None:
        self.items = list(items)
        self.place = [-1] * size
        for k, item in enumerate(self.items):
            self.place[item] = k

    def add(self, item: int) -> None:
        if self.place[item] < 0:
            self.place[item] = len(self.items)
            self.items.append(item)

    def remove(self, item: int) -> None:
        k = self.place[item]
        if k >= 0:
            last = self.items.pop()
            if last != item:
                self.items[k] = last
                self.place[last] = k
            self.place[item] = -1


def ceil(value: float) -> int:
    """Least integer not under `value`, which rounding errors do not push up."""
    return math.ceil(value - 1e-9 * max(1.0, abs(value)))


def run(
    scenario: Scenario,
    policy: str,
    prefill: Sequence[float],
    queue: Sequence[float],
    mixed_decode: Sequence[float] | None = None,
    solo_decode: Sequence[float] | None = None,
    *,
    gpus: int,
    horizon: float,
    warmup: float | None = None,
    seed: int = 0,
    mixed: int | None = None,
) -> Measured:
    """Simulate from an empty cluster to `horizon`.

    Args:
        scenario: the cluster and its load.
        policy: one of `POLICIES`.
        prefill: x* of the plan, one entry a class, per GPU; likewise the next three.
        queue: q_p*.
        mixed_decode: y_m*, read by the sided policies only.
        solo_decode: y_s*, likewise.
        gpus: n.
        horizon: simulated seconds.
        warmup: statistics start here; a tenth of the horizon by default.
        seed: of the random numbers.
        mixed: M; `ceil(n sum x*)` by default.
    """
    if policy not in POLICIES:
        raise ValueError(f"no such policy: {policy}")
    if warmup is None:
        warmup = horizon / 10
    rates = scenario.rates
    batch = scenario.gpu.batch_size
    number = len(scenario.classes)
    classes = range(number)
    if mixed is None:
        mixed = min(gpus, ceil(gpus * sum(prefill)))

    coupled, shared, sided = policy in COUPLED, policy in SHARED, policy in SIDED
    partition = not (coupled or shared)
    fcfs = policy in FCFS
    ratios = [c.output_tokens / c.prompt_tokens for c in scenario.classes]
    priority = ratios if policy == "prioritize-and-route" else None
    cap = [ceil(gpus * x) for x in prefill] if policy.startswith("capped") else None
    weighted = policy == "sli-aware-general"
    most_prefills = mixed if policy in ("gi-wsp", "gf-wsp") else gpus  # a partition caps them by itself
    target = list(prefill)
    queue_target = [gpus * q for q in queue]

    lam_total = gpus * float(rates.arrival.sum())
    lam_cum = list(accumulate((gpus * rates.arrival).tolist()))
    mu_p, mu_m, mu_s = rates.prefill.tolist(), rates.mixed_decode.tolist(), rates.solo_decode.tolist()
    theta = rates.patience.tolist()
    flow_m = [m * y for m, y in zip(mu_m, mixed_decode or [0.0] * number, strict=True)]
    flow_s = [m * y for m, y in zip(mu_s, solo_decode or [0.0] * number, strict=True)]
    to_solo = [s / (m + s) if m + s > 0 else 1.0 for m, s in zip(flow_m, flow_s, strict=True)]

    # ---- state
    # GPUs 0..prefilling-1 may prefill; the others form the solo group.
    prefilling = mixed if partition else gpus
    room = [batch - 1 if partition and g < mixed else batch for g in range(gpus)]  # decode slots
    used = [0] * gpus  # slots taken, out of `room`; a prefill counts where there is no partition
    held = [[0] * number for _ in range(gpus)]  # decodes by class
    busy = [False] * gpus  # a prefill is on it
    n_x, n_m, n_s, n_q, n_d = counts = [[0] * number for _ in range(5)]
    in_prefill: list[list[tuple[int, float]]] = [[] for _ in classes]  # (GPU, arrival time)
    here: list[list[int]] = [[] for _ in classes]  # GPU of each decode on GPUs that may prefill
    solo: list[list[int]] = [[] for _ in classes]  # GPU of each decode in the solo group
    waiting: list[deque[tuple[int, float]]] = [deque() for _ in classes]  # (serial number, arrival time)
    sides = 2 if sided else 1  # mixed and solo, or one buffer for both
    buffers: list[list[deque[int]]] = [[deque() for _ in classes] for _ in range(sides)]  # serial numbers
    buffered = [0] * len(buffers)
    idle = IndexSet(gpus, range(prefilling))  # GPUs on which a prefill may start
    free_here = IndexSet(gpus, [g for g in range(prefilling) if room[g] > 0])  # with a free decode slot
    free_solo = IndexSet(gpus, range(prefilling, gpus))

    jumps = [[0.0] * number for _ in range(5)]  # sum of jump * time
    done_p, done_d, left_p, left_d, arrived = ([0] * number for _ in range(5))
    waited = [0.0] * number
    now = 0.0
    serial = 0
    random = Random(seed).random
    log = math.log
    jump_x, jump_m, jump_s, jump_q, jump_d = jumps

    def set_slots(g: int, change: int) -> None:
        """Take (+1) or give back (-1) a slot, and keep the sets of GPUs with room."""
        used[g] += change
        if g >= prefilling:
            (free_solo.remove if used[g] == room[g] else free_solo.add)(g)
            return
        full = used[g] == room[g]
        (free_here.remove if full else free_here.add)(g)
        if not partition:  # there a prefill needs one of the same slots
            (idle.remove if full or busy[g] else idle.add)(g)

    def switch(g: int, to_mixed: bool) -> None:
        """A prefill starts or ends on `g`: its decodes change speed."""
        sign = 1 if to_mixed else -1
        at = held[g]
        for i in classes:
            if at[i]:
                change = sign * at[i]
                n_m[i] += change
                n_s[i] -= change
                jump_m[i] += change * now
                jump_s[i] -= change * now
        busy[g] = to_mixed
        if partition:
            (idle.remove if to_mixed else idle.add)(g)

    def start_decode(i: int, g: int) -> None:
        held[g][i] += 1
        if busy[g]:
            n_m[i] += 1
            jump_m[i] += now
        else:
            n_s[i] += 1
            jump_s[i] += now
        (here if g < prefilling else solo)[i].append(g)

    def gate() -> int:
        """The class whose head starts next, -1 for none. Somebody waits."""
        if fcfs:
            return min((waiting[i][0][0], i) for i in classes if n_q[i])[1]
        best = -1
        if priority is not None:
            for i in classes:
                if n_q[i] and (best < 0 or priority[i] > priority[best]):
                    best = i
            return best
        least = math.inf
        for i in classes:
            if not n_q[i] or (cap is not None and n_x[i] >= cap[i]):
                continue
            load = n_x[i] / target[i] if target[i] > 0 else math.inf
            if best < 0:
                best, least = i, load
            elif load == least or (max(load, least) < math.inf and abs(load - least) <= 1e-12 * load):
                if n_q[i] - queue_target[i] > n_q[best] - queue_target[best]:
                    best = i
            elif load < least:
                best, least = i, load
        return best

    def admit() -> None:
        """Start prefills while one may start."""
        while idle.items and sum(n_q) and sum(n_x) < most_prefills:
            i = gate()
            if i < 0:
                return
            g = idle.items[int(random() * len(idle.items))]
            _, came = waiting[i].popleft()
            n_q[i] -= 1
            jump_q[i] -= now
            n_x[i] += 1
            jump_x[i] += now
            in_prefill[i].append((g, came))
            switch(g, True)
            if not partition:
                set_slots(g, +1)

    def next_from(side: int) -> int:
        """The class that leaves a decode buffer next. Somebody waits there."""
        buffer = buffers[side]
        if weighted:
            weight = flow_s if side else flow_m
            total = sum(weight[i] for i in classes if buffer[i])
            if total > 0:
                r = random() * total
                for i in classes:
                    if buffer[i] and weight[i] > 0:
                        chosen = i
                        r -= weight[i]
                        if r < 0:
                            break
                return chosen
        return min((buffer[i][0], i) for i in classes if buffer[i])[1]

    def place() -> None:
        """Move waiting decodes into slots while both are there."""
        for side in range(sides):
            while buffered[side]:
                free = (free_solo if side else free_here) if sided else free_solo if free_solo.items else free_here
                if not free.items:
                    break
                i = next_from(side)
                buffers[side][i].popleft()
                buffered[side] -= 1
                n_d[i] -= 1
                jump_d[i] -= now
                g = free.items[int(random() * len(free.items))]
                start_decode(i, g)
                set_slots(g, +1)

    def end_decode(i: int, members: list[int], k: int) -> None:
        g = members[k]
        members[k] = members[-1]
        members.pop()
        held[g][i] -= 1
        if busy[g]:
            n_m[i] -= 1
            jump_m[i] -= now
        else:
            n_s[i] -= 1
            jump_s[i] -= now
        done_d[i] += 1
        set_slots(g, -1)

    def snapshot(at: float) -> tuple[list[list[float]], list[list[float]]]:
        """Areas under the counts over (0, at], and the counters."""
        areas = [[n * at - s for n, s in zip(c, j, strict=True)] for c, j in zip(counts, jumps, strict=True)]
        return areas, [list(v) for v in (arrived, done_p, done_d, left_p, left_d, waited)]

    def pick(kind: Sequence[int], rate: Sequence[float], r: float) -> int:
        """The class of an event, `r` uniform over the total rate of its kind."""
        chosen = -1
        for i in classes:
            if kind[i] and rate[i] > 0:
                chosen = i
                r -= kind[i] * rate[i]
                if r < 0:
                    break
        return chosen

    # ---- event loop
    before: tuple[list[list[float]], list[list[float]]] | None = None
    while True:
        total_p = sum(map(mul, n_x, mu_p))
        total_m = sum(map(mul, n_m, mu_m))
        total_s = sum(map(mul, n_s, mu_s))
        total_q = sum(map(mul, n_q, theta))
        total_d = sum(map(mul, n_d, theta))
        total = lam_total + total_p + total_m + total_s + total_q + total_d
        now -= log(1.0 - random()) / total
        if before is None and now > warmup:
            before = snapshot(warmup)
        if now > horizon:
            break
        r = random() * total

        if r < lam_total:  # arrival
            i = 0
            while i < number - 1 and r >= lam_cum[i]:
                i += 1
            arrived[i] += 1
            serial += 1
            waiting[i].append((serial, now))
            n_q[i] += 1
            jump_q[i] += now
            admit()
            continue
        r -= lam_total

        if r < total_s:  # decode completion without a prefill beside it
            i = pick(n_s, mu_s, r)
            k = int(random() * n_s[i])
            if k < len(solo[i]):
                end_decode(i, solo[i], k)
            else:
                members = here[i]
                k = int(random() * len(members))
                while busy[members[k]]:
                    k = int(random() * len(members))
                end_decode(i, members, k)
            if not partition:
                admit()
            place()
            continue
        r -= total_s

        if r < total_p:  # prefill completion
            i = pick(n_x, mu_p, r)
            members_p = in_prefill[i]
            k = int(random() * len(members_p))
            g, came = members_p[k]
            members_p[k] = members_p[-1]
            members_p.pop()
            n_x[i] -= 1
            jump_x[i] -= now
            done_p[i] += 1
            waited[i] += now - came
            switch(g, False)
            if coupled:
                start_decode(i, g)
                set_slots(g, 0)  # the slot stays taken; the GPU may prefill again
            else:
                serial += 1
                side = 1 if sided and random() < to_solo[i] else 0
                buffers[side][i].append(serial)
                buffered[side] += 1
                n_d[i] += 1
                jump_d[i] += now
                if shared:
                    set_slots(g, -1)
            admit()
            place()
            continue
        r -= total_p

        if r < total_m:  # decode completion beside a prefill
            i = pick(n_m, mu_m, r)
            members = here[i]
            k = int(random() * len(members))
            while not busy[members[k]]:
                k = int(random() * len(members))
            end_decode(i, members, k)
            if not partition:
                admit()
            place()
            continue
        r -= total_m

        if r < total_q:  # somebody leaves the prefill queue
            i = pick(n_q, theta, r)
            del waiting[i][int(random() * n_q[i])]
            n_q[i] -= 1
            jump_q[i] -= now
            left_p[i] += 1
            continue

        r -= total_q  # somebody leaves a decode buffer
        i = pick(n_d, theta, r)
        if i < 0:
            continue  # rounding: nobody is there
        k = int(random() * n_d[i])
        side = 0
        while k >= len(buffers[side][i]):
            k -= len(buffers[side][i])
            side += 1
        del buffers[side][i][k]
        buffered[side] -= 1
        n_d[i] -= 1
        jump_d[i] -= now
        left_d[i] += 1

    assert before is not None
    after = snapshot(horizon)
    window = (horizon - warmup) * gpus
    means = [[(b - a) / window for a, b in zip(x, y, strict=True)] for x, y in zip(before[0], after[0], strict=True)]
    came_in, prefills, decodes, gone_p, gone_d, wait = (
        [b - a for a, b in zip(x, y, strict=True)] for x, y in zip(before[1], after[1], strict=True)
    )
    prompt, output = rates.prompt_value.tolist(), rates.output_value.tolist()
    if scenario.pricing.scheme == "bundled":
        revenue = sum((p + o) * d for p, o, d in zip(prompt, output, decodes, strict=True))
    else:
        revenue = sum(p * f + o * d for p, o, f, d in zip(prompt, output, prefills, decodes, strict=True))
    per_gpu = [[v / window for v in values] for values in (came_in, prefills, decodes, gone_p, gone_d)]
    return Measured(
        revenue / window,
        *means,
        *per_gpu,
        [w / p if p else math.nan for w, p in zip(wait, prefills, strict=True)],
    )
