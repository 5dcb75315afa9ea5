"""Sessions through the gateway and emulated engines that cache prefixes, under several policies.

    python -m benchmarks.gateway_sessions [-o PICTURE] [--policies A,...] [--users N] [--seconds S] [--prefix TOKENS]

A closed loop: each user holds one chat at a time, whose next turn is sent when the last answer has ended and the user
has thought. Engines, gateway and clients are processes of their own, on one machine, in wall time; the engines batch as
vLLM does. The hit rate is the engines' own count. Beside it stands what the simulator finds for the same sessions under
the same policy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.gateway_agreement import faster, gateway_file
from benchmarks.gateway_load import process
from fluidgate.batching import Batching
from fluidgate.emulator.session_player import SessionPlayer, Sessions
from fluidgate.model import EngineModel, RequestClass, Scenario
from fluidgate.planning import plan
from fluidgate.policies import PlacedPolicy, find_any_policy
from fluidgate.policies.decisions.tables import coupled
from fluidgate.simulation.iteration.published import run_published
from fluidgate.simulation.iteration.rules import Decisions
from fluidgate.simulation.iteration.run import Run, run_requests
from fluidgate.simulation.iteration.scenario_engine import engine_of
from fluidgate.workloads.streams import REQUEST, Requests, Script
from fluidgate.workloads.streams.script import PIECE

MODEL = "emulated"
LABEL = "chat"
FIRST_PORT = 18960
GATEWAY_PORT = 18950
POLICIES = "vllm-round-robin,vllm-lmetric,vllm-sticky,index-and-pool"
COUNTED = ("prefix_cache_queries", "prefix_cache_hits", "num_preemptions", "request_success")


@dataclass(frozen=True)
class Played:
    """What became of a policy's turns, and what each engine counted between warm-up and end.

    Attributes:
        turns: dtype TURN, those sent after the warm-up.
        counts: int64[engine, counter], of COUNTED.
    """

    turns: np.ndarray
    counts: np.ndarray

    @property
    def hit_rate(self) -> float:
        """Prompt tokens found in memory over prompt tokens."""
        return float(self.counts[:, 1].sum() / max(self.counts[:, 0].sum(), 1))

    @property
    def busiest(self) -> float:
        """Share of the requests that the engine with most of them has served, times the number of engines."""
        served = self.counts[:, 3]
        return float(served.max() * len(served) / max(served.sum(), 1))

    @property
    def ttft(self) -> np.ndarray:
        """s, of answers that began."""
        began = self.turns[self.turns["tokens"] > 0]
        return np.asarray(began["first"] - began["sent"])

    @property
    def tpot(self) -> np.ndarray:
        """s, of answers that came to their end."""
        ends = self.turns[self.turns["done"] & (self.turns["tokens"] > 1)]
        return np.asarray((ends["last"] - ends["first"]) / (ends["tokens"] - 1))


def scenario(source: Path, engines: int, sessions: Sessions, users: int, kv_tokens: int) -> Scenario:
    """One class that is like the turns of the sessions, on the engines of a file."""
    of = Scenario.load(source)
    turns = np.arange(1, max(2, round(sessions.turns)) + 1)
    prompt = sessions.prefix + float(np.mean(turns * sessions.new + (turns - 1) * sessions.output))
    cycle = sessions.think + sessions.output * 0.03 + 1.0
    chat = RequestClass(
        name=LABEL,
        prompt_tokens=prompt,
        output_tokens=sessions.output,
        arrival_rate=users / cycle / engines,
        patience_rate=0.0,
        prefix_hit_rate=1.0 - sessions.new / prompt,  # an endless memory has all but what is new
    )
    engine = EngineModel(kv_tokens=kv_tokens, prefix_caching=True)
    return of.replace(classes=(chat,), engine=engine)


def script_of(sessions: Sessions, count: int) -> tuple[Requests, Script]:
    """The first requests of so many sessions, and the script of what follows them: the same as the player's."""
    pieces: list[tuple[int, int]] = [(0, 0)]
    stems: dict[str, int] = {}
    first: list[np.ndarray] = []
    rows: list[np.ndarray] = [np.zeros(1, REQUEST)]
    for number in range(count):
        said = sessions.one(number)
        stem = next(said)[0]["content"][:64]
        if stem not in stems:
            stems[stem] = len(pieces)
            pieces.append((0, sessions.prefix))
        last = stems[stem]
        before: np.ndarray | None = None
        for _, thought in said:
            row = np.zeros(1, REQUEST)
            row["prompt"], row["output"] = pieces[last][1] + sessions.new, sessions.output
            row["patience"], row["text"], row["answer"] = np.inf, len(pieces), len(pieces) + 1
            pieces.append((last, int(row["prompt"][0])))
            pieces.append((len(pieces) - 1, int(row["prompt"][0]) + sessions.output))
            last = len(pieces) - 1
            if before is None:
                first.append(row)
            else:
                before["then"], before["think"] = len(rows), thought
                rows.append(row)
            before = row
    return np.concatenate(first), Script(np.array(pieces, PIECE), np.concatenate(rows))


