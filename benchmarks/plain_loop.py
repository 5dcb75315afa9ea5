"""Gate-and-route as anyone would first write it in Python: objects, lists, one event after the other.

The network is that of the compiled kernel, GPU by GPU, with the same statistics. Nothing in it grows with the cluster
(free GPUs are drawn from lists), but nothing is tuned either.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

from fluidgate import Plan, Scenario
from fluidgate.planning import partition


class Bag:
    """A set that an element is drawn from uniformly."""

    def __init__(self) -> None:
        self.items: list = []
        self.place: dict = {}

    def __len__(self) -> int:
        return len(self.items)

    def add(self, item: object) -> None:
        self.place[item] = len(self.items)
        self.items.append(item)

    def remove(self, item: object) -> None:
        at = self.place.pop(item)
        last = self.items.pop()
        if last is not item:
            self.items[at] = last
            self.place[last] = at

    def draw(self) -> object:
        return random.choice(self.items)


@dataclass(eq=False)
class Request:
    cls: int
    since: float
    gpu: Gpu | None = None


@dataclass(eq=False)
class Gpu:
    solo: bool
    prefill: Request | None = None
    decodes: set[Request] = field(default_factory=set)


class Cluster:
    """The state of the network and its time averages."""

    def __init__(self, scenario: Scenario, plan: Plan, gpus: int) -> None:
        rates = scenario.rates
        self.classes = range(len(scenario.classes))
        self.batch = scenario.gpu.batch_size
        self.target = gpus * plan.prefill
        self.queue_target = gpus * plan.prefill_queue
        self.arrival = gpus * rates.arrival
        theta = list(rates.patience)
        self.rate = [theta, list(rates.prefill), theta, list(rates.mixed_decode), list(rates.solo_decode)]
        self.stages = [[Bag() for _ in self.classes] for _ in range(5)]
        self.area = [[0.0 for _ in self.classes] for _ in range(5)]
        mixed = partition(plan.mixed_fraction, gpus).mixed
        self.idle, self.free_mixed, self.free_solo = Bag(), Bag(), Bag()
        for k in range(gpus):
            gpu = Gpu(solo=k >= mixed)
            (self.free_solo if gpu.solo else self.free_mixed).add(gpu)
            if not gpu.solo:
                self.idle.add(gpu)
        self.now = 0.0
        self.done = [0 for _ in self.classes]

    def run(self, horizon: float) -> int:
        events = 0
        while True:
            weights = [
                self.rate[stage][i] * len(self.stages[stage][i]) for stage in range(5) for i in self.classes
            ] + list(self.arrival)
            step = random.expovariate(sum(weights))
            for stage in range(5):
                for i in self.classes:
                    self.area[stage][i] += step * len(self.stages[stage][i])
            self.now += step
            if self.now > horizon:
                return events
            events += 1
            kind = random.choices(range(len(weights)), weights)[0]
            stage, cls = divmod(kind, len(self.classes))
            if stage == 5:
                self.stages[0][cls].add(Request(cls, self.now))
            else:
                self.finish(stage, self.stages[stage][cls].draw())
            self.start_prefills()
            self.fill_decodes()

    def finish(self, stage: int, request: Request) -> None:
        self.stages[stage][request.cls].remove(request)
        gpu = request.gpu
        if stage == 1:
            gpu.prefill = None
            self.idle.add(gpu)
            for other in gpu.decodes:
                self.stages[3][other.cls].remove(other)
                self.stages[4][other.cls].add(other)
            request.since = self.now
            self.stages[2][request.cls].add(request)
        elif stage >= 3:
            gpu.decodes.remove(request)
            self.done[request.cls] += 1
            free = self.free_solo if gpu.solo else self.free_mixed
            if len(gpu.decodes) == (self.batch if gpu.solo else self.batch - 1) - 1:
                free.add(gpu)

    def start_prefills(self) -> None:
        while len(self.idle):
            waiting = [i for i in self.classes if len(self.stages[0][i])]
            if not waiting:
                return
            cls = min(
                waiting,
                key=lambda i: (
                    len(self.stages[1][i]) / self.target[i] if self.target[i] else float("inf"),
                    self.queue_target[i] - len(self.stages[0][i]),
                ),
            )
            request = next(iter(self.stages[0][cls].place))  # dictionaries keep the order of arrival
            self.stages[0][cls].remove(request)
            gpu = self.idle.draw()
            self.idle.remove(gpu)
            request.gpu, gpu.prefill = gpu, request
            self.stages[1][cls].add(request)
            for other in gpu.decodes:
                self.stages[4][other.cls].remove(other)
                self.stages[3][other.cls].add(other)

    def fill_decodes(self) -> None:
        while len(self.free_solo) or len(self.free_mixed):
            heads = [next(iter(self.stages[2][i].place)) for i in self.classes if len(self.stages[2][i])]
            if not heads:
                return
            request = min(heads, key=lambda r: r.since)
            self.stages[2][request.cls].remove(request)
            free = self.free_solo if len(self.free_solo) else self.free_mixed
            gpu = free.draw()
            gpu.decodes.add(request)
            request.gpu = gpu
            if len(gpu.decodes) == (self.batch if gpu.solo else self.batch - 1):
                free.remove(gpu)
            self.stages[3 if gpu.prefill else 4][request.cls].add(request)


@dataclass(frozen=True)
class PlainResult:
    events: int
    seconds: float
    revenue: float


def run(scenario: Scenario, plan: Plan, *, gpus: int, horizon: float, warmup: float, seed: int = 0) -> PlainResult:
    """Simulate gate-and-route; revenue per GPU and second over (warmup, horizon], bundled prices."""
    random.seed(seed)
    cluster = Cluster(scenario, plan, gpus)
    began = time.perf_counter()
    events = cluster.run(warmup)
    before = list(cluster.done)
    events += cluster.run(horizon)
    seconds = time.perf_counter() - began
    done = [after - early for after, early in zip(cluster.done, before, strict=True)]
    revenue = float(scenario.rates.bundled_value @ done) / (gpus * (horizon - warmup))
    return PlainResult(events, seconds, revenue)
