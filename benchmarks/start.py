"""How long `fluidgate serve` and `fluidgate engine` take to listen, with nothing compiled and with everything.

    python -m benchmarks.start [--rounds N]

Seconds from the start of the process to the line that it serves, and CPU seconds of the process until it has left.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENGINE = ["engine", "examples/two-class.toml", "--count", "4", "--port", "8001"]
SERVE = ["serve", "examples/gateway.toml", "--port", "0"]


@contextmanager
def started(arguments: list[str], until: str, cache: str) -> Iterator[float]:
    """The command, from the line that has `until` on; the seconds that took."""
    began = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "fluidgate", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, "XDG_CACHE_HOME": cache, "PYTHONUNBUFFERED": "1"},
    )
    assert child.stdout is not None
    try:
        for line in child.stdout:
            if until in line:
                break
        else:
            raise SystemExit(f"it did not start: {arguments}")
        yield time.perf_counter() - began
    finally:
        child.send_signal(signal.SIGTERM)
        child.stdout.close()
        child.wait()


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds

    def show(what: str, arguments: list[str], until: str, cache: str) -> None:
        before = cpu_seconds()
        with started(arguments, until, cache) as seconds:
            pass
        print(f"{what:24} {seconds:6.2f} s   {cpu_seconds() - before:6.2f} s of CPU", flush=True)

    with tempfile.TemporaryDirectory() as unused:
        for _ in range(rounds):
            show("engine", ENGINE, ":8004", unused)
        with started(ENGINE, ":8004", unused):
            for _ in range(rounds):
                with tempfile.TemporaryDirectory() as cache:
                    show("serve, nothing compiled", SERVE, "gateway on", cache)
                    show("serve, all compiled", SERVE, "gateway on", cache)
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
