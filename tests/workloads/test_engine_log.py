"""vLLM's own log; the lines are as its versions print them, the numbers ours."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from fluidgate.cli.app import app
from fluidgate.errors import FluidgateError
from fluidgate.model import Scenario
from fluidgate.workloads import workload
from fluidgate.workloads.engine_log import EngineLog, EngineSettings, read_engine_log

CONFIG = (
    "model='lab/Llama-3.1-8B', speculative_config=None, tokenizer='lab/other', skip_tokenizer_init=False, "
    "tokenizer_mode=auto, revision=None, dtype=torch.bfloat16, max_seq_len=8192, load_format=auto, "
    "tensor_parallel_size={tensor}, pipeline_parallel_size=1, {data}quantization=None, enforce_eager=False, "
    "kv_cache_dtype=auto, device_config=cuda, seed=0, served_model_name=chat, enable_prefix_caching={caching}, "
)
V19 = f"""\
(APIServer pid=1) INFO 11-20 10:00:00 [utils.py:299]        version 0.19.0
(APIServer pid=1) INFO 11-20 10:00:00 [utils.py:233] non-default args: {{'model_tag': 'lab/Llama-3.1-8B', 'port': 8001,\
 'lora_modules': [LoRAModulePath(name='a', path='b')], 'max_num_seqs': 128, 'block_size': 32}}
