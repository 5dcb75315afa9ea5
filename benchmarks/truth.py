"""Logs of real engines beside their replays: the law from known times or from the log's own first half.

    python -m benchmarks.truth DATA

DATA is the folder of the public logs; those in `examples/h100` are the repository's. Errors: simulated over measured,
less 1, over the second half of each log, which nothing was fitted to; where nothing was fitted, over all of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fluidgate.fitting import LIKELY, calibrate_from_log
from fluidgate.model import EngineModel, IterationTime, Scenario
from fluidgate.profiles import Profile, find_profile
from fluidgate.simulation.iteration.logged import Agreement, agreement, read_logged_run, replayed
from fluidgate.simulation.iteration.scenario_engine import engine_of
from fluidgate.workloads import read_trace

HERE = Path(__file__).parents[1] / "examples"
STATISTICS = [(q, s) for q in ("TTFT", "TPOT", "latency") for s in ("mean", "p50", "p90", "p99")]
GOAL = {"mean": 0.05, "p50": 0.05, "p90": 0.10, "p99": 0.10}


@dataclass(frozen=True)
class Case:
    """A log, the engine that wrote it, and where its law is from.

    Attributes:
        log: path; in DATA if it is not that of an example.
        scenario: path of the engine's settings.
        law: "profile" as it is shipped, "overhead" fitted on it, or "log" for all of the law from the log.
        keys: of [engine], in the place of the file's.
    """

    name: str
    log: str
    scenario: str
    law: str
    profile: str = ""
    keys: tuple[tuple[str, object], ...] = ()

    def errors(self, data: Path) -> list[Agreement]:
        log = HERE / self.log if (HERE / self.log).exists() else data / self.log
        scenario = Scenario.load(HERE / self.scenario)
        known: Profile | None = find_profile(self.profile) if self.profile else None
        time = IterationTime(**LIKELY) if known is None else known.iteration
        scenario = scenario.replace(gpu=scenario.gpu.model_copy(update={"iteration": time}))
        engine = EngineModel(**{**scenario.engine.model_dump(), **dict(self.keys)})
        scenario = scenario.replace(engine=engine)
        if self.law == "profile":
            run = read_logged_run(log)
            simulated = replayed(run, engine_of(scenario, "token-budget"))
            return list(agreement(run.summary, simulated.summary))
        what = "overhead" if self.law == "overhead" else "law"
        return list(calibrate_from_log(read_trace(log, sort=True), scenario, known=known, what=what).held_out)


VLLM, H100 = "vllm_rtx4090_llama31_8b_requests.jsonl", "h100/transformers.toml"
SECOND = "transformers, H100, Llama 3.1 8B"
RTX = "rtx4090/llama-3.1-8b"
IN_STEP = (("async_scheduling", False),)
CASES = (
    Case("vLLM 0.19, RTX 4090, Llama 3.1 8B", VLLM, "vllm-rtx4090.toml", "profile", RTX),
    Case("vLLM 0.19, RTX 4090, Llama 3.1 8B", VLLM, "vllm-rtx4090.toml", "overhead", RTX),
    Case("vLLM 0.19, RTX 4090, Llama 3.1 8B", VLLM, "vllm-rtx4090.toml", "log"),
    *(
        Case(f"transformers, H100, Llama 3.1 8B, `ahead-{r}`", f"h100/ahead-{r}.jsonl.gz", H100, "log")
        for r in (8, 14, 20)
    ),
    *(
        Case(
            f"transformers, H100, Llama 3.1 8B, `in-step-{r}`", f"h100/in-step-{r}.jsonl.gz", H100, "log", keys=IN_STEP
        )
        for r in (8, 14)
    ),
)


def lines(data: Path) -> Iterator[str]:
    yield "| run | law from | " + " | ".join(f"{s} {q}" for q, s in STATISTICS) + " |"
    yield "|---" * (len(STATISTICS) + 2) + "|"
    words = {"profile": "shipped profile", "overhead": "profile, overhead from the first half", "log": "its first half"}
    for case in CASES:
        found = {(row.quantity, row.statistic): row.relative for row in case.errors(data)}
        cells = [_cell(found[key], GOAL[key[1]]) for key in STATISTICS]
        yield f"| {case.name} | {words[case.law]} | " + " | ".join(cells) + " |"


def _cell(error: float, goal: float) -> str:
    """In per cent; bold where it misses."""
    text = f"{100 * error:+.1f}"
    return f"**{text}**" if abs(error) > goal else text


if __name__ == "__main__":
    for line in lines(Path(sys.argv[1])):
        print(line)
