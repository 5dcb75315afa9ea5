"""What the best use of the GPUs is in a state of the lattice, and Gauss-Seidel sweeps over the lattice, compiled.

A state has up to four coordinates: numbers of requests of two groups of classes, before (*unread*) and after (*read*)
the end of their prefill, or sums of such numbers. Of each place that a request can be in, prefill, decode beside a
prefill, decode on a GPU without one, waiting, it has a value per second, reward and drift together. How many prefills
there are, `X`, decides how much room there is for decodes: `(B - 1) X` beside them and `B (n - X)` elsewhere. The best
value is concave in `X` and, for each, in how many of them are of the first group, so both are found by climbing. What
is left is a transport from two groups to two places; one of its vertices is best, and each vertex comes of filling one
pair as far as it goes and then the others in the order of their gains.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fluidgate.compiled import inlined, kept
from fluidgate.model import Array

Integers = NDArray[np.int64]

COORDINATES = 4
NEVER = -1e250
"""Value of a place that a group has no use for."""
MOVES = 8
ARRIVE, GIVE_UP, PREFILLED, LEAVE = 0, 2, 4, 6
"""Kinds of moves; the group is added."""


class Network(NamedTuple):
    """The relaxed network: rates, money and multipliers of each class, arrays of shape (classes,).

    Attributes:
        gpus, slots: n and B.
        unread_at, read_at: of each group the coordinate that counts its requests before, and after, the end of their
            prefill; shape (2,).
        group: the group of each class, 0 or 1.
        arrival: of the whole cluster, requests/s.
        at_prefill, at_decode: money at the end of a prefill and of a decode.
        unread, read: multipliers of the numbers before and after the end of their prefill: the price of one, money.
    """

    gpus: int
    slots: int
    unread_at: Integers
    read_at: Integers
    group: Integers
    arrival: Array
    patience: Array
    prefill: Array
    mixed: Array
    solo: Array
    at_prefill: Array
    at_decode: Array
    unread: Array
    read: Array


class Window(NamedTuple):
    """A box of the lattice and a function, which goes on beyond it in straight lines.

    Attributes:
        low, size: least coordinates, and how many there are of each; shape (4,).
        value: the function in the box, money, shape (states,), the last coordinate fastest.
        above, below: its slope in each coordinate beyond the greatest and the least, money a request, shape (4,).
    """

    low: Integers
    size: Integers
    value: Array
    above: Array
    below: Array


class Scratch(NamedTuple):
    """What the kernels write on.

    Attributes:
        here: coordinates of the state, shape (4,).
        worth: value of a request of each group in prefill, mixed, solo, waiting read, waiting unread; shape (2, 5);
            `cls`: of which class.
        gain, order: of the pairs (group, place of decode), shape (4,).
        left: room that is left at the groups and places, shape (4,).
        trial, filled: how many decodes go to each pair, shape (4,).
        chosen: X, and how many of them are of the first group, shape (2,).
        many: requests of each group before and after the end of their prefill, shape (4,).
    """

    here: Integers
    worth: Array
    cls: Integers
    gain: Array
    order: Integers
    left: Array
    trial: Array
    filled: Array
    chosen: Integers
    many: Integers


@inlined
def place_of(w: Window, x: Integers) -> int:
    """Number of the state of the box that is nearest."""
    number = 0
    for c in range(COORDINATES):
        number = number * w.size[c] + min(max(x[c] - w.low[c], 0), w.size[c] - 1)
    return number


@inlined
def beyond(w: Window, x: Integers) -> float:
    """What the straight lines add."""
    found = 0.0
    for c in range(COORDINATES):
        i = x[c] - w.low[c]
        if i < 0:
            found += w.below[c] * i
        elif i >= w.size[c]:
            found += w.above[c] * (i - w.size[c] + 1)
    return found


@inlined
def at(w: Window, x: Integers) -> float:
    """The function at a state, wherever that is."""
    found: float = w.value[place_of(w, x)] + beyond(w, x)
    return found


@inlined
def move(k: Network, x: Integers, kind: int, group: int, by: int) -> None:
    """Make a move (`by` 1), or take it back (-1)."""
    if kind == ARRIVE:
        x[k.unread_at[group]] += by
    elif kind == GIVE_UP:
        x[k.unread_at[group]] -= by
    elif kind == PREFILLED:
        x[k.unread_at[group]] -= by
        x[k.read_at[group]] += by
    else:
        x[k.read_at[group]] -= by


@inlined
def moved(k: Network, w: Window, x: Integers, kind: int, group: int, value: float) -> float:
    """The difference that a move makes; 0 where nobody is there to make it."""
    if kind != ARRIVE and x[k.read_at[group] if kind == LEAVE else k.unread_at[group]] == 0:
        return 0.0
    move(k, x, kind, group, 1)
    found: float = at(w, x) - value
    move(k, x, kind, group, -1)
    return found


@inlined
def consider(s: Scratch, group: int, place: int, value: float, cls: int) -> None:
    if value > s.worth[group, place]:
        s.worth[group, place] = value
        s.cls[group, place] = cls


@inlined
def price(k: Network, w: Window, s: Scratch) -> float:
    """What a request is worth in each place at `s.here`, into `s`; returns what arrivals add."""
    x = s.here
    for group in range(2):
        for place in range(5):
            s.worth[group, place] = NEVER
            s.cls[group, place] = 0
    value = at(w, x)
    drift = 0.0
    for group in range(2):
        more = moved(k, w, x, ARRIVE, group, value)
        lost = moved(k, w, x, GIVE_UP, group, value)
        done = moved(k, w, x, PREFILLED, group, value)
        gone = moved(k, w, x, LEAVE, group, value)
        for i in range(k.arrival.size):
            if k.group[i] == group:
                c, d = k.unread[i], k.read[i]
                drift += k.arrival[i] * (c + more)
                consider(s, group, 0, k.prefill[i] * (k.at_prefill[i] - c + d + done), i)
                consider(s, group, 1, k.mixed[i] * (k.at_decode[i] - d + gone), i)
                consider(s, group, 2, k.solo[i] * (k.at_decode[i] - d + gone), i)
                consider(s, group, 3, k.patience[i] * (gone - d), i)
                consider(s, group, 4, k.patience[i] * (lost - c), i)
        s.many[group] = x[k.unread_at[group]]
        s.many[2 + group] = x[k.read_at[group]]
    wait(k, s)
    return drift


@inlined
def together(k: Network) -> bool:
    """Whether requests before and after the end of their prefill are counted together."""
    same: bool = k.unread_at[0] == k.read_at[0]
    return same


@inlined
def shares_unread(k: Network) -> bool:
    """Whether requests of both groups are counted together before the end of their prefill."""
    same: bool = k.unread_at[0] == k.unread_at[1]
    return same


@inlined
def wait(k: Network, s: Scratch) -> None:
    """Requests that are counted together wait where they are worth most."""
    for group in range(2):
        for place in (3, 4):
            if s.worth[group, place] == NEVER:
                s.worth[group, place] = 0.0
        if together(k):
            best = 3 if s.worth[group, 3] >= s.worth[group, 4] else 4
            s.worth[group, 7 - best] = s.worth[group, best]
            s.cls[group, 7 - best] = s.cls[group, best]
    if shares_unread(k):
        better = 0 if s.worth[0, 4] >= s.worth[1, 4] else 1
        s.worth[1 - better, 4] = s.worth[better, 4]
        s.cls[1 - better, 4] = s.cls[better, 4]


@inlined
def sort_gains(s: Scratch) -> int:
    """The pairs that gain over waiting, the largest gain first, into `s.order`; how many they are."""
    count = 0
    for pair in range(4):
        group, place = pair // 2, pair % 2
        s.gain[pair] = s.worth[group, 1 + place] - s.worth[group, 3]
        if s.gain[pair] > 0.0:
            j = count
            while j > 0 and s.gain[s.order[j - 1]] < s.gain[pair]:
                s.order[j] = s.order[j - 1]
                j -= 1
            s.order[j] = pair
            count += 1
    return count


@inlined
def pour(s: Scratch, pair: int) -> float:
    """Fill a pair as far as it goes; what that gains."""
    group, place = pair // 2, 2 + pair % 2
    much = min(s.left[group], s.left[place])
    s.left[group] -= much
    s.left[place] -= much
    s.trial[pair] += much
    gain: float = much * s.gain[pair]
    return gain


@inlined
def fill(s: Scratch, count: int, one: int, two: int, mixed: int, solo: int) -> float:
    """The best transport of `one` and `two` requests to the places of decode, into `s.filled`; what it gains."""
    best = 0.0
    for pair in range(4):
        s.filled[pair] = 0.0
    for begin in range(count):
        s.left[0], s.left[1], s.left[2], s.left[3] = one, two, mixed, solo
        for pair in range(4):
            s.trial[pair] = 0.0
        total = pour(s, s.order[begin])
        for k in range(count):
            if k != begin:
                total += pour(s, s.order[k])
        if total > best:
            best = total
            for pair in range(4):
                s.filled[pair] = s.trial[pair]
    return best


@inlined
def gained(k: Network, s: Scratch, count: int, prefills: int, ours: int) -> float:
    """What is gained over all waiting if `prefills` requests are in prefill, `ours` of them of the first group."""
    theirs = prefills - ours
    one, two = s.many[2], s.many[3]
    if together(k):
        one, two = one - ours, two - theirs
    total: float = fill(s, count, one, two, (k.slots - 1) * prefills, k.slots * (k.gpus - prefills))
    if ours > 0:
        total += ours * (s.worth[0, 0] - s.worth[0, 4])
    if theirs > 0:
        total += theirs * (s.worth[1, 0] - s.worth[1, 4])
    return total


@inlined
def split(k: Network, s: Scratch, count: int, prefills: int, start: int) -> float:
    """The best split of the prefills, from `start` on; it is left in `s.chosen[1]`."""
    least, most = max(0, prefills - s.many[1]), min(prefills, s.many[0])
    here = min(max(start, least), most)
    best = gained(k, s, count, prefills, here)
    for step in (1, -1):
        rose = False
        while least <= here + step <= most:
            value = gained(k, s, count, prefills, here + step)
            if value <= best:
                break
            best = value
            here += step
            rose = True
        if rose:
            break
    s.chosen[1] = here
    return best


@inlined
def best_use(k: Network, s: Scratch, count: int) -> float:
    """What the best use gains over all waiting; climbs from `s.chosen`, and leaves there what is best."""
    unread = s.many[0] if shares_unread(k) else s.many[0] + s.many[1]
    most = min(k.gpus, unread)
    here = min(s.chosen[0], most)
    best = split(k, s, count, here, s.chosen[1])
    ours = s.chosen[1]
    for step in (1, -1):
        rose = False
        while 0 <= here + step <= most:
            value = split(k, s, count, here + step, ours)
            if value <= best:
                break
            best = value
            here += step
            ours = s.chosen[1]
            rose = True
        if rose:
            break
    s.chosen[0], s.chosen[1] = here, ours
    return best


@inlined
def coordinate_worth(k: Network, s: Scratch, c: int) -> float:
    """What one more request that waits is worth per second, by the coordinate that counts it."""
    for group in range(2):
        if k.unread_at[group] == c:
            return float(s.worth[group, 4])
        if k.read_at[group] == c:
            return float(s.worth[group, 3])
    return 0.0


@inlined
def block_value(k: Network, w: Window, s: Scratch, block: Integers) -> float:
    """At least the value of every state of a block in which prices are the same; of a single state its very value.

    What is gained over waiting grows with the requests there are, and what waiting itself is worth is linear in them.
    """
    for c in range(COORDINATES):
        s.here[c] = block[2 * c + 1]
    value = price(k, w, s)
    value += best_use(k, s, sort_gains(s))
    for c in range(COORDINATES):
        each = coordinate_worth(k, s, c)
        value += max(block[2 * c] * each, block[2 * c + 1] * each)
    return value


def _greatest(k: Network, w: Window, s: Scratch, last: Integers, target: float, stack: Integers, found: Array) -> None:
    """At least the greatest value over all states up to `last`, and where it is, into `found`, shape (5,).

    Beyond the box prices are the same along a straight line, and blocks that stay below `target` are not looked into
    any further.

    Args:
        stack: blocks still to be looked at, shape (enough, 8): first and last of each coordinate. Its last row is
            where the search stands.
    """
    found[0] = -np.inf
    s.chosen[0] = s.chosen[1] = 0
    front = stack[stack.shape[0] - 1]
    for c in range(COORDINATES):
        front[2 * c] = 0
        front[2 * c + 1] = block_end(w, last, c, 0)
    while True:
        for j in range(2 * COORDINATES):
            stack[0, j] = front[j]
        depth = 1
        while depth > 0:
            depth -= 1
            block = stack[depth]
            value = block_value(k, w, s, block)
            long = 0
            for c in range(1, COORDINATES):
                if block[2 * c + 1] - block[2 * c] > block[long + 1] - block[long]:
                    long = 2 * c
            if value <= target or block[long] == block[long + 1]:
                if value > found[0]:
                    found[0] = value
                    for c in range(COORDINATES):
                        found[1 + c] = block[2 * c]
                continue
            middle = (block[long] + block[long + 1]) // 2
            for j in range(2 * COORDINATES):
                stack[depth + 1, j] = block[j]
            stack[depth, long + 1] = middle
            stack[depth + 1, long] = middle + 1
            depth += 2
        c = COORDINATES - 1
        while c >= 0 and front[2 * c + 1] >= last[c]:
            front[2 * c] = 0
            front[2 * c + 1] = block_end(w, last, c, 0)
            c -= 1
        if c < 0:
            return
        front[2 * c] = front[2 * c + 1] + 1
        front[2 * c + 1] = block_end(w, last, c, front[2 * c])


@inlined
def block_end(w: Window, last: Integers, c: int, first: int) -> int:
    """The last coordinate whose prices are those of `first`: a stretch beyond the box, or one state of it."""
    if first < w.low[c]:
        return int(w.low[c]) - 1
    return first if first < w.low[c] + w.size[c] else int(last[c])


@inlined
def count_request(k: Network, s: Scratch, group: int, place: int, much: float, rate: Array, row: Array) -> None:
    """Enter `much` requests of a group in a place: rates of the moves, reward, drift of the multipliers' numbers."""
    if much <= 0.0:
        return
    i = s.cls[group, place]
    classes = k.arrival.size
    if place == 0:
        flow = k.prefill[i] * much
        rate[PREFILLED + group] += flow
        row[0] += flow * k.at_prefill[i]
        row[1 + i] -= flow
        row[1 + classes + i] += flow
    elif place == 1 or place == 2:
        flow = (k.mixed[i] if place == 1 else k.solo[i]) * much
        rate[LEAVE + group] += flow
        row[0] += flow * k.at_decode[i]
        row[1 + classes + i] -= flow
    else:
        flow = k.patience[i] * much
        unread = k.unread[i] < k.read[i] if together(k) else place == 4
        rate[(GIVE_UP if unread else LEAVE) + k.group[i]] += flow
        row[1 + i if unread else 1 + classes + i] -= flow


