"""`fluidgate engine`: a process of its own, how it ends, and what it refuses."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fluidgate.cli.app import main
from fluidgate.cli.engine import engine_settings

PATIENCE = 120.0
TWO_CLASS = Path(__file__).parents[2] / "examples" / "two-class.toml"


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The command, and the addresses of its engines once they listen."""
    command = [sys.executable, "-m", "fluidgate", "engine", "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    watchdog = threading.Timer(PATIENCE, process.kill)
    watchdog.start()
    try:
        count = int(arguments[arguments.index("--count") + 1]) if "--count" in arguments else 1
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(count)]
        yield process, [re.sub(r"^engine on (\S+): .*\n$", r"\1", line) for line in lines]
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()


def post(url: str, **body: Any) -> dict[str, Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, json.dumps(body).encode()), timeout=PATIENCE) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_signals_end_it_at_once(number: signal.Signals, status: int) -> None:
    with running("--count", "2") as (process, urls):
        streams = [urllib.request.Request(url + "/v1/completions") for url in urls]
        for stream in streams:
            stream.data = b'{"prompt": "a", "max_tokens": 100000, "ignore_eos": true, "stream": true}'
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        open_streams = [opener.open(stream, timeout=PATIENCE) for stream in streams]
        assert all(each.readline().startswith(b"data: ") for each in open_streams)
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == status
        assert errors == ("fluidgate: interrupted\n" if status else "")


def test_kv_goes_from_process_to_process() -> None:
    options = ("--speed", "20", "--kv-lease", "10000", "--kv-load-failure-policy", "garbage")
    with running(*options) as (_, prefillers), running(*options, str(TWO_CLASS)) as (_, decoders):
        leg = {"do_remote_decode": True, "do_remote_prefill": False}
        read = post(prefillers[0] + "/v1/completions", prompt="a b c", max_tokens=1, kv_transfer_params=leg)
        params = read["kv_transfer_params"]
        decode = {"prompt": "a b c", "max_tokens": 3, "kv_transfer_params": params, "ignore_eos": True}
        answers = [post(decoders[0] + "/v1/completions", **decode) for _ in range(2)]
        assert ["garbage" in each["choices"][0]["text"] for each in answers] == [False, True]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as leaving:
        main(["engine", *arguments])
    captured = capsys.readouterr()
    assert leaving.value.code == 2
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def test_a_port_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refused(capsys, "--port", str(port))
        assert line.startswith(f"fluidgate: engine: cannot listen on 127.0.0.1 port {port} (")
        assert line.endswith("); give another --port")


def test_kv_events_without_their_packages(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zmq", None)
    line = refused(capsys, "--port", "0", "--kv-events", "5557")
    assert line == "fluidgate: engine: --kv-events needs pyzmq and msgspec; pip install 'fluidgate[kv-events]'"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.toml"], "missing.toml"),
        (["--profile", "nothing"], "unknown profile"),
        (["--speed", "0"], "--speed: must be above 0"),
        (["--speed", "nan"], "--speed"),
        (["--count", "0"], "--count: must be at least 1"),
        (["--port", "65535", "--count", "2"], "go beyond 65535"),
        (["--host", "no.such.host.invalid"], "cannot listen on no.such.host.invalid"),
        (["--kv-tokens", "100", "--max-model-len", "200"], "hold no request"),
        (["--max-num-batched-tokens", "100"], "only with --batching token-budget"),
        (["--kv-events", "5557", "--kind", "sglang"], "told by --kind vllm only"),
    ],
)
def test_bad_input(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert said in refused(capsys, *arguments)


def test_the_scenario_says_what_no_option_does(tmp_path: Path) -> None:
    plain = engine_settings(str(TWO_CLASS), None, None, None, {})
    assert (plain.gpu.batch_size, plain.gpu.chunk_size, plain.gpu.iteration.gamma) == (16, 256, 45.45)
    assert plain.output_tokens == 700.0
    assert plain.kv_tokens is None
    other = tmp_path / "s.toml"
    table = "\n[engine]\nkv_tokens = 50000\ntransfer_latency = 0.25\ntransfer_bandwidth = 1e5\n"
    other.write_text(TWO_CLASS.read_text("utf-8") + table, "utf-8")
    given = engine_settings(str(other), None, 8, None, {"transfer_latency": 0.5, "output_tokens": None})
    assert (given.kv_tokens, given.max_model_len) == (50_000, 50_000)
    assert (given.transfer_latency, given.transfer_bandwidth) == (0.5, 1e5)
    assert (given.gpu.batch_size, given.gpu.chunk_size) == (8, 256)
    profiled = engine_settings(str(other), "a100-40gb/qwen-4b", None, 512, {})
    assert profiled.gpu.iteration != given.gpu.iteration
    assert (profiled.gpu.batch_size, profiled.gpu.chunk_size) == (16, 512)


def test_the_kv_memory_of_a_profile_is_that_of_its_card(tmp_path: Path) -> None:
    alone = engine_settings(None, "h100/llama-3.1-8b", 64, None, {})
    assert alone.kv_tokens is not None
    assert 440_000 < alone.kv_tokens < 460_000
    assert alone.max_model_len == 131_072
    scenario = tmp_path / "s.toml"
    numbers = "alpha = 0.0174         # s\nbeta = 6.2e-5          # s/token\ngamma = 45.45          # tokens/s\n"
    text = TWO_CLASS.read_text("utf-8")
    assert numbers in text
    scenario.write_text(text.replace(numbers, 'profile = "h100/llama-3.1-8b"\n'), "utf-8")
    assert engine_settings(str(scenario), None, None, None, {}).kv_tokens == alone.kv_tokens
    other = engine_settings(str(scenario), "rtx4090/llama-3.1-8b", None, None, {})
    assert other.kv_tokens is not None
    assert 40_000 < other.kv_tokens < 43_000
    assert engine_settings(str(scenario), "a100-40gb/qwen-4b", None, None, {}).kv_tokens is None
    scenario.write_text(scenario.read_text("utf-8") + "\n[engine]\nkv_tokens = 50000\n", "utf-8")
    assert engine_settings(str(scenario), "rtx4090/llama-3.1-8b", None, None, {}).kv_tokens == 50_000
