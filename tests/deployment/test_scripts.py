"""The saved scripts, run: engines, the whole set before emulated engines, and the check of an answer."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from fluidgate.deployment import fleet as fleets
from fluidgate.deployment import judge, save
from fluidgate.sizing import size
from tests.deployment.fleets import TWO, fleet, mixed, saved
from tests.sizing.instances import chat

ROOT = Path(__file__).parents[2]
SECONDS = 120.0
VLLM = '#!/bin/sh\necho "$CUDA_VISIBLE_DEVICES $*" >> started\n'
AIPERF = f"""#!{sys.executable}
import json, sys
from pathlib import Path
words = sys.argv[1:]
said = dict(zip(words, words[1:]))
lines = Path(said["--input-file"]).read_text().splitlines()
folder = Path(said["--artifact-dir"])
folder.mkdir(parents=True)
with (folder / "profile_export.jsonl").open("w") as out:
    for line in map(json.loads, lines):
        times = {{"time_to_first_token": 100.0, "inter_token_latency": 10.0, "request_latency": 900.0}}
        metrics = {{name: {{"value": value, "unit": "ms"}} for name, value in times.items()}}
        start = {{"request_start_ns": int(1e6 * line["timestamp"])}}
        print(json.dumps({{"metadata": start, "metrics": metrics}}), file=out)
Path("headers").open("a").write(said["--header"] + "\\n")
"""


def program(folder: Path, name: str, text: str) -> dict[str, str]:
    """An environment in which a command of that name is found first."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def run(script: Path, *words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", script.name, *words], cwd=script.parent, env=env, capture_output=True, text=True, timeout=SECONDS
    )


def test_each_engine_has_its_gpus_and_its_port(tmp_path: Path) -> None:
    folder = saved(tmp_path / "set", engines=3, profile="h100/llama-3.1-70b-tp4")
    env = program(tmp_path / "bin", "vllm", VLLM)
    assert run(folder / "vllm.sh", env=env).returncode == 0
    lines = sorted((folder / "started").read_text().splitlines(), key=lambda line: line.partition("--port")[2])
    assert [line.split()[0] for line in lines] == ["0,1,2,3", "4,5,6,7", "0,1,2,3"]
    assert all(line.split()[1:3] == ["serve", "meta-llama/Llama-3.1-70B-Instruct"] for line in lines)
    (folder / "started").unlink()
    assert run(folder / "vllm.sh", "2", "2", env=env).returncode == 0
    (line,) = (folder / "started").read_text().splitlines()
    assert "--port 8002" in line


def free_ports(count: int) -> int:
    """The first of so many free ones in a row."""
    for first in range(21_000 + os.getpid() % 5_000, 60_000, 7):
        try:
            for port in range(first, first + count):
                with socket.socket() as tried:
                    tried.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no ports are free")


@contextmanager
def emulated(folder: Path, first: int, engines: int) -> Iterator[str]:
    """A saved set before emulated engines, started by its own script; the gateway's URL."""
    env = {**os.environ, "FLUIDGATE": f"{shlex.quote(sys.executable)} -m fluidgate", "PYTHONPATH": str(ROOT)}
    url, log = f"http://127.0.0.1:{first + engines}", folder.parent / "log"
    with log.open("w") as file:
        started = subprocess.Popen(
            ["sh", "emulate.sh", "--port", str(first + engines)], cwd=folder, env=env, stdout=file, stderr=file,
            start_new_session=True,
        )  # fmt: skip
    try:
        end = time.monotonic() + SECONDS
        while not answers(f"{url}/ready"):
            assert started.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        yield url
        started.terminate()
        started.wait(SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def ask(url: str, header: str) -> None:
    """Three tokens of an answer to a request of a class."""
    body = {"model": "meta-llama/Llama-3.1-8B-Instruct", "prompt": [1] * 50, "max_tokens": 3, "ignore_eos": True}
    asked = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), {"x-class": header})
    with urllib.request.urlopen(asked, timeout=SECONDS) as answer:
        assert json.load(answer)["usage"]["completion_tokens"] == 3


