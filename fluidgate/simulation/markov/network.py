"""The memory of the Markov network: seats on GPUs, nodes in queues, and who is where.

A request waits in a *node* of a queue and is served in a *seat* of a GPU. At any time it belongs to one stage and one
class; the members of a (stage, class) stand in one run of an array, so that one of them is drawn uniformly, added
or removed in constant time.
"""

from typing import Any, NamedTuple

import numpy as np

# Stages. The first three are queues (members are nodes), the others service (members are seats).
PREFILL_QUEUE = 0
MIXED_QUEUE = 1  # decode buffer 0: the only one, or that of the mixed group
SOLO_QUEUE = 2  # decode buffer 1
PREFILL = 3
MIXED_DECODE = 4
SOLO_DECODE = 5
STAGES = 6
QUEUES = 3

# Rows of `Network.events`, counts since the start of the window.
ARRIVAL = 0
PREFILL_START = 1
PREFILL_END = 2
DECODE_START = 3
DECODE_END = 4
PREFILL_ABANDONMENT = 5
DECODE_ABANDONMENT = 6
EVENTS = 7

# Rows of `Network.seconds`, sums since the start of the window.
TTFT = 0  # from arrival to prefill end, over prefill ends
DECODE_WAIT = 1  # in the decode buffer, over decode starts
DECODE_SERVICE = 2  # of decode service, over decode ends
SECONDS = 3

# Entries of `Network.clock`.
NOW = 0
NEXT_ARRIVAL = 1
NEXT_SAMPLE = 2
NEXT_CUT = 3
CLOCK = 4

# Entries of `Network.tally`.
FREE_NODE = 0  # first free node, NONE if none
IN_WINDOW = 1
SAMPLES_TAKEN = 2
TOTAL_EVENTS = 3
AUDIT_CODE = 4
CUTS_MADE = 5
TALLY = 6

# Values of `tally[AUDIT_CODE]` beyond those of the audit: what a policy may not answer.
BAD_GATE = 10
BAD_ROUTE = 11
BAD_REFILL = 12

NONE = -1

SEAT = np.dtype([("since", "f8"), ("position", "i4"), ("cls", "i4")])
GPU = np.dtype(
    [
        ("prefill_seat", "i4"),
        ("free_seat", "i4"),  # first free seat; a free seat's `position` names the next
        ("occupied", "i4"),
        ("mixed", "i4"),  # whether its decodes run at the mixed speed
        ("group", "i4"),  # 0 for the mixed group, 1 for the solo group
        ("decode_position", "i4"),  # in `decode_ready`, NONE if it is not there
        ("prefill_position", "i4"),  # in `prefill_ready`, NONE if it is not there
        ("beside_position", "i4"),  # in `beside_ready`, NONE if it is not there
    ],
    align=True,
)
NODE = np.dtype([("since", "f8"), ("position", "i4"), ("previous", "i4"), ("next", "i4"), ("cls", "i4")])


class Network(NamedTuple):
    """State and statistics of one replication; every array is written by the kernel.

    Attributes:
        gpus, batch_size: n and B.
        mixed_gpus: GPUs 0..mixed_gpus-1 form the mixed group, the rest the solo group.
        reserve: whether a mixed GPU keeps a slot for a prefill.
        warmup, horizon, sample_interval, cut_interval: s.
        arrival_rate: of the whole cluster, 1/s.
        gap_shape: shape of the Gamma distribution of the gaps between arrivals; 1 for a Poisson process.
        class_edges: cumulative share of the classes among the arrivals, shape (classes,).
        rates: 1/s for each member of (stage, class), shape (6, classes).
        counts: members of (stage, class), int64, shape (6, classes).
        since: epoch of the head of each queue, inf if empty, shape (3, classes).
        head, tail: first and last node of each queue, shape (3, classes).
        start, room: run of each (stage, class) in its stage's members, shape (6, classes).
        queue_members, prefill_members, decode_members: shape (3 or 1 or 2, length).
        seats: shape (gpus * batch_size,); seat s stands on GPU s // batch_size.
        gpu: shape (gpus,).
        nodes: shape (grows,).
        free, startable, beside: sizes of `decode_ready` by group, of `prefill_ready` and of `beside_ready`.
        decode_ready, prefill_ready, beside_ready: GPUs with a free decode slot, shape (2 groups, gpus), GPUs where a
            prefill could start, and GPUs with a free slot beside a prefill.
        clock, tally: see the constants.
        area: minus the sum over changes of (change * time since warm-up): with the last count it gives the time
            integral of `counts`; shape (6, classes).
        base: `counts` at the start of the window.
        events, seconds: see the constants, shapes (7, classes) and (3, classes).
        samples: `counts` at multiples of `sample_interval`, shape (samples, 6, classes).
        cut_area, cut_events: time integrals of `counts`, and `events`, from warm-up to the cuts, which lie
            `cut_interval` apart; shapes (cuts, 6, classes) and (cuts, 7, classes).
        scratch: for the audit, like `counts`.
    """

    gpus: int
    batch_size: int
    mixed_gpus: int
    reserve: bool
    warmup: float
    horizon: float
    sample_interval: float
    cut_interval: float
    arrival_rate: float
    gap_shape: float
    class_edges: Any
    rates: Any
    counts: Any
    since: Any
    head: Any
    tail: Any
    start: Any
    room: Any
    queue_members: Any
    prefill_members: Any
    decode_members: Any
    seats: Any
    gpu: Any
    nodes: Any
    free: Any
    startable: Any
    beside: Any
    decode_ready: Any
    prefill_ready: Any
    beside_ready: Any
    clock: Any
    tally: Any
    area: Any
    base: Any
    events: Any
    seconds: Any
    samples: Any
    cut_area: Any
    cut_events: Any
    scratch: Any


