"""The rule of EDPP in plain Python, by looking at every GPU."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.oracles.placements import Place, choose


@dataclass
class Weights:
    prefix_weight: float = 2.0
    queue_weight: float = 1.0
    memory_weight: float = 0.0


@dataclass
class PlainEdpp:
    """What `fluidgate.policies.decisions.edpp.Edpp` keeps, and its rule.

    Attributes:
        gpus, prompt_gpus, chunk, price, seconds, latency, per_token: as there.
        targets: by class, TTFT and time between tokens, s.
    """

    gpus: int
    prompt_gpus: int
    chunk: int
    price: float
    seconds: Any
    latency: float
    per_token: float
    targets: list[tuple[float, float]]
    backlog: Counter[int] = field(default_factory=Counter)
    requests: Counter[int] = field(default_factory=Counter)
    context: Counter[int] = field(default_factory=Counter)
    served: list[tuple[float, int, float, float]] = field(default_factory=list)  # when, class, beyond the targets
    late: Counter[int] = field(default_factory=Counter)
    slow: Counter[int] = field(default_factory=Counter)
    outputs: dict[int, list[int]] = field(default_factory=dict)

    def best(self, pool: range, prompt: int, found: Mapping[int, int]) -> int:
        places = [Place(up=g in pool, waiting=self.requests[g]) for g in range(self.gpus)]
        return choose("PRECISE", places, prompt, found, Weights())

    def read_work(self, prompt: int, found: int) -> float:
        total, before = 0.0, found
        while before < prompt:
            tokens = min(self.chunk, prompt - before)
            total += self.seconds.beta * tokens + self.seconds.zeta * tokens * before
            before += tokens
        return total

    def decode_work(self, cls: int, prompt: int) -> float:
        outputs = self.outputs.get(cls, [1])
        output = sum(outputs) / len(outputs)
        return output * (self.seconds.delta + self.seconds.epsilon * (prompt + (output - 1) / 2))

    def choose(self, cls: int, prompt: int, found: Mapping[int, int]) -> tuple[int, int, float, float]:
        """The GPUs that read and decode, and the work there."""
        self.settle()
        d = self.best(range(self.prompt_gpus, self.gpus), prompt, found)
        p = self.best(range(self.prompt_gpus), prompt, found)
        ttft, itl = self.targets[cls]
        s = self.seconds
        costs = {}
        for g in (d, p):
            new = prompt - found.get(g, 0)
            work = self.read_work(prompt, found.get(g, 0))
            rate = 1 - s.solo_alpha / itl if g == d else 1 - s.alpha / (s.alpha + s.beta * self.chunk)
            rate = min(max(rate, 1e-3), 1.0)
            step = s.solo_alpha + s.delta * self.requests[g] + s.epsilon * self.context[g] if g == d else s.alpha
            first = self.backlog[g] / rate + math.ceil(new / self.chunk) * step + work
            cost = self.backlog[g] * work / (rate * ttft) ** 2
            if g == d:
                cost += self.slow[cls] * s.beta * min(new, self.chunk) / itl**2
            else:
                sent = self.latency + self.per_token * (prompt - found.get(d, 0))
                first += sent
                cost += self.price * sent / ttft
            costs[g] = cost + self.late[cls] * first / ttft**2
        self.margin = abs(costs[p] - costs[d])
        reader = p if costs[p] < costs[d] else d
        reads, decodes = self.read_work(prompt, found.get(reader, 0)), self.decode_work(cls, prompt)
        works = [reads, decodes] if reader == p else [-1.0, reads + decodes]
        for g, work in zip((reader, d), works, strict=True):
            self.backlog[g] += max(work, 0.0)  # type: ignore[assignment]
        for g in {reader, d}:
            self.requests[g] += 1
        self.context[d] += prompt
        return reader, d, works[0], works[1]

    def completed(self, now: float, cls: int, ttft: float, itl: float, output: int) -> None:
        self.outputs.setdefault(cls, []).append(output)
        slower = 0.0 if math.isnan(itl) else itl - self.targets[cls][1]
        self.served.append((now, cls, ttft - self.targets[cls][0], slower))

    def settle(self) -> None:
        """The virtual queues, epoch by epoch."""
        for now in sorted({when for when, *_ in self.served}):
            for queue, part in ((self.late, 2), (self.slow, 3)):
                for cls in range(len(self.targets)):
                    gained = sum(each[part] for each in self.served if each[0] == now and each[1] == cls)
                    queue[cls] = max(queue[cls] + gained, 0.0)
        self.served.clear()
