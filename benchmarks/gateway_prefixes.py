"""What it costs to know where a prompt's beginning is: CPU time a request, and the longest time that the loop stands.

python -m benchmarks.gateway_prefixes [--tokens 100000] [--engines 64] [--requests 40]

Three ways to hash the prompt are held beside each other, then the whole of a request: its text rendered and hashed off
the event loop, looked for on all engines, sent to one, and its end. A ticker of 1 ms runs beside that, and is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson

from fluidgate.gateway.client.prompt_meter import PromptMeter
from fluidgate.gateway.client.prompt_text import answered
from fluidgate.gateway.prefixes import PrefixIndex, chain_of_text, kernels

WORDS = [f"word{k}" for k in range(5000)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--engines", type=int, default=64)
    parser.add_argument("--requests", type=int, default=40)
    given = parser.parse_args()
    kernels.compile_all()
    text = conversation(random.Random(0), given.tokens)[1].encode()
    print(f"{given.tokens} tokens, {len(text)} bytes")
    for name, way in (
        ("blake2b, block by block", by_blake),
        ("numpy, all blocks at once", by_numpy),
        ("compiled", compiled),
    ):
        print(f"  {name:28} {1e3 * median_seconds(lambda way=way: way(text)):6.2f} ms")
    for looked_for in (False, True):
        asyncio.run(requests(given.tokens, given.engines, given.requests, looked_for))


async def requests(tokens: int, engines: int, number: int, looked_for: bool) -> None:
    """Turns of conversations, one after the other, each on an engine of its own."""
    meter, index = PromptMeter(4.0), PrefixIndex(1_000_000)
    rng = random.Random(1)
    bodies = [conversation(rng, tokens) for _ in range(8)]
    for k in range(engines):
        index.begin(k)
        if looked_for:
            chain, _ = await meter.hashed("chat", bodies[k % 8][0], len(bodies[k % 8][1]))
            assert chain is not None
            index.left(index.sent(k, chain, tokens))
    lags: list[float] = []
    held_up: list[float] = []
    ticking = asyncio.create_task(tick(lags))
    await asyncio.sleep(0.05)
    lags.clear()
    cpu = cpu_seconds()
    for k in range(number):
        body, raw = bodies[k % 8]
        prompt = await meter.measured("chat", body, len(raw))
        if looked_for:
            chain, _ = await meter.hashed("chat", body, len(raw))
            assert chain is not None
            on_loop = time.thread_time()
            reuse = index.found(chain, prompt, lambda engine: True)
            assert reuse.count[0] > 0
            sent = index.sent(int(reuse.gpu[0]), chain, prompt)
            index.left(sent, [answered("chat", chain, "word " * 300)])
            held_up.append(time.thread_time() - on_loop)
        await asyncio.sleep(0.01)
    cpu = cpu_seconds() - cpu
    ticking.cancel()
    what = "counted, hashed and looked for" if looked_for else "counted only"
    print(
        f"{what} ({engines} engines): {1e3 * cpu / number:.2f} ms of CPU a request, "
        f"ticks of the loop late by {1e3 * max(lags):.1f} ms at most, "
        f"{1e3 * float(np.quantile(lags, 0.99)):.1f} ms in 99 %"
    )
    if looked_for:
        held = sum(index.snapshot(k)["bytes"] for k in range(engines))
        blocks = sum(index.snapshot(k)["blocks"] for k in range(engines))
        most, median = 1e3 * max(held_up), 1e3 * float(np.median(held_up))
        print(f"  on the loop itself: {most:.2f} ms at most, {median:.2f} ms mostly")
        print(f"  {blocks} blocks known, room for all takes {held / 1e6:.0f} MB")


async def tick(lags: list[float]) -> None:
    """How much later than after 1 ms the loop comes back, s."""
    while True:
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        lags.append(time.perf_counter() - before - 0.001)


def conversation(rng: random.Random, tokens: int) -> tuple[dict[str, Any], str]:
    """Of messages of some 400 tokens."""
    messages, size, k = [], 0, 0
    while size < 4 * tokens:
        text = " ".join(rng.choices(WORDS, k=200))
        messages.append({"role": ("user", "assistant")[k % 2], "content": text})
        size += len(text)
        k += 1
    body = {"model": "m", "messages": messages}
    return body, orjson.dumps(body).decode()


def compiled(text: bytes) -> int:
    return len(chain_of_text(text).hashes)


def by_blake(text: bytes) -> int:
    hashed, found = hashlib.blake2b(digest_size=8), []
    for start in range(0, len(text) // 64 * 64, 64):
        hashed.update(text[start : start + 64])
        found.append(hashed.digest())
    return len(found)


def by_numpy(text: bytes) -> int:
    words = np.frombuffer(text[: len(text) // 64 * 64], np.uint64).reshape(-1, 8)
    factors = np.arange(1, 9, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) | np.uint64(1)
    powers = np.multiply.accumulate(np.full(len(words), factors[0]))
    return len(np.add.accumulate((words * factors).sum(1) * powers))


def median_seconds(call: Callable[[], Any], times: int = 15) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
