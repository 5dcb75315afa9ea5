"""The requests of traces for a run, and what they refer to."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from fluidgate.simulation.iteration.replay import replay
from fluidgate.simulation.iteration.source import Replayed
from fluidgate.workloads import read_trace
from fluidgate.workloads.streams import Replay, assign_traces
from tests.scenarios import two_class_scenario
from tests.workloads.test_build import real
from tests.workloads.test_formats import lines
from tests.workloads.test_sessions import session

ENDLESS = """schema = 1
name = "endless"
[gpu]
alpha = 0.01
beta = 1e-6
gamma = 50.0
batch_size = 256
chunk_size = 2048
[engine]
prefix_caching = true
"""


def test_sessions_of_a_trace_with_their_script(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(lines(session(), session(subagents=[])))
    scenario = two_class_scenario()
    traces = assign_traces(scenario, [read_trace(path)], scenario.class_names[:1])

    def source(most: int | None) -> Replayed:
        return Replayed(scenario, traces, Replay(sessions_rate=1.0), seed=2, horizon=math.inf, most=most)

    for most, sent in ((None, 8), (4, 4), (6, 6)):
        requests = np.concatenate(list(source(most).requests(0)))
        script = source(most).script(0)
        seen = 0
        waiting = list(requests)
        while waiting:
            request = waiting.pop()
            seen += 1
            assert script.pieces["end"][request["text"]] == request["prompt"]
            waiting += [script.rows[request[name]] for name in ("then", "spawns", "beside") if request[name]]
        assert seen == sent
    first, again = (source(None).requests(replication) for replication in (0, 1))
    assert (next(first)["arrival"] != next(again)["arrival"]).all()


@pytest.mark.parametrize(
    ("file", "share", "options"),
    [
        ("mooncake_conversation_trace.jsonl", 0.3736, {"rate_scale": 0.2}),
        ("agentic_sessions.jsonl.gz", 0.9612, {"sessions_rate": 0.05}),
        ("agentic_sessions.jsonl.gz", 0.9612, {"users": 20}),
    ],
)
def test_an_endless_memory_finds_what_the_public_traces_share(
    tmp_path: Path, file: str, share: float, options: dict[str, float]
) -> None:
    paths = real(file)
    (tmp_path / "s.toml").write_text(ENDLESS)
    (found,) = replay(tmp_path / "s.toml", paths, ["vllm-round-robin"], gpus=1, **options).policies  # type: ignore[arg-type]
    assert round(found.overall.prefix_hit_rate.mean, 4) == share  # type: ignore[arg-type]
