"""Requests for a gateway: Poisson arrivals of each class at the rates of a scenario, of its class's mean lengths."""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import Counter

import aiohttp

from fluidgate import Scenario
from fluidgate.model import RequestClass


async def requests(scenario: Scenario, url: str, *, gpus: int, seconds: float) -> Counter[str]:
    """Requests for so many seconds; how many came to what: an HTTP status, or "no answer"."""
    outcomes: Counter[str] = Counter()
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(url, connector=connector, timeout=timeout) as session,
        asyncio.TaskGroup() as tasks,
    ):
        async with session.get("/v1/models") as answer:
            model = (await answer.json())["data"][0]["id"]

        async def ask(cls: RequestClass) -> None:
            body = {
                "model": model,
                "prompt": [random.randrange(1000) for _ in range(int(cls.prompt_tokens))],
                "max_tokens": int(cls.output_tokens),
                "ignore_eos": True,
                "stream": True,
            }
            try:
                async with session.post("/v1/completions", json=body, headers={"x-class": cls.name}) as answer:
                    await answer.read()
                    outcomes[str(answer.status)] += 1
            except aiohttp.ClientError:
                outcomes["no answer"] += 1

        async def arrivals(cls: RequestClass) -> None:
            end = time.monotonic() + seconds
            while True:
                await asyncio.sleep(random.expovariate(cls.arrival_rate * gpus))
                if time.monotonic() > end:
                    return
                tasks.create_task(ask(cls))

        for cls in scenario.for_gpus(gpus).classes:
            tasks.create_task(arrivals(cls))
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--gpus", type=int, default=1, help="engines behind the gateway")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    given = parser.parse_args()
    scenario = Scenario.load(given.scenario)
    print(dict(asyncio.run(requests(scenario, given.url, gpus=given.gpus, seconds=given.seconds))))


if __name__ == "__main__":
    main()
