"""The memory of the Markov network: seats on GPUs, nodes in queues, and who is where.

A request waits in a *node* of a queue and is served in a *seat* of a GPU. At any time it belongs to one stage and one
class; the members of a (stage, class) stand in one run of an array, so that one of them is drawn uniformly, added
or removed in constant time.
"""

from typing import Any, NamedTuple

import numpy as np

from fluidgate.policies.decisions import stages
from fluidgate.policies.decisions.board import GPU_FIELDS, Board, Functions, new_board
from fluidgate.simulation import events

# Rows of `Network.seconds`, sums since the start of the window.
TTFT = 0  # from arrival to prefill end, over prefill ends
DECODE_WAIT = 1  # in the decode buffer, over decode starts
DECODE_SERVICE = 2  # of decode service, over decode ends
SECONDS = 3

# Entries of `Network.clock`.
NOW = 0
NEXT_ARRIVAL = 1  # nan until the next is read off `arrivals`
NEXT_SAMPLE = 2
NEXT_CUT = 3
CLOCK = 4

# Entries of `Network.tally`.
FREE_NODE = 0  # first free node, NONE if none
IN_WINDOW = 1
SAMPLES_TAKEN = 2
TOTAL_EVENTS = 3
CUTS_MADE = 4
CURSOR = 5  # next row of `arrivals`
TALLY = 6

NONE = -1

SEAT = np.dtype([("since", "f8"), ("position", "i4"), ("cls", "i4")])
GPU = np.dtype(
    [
        *GPU_FIELDS,
        ("free_seat", "i4"),  # first free seat; a free seat's `position` names the next
    ],
    align=True,
)
NODE = np.dtype([("since", "f8"), ("position", "i4"), ("previous", "i4"), ("next", "i4"), ("cls", "i4")])
ARRIVAL_DRAW = np.dtype([("gap", "f8"), ("mark", "f8")])
"""An arrival to come: s after the one before, and a uniform number that says its class."""


class Network(NamedTuple):
    """State and statistics of one replication; every array is written by the kernel.

    Attributes:
        gpus, batch_size: n and B.
        board: what the policy decides on; its arrays are `counts`, `since` and `gpu`.
        warmup, horizon, sample_interval, cut_interval: s.
        arrivals: those to come, dtype ARRIVAL_DRAW; whoever runs the kernel fills it anew when it is used up.
        services: state of the random numbers of completions and abandonments.
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
        clock, tally: see the constants.
        area: minus the sum over changes of (change * time since warm-up): with the last count it gives the time
            integral of `counts`; shape (6, classes).
        base: `counts` at the start of the window.
        events, seconds: see `fluidgate.simulation.events` and the constants, shapes (7, classes) and (3, classes).
        samples: `counts` at multiples of `sample_interval`, shape (samples, 6, classes).
        cut_area, cut_events: time integrals of `counts`, and `events`, from warm-up to the cuts, which lie
            `cut_interval` apart; shapes (cuts, 6, classes) and (cuts, 7, classes).
        scratch: for the audit, like `counts`.
    """

    gpus: int
    batch_size: int
    board: Board
    warmup: float
    horizon: float
    sample_interval: float
    cut_interval: float
    arrivals: Any
    services: Any
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


ARRIVALS = 4096
"""Arrivals drawn at a time."""

SLACK = 16  # spare places of a run beyond twice its members


def empty_network(
    *,
    gpus: int,
    batch_size: int,
    mixed_gpus: int,
    reserve: bool,
    ranked: bool = False,
    warmup: float,
    horizon: float,
    arrival_rates: Any,
    rates: Any,
    services: Any,
    draws: Any,
    functions: Functions,
    samples: int = 0,
    batches: int = 1,
    nodes: int = 1024,
) -> Network:
    """An empty cluster at time 0.

    Args:
        arrival_rates: requests/s of the whole cluster, shape (classes,).
        rates: 1/s for each member of (stage, class), shape (6, classes).
        services, draws: states of random numbers, see `Network` and `Board`.
        functions: a user's decision functions.
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
    gpu["free_seat"] = np.arange(gpus) * batch_size
    counts = np.zeros((stages.STAGES, classes), np.int64)
    since = np.full((stages.QUEUES, classes), np.inf)
    board = new_board(
        gpu,
        batch_size=batch_size,
        mixed_gpus=mixed_gpus,
        reserve=reserve,
        ranked=ranked,
        counts=counts,
        since=since,
        draws=draws,
        functions=functions,
    )
    first_cut = warmup + (horizon - warmup) / batches if batches > 1 else np.inf

    network = Network(
        gpus=gpus,
        batch_size=batch_size,
        board=board,
        warmup=float(warmup),
        horizon=float(horizon),
        sample_interval=horizon / (samples - 1) if samples > 1 else np.inf,
        cut_interval=(horizon - warmup) / batches,
        arrivals=np.zeros(ARRIVALS, ARRIVAL_DRAW),
        services=services,
        class_edges=np.cumsum(np.asarray(arrival_rates, dtype=np.float64)) / total,
        rates=np.ascontiguousarray(rates, dtype=np.float64),
        counts=counts,
        since=since,
        head=np.full((stages.QUEUES, classes), NONE, np.int64),
        tail=np.full((stages.QUEUES, classes), NONE, np.int64),
        start=np.zeros((stages.STAGES, classes), np.int64),
        room=np.zeros((stages.STAGES, classes), np.int64),
        queue_members=np.zeros((stages.QUEUES, 0), np.int32),
        prefill_members=np.zeros((1, 2 * gpus + 2 * SLACK * classes), np.int32),
        decode_members=np.zeros((2, 2 * seats + 2 * SLACK * classes), np.int32),
        seats=seat,
        gpu=gpu,
        nodes=np.zeros(0, NODE),
        clock=np.array([0.0, np.nan, 0.0 if samples > 1 else np.inf, first_cut]),
        tally=np.array([NONE, 0, 0, 0, 0, ARRIVALS], np.int64),
        area=np.zeros((stages.STAGES, classes)),
        base=np.zeros((stages.STAGES, classes), np.int64),
        events=np.zeros((events.IN_MARKOV, classes), np.int64),
        seconds=np.zeros((SECONDS, classes)),
        samples=np.zeros((samples if samples > 1 else 0, stages.STAGES, classes), np.int64),
        cut_area=np.zeros((batches - 1, stages.STAGES, classes)),
        cut_events=np.zeros((batches - 1, events.IN_MARKOV, classes), np.int64),
        scratch=np.zeros((stages.STAGES, classes), np.int64),
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
    members = np.zeros((stages.QUEUES, 2 * (old + more) + 2 * SLACK * classes), np.int32)
    members[:, : network.queue_members.shape[1]] = network.queue_members
    return network._replace(nodes=nodes, queue_members=members)