def simulated(
    of: Scenario, name: str, engines: int, sessions: Sessions, users: int, warmup: float, until: float
) -> float:
    """The hit rate that the simulator finds from `warmup` to `until`."""
    policy = find_any_policy(name)
    first, script = script_of(sessions, users * (2 + round(until / (sessions.turns * (sessions.think + 1.0)))))
    run = Run(engines, 1, horizon=until, warmup=warmup, users=users, script=script)
    engine = engine_of(of, "token-budget")
    assert engine.batching is Batching.TOKEN_BUDGET
    if isinstance(policy, PlacedPolicy):
        measured = run_published([first], engine, run, policy)
    else:
        tables = coupled(policy.tabulate(plan(of, gpus=engines), engines), engines)
        measured = run_requests([first], engine, run, Decisions(policy, tables))
    return float(measured.prompt_found.sum() / max(measured.prompt_admitted.sum(), 1))


def played(given: argparse.Namespace, policy: str, sessions: Sessions) -> Played:
    """One policy's run, with fresh engines and a fresh gateway."""
    of = scenario(given.scenario, given.engines, sessions, given.users, given.kv_tokens)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        urls = [f"http://127.0.0.1:{FIRST_PORT + k}" for k in range(given.engines)]
        engine = [sys.executable, "-m", "fluidgate", "engine", str(given.scenario), "--count", str(given.engines)]
        engine += ["--port", str(FIRST_PORT), "--model", MODEL, "--speed", str(given.speed)]
        engine += ["--batching", "token-budget", "--kv-tokens", str(given.kv_tokens)]
        engine += ["--max-num-batched-tokens", str(of.gpu.chunk_size + of.gpu.batch_size - 1)]
        kind = "vllm" if isinstance(find_any_policy(policy), PlacedPolicy) else "vllm-coupled"
        path = gateway_file(folder, faster(of, given.speed), policy, urls, 0, port=GATEWAY_PORT, kind=kind)
        gateway = [sys.executable, "-m", "fluidgate", "serve", str(path)]
        url = f"http://127.0.0.1:{GATEWAY_PORT}"
        with (
            process(engine, f"{urls[-1]}/health", folder / "engine.log"),
            process(gateway, f"{url}/ready", folder / "gateway.log"),
        ):
            player = SessionPlayer(url, MODEL, sessions, given.users, given.speed, LABEL)
            return asyncio.run(measured(player, urls, given.warmup, given.seconds))


async def measured(player: SessionPlayer, urls: list[str], warmup: float, seconds: float) -> Played:
    """The sessions' turns after the warm-up, and what the engines counted meanwhile."""

    async def look(after: float) -> np.ndarray:
        await asyncio.sleep(after / player.speed)
        return np.array(await asyncio.gather(*(asyncio.to_thread(counts, each) for each in urls)))

    first = asyncio.ensure_future(look(warmup))
    last = asyncio.ensure_future(look(0.98 * seconds))  # those under way at the end are aborted
    turns = await player.play(seconds)
    return Played(turns[turns["sent"] > warmup], await last - await first)


