"""The memory of the iteration model: GPUs, live requests, the lines they stand in, and what is measured.

A request is a row of `live` from its arrival to its end. A decode is touched when it joins its GPU's batch and when it
leaves it: its last iteration is known when it joins, and stands in a heap of that GPU.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fluidgate.compiled.tournament import tournament
from fluidgate.errors import FluidgateError
from fluidgate.policies.decisions import stages
from fluidgate.policies.decisions.board import GPU_FIELDS, NOWHERE, Board, Functions, new_board
from fluidgate.policies.decisions.edpp import Edpp, no_edpp
from fluidgate.policies.decisions.homes import Places, new_places
from fluidgate.policies.decisions.placement import Criteria, Loads, Ranks, new_loads, new_ranks
from fluidgate.policies.decisions.tables import Placement
from fluidgate.replanning.estimates import ESTIMATE
from fluidgate.simulation import events
from fluidgate.simulation.iteration.times import TIMES
from fluidgate.workloads.streams import NO_SCRIPT, Script
from fluidgate.workloads.streams.script import no_pieces

# Rows of `Cluster.tokens`, cumulative.
PROMPT_READ = 0  # prompts whose (first) prefill has ended
PROMPT_SERVED = 1  # prompts of completed requests
OUTPUT_SERVED = 2  # outputs of completed requests
PROMPT_ADMITTED = 3  # prompts that have been given memory, the first time
PROMPT_FOUND = 4  # of those what was there already
TOKENS = 5

# Rows of `Cluster.mode_seconds`, over all GPUs, in the window.
SOLO_TIME = 0
MIXED_TIME = 1
PREFILL_TIME = 2  # a chunk and no decode beside it
KV_TIME = 3  # tokens held times seconds
MODES = 4

# Rows of `Cluster.tops`.
KV_PEAK = 0  # most tokens held by one GPU at the start of an iteration

# Entries of `Cluster.clock`.
NOW = 0
NEXT_SAMPLE = 1
UNTIL = 2  # the kernel pauses there, inf for never
RELEASE = 3  # of a class that waits for a limit, as known before an event that decided nothing; else inf
SENT = 4  # when the request that arrives was sent
CLOCK = 5

# Entries of `Cluster.tally`.
FREE_SLOT = 0  # first free row of `live`
CURSOR = 1  # next request of the block
ENDED = 2  # whether the block is the last
NUMBER = 3  # requests arrived
TIMERS = 4  # entries of `timers`
LOGGED = 5  # rows of `log` written
TOTAL_EVENTS = 6
DUE = 7  # GPUs in `due`
SAMPLES_TAKEN = 8
IN_WINDOW = 9
ALIVE = 10
MOST_ALIVE = 11
ITERATIONS = 12
LATE = 13  # whether the event is a landing, an abandonment or a change: the boundaries of its epoch are over
MIXED_GROUP = 14  # GPUs of the mixed group, but for those that are about to leave it
CHANGED = 15  # whether the tables are new
ACCUMULATING = 16  # requests that wait for their threshold
COMPOSER = 17  # the GPU that forms its next batch right now, NOWHERE at other times
ASKED = 18  # whether the policy is asked before anything else happens, see ASK
BARRED = 19  # GPUs where no prefill starts for now, for want of memory
SEGMENTS = 20  # rows of `segments` written
THINKING = 21  # users who think
TURN = 22  # what has happened at this epoch, see `users`
OVER = 23  # under a gate: the boundaries that GPUs below this number had at this epoch are over
FREE_RECORD = 24  # first free row of `cached`
RECORDS = 25  # rows of `cached` in use
USERS = 26  # of a closed loop
SESSIONS = 27  # begun, beside the users'
SENDER = 28  # who has sent the request that arrives: a user, a session, or NOWHERE
LOOKS_IN_VAIN = 29  # at which nothing was left to happen, one after the other
ITERATIONS_THEN = 30  # at the last of them
AWAY = 31  # GPUs that take nothing now, and will
TALLY = 32

# Values of `tally[ASKED]`.
ASK = 1  # memory is free again, or a slot of one that has given way
ASK_FOR_DECODES = 2  # nothing moves, and no prefill has memory: slots kept for prefills are kept in vain

# Lines of a GPU; the policy's queues come before them, see `gpu_line`.
WAITING = 0  # placed here, not admitted yet, FCFS
READING = 1  # prompts in the batch, in order of admission
DECODING = 2  # decodes in the batch, in order of admission (kept where that order matters)
PENDING = 3  # decodes that join at the next boundary, their KV here
FETCHING = 4  # decodes whose KV is elsewhere and comes here as soon as there is memory for it
LINES = 5

# Rows of `Cluster.batch`, decodes of a class on a GPU.
RUNNING = 0  # in the batch
SEATED = 1  # assigned to the GPU: running, pending, or in transit
FRESH = 2  # running since this segment's start, their first gap counted apart
ASSIGNED = 3  # given to the GPU by a policy, their prompts not read yet
GROUPS = 4

# Values of `log["outcome"]`.
COMPLETED = 1
LEFT_PREFILL_QUEUE = 2
LEFT_DECODE_BUFFER = 3
REJECTED = 4

SHELVES = 31
"""Of requests that wait, by the binary logarithm of the tokens that are to be read."""

CALLED = 2
"""Of `along`: the rank forms a batch at the next boundary."""

OUT = 2
"""Group of the GPUs that take nothing, where a policy decides."""

SLOT_BITS = 28
SLOT_MASK = (1 << SLOT_BITS) - 1
"""A heap entry is `last iteration << SLOT_BITS | slot`."""

OCTAVE_BITS = 8
SHIFT = 52 - OCTAVE_BITS
FIRST_BIN = (1023 - 20) << OCTAVE_BITS
BINS = (44 << OCTAVE_BITS) + 2
"""Histograms in time: 256 bins an octave from 2^-20 s to 2^24 s, one bin below (zeros too) and one above."""


# Rows of `Cluster.pool_keys`: the pools, and what a GPU of each is measured by.
PROMPT_POOL = 0
TOKEN_POOL = 1
MIXED_POOL = 2
POOLS = 3
UNREAD = 0  # prompt tokens to be read
BOUND = 1  # requests that decode here, or will
MEASURES = 2


REQUEST_STATE = np.dtype(
    [
        ("sent", "f8"),  # by its client
        ("arrival", "f8"),  # at the engines
        ("think", "f8"),  # of its user when it has left, s
        ("since", "f8"),  # start of its wait in a queue
        ("came", "f8"),  # when it came to stand in the line of its GPU
        ("scheduled", "f8"),  # start of the iteration that read its first chunk, nan before
        ("first", "f8"),  # end of its first token, nan before
        ("last", "f8"),  # end of its last token before a preemption
        ("timer", "f8"),  # epoch at which its patience, or its transfer, ends
        ("patience", "f8"),
        ("number", "i8"),  # in the stream, from 0
        ("joined", "i8"),  # iteration of its GPU at which it joined the batch
        ("cls", "i4"),
        ("prompt", "i4"),
        ("output", "i4"),
        ("unread", "i4"),  # tokens its prefill still has to read; 0 and waiting: swapped out
        ("produced", "i4"),  # output tokens when it joined the decodes
        ("held", "i4"),  # KV tokens it then held
        ("gpu", "i4"),
        ("prefill_gpu", "i4"),
        ("next", "i4"),
        ("previous", "i4"),
        ("timer_position", "i4"),  # in `timers`, NOWHERE if it is not there
        ("preemptions", "i4"),
        ("stage", "i4"),
        ("text", "i4"),  # the piece with which its prompt ends
        ("answer", "i4"),  # the piece that its answer is
        ("then", "i4"),  # row of the script that its session sends next
        ("piece", "i4"),  # record of its text where it waits or holds memory, NOWHERE if there is none
        ("there", "i4"),  # the same where it decodes, while both GPUs hold memory for it
        ("own", "i4"),  # record of blocks that hold what is its own, after a preemption
        ("awaited", "i4"),  # whether it waits where `piece` is, and holds nothing yet
        ("cached", "i4"),  # blocks that it found when it was given memory to be read
        ("loaded", "i4"),  # its tokens among the unread ones of its GPU
        ("decode_gpu", "i4"),  # with pools: where it decodes, NOWHERE while that is open
        ("read_work", "f8"),  # of EDPP: in the backlog of the GPU that reads it for another, s
        ("decode_work", "f8"),  # the same of the GPU where it decodes
        ("found", "i4"),  # tokens of its prompt where most of it was when it came to the policy's queue
        ("shelf", "i4"),  # in the policy's queue, where it is looked for by what is to be read; NOWHERE elsewhere
        ("shelf_next", "i4"),
        ("shelf_previous", "i4"),
        ("accumulating", "i4"),  # whether it waits for the threshold of its class
        (
            "kept",
            "i4",
        ),  # with a limited memory: which GPU keeps its KV, read, until its decode has it
        ("reserved", "i4"),  # whether its GPU holds memory for it before it has joined the batch
        ("user", "i4"),  # or its session, numbered on from the users; NOWHERE without either
    ],
    align=True,
)

GPU = np.dtype(
    [
        *GPU_FIELDS,
        ("origin", "f8"),  # start of the segment's iterations
        ("start", "f8"),  # start of the segment: before the origin where KV is swapped first
        ("first", "f8"),  # s of the segment's first iteration
        ("step", "f8"),  # s that each next one takes more
        ("last_token", "f8"),  # end of the last iteration with decodes
        ("iteration", "i8"),  # iterations with decodes' turn completed before the segment
        ("context", "i8"),  # prompt and output tokens of the decodes, at the segment's start
        ("held", "i8"),  # KV tokens held by prompts in the batch
        ("read", "i8"),  # pairs of a token of the segment's first chunk and one of its prompt read before
        ("blocks", "i8"),  # free blocks of KV memory
        ("first_free", "i4"),  # record of the free blocks that are taken first, NOWHERE if there are none
        ("last_free", "i4"),
        ("prepaid", "i4"),  # blocks taken already for the segment's first iteration
        ("length", "i4"),  # iterations of the segment
        ("chunk", "i4"),  # prompt tokens read in each
        ("batch", "i4"),  # decodes that gain a token in each
        ("decodes", "i4"),  # decodes that hold memory
        ("finished", "i4"),  # requests that have ended and hold memory until the next batch is composed
        ("bound", "i4"),  # requests that decode here, or will
        ("pool", "i4"),
        ("busy", "i4"),
        ("along", "i4"),  # of a rank without a batch: whether its group steps; CALLED if it has somebody to look at
        ("joining", "i4"),  # decodes that have joined the batch, their first token not accounted for yet
        ("told_after", "i4"),  # of a rank: iterations of its segment after which it has reported this, 0 for none
        ("told_waiting", "i4"),
        ("told_running", "i4"),
        ("due", "i4"),  # whether it stands in `due`
        ("reading", "i4"),  # whether its reading has begun
        ("booked", "i4"),  # the class that has booked memory here, NOWHERE if none; of GPUs under a gate
        ("moving", "i4"),  # transfers of KV under way from here and to here, with a limited memory
    ],
    align=True,
)

LINE = np.dtype([("head", "i4"), ("tail", "i4"), ("members", "i4")])

LOG = np.dtype(
    [
        ("number", "i8"),
        ("arrival", "f8"),
        ("scheduled", "f8"),
        ("first_token", "f8"),
        ("last_token", "f8"),
        ("cls", "i4"),
        ("prompt", "i4"),
        ("output", "i4"),
        ("prefill_gpu", "i4"),
        ("decode_gpu", "i4"),
        ("preemptions", "i4"),
        ("outcome", "i4"),
        ("user", "i4"),
    ],
    align=True,
)
"""A finished request: `scheduled` and tokens nan where they never came; `last_token` is when it left, whatever way.

