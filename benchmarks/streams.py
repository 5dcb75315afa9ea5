"""Requests a second that streams give, and the memory they take: python benchmarks/streams.py [TRACE.csv ...]"""

import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

from fluidgate.model import Arrivals, Lengths, Scenario
from fluidgate.workloads.streams import Replay, drawn_requests, read_class_traces, replayed_requests
from fluidgate.workloads.streams.requests import Requests

MOST = 10_000_000
GPUS = 1000
KINDS: dict[str, dict[str, Any]] = {
    "Poisson, geometric lengths": {},
    "Gamma gaps of CV 3": {"arrivals": Arrivals(process="gamma", cv=3.0)},
    "two phases": {"arrivals": Arrivals(process="mmpp", levels=(1.0, 8.0), sojourns=(50.0, 5.0))},
    "daily profile": {"arrivals": Arrivals(process="daily", weights=(1.0, 4.0, 2.0))},
    "log-normal lengths": {
        "lengths": Lengths(prompt="lognormal", prompt_cv=1.5, output="lognormal", output_cv=1.0),
    },
}


def report(kind: str, blocks: Iterator[Requests]) -> None:
    began = time.perf_counter()
    count = sum(len(block) for block in blocks)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{kind:28s} {count / seconds / 1e6:6.1f} million requests/s, peak memory of the process {peak:.0f} MiB")


def main() -> None:
    scenario = Scenario.load("examples/two-class.toml")
    for kind, fields in KINDS.items():
        report(kind, drawn_requests(scenario.replace(**fields), GPUS, most=MOST))
    if sys.argv[1:]:
        traces = read_class_traces(scenario, sys.argv[1:])
        for times in ("repeat", "resample"):
            report(f"trace, {times}", replayed_requests(scenario, traces, Replay(times=times), most=MOST))


if __name__ == "__main__":
    main()