SLACK = 16  # spare places of a run beyond twice its members


def empty_network(
    *,
    gpus: int,
    batch_size: int,
    mixed_gpus: int,
    reserve: bool,
    warmup: float,
    horizon: float,
    arrival_rates: Any,
    rates: Any,
    gap_shape: float = 1.0,
    samples: int = 0,
    batches: int = 1,
    nodes: int = 1024,
) -> Network:
    """An empty cluster at time 0.

    Args:
        arrival_rates: requests/s of the whole cluster, shape (classes,).
        rates: 1/s for each member of (stage, class), shape (6, classes).
        gap_shape: shape of the Gamma distribution of the gaps between arrivals.
        samples: how many times `counts` is recorded, evenly over the horizon, first at time 0.
        batches: equal parts that the window is cut into.
        nodes: waiting requests there is room for at first; `with_more_nodes` makes more.
    """
    classes = len(arrival_rates)
    seats = gpus * batch_size
    total = float(np.sum(arrival_rates))

    seat = np.zeros(seats, SEAT)
    seat["cls"] = NONE
    seat["position"] = np.where((np.arange(seats) + 1) % batch_size == 0, NONE, np.arange(seats) + 1)
    gpu = np.zeros(gpus, GPU)
    gpu["prefill_seat"] = NONE
    gpu["free_seat"] = np.arange(gpus) * batch_size

    ready = np.arange(gpus, dtype=np.int32)
    decode_slots = batch_size - 1 if reserve else batch_size
    gpu["group"] = ready >= mixed_gpus
    gpu["decode_position"] = np.where(ready < mixed_gpus, ready, ready - mixed_gpus)
    gpu["beside_position"] = NONE
    gpu["prefill_position"][:] = NONE
    gpu["prefill_position"][:mixed_gpus] = ready[:mixed_gpus]
    free = np.array([mixed_gpus, gpus - mixed_gpus], dtype=np.int64)
    if decode_slots == 0:
        gpu["decode_position"][:mixed_gpus] = NONE
        free[0] = 0

    first_cut = warmup + (horizon - warmup) / batches if batches > 1 else np.inf

    network = Network(
        gpus=gpus,
        batch_size=batch_size,
        mixed_gpus=mixed_gpus,
        reserve=reserve,
        warmup=float(warmup),
        horizon=float(horizon),
        sample_interval=horizon / (samples - 1) if samples > 1 else np.inf,
        cut_interval=(horizon - warmup) / batches,
        arrival_rate=total,
        gap_shape=float(gap_shape),
        class_edges=np.cumsum(np.asarray(arrival_rates, dtype=np.float64)) / total,
        rates=np.ascontiguousarray(rates, dtype=np.float64),
        counts=np.zeros((STAGES, classes), np.int64),
        since=np.full((QUEUES, classes), np.inf),
        head=np.full((QUEUES, classes), NONE, np.int64),
        tail=np.full((QUEUES, classes), NONE, np.int64),
        start=np.zeros((STAGES, classes), np.int64),
        room=np.zeros((STAGES, classes), np.int64),
        queue_members=np.zeros((QUEUES, 0), np.int32),
        prefill_members=np.zeros((1, 2 * gpus + 2 * SLACK * classes), np.int32),
        decode_members=np.zeros((2, 2 * seats + 2 * SLACK * classes), np.int32),
        seats=seat,
        gpu=gpu,
        nodes=np.zeros(0, NODE),
        free=free,
        startable=np.array([mixed_gpus], np.int64),
        beside=np.zeros(1, np.int64),
        decode_ready=np.stack([ready, ready + np.int32(mixed_gpus)]),
        prefill_ready=ready.copy(),
        beside_ready=ready.copy(),
        clock=np.array([0.0, np.nan, 0.0 if samples > 1 else np.inf, first_cut]),
        tally=np.array([NONE, 0, 0, 0, 0, 0], np.int64),
        area=np.zeros((STAGES, classes)),
        base=np.zeros((STAGES, classes), np.int64),
        events=np.zeros((EVENTS, classes), np.int64),
        seconds=np.zeros((SECONDS, classes)),
        samples=np.zeros((samples if samples > 1 else 0, STAGES, classes), np.int64),
        cut_area=np.zeros((batches - 1, STAGES, classes)),
        cut_events=np.zeros((batches - 1, EVENTS, classes), np.int64),
        scratch=np.zeros((STAGES, classes), np.int64),
    )
    return with_more_nodes(network, nodes)


def with_more_nodes(network: Network, more: int) -> Network:
    """The same network with room for `more` further waiting requests."""
    old = len(network.nodes)
    nodes = np.zeros(old + more, NODE)
    nodes[:old] = network.nodes
    nodes["next"][old:] = np.append(np.arange(old + 1, old + more), network.tally[FREE_NODE])
    network.tally[FREE_NODE] = old
    classes = network.counts.shape[1]
    members = np.zeros((QUEUES, 2 * (old + more) + 2 * SLACK * classes), np.int32)
    members[:, : network.queue_members.shape[1]] = network.queue_members
    return network._replace(nodes=nodes, queue_members=members)