(APIServer pid=1) INFO 11-20 10:00:05 [scheduler.py:239] Chunked prefill is enabled with max_num_batched_tokens=2048.
(APIServer pid=1) INFO 11-20 10:00:05 [vllm.py:834] Asynchronous scheduling is enabled.
(EngineCore pid=9) INFO 11-20 10:00:09 [core.py:107] Initializing a V1 LLM engine (v0.19.0) with config: \
{CONFIG.format(tensor=2, data="data_parallel_size=1, ", caching=True)}enable_chunked_prefill=True
(EngineCore pid=9) INFO 11-20 10:00:40 [kv_cache_utils.py:1319] GPU KV cache size: 41,408 tokens
(EngineCore pid=9) INFO 11-20 10:00:40 [kv_cache_utils.py:1324] Maximum concurrency for 8,192 tokens per request: 5.05x
"""
LOAD = (
    "(APIServer pid=1) INFO 11-20 10:{when} [loggers.py:259] Engine 00{engine}: Avg prompt throughput: {prompt} "
    "tokens/s, Avg generation throughput: 61.0 tokens/s, Running: 7 reqs, Waiting: 2 reqs, {more}GPU KV cache usage: "
    "12.5%, Prefix cache hit rate: 43.8%, External prefix cache hit rate: 1.0%\n"
)


def read(folder: Path, text: str | bytes) -> EngineLog:
    path = folder / "vllm.log"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_engine_log(path)


def test_the_settings_that_a_log_states(tmp_path: Path) -> None:
    settings = read(tmp_path, V19).settings
    assert settings == EngineSettings(
        version="0.19.0",
        model="lab/Llama-3.1-8B",
        dtype="bfloat16",
        tensor_parallel_size=2,
        pipeline_parallel_size=1,
        data_parallel_size=1,
        max_num_seqs=128,
        max_num_batched_tokens=2048,
        kv_tokens=41_408,
        kv_block=32,
        enable_prefix_caching=True,
        async_scheduling=True,
    )
    assert settings.unsaid == ()
    shown = "\n".join(f"2026-11-20T10:00:00.123Z | \x1b[1;36m{line}\x1b[0;0m" for line in V19.splitlines())
    assert read(tmp_path, gzip.compress(shown.encode())).settings == settings


def test_an_engine_before_v1(tmp_path: Path) -> None:
    text = (
        "INFO 06-20 10:00:00 api_server.py:913] args: Namespace(subparser='serve', model='lab/a', max_num_seqs=64, "
        "max_num_batched_tokens=None, enable_prefix_caching=None, quantization='awq', block_size=16)\n"
        f"INFO 06-20 10:00:01 llm_engine.py:249] Initializing an LLM engine (v0.6.4.post1) with config: "
        f"{CONFIG.format(tensor=1, data='', caching=False)}chunked_prefill_enabled=True\n"
        "INFO 06-20 10:00:09 gpu_executor.py:122] # GPU blocks: 1000, # CPU blocks: 2048\n"
        "INFO 06-20 10:00:20 metrics.py:449] Avg prompt throughput: 5.0 tokens/s, Avg generation throughput: 12.0 "
        "tokens/s, Running: 3 reqs, Swapped: 0 reqs, Pending: 4 reqs, GPU KV cache usage: 0.5%, "
        "CPU KV cache usage: 9.0%.\n"
    )
    log = read(tmp_path, text)
    told = log.settings
    assert (told.version, told.max_num_seqs, told.kv_tokens, told.quantization) == ("0.6.4.post1", 64, 16_000, "awq")
    assert (told.enable_prefix_caching, told.data_parallel_size) == (False, None)
    assert told.unsaid == ("max_num_batched_tokens", "async_scheduling")
    row = log.series[0]
    assert (row["running"], row["waiting"], row["kv_share"], row["engine"]) == (3, 4, 0.005, -1)
    assert np.isnan(row["prefix_hit_rate"])


def test_newer_lines_and_ranks_of_which_the_smallest_counts(tmp_path: Path) -> None:
    text = V19.replace("41,408 tokens", "41,408 tokens, Maximum concurrency for 8,192 tokens per request: 5.05x")
    text += "(EngineCore_DP1 pid=10) INFO 11-20 10:00:41 [kv_cache_utils.py:1319] GPU KV cache size: 41,376 tokens\n"
    assert read(tmp_path, text).settings.kv_tokens == 41_376


def test_of_several_starts_the_last_counts(tmp_path: Path) -> None:
    again = V19.replace("'max_num_seqs': 128, ", "").replace("41,408", "50,000").replace("is enabled.", "is disabled.")
    settings = read(tmp_path, V19 + again).settings
    assert (settings.max_num_seqs, settings.kv_tokens, settings.async_scheduling) == (None, 50_000, False)
    assert settings.unsaid == ("max_num_seqs",)


def test_the_load_by_the_second(tmp_path: Path) -> None:
    text = V19 + "".join(
        LOAD.format(when=when, engine=engine, prompt=prompt, more=more)
        for when, engine, prompt, more in (
            ("00:50", 0, 1505.3, ""), ("00:50", 1, 0.0, ""), ("01:00", 0, 2000.0, "Deferred: 1 reqs, Preemptions: 3, ")
        )
    )  # fmt: skip
    series = read(tmp_path, text).series
    assert series["time"].tolist() == [0.0, 0.0, 10.0]
    assert series["engine"].tolist() == [0, 1, 0]
    assert series["prompt_rate"].tolist() == [1505.3, 0.0, 2000.0]
    assert series["output_rate"].tolist() == [61.0] * 3
    assert series["kv_share"].tolist() == [0.125] * 3
    assert series["prefix_hit_rate"] == pytest.approx([0.438] * 3)


def test_the_load_over_the_end_of_a_year(tmp_path: Path) -> None:
    line = LOAD.format(when="00:50", engine=0, prompt=1.0, more="")
    ends = [line.replace("11-20 10:00:50", when) for when in ("12-31 23:59:55", "01-01 00:00:05")]
    assert read(tmp_path, "".join(ends)).series["time"].tolist() == [0.0, 10.0]


def test_a_file_that_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(FluidgateError, match="no line of vLLM in it"):
        read(tmp_path, "hello\n")
    with pytest.raises(FluidgateError, match="no such file"):
        read_engine_log(tmp_path / "absent.log")


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["workload", *words])


def test_the_command_shows_the_tables(tmp_path: Path) -> None:
    read(tmp_path, V19 + LOAD.format(when="00:50", engine=0, prompt=1.0, more=""))
    shown = run("--engine-log", str(tmp_path / "vllm.log"))
    assert shown.exit_code == 0
    assert "[gpu]\nbatch_size = 128\nchunk_size = 2048\n" in shown.stdout
    assert "max_batched_tokens = 2048\nkv_tokens = 41408\nkv_block = 32\nprefix_caching = true\n" in shown.stdout
    assert "at most: 7 requests running, 2 waiting, 12% of KV memory" in shown.stdout
    found = json.loads(run("--engine-log", str(tmp_path / "vllm.log"), "--json").stdout)
    assert (found["settings"]["kv_tokens"], found["series"][0]["running"]) == (41_408, 7)
    assert run().exit_code == 2


def test_a_scenario_with_the_engine_of_a_log(tmp_path: Path) -> None:
    read(tmp_path, V19.replace("'max_num_seqs': 128, ", ""))
    trace = tmp_path / "chat.csv"
    trace.write_text("arrival_time,prompt_tokens,output_tokens\n0,300,20\n1,500,40\n")
    made = workload(trace, gpus=1, profile="a100-40gb/qwen-8b", engine_log=tmp_path / "vllm.log")
    gpu, engine = made.scenario.gpu, made.scenario.engine
    assert (gpu.batch_size, gpu.chunk_size) == (16, 2048)
    assert (engine.max_batched_tokens, engine.kv_tokens, engine.kv_block) == (2048, 41_408, 32)
    assert engine.prefix_caching
    assert not engine.kv_caching
    assert engine.async_scheduling
    assert made.warnings == ("vllm.log: max_num_seqs is not in it; the scenario has a default",)
    assert made.command is not None
    assert "--engine-log vllm.log" in made.command
    path = tmp_path / "chat.toml"
    told = run(
        str(trace), "--gpus", "1", "--engine-log", str(tmp_path / "vllm.log"), "--batch-size", "64", "-o", str(path)
    )
    assert told.exit_code == 0
    written = Scenario.load(path)
    assert (written.gpu.batch_size, written.engine) == (64, engine)
