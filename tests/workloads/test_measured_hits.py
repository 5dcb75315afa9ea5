"""What traces find in the memory that a plan leaves, by the library and by the command."""

import json
from pathlib import Path

import numpy as np
import pytest

from fluidgate import FluidgateError, Scenario
from fluidgate.cli.app import main
from fluidgate.model import Arrivals
from fluidgate.workloads.hit_curve import hit_curve
from fluidgate.workloads.measured_hits import MULTIPLES, measured_hits
from fluidgate.workloads.streams import read_class_traces, texts_of
from fluidgate.workloads.streams.requests import requests_of
from fluidgate.workloads.traces import read_trace

AGENTS = Path(__file__).parents[3] / "shared" / "data" / "agentic_sessions.jsonl.gz"

SCENARIO = """
name = "chats"
[cluster]
gpus = 2
[gpu]
batch_size = 16
chunk_size = 512
alpha = 0.009
beta = 9e-5
delta = 2e-4
epsilon = 1e-7
solo_alpha = 0.012
solo_delta = 6e-5
[pricing]
scheme = "bundled"
prompt = 1.0
output = 4.0
[engine]
prefix_caching = true
kv_tokens = 40960
[lengths]
prompt = "fixed"
output = "fixed"
[[classes]]
name = "chat"
prompt_tokens = 3000
output_tokens = 40
total_arrival_rate = 4.0
patience_rate = 0.1
[[classes]]
name = "other"
prompt_tokens = 500
output_tokens = 40
total_arrival_rate = 1.0
patience_rate = 0.1
"""


@pytest.fixture
def files(tmp_path):
    """Twelve chats by turns, each prompt the last one and two blocks more of 512 tokens, all of one first block; and
    prompts like no other beside them.
    """
    blocks, rows = {k: [0] for k in range(12)}, []
    random = np.random.default_rng(3)
    fresh = iter(range(1, 10_000))
    for _ in range(8):
        for k in random.permutation(12).tolist():
            blocks[k] = [*blocks[k], next(fresh), next(fresh)]
            row = {"timestamp": 1000 * len(rows), "input_length": 512 * len(blocks[k]), "output_length": 40}
            rows.append(row | {"hash_ids": blocks[k]})
    trace = tmp_path / "chat.jsonl"
    trace.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain = tmp_path / "other.csv"
    plain.write_text("arrival_time,prompt_tokens,output_tokens\n" + "".join(f"{7 * k},500,40\n" for k in range(13)))
    scenario = tmp_path / "chats.toml"
    scenario.write_text(SCENARIO)
    return scenario, [f"chat={trace}", f"other={plain}"]


def test_the_plan_has_the_hit_rates_of_what_it_leaves(files):
    scenario, (trace, plain) = Scenario.load(files[0]), files[1]
    traces = read_class_traces(scenario, [trace, plain])
    found = measured_hits(scenario, traces, gpus=2)
    assert found.found.converged
    assert found.found.plan.scenario.hit_rates == pytest.approx(found.together.rates(found.found.memory))
    assert found.found.plan.scenario.hit_rates[1] == 0.0, "prompts like no other"
    held = found.found.plan.operating_point.kv_tokens
    assert found.found.memory == pytest.approx(40960 - held, abs=5.0)
    records = found.records()
    assert [record["kv_tokens"] for record in records] == [*(40960 * k for k in MULTIPLES), None]
    rates = [record["prefix_hit_rate"] for record in records]
    assert np.all(np.diff(rates) >= 0.0)
    assert rates[0] < 0.5 * rates[-1]
    assert records[-1]["spread_hit_rate"] < records[-1]["prefix_hit_rate"]
    shares = [record["mixed_fraction"] for record in records]
    assert np.all(np.diff(shares) <= 1e-9)
    assert shares[-1] < 0.7 * shares[0]


def test_on_one_gpu_an_endless_memory_holds_all_but_what_is_new(files):
    scenario = Scenario.load(files[0])
    chat, plain = read_class_traces(scenario, files[1])
    found = measured_hits(scenario.replace(cluster_gpus=None), [chat, plain])
    prompts = sum(int(each.trace.prompt_tokens.sum()) for each in (chat, plain))
    assert found.gpus == 1
    assert found.together.endless == pytest.approx(1.0 - (512 + 12 * 8 * 1024 + 13 * 500) / prompts)
    assert texts_of(chat.trace).pieces["end"].max() == 17 * 512


def test_the_command_says_what_memory_would_bring(files, capsys):
    scenario, (trace, plain) = str(files[0]), files[1]
    main(["plan", scenario, "--trace", trace, "--trace", plain, "--json"])
    plan = json.loads(capsys.readouterr().out)
    assert plan["cache"]["gpus"] == 2
    assert plan["cache"]["converged"]
    assert len(plan["cache"]["memories"]) == len(MULTIPLES) + 1
    own = plan["cache"]["memories"][2]
    assert own["cache_tokens"] == plan["cache"]["cache_tokens"]
    assert plan["classes"][0]["prefix_hit_rate"] > 0.3
    main(["plan", scenario, "--trace", trace, "--trace", plain])
    shown = capsys.readouterr().out
    assert "What KV memory would bring, on 2 GPUs" in shown
    assert "found if spread" in shown
    assert "no end" in shown


def test_what_cannot_be_measured_is_refused(files):
    scenario = Scenario.load(files[0])
    traces = read_class_traces(scenario, files[1])
    engine = scenario.engine.model_copy(update={"prefix_caching": False})
    with pytest.raises(FluidgateError, match=r"engine\.prefix_caching: false"):
        measured_hits(scenario.replace(engine=engine), traces)
    with pytest.raises(FluidgateError, match=r"arrivals\.process: in a closed loop nobody knows"):
        measured_hits(scenario.replace(arrivals=Arrivals(process="closed", users=4)), traces)


def test_too_little_memory_is_a_row_not_an_error(files):
    scenario = Scenario.load(files[0])
    patient = tuple(c.model_copy(update={"patience_rate": 0.0, "arrival_rate": 3.5}) for c in scenario.classes[:1])
    given = scenario.replace(classes=patient)
    found = measured_hits(given, read_class_traces(given, files[1][:1]), gpus=2)
    planned = [record["planned"] for record in found.records()]
    assert planned[-1]
    assert not planned[0]
    assert found.records()[0]["prefix_hit_rate"] is None


def test_the_agents_of_the_public_sessions_find_nearly_all():
    if not AGENTS.exists():
        pytest.skip(f"{AGENTS.name} is not at ../shared/data")
    trace = read_trace(AGENTS)
    texts = texts_of(trace)
    requests = requests_of(np.arange(len(trace)), 0, trace.prompt_tokens, trace.output_tokens, np.inf)
    requests["text"] = texts.text
    assert hit_curve(texts.pieces, requests, block=1).endless == pytest.approx(0.9612, abs=5e-5)
    curve = hit_curve(texts.pieces, requests, gpus=8, sessions=trace.sessions.tree)
    assert curve.endless == pytest.approx(0.961, abs=1e-3)
    assert curve.rate(451_072) > 0.9, "one session after the other"