def _improve(k: Network, w: Window, s: Scratch, rates: Array, rows: Array) -> float:
    """The best action of every state of the box: the rates of its moves, its reward, the multipliers' drift.

    Returns the greatest value of a state, which no policy's gain exceeds.

    Args:
        rates: shape (states, MOVES).
        rows: shape (states, 1 + 2 classes): reward, then the drift of the numbers before and after the end of prefill.
    """
    classes = k.arrival.size
    best = -np.inf
    s.chosen[0] = s.chosen[1] = 0
    for c in range(COORDINATES):
        s.here[c] = w.low[c]
    for number in range(w.value.size):
        value = price(k, w, s)
        count = sort_gains(s)
        value += best_use(k, s, count)
        for c in range(COORDINATES):
            value += s.here[c] * coordinate_worth(k, s, c)
        best = max(best, value)
        prefills, ours = s.chosen[0], s.chosen[1]
        theirs = prefills - ours
        gained(k, s, count, prefills, ours)
        rate, row = rates[number], rows[number]
        rate[:] = 0.0
        row[:] = 0.0
        for i in range(classes):
            row[1 + i] = k.arrival[i]
            rate[ARRIVE + k.group[i]] += k.arrival[i]
        count_request(k, s, 0, 0, ours, rate, row)
        count_request(k, s, 1, 0, theirs, rate, row)
        for pair in range(4):
            count_request(k, s, pair // 2, 1 + pair % 2, s.filled[pair], rate, row)
        for group in range(2):
            decodes = s.filled[2 * group] + s.filled[2 * group + 1]
            reading = ours if group == 0 else theirs
            if together(k):
                count_request(k, s, group, 3, s.many[group] - decodes - reading, rate, row)
                continue
            count_request(k, s, group, 3, s.many[2 + group] - decodes, rate, row)
            if not shares_unread(k):
                count_request(k, s, group, 4, s.many[group] - reading, rate, row)
            elif group == 0:
                count_request(k, s, group, 4, s.many[group] - prefills, rate, row)
        forward(w, s.here)
    return best


@inlined
def forward(w: Window, x: Integers) -> None:
    """To the next state of the box."""
    c = COORDINATES - 1
    while c >= 0:
        x[c] += 1
        if x[c] < w.low[c] + w.size[c]:
            return
        x[c] = w.low[c]
        c -= 1


def _lead(k: Network, w: Window, s: Scratch, to: Integers, added: Array) -> None:
    """Where each move leads from each state of the box, and what the straight lines add; shapes (MOVES, states)."""
    for c in range(COORDINATES):
        s.here[c] = w.low[c]
    for number in range(w.value.size):
        for kind in range(MOVES):
            move(k, s.here, kind - kind % 2, kind % 2, 1)
            to[kind, number] = place_of(w, s.here)
            added[kind, number] = beyond(w, s.here)
            move(k, s.here, kind - kind % 2, kind % 2, -1)
        forward(w, s.here)


def _sweep(rates: Array, to: Integers, reward: Array, gain: float, value: Array, down: bool) -> float:
    """One Gauss-Seidel sweep of `value = (reward - gain + sum of rate times value there)/(sum of rates)`.

    Returns how far apart the changes of the values are.
    """
    least, most = np.inf, -np.inf
    for step in range(value.size):
        s = value.size - 1 - step if down else step
        total, out = reward[s] - gain, 0.0
        for kind in range(MOVES):
            rate = rates[s, kind]
            if rate > 0.0 and to[kind, s] != s:
                total += rate * value[to[kind, s]]
                out += rate
        if out > 0.0:
            change = total / out - value[s]
            value[s] += change
            least, most = min(least, change), max(most, change)
    return most - least


greatest = kept(_greatest)
sweep = kept(_sweep)
improve = kept(_improve)
lead = kept(_lead)
