"""What the gateway's decisions cost: python benchmarks/decisions.py [--engines 200] [--waiting 10000]

A saturated cluster: every slot is held, and thousands wait. Timed are the calls that a request makes on its way: its
arrival (with the check that there is room in the queue), the end of its prefill (which starts another one), and its
end (which lets a waiting decode have the slot). Medians, as the machine may do other things too.
"""

import argparse
import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from fluidgate.gateway.dispatch.gated import Gated
from fluidgate.gateway.dispatch.ticket import Stage, Ticket
from fluidgate.model import Gpu, IterationTime, Pricing, RequestClass, Scenario
from fluidgate.planning import plan
from fluidgate.policies import find_policy
from fluidgate.replanning import Estimator

BATCH = 16
POLICIES = ("gate-and-route", "index-and-pool", "prioritize-and-route")


def scenario(classes: int) -> Scenario:
    """More load than the cluster carries, so that all queues stand."""
    return Scenario(
        name="saturated",
        gpu=Gpu(batch_size=BATCH, chunk_size=256, iteration=IterationTime(alpha=0.0174, beta=6.2e-5, gamma=45.45)),
        pricing=Pricing(scheme="bundled", prompt=0.1, output=0.2),
        classes=tuple(
            RequestClass(
                name=str(i),
                prompt_tokens=300.0 + 700.0 * i,
                output_tokens=1000.0 - 200.0 * i,
                arrival_rate=2.0,
                patience_rate=0.1,
            )
            for i in range(classes)
        ),
    )


@dataclass
class Timed:
    """Seconds of each call, by what it did."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def call(self, what: str, function: Callable[..., object], *arguments: object) -> None:
        start = time.perf_counter()
        function(*arguments)
        self.seconds.setdefault(what, []).append(time.perf_counter() - start)


class Saturated:
    """A dispatcher whose every slot is held while `waiting` requests wait."""

    def __init__(self, policy: str, engines: int, waiting: int, classes: int) -> None:
        self.draw = np.random.default_rng(0)
        self.classes = classes
        chosen, load = find_policy(policy), scenario(classes)
        scheme, buffer = chosen.program.key(load)
        tables = chosen.tabulate(plan(load, gpus=engines, scheme=scheme, allow_decode_buffer=buffer), engines)
        estimator = Estimator(load, engines, window=120.0, prior=120.0, start=time.monotonic())
        self.dispatcher = Gated(tables, engines, BATCH, classes, estimator=estimator, clock=time.monotonic)
        self.tickets: dict[Stage, list[Ticket]] = {Stage.PREFILL: [], Stage.DECODE: []}
        for g in range(engines):
            self.dispatcher.engine_up(g, 0)
        for _ in range(waiting):
            self.dispatcher.enter(self.new())

    def new(self) -> Ticket:
        ticket = Ticket(int(self.draw.integers(self.classes)), 100)
        self.tickets.setdefault(Stage.WAITING, []).append(ticket)
        return ticket

    def one(self, stage: Stage) -> Ticket | None:
        """A request that is at `stage` now, drawn uniformly; O(1)."""
        self.sort_in()
        members = self.tickets[stage]
        if not members:
            return None
        k = int(self.draw.integers(len(members)))
        members[k], members[-1] = members[-1], members[k]
        return members.pop()

    def sort_in(self) -> None:
        """Bring the lists up to date with what has started meanwhile; not timed."""
        for stage in (Stage.WAITING, Stage.BUFFERED):
            waits = self.tickets.get(stage, [])
            still = []
            for ticket in waits:
                (still if ticket.stage is stage else self.tickets.setdefault(ticket.stage, [])).append(ticket)
            self.tickets[stage] = still

    def round(self, timed: Timed) -> None:
        """One arrival, one end of a prefill, one end of a decode; and one that leaves, as more come than are served."""
        d = self.dispatcher
        ticket = self.new()
        timed.call("arrival", lambda: (d.enter(ticket), d.queued(ticket)))
        read = self.one(Stage.PREFILL)
        if read is not None:
            timed.call("prompt read", d.prompt_read, read, 100)
            self.tickets.setdefault(read.stage, []).append(read)
        ended = self.one(Stage.DECODE)
        if ended is not None:
            timed.call("end of answer", d.leave, ended)
        impatient = self.one(Stage.WAITING)
        if impatient is not None:
            timed.call("leaves the queue", d.leave, impatient)


async def measure(policy: str, engines: int, waiting: int, classes: int, rounds: int) -> Timed:
    cluster = Saturated(policy, engines, waiting, classes)
    for _ in range(4 * engines):  # until decodes hold their slots
        cluster.round(Timed())
    timed = Timed()
    for _ in range(rounds):
        cluster.round(timed)
    return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--engines", type=int, default=200)
    parser.add_argument("--waiting", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1500)
    given = parser.parse_args()
    print(f"{given.engines} engines, {given.waiting} waiting, {given.classes} classes; load {os.getloadavg()[0]:.1f}")
    print(f"{'policy':22}{'call':18}{'median µs':>10}{'p90 µs':>10}")
    for policy in POLICIES:
        timed = asyncio.run(measure(policy, given.engines, given.waiting, given.classes, given.rounds))
        for what, seconds in timed.seconds.items():
            print(f"{policy:22}{what:18}{1e6 * np.median(seconds):10.1f}{1e6 * np.quantile(seconds, 0.9):10.1f}")


if __name__ == "__main__":
    main()
