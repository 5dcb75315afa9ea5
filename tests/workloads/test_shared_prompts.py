"""Workloads of traces that say what prompts share and who follows whom."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fluidgate.errors import FluidgateError
from fluidgate.planning import plan
from fluidgate.reports.tables import workload_tables
from fluidgate.scenario_file import parse_scenario
from fluidgate.workloads import Workload, workload
from tests.workloads.test_build import PROFILE, real
from tests.workloads.test_formats import lines
from tests.workloads.test_sessions import AGENT, MAIN, chat, mooncake, session

EXAMPLES = Path(__file__).parents[2] / "examples"


def made(path: Path, text: str, **options: Any) -> Workload:
    path.write_text(text)
    return workload(path, gpus=2, profile=PROFILE, **options)


def test_what_prompts_share(tmp_path: Path) -> None:
    text = mooncake((0, 600, [0, 1]), (500, 400, [0]), (1000, 1300, [0, 1, 2]), (2000, 100, [3]))
    found = made(tmp_path / "m.jsonl", text)
    assert found.prefix_share == (0 + 400 + 600 + 0) / 2400
    report = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert report["prefix_share"] == report["classes"][0]["prefix_hit_rate"] == pytest.approx(1000 / 2400)
    assert report["sessions"] is report["classes"][0]["sessions"] is None
    assert "# 4 requests; an endless memory would hold 41.67 % of their prompts\n" in found.to_toml()
    assert parse_scenario(found.to_toml()) == found.scenario
    assert [table.title for table in workload_tables(found)][1:2] == ["Found in prompts before, in an endless memory"]


def test_shares_of_classes(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    rows = [json.loads(row) for row in mooncake((0, 600, [0, 1]), (500, 400, [0]), (900, 600, [0, 1])).splitlines()]
    path.write_text(lines(*({**row, "tier": tier} for row, tier in zip(rows, "aba", strict=True))))
    (tmp_path / "p.csv").write_text("arrival_time,prompt_tokens,output_tokens,class\n0,10,10,c\n1,10,10,c\n")
    found = workload(path, gpus=1, profile=PROFILE, class_column="tier")
    assert [(c.name, c.prefix_hit_rate) for c in found.classes] == [("a", 0.5), ("b", 1.0)]
    both = workload([path, f"p={tmp_path / 'p.csv'}"], gpus=1, profile=PROFILE)
    assert [c.prefix_hit_rate for c in both.classes] == [pytest.approx(1000 / 1600), None]
    assert both.prefix_share == pytest.approx(1000 / 1600)  # of the trace that says it
    silent = workload(tmp_path / "p.csv", gpus=1, profile=PROFILE)
    assert silent.prefix_share is None
    assert [c.prefix_hit_rate for c in silent.scenario.classes] == [None]
    assert not silent.scenario.engine.prefix_caching
    assert len(list(workload_tables(silent))) == 2


def test_the_scenario_finds_what_the_trace_says(tmp_path: Path) -> None:
    text = mooncake((0, 600, [0, 1]), (500, 400, [0]), (1000, 1300, [0, 1, 2]), (2000, 100, [3]))
    found = made(tmp_path / "m.jsonl", text, patience_rate=0.0, scale=0.1)
    assert found.scenario.engine.prefix_caching
    assert [c.prefix_hit_rate for c in found.scenario.classes] == [0.416667]
    read = parse_scenario(found.to_toml())
    assert plan(read).prefix_hit_rate == pytest.approx(0.416667)
    assert "prefix_hit_rate is that; `fluidgate plan FILE --trace TRACE` measures" in found.to_toml()
    alone = made(tmp_path / "a.jsonl", mooncake((0, 600, [0, 1]), (500, 400, [2])))
    assert not alone.scenario.engine.prefix_caching
    assert [c.prefix_hit_rate for c in alone.scenario.classes] == [None]


def test_hit_rates_of_classes_in_the_scenario(tmp_path: Path) -> None:
    whole = mooncake((0, 600, [0, 1]), (500, 400, [0]), (900, 600, [0, 1]))
    path = tmp_path / "m.jsonl"
    path.write_text(whole)
    (tmp_path / "p.csv").write_text("arrival_time,prompt_tokens,output_tokens\n0,400,10\n0.9,400,10\n")
    mixed = workload([f"all={path}", f"all={tmp_path / 'p.csv'}"], gpus=1, profile=PROFILE)
    # both traces last 0.9 s; of the second nothing is known, so nothing is found
    assert [c.prefix_hit_rate for c in mixed.scenario.classes] == [pytest.approx(1000 / 2400, abs=1e-6)]
    rows = [{**json.loads(row), "tier": tier} for row, tier in zip(whole.splitlines(), "aab", strict=True)]
    path.write_text(lines(*rows))
    found = workload(path, gpus=1, profile=PROFILE, class_column="tier")
    assert [c.prefix_hit_rate for c in found.scenario.classes] == [0.4, 0.999999]  # a token at least is read


@pytest.mark.parametrize(("states", "caches"), [("True", True), ("False", False), ("None", True)])
def test_what_the_engine_says_of_caching_holds(tmp_path: Path, states: str, caches: bool) -> None:
    log = tmp_path / "vllm.log"
    log.write_text(f"INFO Initializing a V1 LLM engine (v0.19.0) with config: enable_prefix_caching={states}, seed=0\n")
    text = mooncake((0, 600, [0, 1]), (500, 400, [0]))
    found = made(tmp_path / "m.jsonl", text, engine_log=log).scenario
    assert found.engine.prefix_caching is caches
    assert [c.prefix_hit_rate for c in found.classes] == [0.4 if caches else None]


def test_batching_is_written_where_it_goes_with_the_log(tmp_path: Path) -> None:
    text = mooncake((0, 600, [0, 1]), (500, 400, [0]))
    found = made(tmp_path / "m.jsonl", text, batching="token-budget")
    assert found.scenario.engine.batching == "token-budget"
    assert found.command is not None
    assert "--batching token-budget" in found.command
    log = tmp_path / "vllm.log"
    log.write_text("INFO Asynchronous scheduling is enabled.\n")
    with pytest.raises(FluidgateError, match="batching='single-prefill': async_scheduling: not simulated"):
        made(tmp_path / "m.jsonl", text, batching="single-prefill", engine_log=log)


def test_the_example_of_agents_is_what_is_drawn_and_made() -> None:
    from scripts.draw_agent_sessions import lines as drawn

    trace = EXAMPLES / "agents-sessions.jsonl"
    assert trace.read_text("utf-8").splitlines() == drawn()
    again = workload(
        trace, gpus=4, profile="h100/llama-3.1-8b", sessions_rate=0.2, patience_rate=0.0, batching="token-budget",
        batch_size=128, chunk_size=2048, name="agents-fleet",
    )  # fmt: skip
    schema, made = (EXAMPLES / "agents-fleet.toml").read_text("utf-8").split("\n", 1)
    assert schema.startswith("#:schema ")
    assert again.to_toml("examples/agents-fleet.toml") == made


def test_sessions_of_agents(tmp_path: Path) -> None:
    text = lines(session(requests=MAIN[:2]), session(subagents=[]))
    found = made(tmp_path / "s.jsonl", text, sessions_rate=0.25, scale=2.0)
    prompts, shared = 100 + 160 + 50 + 80 + 100 + 160 + 260, 96 + 32 + 96 + 128
    assert found.prefix_share == pytest.approx(shared / prompts)
    assert found.sessions is not None
    report = found.to_dict()["sessions"]
    assert (report["count"], report["subagents"]) == (2, 1)
    assert report["turns"] == {"mean": 2.5, "p50": 2.5, "p90": pytest.approx(2.9)}
    assert report["think"]["mean"] == pytest.approx((4 + 1.5 + 4 + 8) / 4)
    (only,) = found.scenario.classes
    assert only.arrival_rate * 2 == pytest.approx(2.0 * 0.25 * 7 / 2)
    assert (only.prompt_tokens, found.classes[0].gaps.size) == (130.0, 0)
    assert "s.jsonl: 7 requests of 2 sessions, without times of their starts, 1 empty ones left out" in found.to_toml()
    assert "--sessions-rate 0.25" in str(found.command)
    assert not any("start" in warning for warning in found.warnings)
    assert [table.title for table in workload_tables(found)][2] == "Sessions (mean, p50, p90)"


def test_starts_that_nobody_says_are_one_a_second(tmp_path: Path) -> None:
    found = made(tmp_path / "s.jsonl", lines(session(requests=MAIN[:1], subagents=[{"t": 0, "requests": AGENT}])))
    assert found.scenario.classes[0].arrival_rate * 2 == pytest.approx(3.0)
    assert any("1 a second over the whole cluster is taken" in warning for warning in found.warnings)
    for rate in (0.0, float("inf")):
        with pytest.raises(FluidgateError, match="sessions_rate: must be above 0"):
            made(tmp_path / "s.jsonl", lines(session()), sessions_rate=rate)
    with pytest.raises(FluidgateError, match="sessions_rate: no trace has sessions"):
        made(tmp_path / "m.jsonl", mooncake((0, 600, [0, 1]), (9, 600, [0, 1])), sessions_rate=1.0)


def test_clusters_of_sessions_count_their_own_turns(tmp_path: Path) -> None:
    text = lines(*[session(requests=[[0, 10, 1, 0, 0], [1, 1000, 1, 0, 7.0]], subagents=[])] * 3)
    found = made(tmp_path / "s.jsonl", text, clusters=2, sessions_rate=1.0)
    by_name = {c.name: c.sessions for c in found.classes}
    one, two = by_name["n10-d1"], by_name["n1000-d1"]
    assert one is not None
    assert two is not None
    assert one.turns == two.turns
    assert (one.count, one.think) == (3, None)
    assert two.think is not None
    assert two.think.mean == 7.0


def test_chats_say_turns_and_no_think_times(tmp_path: Path) -> None:
    text = lines(chat(1, -1, 0.0, 16, [1], 1), chat(2, 1, 5.0, 32, [1, 2], 2), chat(3, -1, 6.0, 20, [4, 5], 1))
    found = made(tmp_path / "q.jsonl", text)
    report = found.to_dict()
    assert report["sessions"] == {
        "count": 2,
        "subagents": 0,
        "turns": {"mean": 1.5, "p50": 1.5, "p90": pytest.approx(1.9)},
        "think": None,
    }
    assert report["prefix_share"] == pytest.approx(16 / 68)
    assert found.scenario.classes[0].arrival_rate * 2 == pytest.approx(3 / 6)


def test_the_public_traces() -> None:
    chats = workload(real("mooncake_conversation_trace.jsonl"), gpus=8, profile=PROFILE)
    assert round(chats.to_dict()["prefix_share"], 4) == 0.3736
    agents = workload(real("agentic_sessions.jsonl.gz"), gpus=8, profile=PROFILE)
    report = agents.to_dict()
    assert round(report["prefix_share"], 4) == 0.9612
    assert (report["sessions"]["count"], report["sessions"]["subagents"]) == (473, 53)
    (only,) = agents.classes
    assert only.prefix_hit_rate is not None
    assert only.mean_prompt * (1 - only.prefix_hit_rate) == pytest.approx(4700, abs=10)