def counts(url: str) -> np.ndarray:
    """An engine's counters, int64, of COUNTED."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        families = {each.name: each for each in text_string_to_metric_families(answer.read().decode())}
    return np.array([sum(int(each.value) for each in families[f"vllm:{name}"].samples) for name in COUNTED])


def table(results: dict[str, Played], foreseen: dict[str, float]) -> None:
    times = "TTFT p50, p90, p99 (s) | TPOT p50, p99 (ms)"
    print(f"| policy | turns | refused | hit rate | simulated | points apart | busiest engine | preempted | {times} |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for policy, each in results.items():
        ttft = np.quantile(each.ttft, [0.5, 0.9, 0.99])
        tpot = 1e3 * np.quantile(each.tpot, [0.5, 0.99])
        refused = int((each.turns["status"] >= 400).sum())
        print(
            f"| `{policy}` | {len(each.turns)} | {refused} | {each.hit_rate:.1%} "
            f"| {foreseen[policy]:.1%} | {100 * (each.hit_rate - foreseen[policy]):+.1f} | {each.busiest:.2f} "
            f"| {each.counts[:, 2].sum()} | {ttft[0]:.2f}, {ttft[1]:.2f}, {ttft[2]:.2f} "
            f"| {tpot[0]:.1f}, {tpot[1]:.1f} |"
        )


def draw(results: dict[str, Played], foreseen: dict[str, float], path: str) -> None:
    """The hit rate under each policy beside what the simulator finds, and the distributions of TTFT and TPOT."""
    from fluidgate.reports.looks import line
    from fluidgate.reports.plots import picture, plain_ticks, save, style

    with style():
        figure = picture(figsize=(11, 3.4), layout="constrained")
        found, ttft, tpot = figure.subplots(1, 3)
        for k, (policy, each) in enumerate(results.items()):
            found.barh(k, 100.0 * each.hit_rate, 0.6, color=line(k)["color"])
            found.plot(
                100.0 * foreseen[policy], k, "|", color="black", ms=16, mew=2, label="simulated" if k == 0 else ""
            )
            for axes, times in ((ttft, each.ttft), (tpot, 1e3 * each.tpot)):
                shares = 100.0 * np.arange(1, len(times) + 1) / len(times)
                axes.step(np.sort(times), shares, where="post", lw=1.6, label=policy, **line(k))
        found.set_yticks(range(len(results)), list(results))
        found.invert_yaxis()
        found.set_xlim(0, 100)
        found.set_xlabel("%")
        found.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), fontsize=8, borderaxespad=0.2)
        ttft.set_xscale("log")
        plain_ticks(ttft.xaxis)
        for axes, unit in ((ttft, "s"), (tpot, "ms")):
            axes.set_ylim(0, 101)
            axes.set_xlabel(unit)
        ttft.set_ylabel("% of turns at most that")
        tpot.legend(loc="lower right", fontsize=8)
        for axes, title in ((found, "prompt tokens found"), (ttft, "TTFT"), (tpot, "TPOT")):
            axes.set_title(title, loc="left")
        save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", help="picture to write (.png, .svg, .pdf)")
    parser.add_argument("--scenario", type=Path, default=Path("examples/two-class.toml"), help="its GPU is emulated")
    parser.add_argument("--engines", type=int, default=4)
    parser.add_argument("--kv-tokens", type=int, default=250_000, help="of each engine")
    parser.add_argument("--users", type=int, default=24, help="sessions at a time")
    parser.add_argument("--prefix", type=int, default=30_000, help="tokens of a system prompt")
    parser.add_argument("--prefixes", type=int, default=12, help="different system prompts")
    parser.add_argument("--new", type=int, default=1_500, help="tokens that a user says in a turn")
    parser.add_argument("--answer", type=int, default=200, help="tokens of an answer")
    parser.add_argument("--turns", type=float, default=6.0, help="mean of a session")
    parser.add_argument("--think", type=float, default=5.0, help="mean between an answer and the next turn, s")
    parser.add_argument("--seconds", type=float, default=240.0, help="of the load")
    parser.add_argument("--warmup", type=float, default=60.0, help="turns sent earlier don't count, s")
    parser.add_argument("--speed", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--policies", default=POLICIES, help="any that the gateway has")
    parser.add_argument("--json", dest="save", type=Path, help="also write what became of each turn")
    given = parser.parse_args()
    lengths = {"prefix": given.prefix, "prefixes": given.prefixes, "new": given.new, "output": given.answer}
    sessions = Sessions(**lengths, turns=given.turns, think=given.think, seed=given.seed)
    names = given.policies.split(",")
    of = scenario(given.scenario, given.engines, sessions, given.users, given.kv_tokens)
    times = (given.warmup, 0.98 * given.seconds)
    foreseen = {name: simulated(of, name, given.engines, sessions, given.users, *times) for name in names}
    results = {name: played(given, name, sessions) for name in names}
    print(f"{given.users} users on {given.engines} engines, {given.seconds:g} s, speed {given.speed:g}\n")
    table(results, foreseen)
    if given.save is not None:
        given.save.write_text(json.dumps({policy: each.turns.tolist() for policy, each in results.items()}))
    if given.output is not None:
        draw(results, foreseen, given.output)


if __name__ == "__main__":
    main()
