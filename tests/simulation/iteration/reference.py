"""The iteration model in plain Python, every iteration of every GPU stepped: what the kernels must agree with.

Written from the rules, not from the kernels: tokens are counted one by one, memory is allotted request by request in
the order of the batch, occupancies are counted anew at every event.

With `prefix_caching` every block is an object with its content (tests/simulation/iteration/blocks.py). What the rules
leave open is settled here so:

- Two blocks never have the same content: who ends or is preempted leaves nothing that is there already.
- Of those that end with one iteration the first that arrived gives its memory back first.
- What a preempted request has left of its own holds nothing once it is given memory on another GPU.
- A request leaves nothing of its own where it was read, once it decodes elsewhere.
- A preempted prefill leaves what it has read and what it has found, the last block of a full match too.
- A preempted request that waits counts as unread with all of its tokens, until it is admitted again.
- A gate counts who waits on a GPU with the whole prompt; pools compare a queue, unread tokens, with a whole prompt.
- A GPU of the mixed pool goes home when an iteration ends without work of the other kind left, before the next batch is
  formed: who is preempted then, and is to be read again, does not keep it.
- Of ranks in step a group has of a prompt what that rank has that has most.
- Who has run idle with asynchronous scheduling composes at once again for one that it would admit, or that waits first,
  and that has come too late for it; not for one who stands behind somebody else.
- KV counts as held once for each request that holds it (`kv_seconds`), shared or not.
- A request is admitted, where its hits are counted, when its memory is set aside.

At one epoch those of the stream come before those that sessions send. Among these the heap's order is that of (epoch
of sending, number of the session): a session of a user has the user's number; others are numbered from `users` on as
they start, those of the stream when their first request comes, those set off by a request when that comes, one after
the other, before anything becomes of it.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fluidgate.simulation.iteration.kernel.fleet import CLOSE, OPEN
from fluidgate.workloads.streams import NO_SCRIPT, Script
from tests.oracles.edpp import PlainEdpp
from tests.oracles.limits import Pace, VirtualQueues
from tests.oracles.placements import Place, choose
from tests.simulation.iteration.blocks import Block, Content, Store

FIRST, ARRIVAL, TRANSFER, BOUNDARY, COMPOSE, LANDING, PATIENCE, ANSWER, CHANGE, FLEET, RELEASE = range(-1, 10)
PREFILL_QUEUE, MIXED_BUFFER, SOLO_BUFFER, PREFILL, MIXED_DECODE, SOLO_DECODE, GONE = range(7)


@dataclass(eq=False)
class Request:
    number: int
    sent: float  # by its client
    cls: int
    prompt: int
    output: int
    patience: float
    think: float = 0.0
    text: int = 0
    answer: int = 0
    then: int = 0
    spawns: int = 0
    beside: int = 0
    session: int = -1
    arrival: float = math.inf  # at the engines, once it is there
    user: int = -1
    stage: int = PREFILL_QUEUE
    written: int = 0  # output tokens
    to_read: int = 0
    whole: int = 0  # tokens its current prefill reads
    blocks: int = 0
    since: float = 0.0
    came: float = 0.0  # to the line of its GPU
    wait: int = 0  # how many times it has begun to wait: an old patience event is void
    scheduled: float = math.nan
    first: float = math.nan
    last: float = math.nan
    prefill_gpu: int = -1
    gpu: int = -1
    preemptions: int = 0
    outcome: int = 0
    left: float = math.nan
    swapped: bool = False
    landed: bool = False  # came from another GPU: joins as if it had been swapped out, in no time
    decodes_on: int = -1
    reader: int = -1  # of EDPP, and its work there and where it decodes, and whether that has begun
    works: tuple[float, float] = (0.0, 0.0)
    begun: dict[int, bool] = field(default_factory=dict)
    home: Gpu | None = None  # with limited memory: who holds its KV until its decode has it
    kept: int = 0  # blocks there
    moving: bool = False  # its KV is on its way, and held on both sides
    # with prefix caching: its blocks in order, on its GPU and at its home
    held: list[Block] = field(default_factory=list)
    held_at_home: list[Block] = field(default_factory=list)
    matched: int = 0  # blocks that it has found
    unread: int = 0  # tokens as which it counts in the load of its GPU until it has been read
    found: int = -1  # tokens that it need not read, when admitted first


@dataclass(frozen=True)
class Sending:
    """Somebody sends a request: a row of a session, or the next of the stream, as is seen when it comes."""

    epoch: float
    user: int = -1
    session: int | None = None
    row: Any = None


@dataclass(eq=False)
class Gpu:
    number: int
    start: float = 0.0
    end: float | None = None  # of its iteration; None if idle
    called: bool = False  # idle, and its boundary is now
    along: bool = False  # idle, but ranks in step with it are not
    delay: float = 0.0  # of the iteration, before it begins, and what it would take alone
    alone: float = 0.0
    reports: list[tuple[float, int, int]] = field(default_factory=list)  # when, who waited, who ran
    composing: bool = False  # its iteration has ended, and its next batch is formed once all is decided
    chunks: dict[Request, int] = field(default_factory=dict)
    stepped: list[Request] = field(default_factory=list)  # decodes in the iteration
    running: list[Request] = field(default_factory=list)  # in order of admission
    ended: list[Request] = field(default_factory=list)  # that hold memory still, who gives it back first
    waiting: list[Request] = field(default_factory=list)
    piles: dict[int, list[Request]] = field(default_factory=dict)  # by class, those who accumulate
    latest: float = math.inf  # who came to its line after that is not looked at
    short: bool = False  # of memory, when it composed last
    pool: str = ""
    turn: float = 0.0  # when all its decodes last gained a token
    free_blocks: int = 0
    # with caching: the free blocks in the order in which they are taken, each with what it holds still
    freed: list[tuple[Request, int] | None] = field(default_factory=list)
    store: Store = field(default_factory=lambda: Store(None))  # with prefix caching
    # single prefill
    seat: Request | None = None
    reading: bool = False
    seated: list[Request] = field(default_factory=list)
    pending: list[Request] = field(default_factory=list)
    fetching: list[Request] = field(default_factory=list)  # decodes that wait for memory here
    barred: bool = False  # no prefill starts here for want of memory
    mixed: bool = True  # of the mixed group
    out: bool = False  # it takes nothing
    leaving: bool = False  # it leaves that group when its prefill has ended


class Reference:
    """A run over all requests.

    Args:
        requests: dtype REQUEST.
        engine: an Engine; only its numbers are read.
        seconds: `seconds(chunk, decodes, context, read)` of an iteration.
        placement: name of the rule; `criteria`, its numbers.
        drift: the plain rule of EDPP, if that decides.
        pools: GPUs for prompts and unread tokens of a long queue (0: fixed pools), for the rule POOLS.
        thresholds: how many of a class are admitted on a GPU together.
        policy: tables and the three decision functions, for single-prefill batching, or for GPUs that form their own
            batches and are given requests by the gate (without a limit to their memory).
        changes: (epoch, tables) that come into force later.
        fleet: (epoch, moves) of GPUs that are closed, opened, or fail, each a kind and a number.
        users: of a closed loop; 0 if the requests come by themselves.
        script: what the requests refer to: texts of prompts, further requests of sessions.
    """

    def __init__(
        self,
        requests: Any,
        engine: Any,
        seconds: Callable[[int, int, int, int], float],
        *,
        gpus: int,
        classes: int,
        placement: str = "ROUND_ROBIN",
        criteria: Any = None,
        pools: tuple[int, int] = (0, 0),
        drift: PlainEdpp | None = None,
        thresholds: tuple[int, ...] = (),
        policy: tuple[Any, Callable[..., int], Callable[..., int], Callable[..., int]] | None = None,
        draws: Any = None,
        horizon: float = math.inf,
        warmup: float = 0.0,
        changes: tuple[tuple[float, Any], ...] = (),
        fleet: tuple[tuple[float, tuple[tuple[int, int], ...]], ...] = (),
        users: int = 0,
        script: Script = NO_SCRIPT,
    ) -> None:
        self.engine, self.seconds = engine, seconds
        self.placement, self.criteria, self.draws = placement, criteria, draws
        self.prompt_gpus, self.long_queue = pools
        self.drift = drift
        self.thresholds = thresholds or (1,) * classes
        self.horizon, self.warmup, self.classes = horizon, warmup, classes
        self.batching = engine.batching.name
        keys = engine.keys
        self.prefixes, self.script = keys.prefix_caching, script
        self.parents, self.ends = script.pieces["parent"].tolist(), script.pieces["end"].tolist()
        self.size = keys.kv_block if keys.kv_tokens is not None or self.prefixes else 1
        self.limited = keys.kv_tokens is not None
        self.capacity = keys.kv_tokens // keys.kv_block if keys.kv_tokens is not None else 10**12
        self.reservation = keys.kv_reservation
        self.swap = keys.preemption == "swap"
        self.caching = keys.kv_caching
        self.seconds_per_token = 0.0 if keys.transfer_bandwidth is None else 1.0 / keys.transfer_bandwidth
        self.gpus = [Gpu(g, free_blocks=self.capacity) for g in range(gpus)]
        if self.caching:
            for g in self.gpus:
                g.freed = [None] * self.capacity
        for g in self.gpus:
            g.store = Store(self.capacity if self.limited and self.prefixes else None)
        for g in self.gpus:
            g.pool = self.home(g)
        self.requests: list[Request] = []  # that have come
        self.present: list[Request] = []  # of these, who have not left
        self.users, self.unsent, self.sessions = users, list(requests), users
        self.front_end, self.way_back = keys.front_end, keys.front_end_first
        self.ranks = keys.data_parallel
        self.sent: list[tuple[float, int]] = []  # to which rank, if they are in step
        self.now = 0.0
        self.turn = ARRIVAL
        self.asked = False
        self.serial = 0
        self.next_gpu = 0
        self.events: list[tuple[float, int, Any, int, Any]] = []
        self.times: dict[str, list[tuple[int, float]]] = {
            name: [] for name in ("ttft", "tpot", "gap", "stall", "latency", "prefill_wait", "decode_wait")
        }
        self.count: Counter[tuple[str, int]] = Counter()
        self.area = np.zeros((6, classes))
        self.mode = Counter[str]()
        self.kv_seconds = 0.0
        self.kv_peak = 0
        self.gated = policy is not None and self.batching != "SINGLE_PREFILL"
        if policy is not None:
            self.tables, self.gate, self.route, self.refill = policy
            self.all_tables = self.tables
            mixed = int(self.tables.mixed_gpus)
            for g in self.gpus[mixed:]:
                g.mixed = False
            self.decode_ready: tuple[list[int], list[int]] = (list(range(mixed)), list(range(mixed, gpus)))
            levels = 160 if self.tables.fewest else 1
            self.levels: list[list[int]] = [list(range(mixed)), *([] for _ in range(levels - 1))]
            self.beside_ready: list[int] = []
            self.queues: list[list[list[Request]]] = [[[] for _ in range(classes)] for _ in range(3)]
            for g in self.gpus:
                if not self.gated:
                    self.refresh(g)
        self.limits = VirtualQueues(self.tables, classes) if policy is not None else None
        self.pace = np.full(6, np.nan)
        self.look = math.inf  # the next release as known at the last event that decided nothing
        for epoch, tables in changes:
            self.push(epoch, CHANGE, 0, tables)
        self.front: list[Request] = []  # on no GPU
        self.unwritten = 0.0  # tokens of iterations that were broken off, counted as they went
        for epoch, moves in fleet:
            self.push(epoch, FLEET if epoch > 0 else FIRST, 0, moves)

    # --- the run

    def run(self) -> Reference:
        if self.users == 0:
            for k, row in enumerate(self.unsent):
                epoch = row["arrival"].item()
                self.push(epoch + self.front_end, ARRIVAL, (0, k), Sending(epoch, row=row))
        for user in range(self.users):
            self.send_next(0.0, user)
        while self.unblock() or self.events or self.admit_piles() or self.release() < math.inf:
            release = self.release()
            if release < min(self.events[0][0] if self.events else math.inf, self.horizon):
                self.pass_time(release)
                self.step_single(RELEASE, None)
                continue
            if not self.events and release < math.inf:
                self.pass_time(self.horizon)
                break
            if not self.events:
                continue
            if self.is_over():
                self.events.clear()
                continue
            epoch, kind, _, _, what = heapq.heappop(self.events)
            if kind == PATIENCE and (what[0].wait != what[1] or what[0].stage > SOLO_BUFFER):
                continue
            if kind in (FIRST, FLEET) and self.only_fleet() and self.admit_piles():
                self.push(epoch, kind, 0, what)
                continue
            if epoch > self.horizon:
                self.pass_time(self.horizon)
                break
            self.take_turn(epoch, kind)
            self.pass_time(epoch)
            if kind in (FIRST, FLEET):
                self.change_fleet(what)
                self.check_memory()
                continue
            if kind == CHANGE:
                self.all_tables = what
                what = self.shrunk()
            if kind in (ARRIVAL, ANSWER):
                kind, what = ARRIVAL, self.come(what)
            if self.batching == "SINGLE_PREFILL":
                if kind != COMPOSE:
                    self.look = release
                self.step_single(kind, what)
            elif self.gated:
                self.step_gated(kind, what)
            else:
                self.step_placed(kind, what)
            self.check_memory()
        else:
            if math.isfinite(self.horizon):
                self.pass_time(self.horizon)
        for g in self.gpus:
            if g.end is not None:
                self.record_iteration(g, self.now)
        return self

    def is_over(self) -> bool:
        """Whether tables and fleet may change yet, but for nobody."""
        left = [event for event in self.events if event[1] != PATIENCE]
        return all(kind in (FIRST, CHANGE, FLEET) for _, kind, *_ in left) and not self.present

    def only_fleet(self) -> bool:
        """Whether nothing will happen but changes of the fleet."""
        return not any(
            event[1] not in (FIRST, FLEET)
            and not (event[1] == PATIENCE and (event[4][0].wait != event[4][1] or event[4][0].stage > SOLO_BUFFER))
            for event in self.events
        )

    def change_fleet(self, moves: tuple[tuple[int, int], ...]) -> None:
        for kind, number in moves:
            g = self.gpus[number]
            if kind == CLOSE:
                g.out, g.leaving = True, False
                self.note_room(g)
                g.mixed = False
            elif kind == OPEN:
                g.out, g.mixed = False, self.gated or g.seat is not None
                self.note_room(g)
            else:
                self.fail(g)
        if self.gated or self.batching == "SINGLE_PREFILL":
            for r in sorted(self.front, key=lambda r: -r.number):
                self.queue_in_front(r)
            self.front = []
            if self.gated:
                self.step_gated(CHANGE, self.shrunk())
            else:
                self.asked = False
                self.step_single(CHANGE, self.shrunk())
            return
        self.send_home()
        waiting, self.front = sorted(self.front, key=lambda r: r.number), []
        for r in waiting:
            self.settle(r)

    def shrunk(self) -> Any:
        """The tables in force: their mixed group is no larger than what is up."""
        up = sum(not g.out for g in self.gpus)
        return self.all_tables._replace(mixed_gpus=min(int(self.all_tables.mixed_gpus), up))

    def note_room(self, g: Gpu) -> None:
        if self.gated:
            self.look_over(g)
        elif self.batching == "SINGLE_PREFILL":
            self.refresh(g)

    def fail(self, g: Gpu) -> None:
        """The iteration under way is lost, and all that is there."""
        if g.end is not None:
            self.record_iteration(g, self.now)
            self.unwritten += len(g.stepped) * (self.now - g.start) / (g.end - g.start)
        lost = [r for r in self.present if self.is_lost(g, r)]
        self.forget(lambda kind, what: kind in (BOUNDARY, COMPOSE) and what is g)
        for r in lost:
            self.lose(g, r)
        g.end, g.called, g.along, g.composing = None, False, False, False
        g.chunks, g.stepped, g.running, g.waiting, g.piles = {}, [], [], [], {}
        g.seat, g.reading, g.seated, g.pending, g.fetching = None, False, [], [], []
        g.barred = g.short = False
        g.free_blocks, g.reports = self.capacity, []
        g.freed = [None] * self.capacity if self.caching else []
        g.store = Store(self.capacity if self.limited and self.prefixes else None)
        self.sent = [(when, number) for when, number in self.sent if number != g.number]
        self.front += lost

    def forget(self, void: Callable[[int, Any], bool]) -> None:
        self.events = [event for event in self.events if not void(event[1], event[4])]
        heapq.heapify(self.events)

    def is_lost(self, g: Gpu, r: Request) -> bool:
        if self.batching != "SINGLE_PREFILL" or r.stage in (PREFILL, MIXED_DECODE):
            on = r.gpu == g.number and r not in self.front
        else:
            on = False
        if self.batching != "SINGLE_PREFILL" or r.stage == PREFILL:
            return on
        away = r.stage in (MIXED_BUFFER, SOLO_BUFFER) or r.home is not None or self.is_sent(r)
        return on or (away and r.prefill_gpu == g.number)

    def is_sent(self, r: Request) -> bool:
        return any(kind == TRANSFER and what is r for _, kind, _, _, what in self.events)

    def lose(self, g: Gpu, r: Request) -> None:
        self.tally("losses", r.cls)
        if self.batching == "SINGLE_PREFILL" and r.stage in (MIXED_BUFFER, SOLO_BUFFER):
            self.queues[r.stage][r.cls].remove(r)
            r.wait += 1
        elif self.batching == "SINGLE_PREFILL" and r.stage == MIXED_DECODE:
            there, coming = self.gpus[r.gpu], self.is_sent(r)
            self.forget(lambda kind, what: kind == TRANSFER and what is r)
            if there is not g:
                if r in there.fetching:
                    there.fetching.remove(r)
                if coming and self.prefixes:
                    there.free_blocks += there.store.release(r.held, self.kept_of(there, r))
                elif coming and self.limited:
                    self.free(there, r)
                there.seated.remove(r)
                self.refresh(there)
                self.recall(there)
            elif r.home is not None and r.home is not g:
                self.recall(self.let_go(r))
        r.home, r.kept, r.blocks, r.moving = None, 0, 0, False
        r.held, r.held_at_home, r.matched = [], [], 0
        r.swapped = r.landed = False
        r.to_read = r.whole = r.unread = r.prompt + r.written
        r.preemptions += 1
        r.stage, r.gpu = PREFILL_QUEUE, -1

    def settle(self, r: Request) -> None:
        """One that is placed as it arrives goes to a GPU, or stands at the front while none takes requests."""
        if all(g.out for g in self.gpus):
            self.front.append(r)
            r.gpu = -1
            return
        g = self.gpus[self.place(r)]
        r.gpu = r.prefill_gpu = g.number
        r.unread = r.whole - self.has(g, r)
        pile = g.piles.setdefault(r.cls, [])
        pile.append(r)
        if len(pile) >= self.thresholds[r.cls]:
            self.admit_pile(g, r.cls)

    def take_turn(self, epoch: float, kind: int) -> None:
        """What is sent in answer to something of this epoch comes after the rest of it, and before what follows."""
        if kind == ANSWER:
            self.turn = ANSWER
            late = [event for event in self.events if event[:2] == (epoch, ANSWER)]
            self.events = [event for event in self.events if event[:2] != (epoch, ANSWER)]
            self.events += [(epoch, ARRIVAL, *event[2:]) for event in late]
            heapq.heapify(self.events)
        elif kind != ARRIVAL:
            self.turn = BOUNDARY
        elif epoch > self.now:
            self.turn = ARRIVAL

    def send_next(self, epoch: float, user: int) -> None:
        """`user` sends a request of the stream at `epoch`; which one is seen when it comes."""
        if self.unsent:
            self.send_at(Sending(epoch, user, user))

    def send_at(self, sending: Sending) -> None:
        there = sending.epoch + self.front_end
        kind = ANSWER if there == self.now and self.turn == BOUNDARY else ARRIVAL
        self.push(there, kind, (1, sending.epoch, sending.session), sending)

    def come(self, sending: Sending) -> Request:
        """The request that is sent is at the engines; it sets off others."""
        row, session = sending.row, sending.session
        if row is None:
            row = self.unsent.pop(0)
            if not self.unsent:  # nobody begins any more
                self.events = [e for e in self.events if e[1] not in (ARRIVAL, ANSWER) or e[4].row is not None]
                heapq.heapify(self.events)
        if session is None:
            session = self.start_session()
        names = ("cls", "prompt", "output", "patience", "think", "text", "answer", "then", "spawns", "beside")
        r = Request(len(self.requests), sending.epoch, *(row[name].item() for name in names), session)
        r.user, r.arrival = sending.user, self.now
        self.requests.append(r)
        self.present.append(r)
        spawned = r.spawns
        while spawned > 0:
            first = self.script.rows[spawned]
            self.send_at(Sending(r.sent + first["arrival"].item(), session=self.start_session(), row=first))
            spawned = int(first["beside"])
        return r

    def start_session(self) -> int:
        self.sessions += 1
        return self.sessions - 1

    def push(self, epoch: float, kind: int, order: Any, what: Any) -> None:
        self.serial += 1
        # one kind after the other at one epoch, GPUs and requests by number
        heapq.heappush(self.events, (epoch, kind, order, self.serial, what))

    def pass_time(self, epoch: float) -> None:
        if self.limits is not None and self.limits.tables.limited:
            view = self.view()
            self.limits.pass_time(
                epoch - self.now, view.prefilling, view.solo_decodes, self.pace_now(), -self.unwritten
            )
            self.unwritten = 0.0 if epoch > self.now else self.unwritten
        seconds = max(epoch, self.warmup) - max(self.now, self.warmup)
        if seconds > 0:
            for r in self.present:
                if r.arrival <= self.now:
                    self.area[self.stage_of(r), r.cls] += seconds
        self.now = epoch

    def pace_now(self) -> Pace:
        """Of the iterations under way."""
        solo, size = self.tables.token_seconds[1, 0], self.engine.batch_size
        found = Pace(0.0, 0.0, 0.0, 0.0)
        for g in self.gpus:
            slots = size - (1 if g.end is not None and g.chunks else 0)
            seconds = solo if g.end is None else g.end - g.start
            found.slot_seconds += slots * seconds
            found.slots += slots
            found.decodes += len(g.stepped)
            found.tokens += len(g.stepped) / seconds if g.end is not None else 0.0
        return found

    def release(self) -> float:
        """Epoch, on a grid, at which a class that waits for a limit may start; one known holds until it is asked."""
        if self.limits is None or not self.limits.tables.limited:
            return math.inf
        if not self.prefill_ready:
            return self.look
        view = self.view()
        release = self.now + self.limits.release(
            view.waiting,
            view.prefilling,
            view.solo_decodes,
            view.mixed_decodes,
            int(view.beside[0]),
            self.pace_now(),
        )
        later = math.ceil(release * 2**16) / 2**16 if release < math.inf else math.inf
        return min(later, self.look)

    def stage_of(self, r: Request) -> int:
        if r.stage != MIXED_DECODE:
            return r.stage
        g = self.gpus[r.gpu]
        beside = g.seat is not None if self.batching == "SINGLE_PREFILL" else bool(g.chunks)
        return MIXED_DECODE if beside else SOLO_DECODE

    def note(self, name: str, cls: int, seconds: float) -> None:
        if self.warmup <= self.now <= self.horizon:
            self.times[name].append((cls, seconds))

    def tally(self, name: str, cls: int, amount: int = 1) -> None:
        if self.now >= self.warmup:
            self.count[name, cls] += amount

    def finish(self, r: Request, outcome: int) -> None:
        r.outcome, r.left, r.stage = outcome, self.now, GONE
        self.present.remove(r)
        epoch = self.now + (self.way_back if outcome in (1, 4) else 0.0) + r.think
        if outcome == 1 and r.then > 0:
            self.send_at(Sending(epoch, r.user, r.session, self.script.rows[r.then]))
        elif r.user >= 0:
            self.send_next(epoch, r.user)

    def arrive(self, r: Request) -> bool:
        """Whether it may stay."""
        self.tally("arrivals", r.cls)
        r.since, r.to_read, r.whole, r.unread = self.now, r.prompt, r.prompt, r.prompt
        if self.blocks(r.prompt + r.output) > self.capacity:
            self.tally("rejections", r.cls)
            self.finish(r, 4)
            return False
        return True

    def be_patient(self, r: Request) -> None:
        r.wait += 1
        if math.isfinite(r.patience):
            self.push(self.now + r.patience, PATIENCE, r.number, (r, r.wait))

    # --- iterations

    def begin(self, g: Gpu, chunks: dict[Request, int], decodes: list[Request], delay: float) -> None:
        g.called = False
        if not chunks and not decodes:
            g.end = None
            g.chunks, g.stepped = {}, []
            return
        chunk = sum(chunks.values())
        context = sum(r.prompt + r.written for r in decodes)
        read = sum(tokens * (r.whole - r.to_read) for r, tokens in chunks.items())
        g.chunks, g.stepped, g.start = chunks, list(decodes), self.now
        g.delay, g.alone = delay, self.seconds(chunk, len(decodes), context, read)
        g.end = self.now + delay + g.alone

    def group_of(self, g: Gpu) -> list[Gpu]:
        """The ranks that step together with `g`."""
        first = g.number - g.number % self.ranks
        return self.gpus[first : first + self.ranks]

    def start_step(self, g: Gpu) -> None:
        """All ranks in step with `g` have formed their batches: the longest says how long they take."""
        busy = [q for q in self.group_of(g) if q.end is not None]
        if not busy:
            return
        end = self.now + max(q.delay for q in busy) + max(q.alone for q in busy)
        for q in self.group_of(g):
            if q.end is not None:
                q.end = end
            else:
                q.along, q.called, q.start = True, False, self.now
            self.push(end, BOUNDARY, q.number, q)

    def record_iteration(self, g: Gpu, until: float) -> None:
        """GPU time by mode, and memory, up to `until`."""
        seconds = max(until, self.warmup) - max(g.start, self.warmup)
        if seconds <= 0:
            return
        name = "solo" if not g.chunks else "mixed" if g.stepped else "prefill"
        self.mode[name] += seconds
        held = sum(r.prompt + r.written for r in g.running)
        self.kv_seconds += seconds * held
        self.kv_peak = max(self.kv_peak, held)

    def end_iteration(self, g: Gpu) -> list[Request]:
        """Every decode of the iteration gains a token, every prompt its chunk; the decodes that are complete."""
        self.record_iteration(g, self.now)
        if len(g.stepped) == sum(r.stage == MIXED_DECODE for r in g.running):
            g.turn = self.now
        done = []
        for r in g.stepped:
            self.gain_token(g, r, bool(g.chunks))
            if r.written == r.output:
                done.append(r)
        for r, chunk in g.chunks.items():
            r.to_read -= chunk
        g.end = None
        g.chunks, g.stepped = {}, []
        return done

    def gain_token(self, g: Gpu, r: Request, beside_prefill: bool) -> None:
        r.written += 1
        if r.written == 1:
            r.first = self.now
            self.note("ttft", r.cls, self.now + self.way_back - r.sent)
        else:
            self.note("gap", r.cls, self.now - r.last)
            if beside_prefill or r.last < g.start - 1e-9 * max(g.start, 1.0):
                self.note("stall", r.cls, self.now - r.last)
        r.last = self.now

    def complete(self, g: Gpu, r: Request) -> None:
        self.free(g, r, self.needs(r) - 1 if self.prefixes else 0, served=True)
        g.running.remove(r)
        self.tally("completions", r.cls)
        self.tally("prompt_served", r.cls, r.prompt)
        self.tally("output_served", r.cls, r.output)
        self.note("latency", r.cls, self.now + self.way_back - r.sent)
        if r.output > 1:
            self.note("tpot", r.cls, (r.last - r.first) / (r.output - 1))
        if self.drift is not None:
            gap = (r.last - r.first) / (r.output - 1) if r.output > 1 else math.nan
            self.drift.completed(self.now, r.cls, r.first + self.way_back - r.sent, gap, r.output)
        self.finish(r, 1)

    # --- memory

    def blocks(self, tokens: int) -> int:
        return -(-tokens // self.size)

    def take(self, g: Gpu, r: Request, tokens: int) -> bool:
        """Give `r` the blocks for `tokens` tokens, if there are enough."""
        more = self.blocks(tokens) - r.blocks
        if more > g.free_blocks:
            return False
        r.blocks += max(more, 0)
        g.free_blocks -= max(more, 0)
        if self.caching:
            del g.freed[: max(more, 0)]
        if self.prefixes:
            r.held += g.store.take(max(more, 0))
        return True

    def free(self, g: Gpu, r: Request, computed: int = 0, *, served: bool = False) -> None:
        """Give the blocks of `r` back, the last first; those full of its first `computed` tokens keep them."""
        if self.prefixes:
            g.free_blocks += g.store.release(r.held, self.left_in(r, len(r.held), computed, served=served))
            r.held, r.blocks, r.matched = [], 0, 0
            return
        if self.caching:
            g.freed += [(r, k) if k < computed // self.size else None for k in reversed(range(r.blocks))]
        g.free_blocks += r.blocks
        r.blocks = 0

    def keep(self, g: Gpu, r: Request) -> None:
        """The prompt of `r` has been read: its KV stays on `g`, where there is a limit to it."""
        if self.limited:
            r.home, r.kept, r.blocks = g, r.blocks, 0
            r.held_at_home, r.held = r.held, []
        else:
            self.free(g, r, r.whole)

    def hold_at_home(self, r: Request) -> None:
        """`r` decodes where its KV is."""
        r.home, r.blocks, r.kept = None, r.kept, 0
        r.held, r.held_at_home = r.held_at_home, []

    def let_go(self, r: Request) -> Gpu:
        """Its KV leaves the GPU that has read it."""
        home, r.home = r.home, None
        assert home is not None
        if self.prefixes:
            left = self.left_in(r, r.kept, r.whole, served=True)[: r.prompt // self.size]
            home.free_blocks += home.store.release(r.held_at_home, left + [None] * (r.kept - len(left)))
            r.held_at_home, r.matched = [], 0
        else:
            home.free_blocks += r.kept
        home.freed += [None] * r.kept if self.caching else []
        r.kept, r.moving = 0, False
        return home

    # --- beginnings of prompts

    def content(self, r: Request, block: int) -> Content:
        """What a block of its text is: the piece in which its last token lies."""
        last = (block + 1) * self.size
        piece = r.text if last <= r.prompt else r.answer
        if piece == 0:
            return "own", r.number, block
        while last <= self.ends[self.parents[piece]]:
            piece = self.parents[piece]
        assert last <= self.ends[piece]
        return "piece", piece, block

    def before(self, content: Content) -> Content:
        """What the block before it is, which is there for as long as it is itself."""
        whose, number, block = content
        if whose == "own":
            return self.content(self.requests[number], block - 1)
        while block * self.size <= self.ends[self.parents[number]]:
            number = self.parents[number]
        return whose, number, block - 1

    def contents(self, r: Request, tokens: int) -> list[Content]:
        """Of the full blocks of its first `tokens` tokens."""
        return [self.content(r, block) for block in range(tokens // self.size)]

    def left_in(self, r: Request, blocks: int, computed: int, *, served: bool = False) -> list[Content | None]:
        """What its blocks hold when it gives them back: of its own, once it is served, nothing that anybody finds."""
        full = max(computed // self.size, r.matched)
        left = [self.content(r, k) if k < full else None for k in range(blocks)]
        return [None if content is not None and served and content[0] == "own" else content for content in left]

    def kept_of(self, g: Gpu, r: Request) -> list[Content | None]:
        """What the blocks hold whose KV never came: what was found there, and what others brought something behind."""
        left: list[Content | None] = []
        gone: set[Content] = set()
        for k, block in reversed(list(enumerate(r.held))):
            content = block.content
            if content is not None and k >= r.matched:
                behind = (other for other in g.store.there if other[2] > 0 and other not in gone)
                if not any(self.before(other) == content for other in behind):
                    gone.add(content)
                    content = None
            left.append(content)
        return left[::-1]

    def matched(self, g: Gpu, r: Request, tokens: int) -> list[Block]:
        return g.store.matched(self.contents(r, tokens)) if self.prefixes else []

    def shared(self, g: Gpu, r: Request, tokens: int) -> int:
        """Blocks of its first `tokens` tokens that it finds on `g` and that somebody holds."""
        return sum(block.holders > 0 for block in self.matched(g, r, tokens))

    def found(self, blocks: int, tokens: int) -> int:
        """Tokens of a prompt of `tokens` that need not be read: one is."""
        return min(blocks, (tokens - 1) // self.size) * self.size

    def take_over(self, g: Gpu, r: Request, tokens: int) -> int:
        """Those leading blocks of its first `tokens` tokens that are there; how many."""
        assert not r.held
        for other in self.gpus:
            if other is not g:
                other.store.forget_all(("own", r.number), ("piece", r.answer))
        r.held = self.matched(g, r, tokens)
        g.free_blocks -= g.store.share(r.held)
        r.blocks = r.matched = len(r.held)
        return r.matched

    def show(self, g: Gpu, r: Request, tokens: int) -> None:
        """From now on the full blocks of its first `tokens` tokens are there for others."""
        if self.prefixes:
            for block, content in zip(r.held, self.contents(r, tokens), strict=False):
                g.store.keep(block, content)

    def take_prompt(self, g: Gpu, r: Request) -> None:
        """Memory for all that `r` has to read."""
        if self.prefixes:
            tokens = self.found(self.take_over(g, r, r.whole), r.whole)
            r.to_read = r.unread = r.whole - tokens
            if r.found < 0:
                r.found = tokens
                self.tally("prompt_found", r.cls, tokens)
                self.tally("prompt_admitted", r.cls, r.prompt)
        else:
            self.find_cached(g, r)
        self.take(g, r, r.whole)
        self.show(g, r, r.whole)

    def take_kv(self, g: Gpu, r: Request) -> int:
        """Memory for the KV that `r` has somewhere else and for its next token; how many tokens are there already."""
        found = 0
        if self.prefixes and not r.held:
            found = self.take_over(g, r, self.needs(r) - 1) * self.size
        self.take(g, r, self.needs(r))
        self.show(g, r, self.needs(r) - 1)
        return found

    def has(self, g: Gpu, r: Request) -> int:
        """Tokens of a prompt that `g` need not read: they are there, or come with those who wait there."""
        if not self.prefixes:
            return 0
        there = set(g.store.there)
        for q in [*g.waiting, *(q for pile in g.piles.values() for q in pile)]:
            there.update(self.contents(q, q.prompt))
        blocks = 0
        while blocks < r.prompt // self.size and self.content(r, blocks) in there:
            blocks += 1
        return self.found(blocks, r.prompt)

    def check_memory(self) -> None:
        if not self.prefixes:
            return
        live = [r for r in self.requests if r.blocks > 0 or r.kept > 0]
        assert all(len(r.held) == r.blocks and len(r.held_at_home) == r.kept for r in live)
        for g in self.gpus:
            if g.store.touched:
                here = [r.held for r in live if r.gpu == g.number]
                g.store.check(here + [r.held_at_home for r in live if r.home is g])
                assert g.free_blocks == len(g.store.free) or not self.limited
                assert all(content[2] == 0 or self.before(content) in g.store.there for content in g.store.there)

    # --- who has memory

    def spare(self, g: Gpu) -> int:
        """Free blocks of `g` beside those of the next token of each of its decodes after the iteration under way."""
        ahead = 0
        for r in g.running:
            if r.stage == MIXED_DECODE:
                ahead += self.blocks(self.needs(r) + (1 if r in g.stepped else 0)) - r.blocks
        return g.free_blocks - ahead

    def kv_moves(self, g: Gpu) -> bool:
        return any(r.moving and (r.home is g or r.gpu == g.number) for r in self.requests)

    def is_stuck(self, g: Gpu) -> bool:
        return g.end is None and not (g.called or g.along or g.composing or self.kv_moves(g))

    def held_up(self, g: Gpu) -> list[Request]:
        """Whose KV `g` keeps for a GPU that is stuck, in order of reading."""
        found = [r for r in self.requests if r.home is g and r.gpu != g.number and self.is_stuck(self.gpus[r.gpu])]
        return sorted(found, key=lambda r: (r.since, r.number))

    def find_cached(self, g: Gpu, r: Request) -> None:
        """Take those blocks of `r` that are still whole; their tokens are not read again."""
        if self.caching:
            while (r, r.blocks) in g.freed:
                g.freed.remove((r, r.blocks))
                r.blocks += 1
                g.free_blocks -= 1
            r.to_read -= r.blocks * self.size

    def fits(self, g: Gpu, tokens: int) -> bool:
        return min(self.blocks(tokens), self.capacity) <= g.free_blocks

    def grow(self, g: Gpu) -> tuple[list[Request], float]:
        """Memory for the next token of every decode, in order of admission; who had to go, and seconds of swapping.

        Where none is left the request admitted last goes, be it the one that asks.
        """
        victims, delay, k = [], 0.0, 0
        g.short = False
        while k < len(g.running):
            r = g.running[k]
            if r.stage in (PREFILL, GONE) or self.take(g, r, self.needs(r)):
                k += 1
                continue
            g.short = True
            if g.running[-1].stage == GONE:
                self.complete(g, g.running[-1])
                continue
            victim = g.running.pop()
            was_decode = victim.stage == MIXED_DECODE
            computed = self.needs(victim) - 1 if was_decode else victim.whole - victim.to_read
            self.free(g, victim, computed)
            victim.preemptions += 1
            victim.swapped = self.swap and was_decode
            if victim.swapped:
                delay += (self.needs(victim) - 1) * self.engine.keys.swap_seconds
            else:
                victim.to_read = victim.whole = victim.unread = victim.prompt + victim.written
            self.tally("preemptions", victim.cls)
            victims.append(victim)
        return victims, delay

    def needs(self, r: Request) -> int:
        """KV tokens a decode holds at the end of its next iteration."""
        return r.prompt + r.written + (1 if self.batching == "SINGLE_PREFILL" else 0)

    # --- GPUs that form their own batches

    def step_placed(self, kind: int, what: Any) -> None:
        self.send_home()
        if kind == ARRIVAL:
            if self.arrive(what):
                self.be_patient(what)
                self.settle(what)
        elif kind == LANDING:
            if self.limited:
                self.wake(self.let_go(what))
            what.stage, what.swapped, what.landed, what.came = SOLO_BUFFER, True, True, self.now
            self.gpus[what.gpu].waiting.append(what)
            self.wake(self.gpus[what.gpu])
        elif kind == PATIENCE:
            r = what[0]
            if r in self.front:
                self.front.remove(r)
                self.tally("prefill_abandonments", r.cls)
                self.finish(r, 2)
                return
            g = self.gpus[r.gpu]
            (g.waiting if r in g.waiting else g.piles[r.cls]).remove(r)
            self.tally("prefill_abandonments", r.cls)
            self.finish(r, 2)
            self.wake(g)
        else:
            self.boundary_placed(what)

    # --- the same under a gate

    def step_gated(self, kind: int, what: Any) -> None:
        if kind == CHANGE:
            self.tables = what
        elif kind == ARRIVAL:
            if self.arrive(what):
                self.enqueue(what, PREFILL_QUEUE)
        elif kind == PATIENCE:
            self.queues[PREFILL_QUEUE][what[0].cls].remove(what[0])
            self.tally("prefill_abandonments", what[0].cls)
            self.finish(what[0], 2)
        else:
            if self.at_boundary(what):
                self.boundary_gated(self.group_of(what))
            return
        self.give_out()

    def boundary_gated(self, group: list[Gpu]) -> None:
        for g in group:
            self.end_placed(g)
        for g in group:
            self.look_over(g)
            g.composing = True
        self.give_out()
        for g in group:
            g.composing = False
            self.compose_placed(g)
            self.look_over(g)
        self.start_step(group[0])

    def give_out(self) -> None:
        while self.prefill_ready and any(self.queues[PREFILL_QUEUE]):
            cls = self.gate(self.view(), self.tables)
            if cls < 0:
                break
            g = self.drawn(self.fewest)
            r = self.queues[PREFILL_QUEUE][cls].pop(0)
            r.wait += 1
            r.gpu = r.prefill_gpu = g.number
            r.came = self.now
            g.waiting.append(r)
            self.join_soon(g)
            self.look_over(g)

    def look_over(self, g: Gpu) -> None:
        """It has room for more while it decodes alone, or between two iterations, and its prompts leave some budget."""
        backlog = sum(r.to_read - g.chunks.get(r, 0) for r in g.waiting + g.running)
        decodes = sum(r.stage == MIXED_DECODE for r in g.running)
        full = self.taken(g) >= self.engine.batch_size or backlog + decodes >= self.engine.tokens
        self.rank(g, not g.chunks and not full and not g.out)

    def admit_pile(self, g: Gpu, cls: int) -> None:
        for r in g.piles[cls]:
            r.came = self.now
        g.waiting += g.piles.pop(cls)
        self.wake(g)

    def admit_piles(self) -> bool:
        """Nothing else is left to happen: admit whoever accumulates; whether there was anybody."""
        found = False
        for g in self.gpus:
            for cls in sorted(g.piles):
                found = found or bool(g.piles[cls])
                if g.piles[cls]:
                    self.admit_pile(g, cls)
        return found

    def send_home(self) -> None:
        """GPUs of the mixed pool that have no work of the other kind any more go back to their own."""
        for g in self.gpus:
            if g.pool == "MIXED" and not self.lent(g):
                g.pool = self.home(g)

    def home(self, g: Gpu) -> str:
        return "PROMPT" if g.number < self.prompt_gpus else "TOKEN"

    def lent(self, g: Gpu) -> bool:
        """Whether a GPU of the mixed pool has work of the other kind."""
        return self.decodes_of(g) > 0 if self.home(g) == "PROMPT" else self.unread_of(g) > 0

    def decodes_of(self, g: Gpu) -> int:
        return sum(r.decodes_on == g.number for r in self.present)

    def unread_of(self, g: Gpu) -> int:
        unread = sum(q.unread for q in g.waiting if not q.swapped)
        unread += sum(q.unread for pile in g.piles.values() for q in pile)
        return unread + sum(q.unread for q in g.running if q.stage == PREFILL)

    def place_in_pools(self, r: Request) -> int:
        def pool(name: str) -> list[Gpu]:
            return [g for g in self.gpus if g.pool == name]

        if self.drift is not None:
            return self.place_by_drift(self.drift, r)
        if self.long_queue == 0:
            return min(pool("PROMPT"), key=self.unread_of).number
        reader = decoder = None
        for name in ("MIXED", "PROMPT"):
            if pool(name):
                best = min(pool(name), key=self.unread_of)
                if self.unread_of(best) == 0 or self.unread_of(best) + r.prompt <= self.long_queue:
                    reader = best
        for name in ("MIXED", "TOKEN"):
            if pool(name):
                best = min(pool(name), key=self.decodes_of)
                if self.decodes_of(best) < self.engine.batch_size:
                    decoder = best
        if reader is None and pool("TOKEN"):
            reader = min(pool("TOKEN"), key=self.unread_of)
            reader.pool = "MIXED"
        if decoder is None and pool("PROMPT"):
            decoder = min(pool("PROMPT"), key=self.decodes_of)
            decoder.pool = "MIXED"
        if reader is None or decoder is None:
            reader = decoder = min(self.gpus, key=self.unread_of)
        r.decodes_on = decoder.number
        return reader.number

    def place_by_drift(self, drift: PlainEdpp, r: Request) -> int:
        there = [q for q in self.present if q.decodes_on >= 0]
        for counter in (drift.backlog, drift.requests, drift.context):
            counter.clear()
        for q in there:
            drift.requests[q.decodes_on] += 1
            drift.context[q.decodes_on] += q.prompt
            if not q.begun.get(q.decodes_on):
                drift.backlog[q.decodes_on] += q.works[1]  # type: ignore[assignment]
            if q.reader != q.decodes_on and q.gpu == q.reader:
                drift.requests[q.reader] += 1
                if not q.begun.get(q.reader):
                    drift.backlog[q.reader] += q.works[0]  # type: ignore[assignment]
        r.reader, r.decodes_on, *works = drift.choose(r.cls, r.prompt, {g.number: self.has(g, r) for g in self.gpus})
        r.works = (works[0], works[1])
        return r.reader

    def wake(self, g: Gpu) -> None:
        if g.end is None and not g.called:
            g.called = True
            if not g.along:
                self.push(self.now, BOUNDARY, g.number, g)

    def place(self, r: Request) -> int:
        if self.placement == "POOLS":
            return self.place_in_pools(r)
        group = self.place_in_group(r)
        return group if self.ranks == 1 else self.balanced(group)

    def balanced(self, group: int) -> int:
        """vLLM's choice of a rank: by what each had reported at the last tenth of a second, and what was sent since."""
        published = math.floor(self.now * 10) / 10
        scores = []
        for g in self.gpus[group * self.ranks : (group + 1) * self.ranks]:
            _, waiting, running = max([(-1.0, 0, 0), *(r for r in g.reports if r[0] < published)], key=lambda r: r[0])
            waiting += sum(when >= published for when, number in self.sent if number == g.number)
            scores.append(4 * waiting + running)
        number = group * self.ranks + scores.index(min(scores))
        self.sent.append((self.now, number))
        return number

    def load_of(self, g: Gpu) -> int:
        return len(g.waiting) + sum(map(len, g.piles.values())) + len(g.running)

    def place_in_group(self, r: Request) -> int:
        """The GPU, or the group of ranks in step, by the rule of that name."""
        groups = [self.group_of(g) for g in self.gpus[:: self.ranks]]
        rule: Callable[[Request, list[list[Gpu]], list[int]], int] = getattr(
            self, self.placement.lower(), self.best_of_all
        )
        return rule(r, groups, [sum(map(self.load_of, group)) for group in groups])

    def round_robin(self, r: Request, groups: list[list[Gpu]], loads: list[int]) -> int:
        while groups[self.next_gpu % len(groups)][0].out:
            self.next_gpu += 1
        self.next_gpu += 1
        return (self.next_gpu - 1) % len(groups)

    def least_loaded(self, r: Request, groups: list[list[Gpu]], loads: list[int]) -> int:
        return min((k for k, group in enumerate(groups) if not group[0].out), key=lambda k: loads[k])

    def power_of_two(self, r: Request, groups: list[list[Gpu]], loads: list[int]) -> int:
        up = [k for k, group in enumerate(groups) if not group[0].out]
        n = len(up)
        one = up[int(self.draws.random() * n)]
        if n == 1:
            return one
        rest = [g for g in up if g != one]
        other = rest[int(self.draws.random() * (n - 1))]
        return other if loads[other] < loads[one] else one

    def best_of_all(self, r: Request, groups: list[list[Gpu]], loads: list[int]) -> int:
        places = [
            Place(
                load=load,
                unread=sum(map(self.unread_of, group)),
                waiting=sum(len(g.waiting) for g in group),
                used=1.0 - sum(map(self.spare, group)) / (self.ranks * self.capacity) if self.limited else 0.0,
            )
            for group, load in zip(groups, loads, strict=True)
            if not group[0].out
        ]
        up = [k for k, group in enumerate(groups) if not group[0].out]
        found = {k: most for k, group in enumerate(groups) if (most := self.has_most(group, r)) > 0}
        found = {up.index(k): most for k, most in found.items() if k in up}
        return up[choose(self.placement, places, r.whole, found, self.criteria)]

    def has_most(self, group: list[Gpu], r: Request) -> int:
        return max(self.has(g, r) for g in group)

    def boundary_placed(self, g: Gpu) -> None:
        if self.at_boundary(g):
            for q in self.group_of(g):
                self.end_placed(q)
            self.send_home()
            for q in self.group_of(g):
                self.compose_placed(q)
            self.start_step(g)

    def at_boundary(self, g: Gpu) -> bool:
        """Whether the ranks in step with `g` are between two iterations, and have not gone on at this epoch already."""
        return any(q.end == self.now or (q.called and not q.along) for q in self.group_of(g))

    def end_placed(self, g: Gpu) -> None:
        ran = g.end is not None or g.along
        g.latest = g.start if self.engine.keys.async_scheduling and ran else math.inf
        g.along = False
        if g.end is not None:
            read = list(g.chunks)
            for r in sorted(self.end_iteration(g), key=lambda r: r.number):
                self.end_request(g, r)
            for r in read:
                if r.to_read == 0:
                    again = r.written > 0
                    if not again:
                        self.tally("prompt_read", r.cls, r.prompt)
                    self.gain_token(g, r, True)
                    r.stage = MIXED_DECODE
                    if r.written == r.output:
                        self.end_request(g, r)
                    elif self.placement == "POOLS":
                        self.ship(g, r)
        if ran:
            running = sum(r.stage != GONE for r in g.running)
            g.reports.append((self.now, sum(r.came <= g.start for r in g.waiting), running))

    def compose_placed(self, g: Gpu) -> None:
        if self.batching == "TOKEN_BUDGET" or (self.batching == "LAST_SCHEDULABLE" and not self.prompts_go_first(g)):
            self.compose_budget(g)
        elif self.batching == "LAST_SCHEDULABLE":
            self.compose_prompts_first(g)
        else:
            self.compose_prefill_first(g)

    def end_request(self, g: Gpu, r: Request) -> None:
        """With asynchronous scheduling it holds its memory and its place until the next batch is composed."""
        if self.engine.keys.async_scheduling:
            r.stage = GONE
            g.ended.append(r)
        else:
            self.complete(g, r)

    def send_back(self, g: Gpu, victims: list[Request]) -> None:
        for r in victims:
            r.stage = PREFILL_QUEUE
            g.waiting.insert(0, r)

    def ship(self, g: Gpu, r: Request) -> None:
        """Send the KV of `r` to the GPU where it decodes, if that is another."""
        if r.decodes_on < 0:
            r.decodes_on = min((q for q in self.gpus if q.pool == "TOKEN"), key=self.decodes_of).number
        if r.decodes_on == g.number:
            return
        self.keep(g, r)
        g.running.remove(r)
        r.gpu, r.stage, r.since = r.decodes_on, SOLO_BUFFER, self.now
        there = self.gpus[r.gpu]
        if there.fetching or self.preempted_first(there) or self.blocks_for_kv(there, r) > self.spare(there):
            there.fetching.append(r)
            self.wake(there)
        else:
            self.send(there, r)

    def send(self, g: Gpu, r: Request) -> None:
        """The KV of `r` goes to `g`, which has memory for it."""
        tokens = r.prompt + r.written - 1 - self.take_kv(g, r)
        r.moving = self.limited
        self.push(
            self.now + (self.engine.keys.transfer_latency + self.seconds_per_token * tokens), LANDING, r.number, r
        )

    def preempted_first(self, g: Gpu) -> bool:
        return bool(g.waiting) and g.waiting[0].preemptions > 0 and not g.waiting[0].landed

    def send_all(self, g: Gpu, ahead: int = 0) -> None:
        while g.fetching and not self.preempted_first(g):
            if self.blocks_for_kv(g, g.fetching[0]) > g.free_blocks - ahead:
                break
            self.send(g, g.fetching.pop(0))

    def blocks_to_read(self, g: Gpu, r: Request) -> int:
        """Blocks of `g` that must be free for `r` to be admitted, as long as all of it is there to be read."""
        return min(self.blocks(r.whole + self.reservation), self.capacity) - self.shared(g, r, r.whole)

    def blocks_for_kv(self, g: Gpu, r: Request) -> int:
        """The same where its KV comes from elsewhere."""
        return self.blocks(self.needs(r)) - self.shared(g, r, self.needs(r) - 1)

    def candidate(self, g: Gpu, ahead: int = 0) -> Request | None:
        """Who is admitted next on `g`: the first, if there is memory, else one whose memory is there."""
        if not g.waiting:
            return None
        r = g.waiting[0]
        if r.landed or (self.blocks_for_kv(g, r) if r.swapped else self.blocks_to_read(g, r)) <= g.free_blocks - ahead:
            return r
        return next((q for q in g.waiting if q.landed), None)

    def stays(self, g: Gpu) -> bool:
        """`g` stands still, as does a GPU that it keeps KV for: the request read first decodes here."""
        waits = self.held_up(g)
        if not g.fetching or self.kv_moves(g) or not waits:
            return False
        r = waits[0]
        there = self.gpus[r.gpu]
        there.fetching.remove(r)
        self.wake(there)
        r.gpu = r.decodes_on = g.number
        r.begun[g.number] = True
        more = self.blocks(r.prompt + r.written) - r.kept
        if more <= g.free_blocks:
            self.hold_at_home(r)
            self.take(g, r, r.prompt + r.written)
            r.swapped = r.landed = True
        else:
            self.let_go(r)
            r.preemptions += 1
            self.tally("preemptions", r.cls)
            r.swapped, r.stage = self.swap, PREFILL_QUEUE
            r.to_read = r.whole = r.unread = r.prompt + r.written
        g.waiting.insert(0, r)
        return True

    def look_again(self, g: Gpu) -> None:
        """Nothing runs on `g`: it composes anew if somebody has just made way, or is to stay."""
        if g.end is None and (g.short or (self.limited and self.placement == "POOLS" and self.stays(g))):
            self.wake(g)

    def seconds_to_swap_in(self, r: Request, found: int) -> float:
        if r.landed:
            r.landed = False
            self.note("decode_wait", r.cls, self.now - r.since)
            return 0.0
        return float((r.prompt + r.written - 1 - found) * self.engine.keys.swap_seconds)

    def prompts_go_first(self, g: Gpu) -> bool:
        """Whether the decodes can wait and a prompt can be read."""
        decodes = [r for r in g.running if r.stage == MIXED_DECODE]
        ahead = sum(self.blocks(self.needs(r)) - r.blocks for r in decodes)
        offset = self.engine.token_offset * self.seconds(self.engine.tokens, 0, 0, 0)
        late = self.now + offset > g.turn + self.engine.token_deadline
        if not decodes or late or ahead > g.free_blocks or (g.waiting and g.waiting[0].swapped):
            return False
        return len(decodes) < len(g.running) or self.may_read(g, ahead)

    def may_read(self, g: Gpu, ahead: int) -> bool:
        """Whether the prompt that waits first fits beside the `ahead` blocks that the decodes take next."""
        if not g.waiting or g.waiting[0].swapped or len(g.running) >= self.engine.batch_size:
            return False
        return self.blocks_to_read(g, g.waiting[0]) <= g.free_blocks - ahead

    def compose_prompts_first(self, g: Gpu) -> None:
        decodes = [r for r in g.running if r.stage == MIXED_DECODE]
        ahead = sum(self.blocks(self.needs(r)) - r.blocks for r in decodes)
        chunks = {r: min(r.to_read, self.engine.tokens) for r in g.running if r.stage == PREFILL}
        while sum(chunks.values()) < self.engine.tokens and self.may_read(g, ahead):
            r = g.waiting[0]
            self.take_prompt(g, r)
            self.admit(g, r)
            chunks[r] = min(r.to_read, self.engine.tokens - sum(chunks.values()))
        self.send_all(g, ahead)
        if self.engine.tokens - sum(chunks.values()) < len(decodes):
            decodes = []
        for r in decodes:
            self.take(g, r, self.needs(r))
        self.begin(g, chunks, decodes, 0.0)

    def admit(self, g: Gpu, r: Request) -> Request:
        g.waiting.remove(r)
        r.wait += 1
        g.running.append(r)
        r.begun[g.number] = True
        if r.swapped:
            r.stage, r.swapped = MIXED_DECODE, False
        else:
            r.stage = PREFILL
            if math.isnan(r.scheduled):
                r.scheduled = self.now
                self.note("prefill_wait", r.cls, self.now - r.arrival)
        return r

    def compose_budget(self, g: Gpu) -> None:
        victims, delay = self.grow(g)
        self.send_back(g, victims)
        left = self.engine.tokens
        decodes, chunks = [], {}
        for r in g.running:
            if r.stage == MIXED_DECODE:
                decodes.append(r)
                left -= 1
            elif r.stage == PREFILL and min(r.to_read, left) > 0:
                chunks[r] = min(r.to_read, left)
                left -= chunks[r]
        late = False
        while not g.short and left > 0 and len(g.running) < self.engine.batch_size:
            r = self.candidate(g)
            late = r is not None and r.came > g.latest
            if r is None or late:
                break
            if r.swapped:
                if chunks:
                    break
                delay += self.seconds_to_swap_in(r, self.take_kv(g, r))
                decodes.append(self.admit(g, r))
                left -= 1
            else:
                self.take_prompt(g, r)
                self.admit(g, r)
                chunks[r] = min(r.to_read, left)
                left -= chunks[r]
        if not g.short:
            self.send_all(g)
        self.begin(g, chunks, decodes, delay)
        ended, g.ended = [r for r in g.ended if r.outcome == 0], []
        for r in ended:
            self.complete(g, r)
        late = late or (bool(g.waiting) and g.waiting[0].came > g.latest)
        if g.end is None and (late or (ended and (g.waiting or g.fetching))):
            self.wake(g)  # it has run idle, and composes at once
        else:
            self.look_again(g)

    def compose_prefill_first(self, g: Gpu) -> None:
        ahead = sum(self.blocks(self.needs(r)) - r.blocks for r in g.running)
        chunks: dict[Request, int] = {}
        while len(g.running) < self.engine.batch_size:
            r = self.candidate(g, ahead)
            if r is None or r.swapped or (chunks and sum(chunks.values()) + r.whole > self.engine.tokens):
                break
            self.take_prompt(g, r)
            chunks[self.admit(g, r)] = r.to_read
        if chunks:
            self.send_all(g, ahead)
            self.begin(g, chunks, [], 0.0)
            return
        victims, delay = self.grow(g)
        self.send_back(g, victims)
        while not victims and len(g.running) < self.engine.batch_size:
            r = self.candidate(g)
            if r is None or not r.swapped:
                break
            delay += self.seconds_to_swap_in(r, self.take_kv(g, r))
            self.admit(g, r)
        if not victims:
            self.send_all(g)
        self.begin(g, {}, list(g.running), delay)
        self.look_again(g)

    # --- single prefill, under a policy

    def step_single(self, kind: int, what: Any) -> None:
        decide = True
        if kind == ARRIVAL:
            if self.arrive(what):
                self.enqueue(what, PREFILL_QUEUE)
        elif kind == PATIENCE:
            r = what[0]
            buffered = r.stage != PREFILL_QUEUE
            self.queues[r.stage][r.cls].remove(r)
            self.tally("decode_abandonments" if buffered else "prefill_abandonments", r.cls)
            self.finish(r, 3 if buffered else 2)
            if r.home is not None:
                self.recall(self.let_go(r))
        elif kind == TRANSFER:
            self.land(what)
            decide = False
        elif kind == CHANGE:
            self.change(what)
        elif kind == RELEASE:
            pass
        elif kind == COMPOSE:
            self.asked = self.compose_single(what) or self.asked
            if not any(q.composing or (q.called and q.end is None) for q in self.group_of(what)):
                self.start_step(what)
            decide = False
        else:
            decide = self.boundary_single(what)
        if decide:
            self.decide()
        while self.asked:
            self.asked = False
            self.decide()

    def unblock(self) -> bool:
        """Nothing moves: whether KV is given up for others, or slots that were kept for prefills without memory are."""
        if self.batching != "SINGLE_PREFILL" or not self.limited or not all(map(self.is_stuck, self.gpus)):
            return False
        if any(self.gives_way(g) for g in self.gpus):
            self.asked = False
            self.decide()
        elif any(g.barred for g in self.gpus):
            for g in self.gpus:
                self.open_again(g)
            self.asked = False
            self.place_decodes()
        else:
            return False
        while self.asked:
            self.asked = False
            self.decide()
        return True

    def open_again(self, g: Gpu) -> None:
        """Memory of `g` is free again: a prefill may start there, which the policy is asked about at once."""
        if g.barred:
            g.barred, self.asked = False, True
            self.refresh(g)

    def enqueue(self, r: Request, queue: int) -> None:
        r.stage, r.since = queue, self.now
        self.queues[queue][r.cls].append(r)
        self.be_patient(r)

    def boundary_single(self, g: Gpu) -> bool:
        along, g.along = g.along, False
        if along and not g.called:
            return False
        g.composing = True
        self.push(self.now, COMPOSE, g.number, g)
        if g.end is None:
            return False
        done = self.end_iteration(g)
        for r in sorted(done, key=lambda r: r.number):
            self.complete(g, r)
            g.seated.remove(r)
            self.refresh(g)
            self.open_again(g)
        ended = g.seat
        if ended is None or not g.reading or ended.to_read > 0:
            return bool(done)
        self.leave_seat(g)
        ended.since = self.now
        if ended.written == 0:
            self.tally("prompt_read", ended.cls, ended.prompt)
        where = self.route(self.view(), self.tables, ended.cls, self.draws.random())
        if where == 2 and g.number in self.decode_ready[self.group(g)]:
            self.assign_decode(ended, g)
        elif where < 2 and self.decode_ready[where]:
            self.assign_decode(ended, self.drawn_for_decode(where))
        else:
            self.enqueue(ended, MIXED_BUFFER + max(where - 3, 0))
        return True

    def leave_seat(self, g: Gpu) -> None:
        assert g.seat is not None
        g.running.remove(g.seat)
        self.keep(g, g.seat)
        g.seat, g.reading = None, False
        self.see_off(g)
        self.refresh(g)
        self.open_again(g)

    def recall(self, g: Gpu) -> None:
        self.open_again(g)
        if g.pending or g.fetching:
            self.join_soon(g)

    def change(self, tables: Any) -> None:
        """The mixed group grows at once, by leavers, solo GPUs with room, full ones; or shrinks as prefills end."""
        self.tables = tables
        more = int(tables.mixed_gpus) - sum(g.mixed and not g.leaving for g in self.gpus)
        if more > 0:
            room = [g for g in self.gpus if not g.mixed and not g.out and len(g.seated) < self.engine.batch_size]
            full = [g for g in self.gpus if not g.mixed and not g.out and g not in room]
            for g in ([g for g in self.gpus if g.leaving] + room + full)[:more]:
                g.leaving = False
                self.move(g, True)
        else:
            without = [g for g in self.gpus if g.mixed and g.seat is None]
            busy = [g for g in self.gpus if g.mixed and g.seat is not None and not g.leaving]
            for g in (without + busy)[:-more] if more < 0 else []:
                g.leaving = True
                self.see_off(g)
        for g in self.gpus:
            self.refresh(g)

    def see_off(self, g: Gpu) -> None:
        if g.leaving and g.seat is None:
            g.leaving = False
            self.move(g, False)

    def move(self, g: Gpu, mixed: bool) -> None:
        ready = self.decode_ready[self.group(g)]
        if g.mixed != mixed and g.number in ready:
            ready[ready.index(g.number)] = ready[-1]
            ready.pop()
        g.mixed = mixed
        self.refresh(g)

    def view(self) -> Any:
        """The View of a policy, counted anew."""
        from fluidgate.policies.decisions.view import View

        count = np.zeros((6, self.classes), np.int64)
        for r in self.present:
            if r.whole > 0 and r.stage != GONE:  # it has arrived and not left
                given = self.gated and r.stage == PREFILL_QUEUE and r.gpu >= 0
                count[PREFILL if given else self.stage_of(r), r.cls] += 1
        since = np.array([[q[0].since if q else np.inf for q in queue] for queue in self.queues])
        free = np.array([len(ready) for ready in self.decode_ready], np.int64)
        startable = np.array([len(self.prefill_ready)], np.int64)
        return View(
            len(self.gpus),
            self.engine.batch_size,
            count[PREFILL_QUEUE].copy(),
            count[PREFILL].copy(),
            count[MIXED_BUFFER : SOLO_BUFFER + 1].copy(),
            count[MIXED_DECODE].copy(),
            count[SOLO_DECODE].copy(),
            since[0].copy(),
            since[1:].copy(),
            free,
            startable,
            np.array([self.engine.batch_size - self.taken(self.gpus[self.fewest[0]]) if self.fewest else 0], np.int64),
            np.array([len(self.beside_ready)], np.int64),
            np.array([self.now]),
            self.limits.excess if self.limits is not None else np.zeros((5, self.classes)),
            self.pace,
        )

    def decide(self) -> None:
        self.look = math.inf
        while self.prefill_ready and any(self.queues[PREFILL_QUEUE]):
            cls = self.gate(self.view(), self.tables)
            if cls < 0:
                break
            g = self.drawn(self.fewest)
            r = self.queues[PREFILL_QUEUE][cls][0]
            if self.limited:
                blocks = min(self.blocks(r.whole + max(self.reservation, 1)), self.capacity)
                blocks -= self.shared(g, r, r.whole)
                if g.fetching or blocks > self.spare(g) - len(g.pending):
                    g.barred = True
                    self.refresh(g)
                    continue
            if self.prefixes:
                self.take_prompt(g, r)
            else:
                self.take(g, r, r.whole)
            self.queues[PREFILL_QUEUE][cls].pop(0)
            r.wait += 1
            r.stage, r.gpu, r.prefill_gpu = PREFILL, g.number, g.number
            g.seat = r
            self.refresh(g)
            self.join_soon(g)
        self.place_decodes()

    def place_decodes(self) -> None:
        for group in (1, 0):
            buffer = MIXED_BUFFER + (group if self.tables.split_buffers else 0)
            while self.decode_ready[group] and any(self.queues[buffer]):
                cls = self.refill(self.view(), self.tables, group, self.draws.random())
                if cls < 0:
                    break
                r = self.queues[buffer][cls].pop(0)
                r.wait += 1
                self.assign_decode(r, self.drawn_for_decode(group))

    def drawn_for_decode(self, group: int) -> Gpu:
        if self.tables.spare >= 0 and group == 0 and not self.tables.reserve:
            few = len(self.prefill_ready) <= self.tables.spare
            last = len(self.prefill_ready) <= self.tables.ready
            without = self.fewest if last else self.prefill_ready
            return self.drawn((self.beside_ready if few else []) or without or self.decode_ready[group])
        return self.drawn(self.decode_ready[group])

    def drawn(self, ready: list[int]) -> Gpu:
        return self.gpus[ready[int(self.draws.random() * len(ready))]]

    def assign_decode(self, r: Request, g: Gpu) -> None:
        r.stage, r.gpu = MIXED_DECODE, g.number
        g.seated.append(r)
        self.refresh(g)
        if r.swapped:
            g.fetching.append(r)
            self.join_soon(g)
        elif g.number == r.prefill_gpu:
            self.land(r)
        elif self.limited and (g.fetching or self.blocks_for_kv(g, r) > self.spare(g)):
            g.fetching.append(r)
            assert r.home is not None
            self.join_soon(g)
            self.join_soon(r.home)
        else:
            self.send_to_slot(g, r)

    def send_to_slot(self, g: Gpu, r: Request) -> None:
        found = self.take_kv(g, r) if self.limited or self.prefixes else 0
        tokens = r.prompt + r.written - found
        seconds = self.engine.keys.transfer_latency + self.seconds_per_token * tokens
        if seconds > 0:
            r.moving = self.limited
            self.push(self.now + seconds, TRANSFER, r.number, r)
        else:
            self.land(r)

    def land(self, r: Request) -> None:
        g = self.gpus[r.gpu]
        if r.home is not None and r.home is not g:
            self.recall(self.let_go(r))
        g.pending.append(r)
        self.join_soon(g)

    def join_soon(self, g: Gpu) -> None:
        if not g.composing:
            self.wake(g)

    def group(self, g: Gpu) -> int:
        return 0 if g.mixed else 1

    def refresh(self, g: Gpu) -> None:
        """Enter `g` at the end of a list of ready GPUs, or take it off: the last of the list fills its place."""
        group = self.group(g)
        prefills = 1 if g.seat is not None else 0
        slots = self.engine.batch_size - (1 if prefills or (group == 0 and self.tables.reserve) else 0)
        can_start = group == 0 and not prefills and not g.barred and len(g.seated) < self.engine.batch_size
        for ready, belongs in (
            (self.decode_ready[group], len(g.seated) < slots and not g.out),
            (self.beside_ready, prefills > 0 and len(g.seated) < self.engine.batch_size - 1 and not g.out),
        ):
            if belongs and g.number not in ready:
                ready.append(g.number)
            elif not belongs and g.number in ready:
                ready[ready.index(g.number)] = ready[-1]
                ready.pop()
        self.rank(g, can_start and not g.out)

    @property
    def prefill_ready(self) -> list[int]:
        """GPUs that could start a prefill, the emptiest first."""
        return [g for level in self.levels for g in level]

    @property
    def fewest(self) -> list[int]:
        return next((level for level in self.levels if level), [])

    def taken(self, g: Gpu) -> int:
        if self.gated:
            return len(g.waiting) + len(g.running)
        return len(g.seated) + (1 if g.seat is not None else 0)

    def rank(self, g: Gpu, belongs: bool) -> None:
        """Let `g` stand in the list of its level, or in none; one GPU of each level above goes to its other end."""
        taken = self.taken(g) if len(self.levels) > 1 else 0
        octave = max(0, int(math.log2(max(taken, 1))) - 4)
        level = taken if octave == 0 else 16 + 8 * octave + (taken >> octave + 1)
        old = next((k for k, ready in enumerate(self.levels) if g.number in ready), None)
        if old is None and belongs:
            for ready in self.levels[level + 1 :]:
                ready.extend([ready.pop(0)] if ready else [])
            self.levels[level].append(g.number)
        elif old is not None and not belongs:
            fill(self.levels[old], g.number, -1)
            for ready in self.levels[old + 1 :]:
                ready[:0] = [ready.pop()] if ready else []
        elif old is not None:
            for k in range(old, level):
                fill(self.levels[k], g.number, -1)
                self.levels[k + 1].insert(0, g.number)
            for k in range(old, level, -1):
                fill(self.levels[k], g.number, 0)
                self.levels[k - 1].append(g.number)

    def compose_single(self, g: Gpu) -> bool:
        """Whether anybody has given way."""
        victims, delay = self.grow(g)
        for r in victims:
            if r.swapped:
                g.fetching.insert(0, r)
                continue
            if r is g.seat:
                g.seat, g.reading = None, False
                self.see_off(g)
            else:
                g.seated.remove(r)
            self.refresh(g)
            self.open_again(g)
            self.queue_in_front(r)
        if not victims:
            before = len(g.running)
            self.join_pending(g)
            while g.fetching and self.blocks_for_kv(g, g.fetching[0]) <= g.free_blocks:
                r = g.fetching.pop(0)
                if r.swapped:
                    found = self.take_kv(g, r)
                    delay += (r.prompt + r.written - found) * self.engine.keys.swap_seconds
                    g.pending.append(r)
                else:
                    self.send_to_slot(g, r)
            self.join_pending(g)
            if len(g.running) > before and not g.fetching:
                self.open_again(g)
        seat = g.seat
        chunks: dict[Request, int] = {}
        if seat is not None:
            if not (g.reading or victims):
                g.reading = True
                g.running.append(seat)
                if math.isnan(seat.scheduled):
                    seat.scheduled = self.now
                    self.note("prefill_wait", seat.cls, self.now - seat.arrival)
            if g.reading:
                chunks[seat] = min(seat.to_read, self.engine.tokens)
        self.begin(g, chunks, [q for q in g.running if q is not seat], delay)
        g.composing = False
        if victims and g.end is None:
            self.wake(g)
        return bool(victims) or (g.end is None and self.gives_way(g))

    def queue_in_front(self, r: Request) -> None:
        r.stage, r.since = PREFILL_QUEUE, r.arrival
        self.queues[PREFILL_QUEUE][r.cls].insert(0, r)

    def join_pending(self, g: Gpu) -> None:
        """Those whose KV is here join, if there is memory for their next tokens."""
        for r in list(g.pending):
            if r.home is g:
                if self.blocks(self.needs(r)) - r.kept > g.free_blocks:
                    continue
                self.hold_at_home(r)
            self.take(g, r, self.needs(r))
            g.pending.remove(r)
            g.running.append(r)
            if r.swapped:
                r.swapped = False
            else:
                self.note("decode_wait", r.cls, self.now - r.since)

    def gives_way(self, g: Gpu) -> bool:
        """`g` is idle though somebody is there: KV that it keeps and that nobody can take or go on with is lost."""
        if not self.limited or self.kv_moves(g):
            return False
        if g.pending:
            r = g.pending.pop()
            g.fetching.insert(0, r)
        elif g.fetching:
            waits = self.held_up(g)
            if not waits and all(q is g or self.is_stuck(q) for q in self.gpus):
                waits = [r for r in self.present if r.home is g and r.stage in (MIXED_BUFFER, SOLO_BUFFER)]
                waits.sort(key=lambda r: (r.since, r.number))
            if not waits:
                return False
            r = waits[-1]
        else:
            return False
        there = self.gpus[r.gpu]
        self.let_go(r)
        r.preemptions += 1
        self.tally("preemptions", r.cls)
        if self.swap:
            r.swapped = True
        else:
            r.to_read = r.whole = r.prompt + r.written
            if r.stage in (MIXED_BUFFER, SOLO_BUFFER):
                self.queues[r.stage][r.cls].remove(r)
                r.wait += 1
            else:
                there.fetching.remove(r)
                there.seated.remove(r)
                self.refresh(there)
                self.open_again(there)
            self.queue_in_front(r)
        self.open_again(g)
        self.join_soon(g)
        self.join_soon(there)
        return True


def fill(ready: list[int], gpu: int, end: int) -> None:
    """Take `gpu` off a list; the one at an end takes its place."""
    at = ready.index(gpu)
    ready[at] = ready[end]
    ready.pop(end)
