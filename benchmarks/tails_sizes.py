"""The fewest engines that keep a percentile, by prediction and by simulation.

`python -m benchmarks.tails_sizes` prints a row a question: p99 of TTFT or p95 of TPOT of all requests, 60,000 of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.tails import AZURE, CHAT, POOL, THREE, TURN, Workload
from fluidgate import FluidgateError, Gpu, RequestClass, Scenario, simulate
from fluidgate.model import Arrivals, EngineModel, Lengths
from fluidgate.profiles import find_profile
from fluidgate.tails import predict

REQUESTS = 60_000
SPREAD = Lengths(prompt="lognormal", output="lognormal", prompt_cv=1.2, output_cv=1.0)
BURSTS = Arrivals(process="gamma", cv=3.0)


@dataclass(frozen=True)
class Question:
    """A limit on a percentile of a time, s, of a load of the whole cluster, requests/s."""

    profile: str
    batching: str
    workload: Workload
    rate: float
    measure: str
    limit: float

    @property
    def statistic(self) -> str:
        return "p99" if self.measure == "ttft" else "p95"

    def scenario(self, engines: int) -> Scenario:
        return Scenario(
            name="question",
            gpu=Gpu(batch_size=256, chunk_size=2048, iteration=find_profile(self.profile).iteration),
            classes=tuple(
                RequestClass(
                    name=f"c{k}",
                    prompt_tokens=prompt,
                    output_tokens=output,
                    arrival_rate=self.rate * share / engines,
                    patience_rate=0.0,
                )
                for k, (prompt, output, share) in enumerate(self.workload.classes)
            ),
            lengths=self.workload.lengths,
            arrivals=self.workload.arrivals,
            engine=EngineModel(batching=self.batching),
        )

    def predicted(self, policy: str, engines: int) -> float:
        share = float(self.statistic[1:]) / 100.0
        return predict(self.scenario(engines), engines, policy=policy).time(self.measure).quantile(share)  # type: ignore[arg-type]

    def simulated(self, policy: str, engines: int) -> float:
        """inf where not all can be served."""
        try:
            found = simulate(
                self.scenario(engines),
                policy,
                gpus=engines,
                horizon=REQUESTS / self.rate,
                replications=1,
                workers=1,
                fidelity="iteration",
            )
        except FluidgateError:
            return math.inf
        return float(getattr(getattr(found.overall, self.measure), self.statistic))  # type: ignore[attr-defined]

    def fewest(self, time_of: Callable[[int], float], start: int) -> int:
        """The fewest engines, looked for from `start` on."""
        n = start
        while time_of(n) > self.limit:
            n += 1
        while n > 1 and time_of(n - 1) <= self.limit:
            n -= 1
        return n


A100, H100 = "a100-80gb/llama-3.1-8b", "h100/llama-3.1-8b"
QUESTIONS = (
    Question(H100, "token-budget", Workload("azure", AZURE.classes, SPREAD), 150.0, "ttft", 0.3),
    Question(H100, "token-budget", Workload("bursts", CHAT.classes, arrivals=BURSTS), 150.0, "ttft", 0.5),
    Question(A100, "token-budget", Workload("2,000", ((2000, 300, 1.0),), SPREAD), 60.0, "ttft", 1.0),
    Question("h200/llama-3.1-8b", "single-prefill", Workload("8,000", ((8000, 300, 1.0),)), 30.0, "ttft", 2.0),
    Question("l40s/llama-3.1-8b", "token-budget", Workload("1,000", ((1000, 300, 1.0),), SPREAD), 40.0, "tpot", 0.06),
    Question(
        "h100/llama-3.1-70b-tp4", "token-budget", Workload("1,500", ((1500, 300, 1.0),), SPREAD), 60.0, "tpot", 0.06
    ),
    Question(H100, "single-prefill", Workload("three", THREE.classes), 100.0, "ttft", 0.5),
)


def main() -> None:
    print("| profile | workload | limit | policy | serves all | predicted | simulated | ms |")
    print("|---|---|---|---|---|---|---|---|")
    for policy in (POOL, TURN):
        for asked in QUESTIONS:
            if policy == TURN and asked.batching == "single-prefill":
                continue

            def predicted(n: int, asked: Question = asked, policy: str = policy) -> float:
                return asked.predicted(policy, n)

            def simulated(n: int, asked: Question = asked, policy: str = policy) -> float:
                return asked.simulated(policy, n)

            least = 1
            while math.isinf(predicted(least)):
                least += 1
            started = time.perf_counter()
            n = asked.fewest(predicted, least)
            spent = 1e3 * (time.perf_counter() - started)
            limit = f"{asked.statistic} {asked.measure.upper()} {asked.limit:g} s"
            cells = (asked.profile, asked.workload.name, limit, policy, least, n, asked.fewest(simulated, n))
            print("| " + " | ".join(map(str, cells)) + f" | {spent:.0f} |", flush=True)


if __name__ == "__main__":
    main()
