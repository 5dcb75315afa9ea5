"""Speed and memory of the Markov kernel: `python -m benchmarks.markov`.

Side by side in one run, on the two-class instance under gate-and-route: the kernel at n = 100 to 10,000, a plain
Python event loop of the same network at n = 100, and Ciw (`pip install fluidgate[benchmarks]`) with a station M/M/c+M,
which the kernel simulates as a network that degenerates to it.
"""

from __future__ import annotations

import resource
from collections.abc import Callable

from fluidgate import Scenario, find_policy, plan
from fluidgate.simulation.markov.network import TOTAL_EVENTS
from fluidgate.simulation.markov.replication import Job, replicate, start

from . import ciw_station, plain_loop

ROUNDS = 3
STATION = {"arrival": 1.1, "service": 1.0, "patience": 0.1}
SERVERS = 50


def main() -> None:
    scenario = Scenario.load("examples/two-class.toml")
    solved = plan(scenario)
    print("ns an event, least of", ROUNDS, "rounds\n")

    ours: dict[int, float] = {}
    for gpus, horizon in ((100, 2000.0), (1000, 600.0), (10_000, 400.0)):
        ours[gpus] = best(lambda g=gpus, h=horizon: kernel(scenario, "gate-and-route", g, h))  # type: ignore[misc]
        memory = footprint(scenario, gpus)
        print(f"kernel, gate-and-route, n = {gpus:>6}   {ours[gpus]:8.0f}   {memory:6.0f} bytes a seat")
    print(f"  n = 10,000 over n = 100: {ours[10_000] / ours[100]:.2f} times")
    uncoupled = best(lambda: kernel(scenario, "fi-wsp", 100, 1000.0))
    print(f"kernel, fi-wsp, n = 100              {uncoupled:8.0f}\n")

    plain = best(lambda: loop(plain_loop.run(scenario, solved, gpus=100, horizon=300.0, warmup=30.0)))
    print(f"plain Python loop, n = 100           {plain:8.0f}   {plain / ours[100]:6.0f} times the kernel\n")

    single = best(lambda: kernel(station(), "fi-wsp", SERVERS, 4000.0))
    ciw = best(
        lambda: loop(
            ciw_station.run(SERVERS * STATION["arrival"], STATION["service"], SERVERS, STATION["patience"], 300.0)
        )
    )
    print(f"kernel, M/M/{SERVERS}+M                     {single:8.0f}")
    print(f"Ciw, M/M/{SERVERS}+M                        {ciw:8.0f}   {ciw / single:6.0f} times the kernel\n")

    print("one replication of the two-class instance, n = 500, T = 10,000:")
    measured = replicate(job(scenario, "gate-and-route", 500, 10_000.0))
    print(f"  {measured.total_events / 1e6:.1f} million events in {measured.wall_seconds:.2f} s")
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def best(measure: Callable[[], float]) -> float:
    """The least of some rounds, in ns."""
    return 1e9 * min(measure() for _ in range(ROUNDS))


def kernel(scenario: Scenario, policy: str, gpus: int, horizon: float) -> float:
    measured = replicate(job(scenario, policy, gpus, horizon))
    return measured.wall_seconds / measured.total_events


def loop(result: plain_loop.PlainResult | ciw_station.CiwResult) -> float:
    return result.seconds / result.events


def job(scenario: Scenario, policy: str, gpus: int, horizon: float) -> Job:
    chosen = find_policy(policy)
    return Job(scenario, chosen, chosen.tabulate(plan(scenario), gpus), gpus, horizon, horizon / 10, 0, 0)


def footprint(scenario: Scenario, gpus: int) -> float:
    """Bytes of the network's memory for each seat, with room for 1,024 waiting requests."""
    network = start(job(scenario, "gate-and-route", gpus, 1.0))
    assert network.tally[TOTAL_EVENTS] == 0
    arrays = [field for field in network if hasattr(field, "nbytes")]
    return sum(a.nbytes for a in arrays) / (gpus * scenario.gpu.batch_size)


def station() -> Scenario:
    """M/M/c+M as a network: B = 1, a prefill is the service, the decode lasts no time."""
    tau, chunk = 0.05, 256
    law = {"alpha": tau - 1e-4 * chunk, "beta": 1e-4, "gamma": 40.0}
    only = {
        "name": "only",
        "prompt_tokens": chunk / (tau * STATION["service"]),
        "output_tokens": 1e-9,
        "arrival_rate": STATION["arrival"],
        "patience_rate": STATION["patience"],
    }
    return Scenario.model_validate(
        {
            "name": "station",
            "gpu": {"batch_size": 1, "chunk_size": chunk, "iteration": law},
            "pricing": {"scheme": "bundled", "prompt": 1.0, "output": 1.0},
            "classes": (only,),
        }
    )


if __name__ == "__main__":
    main()
