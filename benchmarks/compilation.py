"""What compilation costs, in CPU seconds: `python -m benchmarks.compilation [CHECKOUT]`.

Each figure is of a process of its own that starts without kept code (`cold`), or after another that left it (`warm`):
from the first call to a result of a tiny run, imports left out; of the example all of it, as it is run by hand. The
least of three. With the folder of another checkout the same is measured there, in turns.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 3
HERE = Path(__file__).parents[1]
SIMULATE = """
import resource, numba, scipy
from fluidgate import Scenario, simulate
scenario = Scenario.load({scenario!r})
began = resource.getrusage(resource.RUSAGE_SELF)
simulate(scenario, {policy}, gpus=4, horizon=5.0, replications=1, fidelity={fidelity!r})
ended = resource.getrusage(resource.RUSAGE_SELF)
print(ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime)
"""
SCENARIO = str(HERE / "examples/two-class.toml")
EXAMPLE = str(HERE / "examples/own_policy.py")
OWN = f"__import__('runpy').run_path({EXAMPLE!r})['MINE']"


def program(policy: str, fidelity: str) -> str:
    return SIMULATE.format(scenario=SCENARIO, policy=policy, fidelity=fidelity)


WHOLE_EXAMPLE = f"__import__('runpy').run_path({EXAMPLE!r}, run_name='__main__')"
PROGRAMS = {
    "Markov, cold": (program("'gate-and-route'", "markov"), False),
    "single prefill, cold": (program("'gate-and-route'", "iteration"), False),
    "token budget, cold": (program("'vllm-round-robin'", "iteration"), False),
    "prefill first, cold": (program("'prefill-first'", "iteration"), False),
    "own policy, Markov, warm": (program(OWN, "markov"), True),
    "own policy, iterations, warm": (program(OWN, "iteration"), True),
    "examples/own_policy.py, all of it, warm": (
        f"__import__('runpy').run_path({EXAMPLE!r}, run_name='__main__')",
        True,
    ),
}
"""What is run, and whether kept code is there."""


def main() -> None:
    checkouts = [HERE, *(Path(each).resolve() for each in sys.argv[1:])]
    print("CPU seconds, least of", ROUNDS, "\n")
    print(f"{'':38}" + "".join(f"{each.name:>14}" for each in checkouts) + ("         ratio" if checkouts[1:] else ""))
    for name, (source, warm) in PROGRAMS.items():
        found = [min(times) for times in zip(*(measured(source, warm, checkouts) for _ in range(ROUNDS)), strict=True)]
        ratio = f"{found[0] / found[1]:14.2f}" if checkouts[1:] else ""
        print(f"{name:38}" + "".join(f"{each:14.2f}" for each in found) + ratio, flush=True)


def cpu_seconds() -> float:
    """Of all processes that have ended so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(source: str, warm: bool, checkouts: list[Path]) -> list[float]:
    """Once in each checkout."""
    found = []
    for checkout in checkouts:
        with tempfile.TemporaryDirectory() as cache:
            environment = {**os.environ, "PYTHONPATH": str(checkout), "XDG_CACHE_HOME": cache}
            for _ in range(2 if warm else 1):
                before = cpu_seconds()
                done = subprocess.run(
                    [sys.executable, "-c", source],
                    env=environment,
                    cwd=checkout,
                    capture_output=True,
                    text=True,
                    check=True,
                )
            whole = cpu_seconds() - before
            found.append(whole if source == WHOLE_EXAMPLE else float(done.stdout.split()[-1]))
    return found


if __name__ == "__main__":
    main()