`arrival` and the tokens are as its client sees them, `scheduled` is on the engine's side.
"""

USER = np.dtype([("sends", "f8"), ("number", "i4"), ("row", "i4")], align=True)
"""A user or a session that thinks: when it sends its next request, and which row of the script that is, NOTHING for the
next one of the stream."""

CACHED = np.dtype(
    [
        ("piece", "i4"),  # see `prefixes`
        ("gpu", "i4"),
        ("up", "i4"),  # record of the piece before it, NOWHERE if it is the first
        ("present", "i4"),  # blocks
        ("refs", "i4"),  # who holds it: requests whose text ends with it, and further pieces that are held
        ("ties", "i4"),  # for whom it is there besides: requests that wait for it, and records of further pieces
        ("before", "i4"),  # among the free blocks
        ("after", "i4"),
        ("next_holder", "i4"),  # of the same piece, on another GPU
        ("previous_holder", "i4"),
    ],
    align=True,
)
"""What is there of a piece of text on a GPU."""


SEGMENT = np.dtype(
    [
        ("origin", "f8"),
        ("first", "f8"),
        ("step", "f8"),
        ("context", "i8"),
        ("read", "i8"),
        ("held", "i8"),
        ("gpu", "i4"),
        ("iterations", "i4"),
        ("chunk", "i4"),
        ("decodes", "i4"),
        ("blocks", "i4"),
    ],
    align=True,
)
"""Consecutive iterations of one batch on a GPU: start, s; seconds of the first, and how much each next one takes more;
context of the decodes, and pairs of a token of the chunk and one read before it, in the first; KV tokens held then;
prompt tokens and decodes of each; blocks of KV memory taken at the end."""


class Settings(NamedTuple):
    """What the GPUs and the cluster are, for compiled code.

    Attributes:
        placement: a `Placement`; single-prefill batching has none, its policy decides.
        criteria: numbers of that rule.
        by_policy: whether a policy assigns requests to GPUs, at most one prefill each (single-prefill batching).
        gated: whether a policy assigns requests to GPUs that form their own batches.
        joins_at_once: whether a decode whose prefill has ended is in the very next batch.
        prompt_gpus: size of the prompt pool.
        queue_tokens: unread prompt tokens over which a GPU's queue is long; 0: the pools are fixed.
        drift: whether EDPP decides for each request if the GPU of its decode reads it.
        token_deadline: s between two tokens of a request, for LAST_SCHEDULABLE.
        token_offset: iterations of a whole budget before it at which decodes are critical.
        accumulate: whether requests wait for the threshold of their class.
        gpus: n.
        batch_size: most requests on a GPU, B (`max_num_seqs`).
        tokens: chunk size C, or the budget of an iteration (`max_num_batched_tokens`).
        kv_blocks: blocks of KV memory a GPU; 0 for no limit.
        caching: whether free blocks keep what they hold for whoever can use it.
        prefixes: whether that is every request that begins alike, and not only the one that was preempted.
        keys: those of [engine], see `kernel.keys`.
        warmup, horizon: s; what is measured falls into [warmup, horizon].
        sample_interval: s.
        ordered: whether the decodes of a GPU are kept in order of admission.
    """

    placement: int
    criteria: Criteria
    by_policy: bool
    gated: bool
    joins_at_once: bool
    prompt_gpus: int
    queue_tokens: int
    drift: bool
    token_deadline: float
    token_offset: float
    accumulate: bool
    gpus: int
    batch_size: int
    tokens: int
    kv_blocks: int
    caching: bool
    prefixes: bool
    keys: Any
    warmup: float
    horizon: float
    sample_interval: float
    ordered: bool


class Cluster(NamedTuple):
    """State and statistics of one run; every array is written by the kernel.

    Attributes:
        gpus, batch_size: as in `Settings`.
        set: Settings.
        board: what a policy decides on; its arrays are `counts`, `since` and `gpu`.
        loads: what a rule of placement compares, of each group of ranks in step, or of each GPU.
        ranks: what a front end knows of the ranks of a group.
        edpp: what EDPP goes by, where it decides.
        gpu: shape (n,).
        epochs: next boundary of each GPU, inf if idle, shape (n,); `tree` is the tournament over them.
        live: shape (grows,).
        lines: of the policy, then of the GPUs, then of the front, see `lines`.
        heaps: last iterations of the decodes of a GPU, shape (n, B), int64; those that have finished stand at its end.
        batch: decodes by (GPU, group, class), int32.
        growth: decodes of a GPU that take a new block in the iterations of a residue, int32, shape (n, block_tokens).
        due: GPUs whose iteration has ended at this epoch and that form their next batch once all is decided, int32.
        pool_keys: by pool, measure and GPU, inf where it is in another pool, shape (3, 2, n); `pool_trees` the
            tournaments over them. Without POOLS both are empty.
        thresholds: how many requests of a class wait on a GPU before they are admitted there, shape (classes,).
        booked: GPUs that a class has booked for its oldest, shape (classes,); see `gated`.
        places: what GPUs under a gate hold, as far as it delays others.
        shelves: those in the policy's queue by class and tokens that are to be read, dtype LINE, shape (classes,
            SHELVES), (0, SHELVES) where nobody looks.
        turns: of each class the next there that is asked, int64, shape (classes,); `looked_at`, how many have been.
        users: dtype USER, those who think, a heap; shape (0,) where requests come by themselves.
        pieces, script: of the stream, see `fluidgate.workloads.streams.Script`.
        holders: a record of each piece on some GPU, first of a list, NOWHERE if there is none, int32.
        cached: dtype CACHED, shape (grows,); `table`, where they are found, int32, twice as long at least.
        record_margin: rows of `cached` that one event may take.
        timers: requests by epoch of their timer, a heap, int32.
        counts, since: members of (stage, class), and epoch of the head of each queue; as in the Markov network.
        clock, tally: see the constants.
        area: as in the Markov network, shape (6, classes).
        events, tokens: cumulative, shapes (events.EVENTS, classes) and (TOKENS, classes).
        events_before, tokens_before: the same when the window opened.
        histogram: of each time of `TIMES`, shape (times, classes, BINS); seconds: sums, shape (times, classes).
        mode_seconds: shape (MODES,); tops: shape (1,).
        targets: TTFT and TPOT in s, inf for none, shape (2, classes).
        samples: `counts` at multiples of the interval, shape (samples, 6, classes).
        log: finished requests, shape (room,); room 0 for none.
        segments: what ran, shape (room,); room 0 for none.
        estimates: dtype ESTIMATE, shape (classes,), or (0,) if nothing is estimated.
    """

    gpus: int
    batch_size: int
    set: Settings
    board: Board
    loads: Loads
    ranks: Ranks
    edpp: Edpp
    gpu: Any
    epochs: Any
    tree: Any
    live: Any
    lines: Any
    heaps: Any
    batch: Any
    growth: Any
    due: Any
    pool_keys: Any
    pool_trees: Any
    thresholds: Any
    booked: Any
    places: Places
    shelves: Any
    turns: Any
    looked_at: Any
    users: Any
    pieces: Any
    script: Any
    holders: Any
    cached: Any
    table: Any
    record_margin: int
    timers: Any
    counts: Any
    since: Any
    clock: Any
    tally: Any
    area: Any
    events: Any
    tokens: Any
    events_before: Any
    tokens_before: Any
    histogram: Any
    seconds: Any
    mode_seconds: Any
    tops: Any
    targets: Any
    samples: Any
    log: Any
    segments: Any
    estimates: Any


def empty_cluster(
    settings: Settings,
    classes: int,
    *,
    draws: Any,
    functions: Functions,
    mixed_gpus: int | None = None,
    reserve: bool = False,
    ranked: bool = False,
    targets: Any = None,
    thresholds: Any = None,
    samples: int = 0,
    log: int = 0,
    live: int = 1024,
    users: int = 0,
    edpp: Edpp | None = None,
    script: Script = NO_SCRIPT,
) -> Cluster:
    """An idle cluster at time 0.

    Args:
        draws: state of the random numbers of placements and class draws, uint64, shape (4,).
        functions: a user's decision functions.
        mixed_gpus, reserve, ranked: of the policy at the start, as in `new_board`; all GPUs if None.
        targets: TTFT and TPOT in s, shape (2, classes); none if None.
        thresholds: as in `Cluster`; all 1 if None.
        samples: how many times `counts` is recorded at most.
        log: rows of the request log kept until the caller takes them; 0 for no log.
        live: requests there is room for at first; `with_more_room` makes more.
        edpp: where EDPP decides.
        users: of a closed loop, who all send their first request at once; 0 where requests come by themselves.
        script: what the requests refer to.
    """
    n, size = settings.gpus, settings.batch_size
    gpu = np.zeros(n, GPU)
    gpu["blocks"] = settings.kv_blocks
    gpu["first_free"] = gpu["last_free"] = gpu["booked"] = NOWHERE
    mixed = n if mixed_gpus is None else mixed_gpus
    counts = np.zeros((stages.STAGES, classes), np.int64)
    since = np.full((stages.QUEUES, classes), np.inf)
    board = new_board(
        gpu,
        batch_size=size,
        mixed_gpus=mixed,
        reserve=reserve,
        ranked=ranked,
        counts=counts,
        since=since,
        draws=draws,
        functions=functions,
    )
    if settings.gated:  # who waits on a GPU waits for its prefill, but no longer in the policy's queue
        state = board.state._replace(waiting=np.zeros(classes, np.int64), prefilling=np.zeros(classes, np.int64))
        board = board._replace(state=state)
    lines = np.zeros(stages.QUEUES * classes + LINES * n + (n * classes if settings.accumulate else 0) + 1, LINE)
    lines["head"] = lines["tail"] = NOWHERE
    tree = tournament(n)
    pool_keys, pool_trees = empty_pools(settings, gpu)
    tally = np.zeros(TALLY, np.int64)
    tally[FREE_SLOT] = tally[COMPOSER] = tally[FREE_RECORD] = NOWHERE
    tally[MIXED_GROUP] = mixed
    tally[THINKING] = tally[USERS] = users
    pieces = script.pieces if settings.prefixes else no_pieces()
    cluster = Cluster(
        gpus=n,
        batch_size=size,
        set=settings,
        board=board,
        loads=new_loads(Placement(settings.placement), n // settings.keys.data_parallel, draws, settings.criteria),
        ranks=new_ranks(n, settings.keys.data_parallel),
        edpp=edpp or no_edpp(),
        gpu=gpu,
        epochs=np.full(n, np.inf),
        tree=tree,
        live=np.zeros(0, REQUEST_STATE),
        lines=lines,
        heaps=np.zeros((n, size), np.int64),
        batch=np.zeros((n, GROUPS, classes), np.int32),
        growth=np.zeros((n, settings.keys.kv_block if settings.kv_blocks > 0 else 0), np.int32),
        due=np.zeros(n, np.int32),
        pool_keys=pool_keys,
        pool_trees=pool_trees,
        thresholds=np.ones(classes, np.int64) if thresholds is None else np.asarray(thresholds, np.int64).copy(),
        booked=np.zeros(classes, np.int64),
        places=new_places(n if settings.gated else 1),
        shelves=empty_shelves(classes if settings.gated and settings.prefixes else 0),
        turns=np.full(classes, NOWHERE, np.int64),
        looked_at=np.zeros(classes, np.int64),
        users=first_users(users, len(script.rows) - 1),
        pieces=pieces,
        script=np.ascontiguousarray(script.rows),
        holders=np.full(len(pieces), NOWHERE, np.int32),
        cached=np.zeros(0, CACHED),
        table=np.full(1, NOWHERE, np.int32),
        record_margin=record_margin(settings, pieces),
        timers=np.zeros(0, np.int32),
        counts=counts,
        since=since,
        clock=np.array([0.0, 0.0 if samples > 0 else np.inf, np.inf, np.inf, 0.0]),
        tally=tally,
        area=np.zeros((stages.STAGES, classes)),
        events=np.zeros((events.EVENTS, classes), np.int64),
        tokens=np.zeros((TOKENS, classes), np.int64),
        events_before=np.zeros((events.EVENTS, classes), np.int64),
        tokens_before=np.zeros((TOKENS, classes), np.int64),
        histogram=np.zeros((len(TIMES), classes, BINS), np.int64),
        seconds=np.zeros((len(TIMES), classes)),
        mode_seconds=np.zeros(MODES),
        tops=np.zeros(1),
        targets=np.full((2, classes), np.inf) if targets is None else np.asarray(targets, np.float64).copy(),
        samples=np.zeros((samples, stages.STAGES, classes), np.int64),
        log=np.zeros(log + size + 2 if log > 0 else 0, LOG),
        segments=np.zeros(0, SEGMENT),
        estimates=np.zeros(0, ESTIMATE),
    )
    if settings.caching:
        cluster = with_more_records(cluster, 2 * cluster.record_margin + n)
        if settings.kv_blocks > 0:
            hold_nothing(cluster)
    return with_more_room(cluster, live)


def empty_shelves(classes: int) -> Any:
    shelves = np.zeros((classes, SHELVES), LINE)
    shelves["head"] = shelves["tail"] = NOWHERE
    return shelves


def first_users(count: int, sessions: int) -> Any:
    """So many users, who send at time 0, and room for so many sessions that think beside them."""
    users = np.zeros(count + sessions, USER)
    users["number"][:count] = np.arange(count)
    return users


def record_margin(settings: Settings, pieces: Any) -> int:
    """Records that are made in one event at the most: of the texts of all requests that it may place or admit."""
    if not settings.caching:
        return 0
    depth, piece = 0, pieces["parent"][pieces["end"] > 0]
    while len(piece) > 0:
        depth += 1
        piece = pieces["parent"][piece[piece > 0]]
    admitted = min(settings.batch_size, settings.tokens) * settings.keys.data_parallel
    return (max(admitted, settings.gpus) + 1) * (depth + 3)


def hold_nothing(cluster: Cluster) -> None:
    """All blocks of all GPUs are free, and hold nothing."""
    for g in range(cluster.gpus):
        record = cluster.cached[cluster.tally[FREE_RECORD]]
        cluster.gpu[g]["first_free"] = cluster.gpu[g]["last_free"] = cluster.tally[FREE_RECORD]
        cluster.tally[FREE_RECORD] = record["after"]
        record["gpu"], record["present"] = g, cluster.set.kv_blocks
        record["up"] = record["before"] = record["after"] = NOWHERE
    cluster.tally[RECORDS] += cluster.gpus


def with_more_records(cluster: Cluster, more: int) -> Cluster:
    """The same cluster with room for so many more records of what is in memory."""
    old = len(cluster.cached)
    cached = np.zeros(old + more, CACHED)
    cached[:old] = cluster.cached
    cached["gpu"][old:] = NOWHERE
    cached["after"][old:] = np.append(np.arange(old + 1, old + more), cluster.tally[FREE_RECORD])
    cluster.tally[FREE_RECORD] = old
    table = np.full(1 << (2 * len(cached) - 1).bit_length(), NOWHERE, np.int32)
    waiting = np.flatnonzero((cached["piece"] > 0) & (cached["gpu"] != NOWHERE)).astype(np.int64)
    cell = cells_of(cached["piece"][waiting], cached["gpu"][waiting], len(table))
    while len(waiting) > 0:  # each the first that comes to a free cell, the others one further
        free = np.flatnonzero(table[cell] == NOWHERE)
        _, first = np.unique(cell[free], return_index=True)
        table[cell[free[first]]] = waiting[free[first]]
        left = np.ones(len(waiting), bool)
        left[free[first]] = False
        waiting, cell = waiting[left], (cell[left] + 1) % len(table)
    return cluster._replace(cached=cached, table=table)


def cells_of(piece: Any, gpu: Any, cells: int) -> Any:
    """As `prefixes.cell_of`, of many."""
    mixed = piece.astype(np.int64) * 0x9E3779B1 + gpu.astype(np.int64) * 0x85EBCA6B
    return (mixed ^ (mixed >> 17)) & (cells - 1)


def empty_pools(settings: Settings, gpu: Any) -> tuple[Any, Any]:
    """`pool_keys` and `pool_trees` of an idle cluster, whose GPUs enter the pools."""
    if settings.placement != Placement.POOLS:
        return np.zeros((POOLS, MEASURES, 0)), np.zeros((POOLS, MEASURES, 0), np.int32)
    n, prompts = settings.gpus, settings.prompt_gpus
    gpu["pool"] = np.where(np.arange(n) < prompts, PROMPT_POOL, TOKEN_POOL)
    keys = np.full((POOLS, MEASURES, n), np.inf)
    keys[PROMPT_POOL, :, :prompts] = keys[TOKEN_POOL, :, prompts:] = 0.0
    trees = np.tile(tournament(n), (POOLS, MEASURES, 1))
    # the other pools' GPUs have no key: the first of the token pool wins there
    half = trees.shape[2] // 2
    for node in range(half - 1, 0, -1):
        left, right = trees[TOKEN_POOL, :, 2 * node], trees[TOKEN_POOL, :, 2 * node + 1]
        trees[TOKEN_POOL, :, node] = np.where(left >= prompts, left, right)
    return keys, trees


def with_more_room(cluster: Cluster, more: int) -> Cluster:
    """The same cluster with room for `more` further live requests.

    Raises:
        FluidgateError: the cluster holds more requests than can be numbered.
    """
    old = len(cluster.live)
    if old + more > SLOT_MASK:
        raise FluidgateError(
            f"{old:,} requests are in the cluster at once: it is overloaded; add GPUs or lower the load"
        )
    live = np.zeros(old + more, REQUEST_STATE)
    live[:old] = cluster.live
    live["next"][old:] = np.append(np.arange(old + 1, old + more), cluster.tally[FREE_SLOT])
    live["stage"][old:] = NOWHERE
    cluster.tally[FREE_SLOT] = old
    timers = np.zeros(old + more, np.int32)
    timers[:old] = cluster.timers
    return cluster._replace(live=live, timers=timers)
