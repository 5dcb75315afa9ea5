"""Engines that are added, cordoned, drained, restarted, killed and removed at random under load: who notices?

    python -m benchmarks.gateway_churn [--seconds 600] [--rate 15] [--seed 0]

Planned changes (all but kills) must cost nobody anything. Kills may cut streams that had begun; a request that fails
is put down to a kill only if an engine that it was on was killed while it ran.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from fluidgate.emulator import EngineServer, EngineSettings, serve_engines
from fluidgate.gateway.client.running import running_gateway
from fluidgate.gateway.gateway_file import GatewaySettings
from fluidgate.model import Gpu, IterationTime, Pricing, RequestClass, Scenario
from fluidgate.scenario_file import write_scenario

KEY = "churn"
GPU = Gpu(batch_size=8, chunk_size=128, iteration=IterationTime(alpha=0.02, beta=1e-4, gamma=50.0))
MOST, LEAST = 6, 2
SPEED = 10.0
MODEL = "emulated"
FILE = """schema = 1
scenario = "scenario.toml"
policy = "index-and-pool"
[server]
port = 0
log = "{log}"
[admin]
sha256 = "{digest}"
[engines]
kind = "vllm"
urls = {urls}
check_seconds = 0.2
"""


def scenario() -> Scenario:
    classes = (
        RequestClass(name="chat", prompt_tokens=100, output_tokens=60, arrival_rate=1.0, patience_rate=0.01),
        RequestClass(name="code", prompt_tokens=600, output_tokens=12, arrival_rate=1.0, patience_rate=0.01),
    )
    return Scenario(name="churn", gpu=GPU, pricing=Pricing(scheme="bundled", prompt=0.1, output=0.2), classes=classes)


class Churn:
    """The engines that there are, and what is done to them."""

    def __init__(self, url: str, session: aiohttp.ClientSession, stack: AsyncExitStack, rng: random.Random) -> None:
        self.url, self.session, self.stack, self.rng = url, session, stack, rng
        self.engines: dict[str, EngineServer] = {}
        self.done: Counter[str] = Counter()
        self.killed: list[tuple[str, float]] = []
        self.sent: Counter[str] = Counter()

    async def order(self, path: str, **body: object) -> None:
        headers = {"authorization": f"Bearer {KEY}"}
        async with self.session.post(f"{self.url}/admin/{path}", data=json.dumps(body), headers=headers) as answer:
            assert answer.status < 300, await answer.text()

    async def states(self) -> dict[str, str]:
        headers = {"authorization": f"Bearer {KEY}"}
        async with self.session.get(f"{self.url}/admin/engines", headers=headers) as answer:
            return {each["url"]: each["state"] for each in (await answer.json())["engines"]}

    async def step(self) -> None:
        """One change, of a kind that goes now."""
        states = await self.states()
        up = [url for url, state in states.items() if state == "up"]
        kinds = ["add"] * (len(states) < MOST)
        if len(up) > LEAST:
            kinds += ["cordon", "restart", "remove", "kill"]
        if not kinds:
            return
        kind = self.rng.choice(kinds)
        await getattr(self, kind)(self.rng.choice(up) if up else "")
        self.done[kind] += 1

    async def add(self, _: str) -> None:
        (new,) = await self.stack.enter_async_context(serve_engines(EngineSettings(GPU, model=MODEL, speed=SPEED), 1))
        self.engines[new.url] = new
        await self.order("engines", url=new.url)

    async def cordon(self, url: str) -> None:
        await self.order("engines/cordon", url=url)
        await asyncio.sleep(self.rng.uniform(0.1, 1.0))
        await self.order("engines/uncordon", url=url)

    async def restart(self, url: str) -> None:
        await self.order("engines/drain", url=url, wait=True)
        self.engines[url].kill()
        await self.engines[url].revive()
        await self.order("engines/uncordon", url=url)

    async def remove(self, url: str) -> None:
        await self.order("engines/remove", url=url)
        while url in await self.states():
            await asyncio.sleep(0.1)
        self.engines.pop(url).kill()

    async def kill(self, url: str) -> None:
        self.killed.append((url, time.time()))
        self.engines[url].kill()
        await asyncio.sleep(self.rng.uniform(0.2, 2.0))
        await self.engines[url].revive()

    async def request(self) -> None:
        stream = self.rng.random() < 0.7
        body = {"model": MODEL, "prompt": [7] * self.rng.choice((60, 200, 800)), "ignore_eos": True, "stream": stream}
        body["max_tokens"] = self.rng.randint(1, 120)
        async with self.session.post(f"{self.url}/v1/completions", json=body) as answer:
            content = await answer.read()
        whole = content.count(b"[DONE]") == 1 if stream else answer.status == 200
        self.sent["whole" if answer.status == 200 and whole else "not whole"] += 1


async def churn(seconds: float, rate: float, seed: int, folder: Path) -> None:
    rng = random.Random(seed)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(serve_engines(EngineSettings(GPU, model=MODEL, speed=SPEED), 3))
        write_scenario(scenario(), folder / "scenario.toml")
        digest, log = hashlib.sha256(KEY.encode()).hexdigest(), folder / "requests.log"
        text = FILE.format(log=log, digest=digest, urls=json.dumps([each.url for each in first]))
        (folder / "gateway.toml").write_text(text)
        settings = GatewaySettings.load(folder / "gateway.toml")
        _, url = await stack.enter_async_context(running_gateway(settings))
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        made = Churn(url, session, stack, rng)
        made.engines = {each.url: each for each in first}
        under_way: set[asyncio.Task[None]] = set()
        end = time.monotonic() + seconds

        async def changes() -> None:
            while time.monotonic() < end:
                await asyncio.sleep(rng.uniform(0.5, 2.5))
                await made.step()

        changing = asyncio.create_task(changes())
        while time.monotonic() < end:
            task = asyncio.create_task(made.request())
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            await asyncio.sleep(rng.expovariate(rate))
        await asyncio.gather(changing, *under_way)
    records = [json.loads(line) for line in log.read_text().splitlines()]
    report(made, [record for record in records if "id" in record])


def report(made: Churn, records: list[dict[str, object]]) -> None:
    print("changes: " + ", ".join(f"{kind} {number}" for kind, number in sorted(made.done.items())))
    print(f"requests: {sum(made.sent.values())} sent, {made.sent['whole']} answered whole; {len(records)} in the log")
    print(f"answered twice: {len(records) - len({record['id'] for record in records})}")
    failed = [record for record in records if record["outcome"] != "completed"]
    by_kill = [record for record in failed if any(was_on(record, url, at) for url, at in made.killed)]
    print(f"not completed: {len(failed)}, of which {len(by_kill)} were on an engine that was killed")
    for record in failed:
        if record not in by_kill:
            print(record)
    print(f"begun more than once: {sum(int(str(record['attempts'])) > 1 for record in records)}")


def was_on(record: dict[str, object], url: str, at: float) -> bool:
    """Whether a request was on an engine when that was killed."""
    began = float(str(record["time"]))
    on = url in (record["prefill_engine"], record["decode_engine"])
    return on and began - 1.0 <= at <= began + float(str(record["end"])) + 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rate", type=float, default=15.0, help="requests/s")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(churn(given.seconds, given.rate, given.seed, Path(folder)))


if __name__ == "__main__":
    main()
