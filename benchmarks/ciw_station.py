"""A station M/M/c+M in Ciw, an established Python simulator of queueing networks: a yardstick for speed."""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class CiwResult:
    """Statistics over (warmup, horizon].

    Attributes:
        events: arrivals, services and reneges over the whole horizon.
        seconds: wall time of the simulation, without building it and without reading its records.
        queue: mean number waiting; busy: mean number of busy servers.
        throughput: services completed per second; abandonment_rate: reneges per second.
        wait: mean wait in queue of those served.
    """

    events: int
    seconds: float
    queue: float
    busy: float
    throughput: float
    abandonment_rate: float
    wait: float

    @property
    def events_per_second(self) -> float:
        return self.events / self.seconds


def run(
    arrival: float,
    service: float,
    servers: int,
    patience: float,
    horizon: float,
    warmup: float | None = None,
    seed: int = 0,
) -> CiwResult:
    """Simulate an M/M/c+M station, FCFS, from empty to `horizon`; nobody leaves when `patience` is 0."""
    import ciw

    if warmup is None:
        warmup = horizon / 10
    ciw.seed(seed)
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(rate=arrival)],
        service_distributions=[ciw.dists.Exponential(rate=service)],
        number_of_servers=[servers],
        reneging_time_distributions=[ciw.dists.Exponential(rate=patience) if patience > 0 else None],
    )
    simulation = ciw.Simulation(network)
    began = time.perf_counter()
    simulation.simulate_until_max_time(horizon)
    seconds = time.perf_counter() - began

    def overlap(start: float, end: float) -> float:
        """Seconds of (start, end] within the window."""
        return max(0.0, min(end, horizon) - max(start, warmup))

    # Records are written at departure; requests still present at the horizon are read off the node.
    records = [r for r in simulation.get_all_records() if r.exit_date <= horizon]
    events = 2 * len(records)
    queue = busy = waits = 0.0
    served = reneged = 0
    for r in records:
        if r.record_type == "service":
            queue += overlap(r.arrival_date, r.service_start_date)
            busy += overlap(r.service_start_date, r.service_end_date)
            if r.exit_date > warmup:
                served += 1
                waits += r.waiting_time
        else:
            queue += overlap(r.arrival_date, r.exit_date)
            reneged += r.exit_date > warmup
    for individual in simulation.nodes[1].all_individuals:
        events += 1
        if individual.service_start_date is False:
            queue += overlap(individual.arrival_date, horizon)
        else:
            queue += overlap(individual.arrival_date, individual.service_start_date)
            busy += overlap(individual.service_start_date, horizon)
    window = horizon - warmup
    return CiwResult(
        events, seconds, queue / window, busy / window, served / window, reneged / window,
        waits / served if served else math.nan,
    )  # fmt: skip


def main() -> None:
    """Events per second of Ciw on one station."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--arrival", type=float, default=52.0)
    parser.add_argument("--service", type=float, default=1.0)
    parser.add_argument("--servers", type=int, default=50)
    parser.add_argument("--patience", type=float, default=0.1)
    parser.add_argument("--horizon", type=float, default=500.0)
    given = parser.parse_args()
    result = run(given.arrival, given.service, given.servers, given.patience, given.horizon)
    print(
        f"Ciw M/M/{given.servers}+M: {result.events} events in {result.seconds:.2f} s: "
        f"{result.events_per_second:,.0f} events/s; "
        f"queue {result.queue:.3f}, busy {result.busy:.3f}, abandonment {result.abandonment_rate:.4f}/s"
    )


if __name__ == "__main__":
    main()
