"""What a gateway costs: time a token is held up and CPU a token, against a direct connection and other gateways.

    python -m benchmarks.gateway_load [--streams 1 64 512] [--tokens 100] [--peer NAME=COMMAND ...]

Before two engines that stamp each token with the time they send it (`benchmarks.stamped_engine`): nothing of an
engine's own is in the numbers. COMMAND starts a peer; {port}, {one} and {two} stand for its port
and the engines' URLs. All run one after the other in the same minutes, `--rounds` times in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np
import orjson

from benchmarks.stamped_engine import MODEL

ENGINES = (18801, 18802)
FIRST_PORT = 18810
START_SECONDS = 120.0
FEWEST = 20
"""Requests at each number of streams."""
TICK = os.sysconf("SC_CLK_TCK")

GATEWAY = """schema = 1
scenario = "scenario.toml"
policy = "{policy}"
[server]
port = {port}
log = "off"
[engines]
kind = "vllm-coupled"
urls = ["{one}", "{two}"]
[limits]
max_wait = 600.0
"""
SCENARIO = """schema = 1
name = "load"
[gpu]
batch_size = 1024
chunk_size = 8192
alpha = 0.0001
beta = 1e-8
gamma = 1000.0
[pricing]
scheme = "bundled"
prompt = 0.1
output = 0.2
[[classes]]
name = "all"
prompt_tokens = 16
output_tokens = 40
arrival_rate = 100.0
patience_rate = 0.1
"""


@dataclass
class Cost:
    """What was seen of one server at one number of streams.

    Attributes:
        first: from sending a request to its first token, s.
        transit: from an engine's sending a token to the client's reading it, s.
        cpu: of the server and its children, s; `tokens`, how many went through meanwhile.
    """

    first: list[float] = field(default_factory=list)
    transit: list[float] = field(default_factory=list)
    cpu: float = 0.0
    tokens: int = 0
    failed: int = 0

    def row(self) -> str:
        if not self.transit:
            return "failed | | | | |"
        cells = [1e3 * q for q in (*np.percentile(self.first, (50, 99)), *np.percentile(self.transit, (50, 99)))]
        times = " | ".join(f"{cell:.2f}" for cell in cells)
        return f"{times} | {1e6 * self.cpu / self.tokens:.1f} | {self.failed}"


async def stream(session: aiohttp.ClientSession, url: str, tokens: int, cost: Cost) -> None:
    body = orjson.dumps(
        {"model": MODEL, "prompt": "say something that is sixty-four bytes long, or about so, please", "stream": True}
        | {"max_tokens": tokens}
    )
    began = time.monotonic_ns()
    seen = 0
    try:
        async with session.post(
            f"{url}/v1/completions", data=body, headers={"content-type": "application/json"}
        ) as answer:
            if answer.status != 200:
                cost.failed += 1
                return
            async for line in answer.content:
                if not line.startswith(b"data: {"):
                    continue
                now = time.monotonic_ns()
                text = orjson.loads(line[6:])["choices"][0].get("text", "").strip()
                if not text:
                    continue
                if not seen:
                    cost.first.append((now - began) / 1e9)
                seen += 1
                cost.transit.append((now - int(text)) / 1e9)
    except aiohttp.ClientError:
        cost.failed += 1
    cost.tokens += seen


async def in_turn(session: aiohttp.ClientSession, url: str, tokens: int, repeats: int, cost: Cost) -> None:
    for _ in range(repeats):
        await stream(session, url, tokens, cost)


async def measured(url: str, streams: int, tokens: int, pid: int | None) -> Cost:
    """`streams` at a time, begun over a second, each of `tokens`; a few go on with shorter ones, to have enough."""
    repeats = max(1, FEWEST // streams)
    each = max(10, tokens // repeats)
    cost = Cost()
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        await stream(session, url, 2, Cost())
        before = cpu_seconds(pid)
        async with asyncio.TaskGroup() as group:
            for _ in range(streams):
                group.create_task(in_turn(session, url, each, repeats, cost))
                await asyncio.sleep(1.0 / streams)
        cost.cpu = cpu_seconds(pid) - before
    return cost


def cpu_seconds(pid: int | None) -> float:
    """CPU time of a process and its descendants so far, s."""
    if pid is None:
        return 0.0
    family, total = [pid], 0.0
    while family:
        member = family.pop()
        try:
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            for task in Path(f"/proc/{member}/task").iterdir():
                family += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / TICK
    return total


@contextmanager
def process(command: list[str], ready: str, log: Path) -> Iterator[int]:
    """A server in a session of its own, from when it answers at `ready` to the end of the context."""
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        wait_for(ready, server, log)
        yield server.pid
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(server.pid, number)
                server.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    import urllib.error
    import urllib.request

    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"{url} does not answer:\n{log.read_text(errors='replace')[-2000:]}")


def commands(folder: Path, peers: list[str]) -> dict[str, tuple[list[str], int]]:
    """The command and the port of every gateway."""
    one, two = (f"http://127.0.0.1:{port}" for port in ENGINES)
    (folder / "scenario.toml").write_text(SCENARIO)
    made: dict[str, tuple[list[str], int]] = {}
    port = FIRST_PORT
    for policy in ("vllm-round-robin", "index-and-pool"):
        path = folder / f"{policy}.toml"
        path.write_text(GATEWAY.format(policy=policy, port=port, one=one, two=two))
        made[f"fluidgate, {policy}"] = ([sys.executable, "-m", "fluidgate", "serve", str(path)], port)
        port += 1
    for peer in peers:
        name, _, command = peer.partition("=")
        made[name] = (
            ["sh", "-c", "exec " + command.format(port=port, one=shlex.quote(one), two=shlex.quote(two))],
            port,
        )
        port += 1
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 64, 512])
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    given = parser.parse_args()
    costs: dict[tuple[str, int], Cost] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one, two = ([sys.executable, "-m", "benchmarks.stamped_engine", str(port)] for port in ENGINES)
        with (
            process(one, f"http://127.0.0.1:{ENGINES[0]}/health", folder / "one.log"),
            process(two, f"http://127.0.0.1:{ENGINES[1]}/health", folder / "two.log"),
        ):
            for _ in range(given.rounds):
                run(costs, "direct", f"http://127.0.0.1:{ENGINES[0]}", None, given)
                for label, (command, port) in commands(folder, given.peer).items():
                    url = f"http://127.0.0.1:{port}"
                    with process(command, f"{url}/health", folder / "gateway.log") as pid:
                        run(costs, label, url, pid, given)
    print("Times in ms; CPU of the gateway in microseconds a token.\n")
    print("| gateway | streams | first token p50 | p99 | token on its way p50 | p99 | CPU | failed |")
    print("|---|---|---|---|---|---|---|---|")
    for (label, streams), cost in sorted(costs.items(), key=lambda item: item[0][1]):
        print(f"| {label} | {streams} | {cost.row()} |")


def run(costs: dict[tuple[str, int], Cost], label: str, url: str, pid: int | None, given: argparse.Namespace) -> None:
    """Measure one server at every number of streams, added to what an earlier round saw."""
    for streams in given.streams:
        seen = asyncio.run(measured(url, streams, given.tokens, pid))
        cost = costs.setdefault((label, streams), Cost())
        cost.first += seen.first
        cost.transit += seen.transit
        cost.cpu += seen.cpu
        cost.tokens += seen.tokens
        cost.failed += seen.failed


if __name__ == "__main__":
    main()
