"""The Markov network of [LDHZ] section 2 with the gateway's dispatcher at its heart, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fluidgate.gateway.dispatch.fleet import problems
from fluidgate.gateway.dispatch.gated import Gated
from fluidgate.gateway.dispatch.ticket import Stage, Ticket
from fluidgate.model import Rates
from fluidgate.policies.decisions.tables import Tables

STAGES = ("prefill", "mixed_decode", "solo_decode", "prefill_queue", "decode_queue")


class VirtualNetwork:
    """Exponential clocks around a dispatcher: the class of the next event is drawn by rate, its member uniformly."""

    def __init__(self, rates: Rates, tables: Tables, gpus: int, batch_size: int, seed: int, audited: bool) -> None:
        self.now = 0.0
        self.rates = rates
        self.gpus = gpus
        self.classes = len(rates.arrival)
        self.rng = np.random.Generator(np.random.SFC64(seed))
        self.dispatcher = Gated(tables, gpus, batch_size, self.classes, clock=lambda: self.now, seed=seed)
        for g in range(gpus):
            self.dispatcher.engine_up(g, 0)
        self.tickets: list[Ticket] = []
        self.area = np.zeros((len(STAGES), self.classes))
        self.audited = audited

    def counts(self) -> NDArray[np.int64]:
        c = self.dispatcher.counts()
        return np.stack([c.prefilling, c.mixed_decodes, c.solo_decodes, c.waiting, c.buffered])

    def run(self, events: int) -> None:
        speed = np.stack(
            [
                self.rates.prefill,
                self.rates.mixed_decode,
                self.rates.solo_decode,
                self.rates.patience,
                self.rates.patience,
            ]
        )
        for _ in range(events):
            counts = self.counts()
            clocks = np.concatenate([self.gpus * self.rates.arrival, (counts * speed).ravel()])
            total = clocks.sum()
            wait = self.rng.exponential(1.0 / total)
            while self.dispatcher.release < self.now + wait:
                self.pass_time(self.dispatcher.release - self.now)
                self.dispatcher.look_again()
                counts = self.counts()
                clocks = np.concatenate([self.gpus * self.rates.arrival, (counts * speed).ravel()])
                total = clocks.sum()
                wait = self.rng.exponential(1.0 / total)
            self.pass_time(wait)
            which = int(np.searchsorted(np.cumsum(clocks), self.rng.random() * total))
            if which < self.classes:
                self.arrive(which)
            else:
                self.fire(*divmod(which - self.classes, self.classes))
            if self.audited:
                self.check()

    def pass_time(self, seconds: float) -> None:
        self.area += seconds * self.counts()
        self.now += seconds

    def arrive(self, cls: int) -> None:
        ticket = Ticket(cls, 1)
        self.tickets.append(ticket)
        self.dispatcher.enter(ticket)

    def fire(self, stage: int, cls: int) -> None:
        ticket = self.member(self.belongs(stage), cls)
        if stage == 0:
            self.dispatcher.prompt_read(ticket, 1)
            return
        self.dispatcher.leave(ticket, abandoned=stage >= 3)
        self.tickets.remove(ticket)

    def belongs(self, stage: int) -> Callable[[Ticket], bool]:
        mixed = self.dispatcher.fleet.gpu["mixed"]
        return (
            lambda t: t.stage is Stage.PREFILL,
            lambda t: t.stage is Stage.DECODE and mixed[t.decode_engine] == 1,
            lambda t: t.stage is Stage.DECODE and mixed[t.decode_engine] == 0,
            lambda t: t.stage is Stage.WAITING,
            lambda t: t.stage is Stage.BUFFERED,
        )[stage]

    def member(self, belongs: Callable[[Ticket], bool], cls: int) -> Ticket:
        members = [t for t in self.tickets if t.cls == cls and belongs(t)]
        return members[int(self.rng.random() * len(members))]

    def check(self) -> None:
        """The fleet is consistent, and what the tickets say is what it counts."""
        assert problems(self.dispatcher.fleet) == []
        held = [
            [sum(self.belongs(s)(t) for t in self.tickets if t.cls == i) for i in range(self.classes)] for s in range(5)
        ]
        assert held == self.counts().tolist()


def occupancies(
    rates: Rates, tables: Tables, gpus: int, batch_size: int, *, events: int, seed: int, audited: bool = False
) -> NDArray[np.float64]:
    """Time averages per GPU after a warm-up of a tenth, shape (5 stages, classes)."""

    async def run() -> NDArray[np.float64]:
        network = VirtualNetwork(rates, tables, gpus, batch_size, seed, audited)
        network.run(events // 10)
        start, network.area[:] = network.now, 0.0
        network.run(events)
        return network.area / (network.now - start) / gpus

    return asyncio.run(run())


def replicated(seeds: Sequence[int], **options: object) -> NDArray[np.float64]:
    return np.array([occupancies(seed=seed, **options) for seed in seeds])  # type: ignore[arg-type]