def completed(url: str) -> dict[tuple[str, str], int]:
    """By group and class, as the metrics have it."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=SECONDS) as answer:
        lines = answer.read().decode().splitlines()
    found = (
        re.fullmatch(r'fluidgate_requests_total\{class="(.*)",model="(.*)",outcome="completed"\} (.*)', line)
        for line in lines
    )
    return {(each[2], each[1]): int(float(each[3])) for each in found if each}


def test_the_set_runs_before_emulated_engines_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_ports(3)
    monkeypatch.setattr(fleets, "FIRST_PORT", first)
    folder = saved(tmp_path / "set", engines=2, rate=20.0, more=TWO)
    with emulated(folder, first, 2) as url:
        for header in ("chat", "class-2"):
            ask(url, header)
        assert sorted(completed(url).values()) == [1, 1]


def test_a_mix_runs_before_emulated_engines_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_ports(4)
    monkeypatch.setattr(fleets, "FIRST_PORT", first)
    folder = tmp_path / "set"
    save(mixed(policy="vllm-least-loaded"), folder)
    with emulated(folder, first, 3) as url:
        for header in ["chat"] * 20 + ["document"] * 2:
            ask(url, header)
        done = completed(url)
    assert (done["h100", "document"], done["rtx4090", "document"]) == (2, 0)
    assert done["h100", "chat"] + done["rtx4090", "chat"] == 20
    assert done["rtx4090", "chat"] >= 10, "15 are wanted"


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def test_the_load_is_that_of_the_scenario(tmp_path: Path) -> None:
    made = fleet(more=TWO)
    folder = saved(tmp_path / "set", more=TWO)
    spans, measured = [], json.loads((folder / "targets.json").read_text("utf-8"))
    for k, cls in enumerate(made.load.classes, 1):
        lines = [json.loads(line) for line in (folder / f"requests/{k}.jsonl").read_text("utf-8").splitlines()]
        seconds = lines[-1]["timestamp"] / 1e3
        spans.append(seconds)
        assert len(lines) / seconds == pytest.approx(cls.arrival_rate * 2, rel=0.1)
        for key, mean in (("input_length", cls.prompt_tokens), ("output_length", cls.output_tokens)):
            assert sum(line[key] for line in lines) / len(lines) == pytest.approx(mean, rel=0.1)
    assert min(spans) > measured["warmup"] + 100.0


def _sent(folder: Path, cls: int = 1) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"requests/{cls}.jsonl").read_text("utf-8").splitlines()]


def test_sessions_are_sent_turn_by_turn(tmp_path: Path) -> None:
    more = "turns = 4\nturn_tokens = 300\nthink = 7.0\n[engine]\nprefix_caching = true"
    folder = saved(tmp_path / "set", prompt=2500, more=more)
    sessions: dict[str, list[dict[str, Any]]] = {}
    for line in _sent(folder):
        sessions.setdefault(line.get("session_id", f"alone {line.get('timestamp')}"), []).append(line)
    turns = [len(each) for each in sessions.values()]
    assert sum(turns) / len(turns) == pytest.approx(4.0, rel=0.15)
    for first, *later in sessions.values():
        assert "timestamp" in first
        assert all(each["delay"] == 7000.0 for each in later)
    new = [each["input_length"] for _, *later in sessions.values() for each in later]
    assert sum(new) / len(new) == pytest.approx(300.0, rel=0.1)
    assert "send 1 chat chat --fixed-schedule &" in (folder / "check.sh").read_text("utf-8")
    assert "guidellm" not in (folder / "README.md").read_text("utf-8")


def test_prefixes_are_shared_as_they_were(tmp_path: Path) -> None:
    more = "prefix_tokens = 800\nprefixes = 3\nturns = 2\nturn_tokens = 300\n[engine]\nprefix_caching = true"
    folder = saved(tmp_path / "set", prompt=2500, more=more)
    sent = _sent(folder)
    begun = [line["hash_ids"] for line in sent if "timestamp" in line]
    assert {tuple(each) for each in begun} == {(0,), (1,), (2,)}
    assert not any("hash_ids" in line for line in sent if "delay" in line)
    assert "--isl-block-size 800" in (folder / "check.sh").read_text("utf-8")
    assert "Prefixes that several prompts of a class share are sent alike" in (folder / "README.md").read_text("utf-8")


def test_a_traces_shared_blocks_are_sent(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    rows = [(1, 2, 10 + k) if k % 2 else (1, 20 + k, 40 + k) for k in range(20)]
    path.write_text(
        "".join(
            json.dumps({"timestamp": 100 * k, "input_length": 1300, "output_length": 20, "hash_ids": list(ids)}) + "\n"
            for k, ids in enumerate(rows)
        )
    )
    scenario = chat(targets="ttft_p90 = 5.0", more="[engine]\nprefix_caching = true")
    save(size(scenario, traces=[path], workers=1), tmp_path / "set")
    blocks = [line.get("hash_ids", []) for line in _sent(tmp_path / "set")]
    assert {len(each) for each in blocks[::2]} == {1}
    assert {len(each) for each in blocks[1::2]} == {2}
    assert len({tuple(each) for each in blocks}) == 2
    assert "--isl-block-size 512" in (tmp_path / "set/check.sh").read_text("utf-8")


def test_the_impatient_leave_in_groups(tmp_path: Path) -> None:
    folder = saved(tmp_path / "set", more=TWO.replace("patience_rate = 0.0", "patience_rate = 0.25"))
    script = (folder / "check.sh").read_text("utf-8")
    found = re.findall(r"send 2-\d class-2 .* --header x-fluidgate-max-wait:(\S+e\S+) &", script)
    waits = [float(each) for each in found]
    assert waits == pytest.approx([0.55, 1.91, 3.96, 9.58], rel=0.15), "quarters of an exponential law of 4 s"
    assert "send 1 chat completions --fixed-schedule &" in script
    parts = json.loads((folder / "targets.json").read_text("utf-8"))["classes"]
    assert list(parts.values()) == [["1"], ["2-1", "2-2", "2-3", "2-4"]]
    sizes = [len((folder / f"requests/{name}.jsonl").read_text("utf-8").splitlines()) for name in parts['code: "é"']]
    assert max(sizes) - min(sizes) <= 1


def test_sub_agents_come_too(tmp_path: Path) -> None:
    sub = TWO.replace("total_arrival_rate = 20.0", "total_arrival_rate = 15.0")
    agents = 'subagents = 1.5\nsubagent_class = "code: \\"é\\""'
    more = f"turns = 2\nturn_tokens = 300\nthink = 7.0\n{agents}\n[engine]\nprefix_caching = true\n"
    folder = saved(tmp_path / "set", prompt=2500, rate=20.0, more=more + sub)
    own = sum("timestamp" in line for line in _sent(folder))
    assert len(_sent(folder, 2)) / own == pytest.approx(1.5, rel=0.15)
    assert "send 2 class-2 completions --fixed-schedule &" in (folder / "check.sh").read_text("utf-8")
    assert "Sub-agents come when they would" in (folder / "README.md").read_text("utf-8")


def test_a_trace_is_sent_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    rows = [(k / 10, 300 + 7 * k, 50 + k) for k in range(100)]
    path.write_text("arrival_time,prompt_tokens,output_tokens\n" + "\n".join(f"{a},{b},{c}" for a, b, c in rows))
    save(size(chat(targets="ttft_p90 = 5.0"), traces=[path], rate_scale=2.0, workers=1), tmp_path / "set")
    sent = [(line["timestamp"], line["input_length"], line["output_length"]) for line in _sent(tmp_path / "set")]
    assert sent == [(pytest.approx(1e3 * a / 2), b, c) for a, b, c in rows]
    assert json.loads((tmp_path / "set/targets.json").read_text("utf-8"))["warmup"] == 0.0


def test_what_comes_at_the_peak_is_sent(tmp_path: Path) -> None:
    hours = '[arrivals]\nprocess = "daily"\nperiod = 1200.0\nweights = [1.0, 9.0]'
    found = size(chat(targets="ttft_p90 = 1.0", rate=20.0, more=hours), workers=1)
    save(found, tmp_path / "set")
    early = [line for line in _sent(tmp_path / "set") if line["timestamp"] < 150e3]
    assert len(early) / 150.0 == pytest.approx(36.0, rel=0.1)
    assert "from the peak that binds on" in (tmp_path / "set/README.md").read_text("utf-8")


def test_users_who_think_send_nothing(tmp_path: Path) -> None:
    users = '[arrivals]\nprocess = "closed"\nusers = 100\nthink = 9.0\nthink_law = "exponential"'
    found = size(chat(targets="latency_mean = 4.0", more=users), workers=1)
    save(found, tmp_path / "set")
    assert found.best is not None
    assert found.best.whole is not None
    latency = found.best.whole.result.overall.latency.mean
    (said,) = re.findall(r"--concurrency (\d+) --request-count (\d+)", (tmp_path / "set/check.sh").read_text("utf-8"))
    assert int(said[0]) == pytest.approx(100 * latency / (9.0 + latency), rel=0.1)
    assert int(said[1]) == len(_sent(tmp_path / "set"))


def test_guidellm_can_send_it_too(tmp_path: Path) -> None:
    folder = saved(tmp_path / "set")
    (line,) = re.findall(r"`(guidellm run .*)`", (folder / "README.md").read_text("utf-8"))
    words = shlex.split(line)
    said = dict(zip(words[2::2], words[3::2], strict=True))
    assert set(said) == {"--backend", "--profile", "--data", "--tokenizer", "--output"}
    data = dict(each.split("=", 1) for each in said["--data"].split(","))
    assert (folder / data["source.path"]).exists()
    assert float(data["time_scale"]) == 1e-3


@pytest.mark.parametrize(("limit", "status", "word"), [(0.2, 0, "kept"), (0.05, 1, "MISSED")])
def test_the_check_says_whether_the_answer_holds(tmp_path: Path, limit: float, status: int, word: str) -> None:
    folder = saved(tmp_path / "set", more=TWO)
    targets = json.loads((folder / "targets.json").read_text("utf-8"))
    target = {"class": None, "measure": "ttft", "statistic": "p99", "limit": limit, "simulated": 0.09}
    (folder / "targets.json").write_text(json.dumps(targets | {"targets": [target]}))
    checked = run(folder / "check.sh", env=program(tmp_path / "bin", "aiperf", AIPERF))
    assert checked.returncode == status, checked.stdout + checked.stderr
    assert f"ttft p99: 0.1 of {limit} s, simulated 0.09: {word}" in checked.stdout
    assert sorted((folder / "headers").read_text().splitlines()) == ["x-class:chat", "x-class:class-2"]


def test_a_check_that_could_not_be_made_is_no_answer(tmp_path: Path) -> None:
    folder = saved(tmp_path / "set")
    checked = run(folder / "check.sh", env=program(tmp_path / "bin", "aiperf", "#!/bin/sh\necho no model\nexit 1\n"))
    assert checked.returncode == 2
    assert "measured-1.log" in "".join(each.name for each in folder.iterdir())
    assert "aiperf failed" in checked.stderr
    silent = run(folder / "check.sh", env=program(tmp_path / "bin", "aiperf", "#!/bin/sh\n"))
    assert (silent.returncode, silent.stdout) == (2, "")
    assert silent.stderr == "judge.py: no file measured/1/profile_export.jsonl; measured-1.log says why\n"


def test_failed_requests_count_against_shares() -> None:
    limits = {"chat": {"ttft": 1.0, "tpot": 0.05}}
    good, slow = {"ttft": 0.5, "tpot": 0.01, "latency": 2.0}, {"ttft": 0.5, "tpot": 0.2, "latency": 9.0}
    seen = [("chat", good), ("chat", slow), ("chat", None), ("chat", {"ttft": 0.1, "latency": 0.1})]
    assert judge.statistic({"measure": "served", "statistic": "share"}, seen, limits) == 0.75
    assert judge.statistic({"measure": "goodput", "statistic": "share"}, seen, limits) == 0.5
    assert judge.statistic({"measure": "tpot", "statistic": "p50"}, seen, limits) == 0.01
    assert judge.statistic({"measure": "latency", "statistic": "mean"}, seen, limits) == pytest.approx(11.1 / 3)
