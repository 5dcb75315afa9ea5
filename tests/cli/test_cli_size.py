"""`fluidgate size` on the command line: its table, its JSON, its picture, its exit status."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command import ROOT, Command

CHAT = str(ROOT / "examples" / "chat-fleet.toml")
CALM = ("--rate-scale", "0.3")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_answer_is_shown_and_drawn(fluidgate: Command) -> None:
    found = fluidgate("size", CHAT, *CALM, "--spare", "1", "--plot", "s.svg")
    assert found.status == 0
    for words in ("GPUs for 'chat-fleet'", "index-and-pool", "1 of them spare", "ttft p99, 1 gone", "met", "$ an hour"):
        assert words in found.output
    assert Path("s.svg").read_bytes().startswith(b"<?xml")


def test_json_has_the_keys_of_the_contract(fluidgate: Command) -> None:
    found = fluidgate("size", CHAT, *CALM, "--json").json
    assert set(found) >= {"schema", "scenario", "targets", "answers", "wall_seconds"}
    assert found["targets"][0] == {"class": None, "measure": "ttft", "statistic": "p99", "limit": 0.5}
    (answer,) = found["answers"]
    assert answer["status"] == "met"
    assert answer["gpus"] == answer["engines"] * answer["gpus_per_engine"] >= answer["bound_engines"]
    assert answer["cost_per_hour"] == pytest.approx(2.5 * answer["gpus"])
    assert answer["cost_per_million_tokens"] > 0
    first = answer["targets"][0]
    assert first["met"]
    assert first["ci95"][0] <= first["value"] <= first["ci95"][1]
    assert set(answer) >= {"profile", "batch_size", "chunk_size", "policy", "spare", "binding", "one_less", "busy"}
    assert set(answer) >= {"goodput", "kv_share"}


def test_a_trace_is_the_load(fluidgate: Command) -> None:
    rows = (f"{k / 40},{300 + 37 * k % 900},{50 + 13 * k % 200}" for k in range(2000))
    Path("t.csv").write_text("arrival_time,prompt_tokens,output_tokens\n" + "\n".join(rows), "utf-8")
    fleet = str(ROOT / "examples" / "own-fleet.toml")
    found = fluidgate("size", fleet, "--trace", "t.csv", "--json").json
    (answer,) = found["answers"]
    assert answer["status"] == "met"
    engines, value = answer["engines"], answer["targets"][0]["value"]
    scenario = Path(fleet).read_text("utf-8") + f"\n[cluster]\ngpus = {engines}\n"
    Path("s.toml").write_text(scenario, "utf-8")
    played = fluidgate("replay", "s.toml", "t.csv", "--policy", "index-and-pool", "--json").json["policies"][0]
    assert played["overall"]["ttft"]["p95"] == pytest.approx(value)
    twice = fluidgate("size", fleet, "--trace", "t.csv", "--rate-scale", "8", "--json").json["answers"][0]
    assert twice["engines"] > engines


def test_where_nothing_keeps_the_targets_the_status_says_so(fluidgate: Command) -> None:
    found = fluidgate("size", CHAT, *CALM, "--target", "ttft_p99=0.0001", "--max-gpus", "3")
    assert found.status == 3
    assert "impossible" in found.output
    assert "give another limit" in found.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--target", "ttft_p9=1"), "--target: must be KEY=VALUE such as ttft_p99=1.0"),
        (("--batch-size", "many"), "must be whole numbers, but is 'many'"),
        (("--batch-size", "0"), "--batch-size: must be at least 1 and at most 2147483647, but is 0"),
        (("--spare", "-1"), "--spare: must be at least 0, but is -1"),
        (("--max-gpus", "0"), "--max-gpus: must be at least 1, but is 0"),
        (("--gpu-hour", "0"), "--gpu-hour: must be a price above 0, but is 0"),
        (("--rate-scale", "0"), "--rate-scale: must be a number above 0, but is 0"),
        (("--policy", "index-and-pol"), "did you mean 'index-and-pool'"),
        (("--profile", "h100/lama"), "unknown profile 'h100/lama'"),
        (("--seed", "-1"), "--seed: must be at least 0"),
        (("--trace", "nowhere.csv"), "nowhere.csv: no such file"),
        (("--target", "foo=1"), "but is 'foo=1'; the keys are goodput, latency_mean"),
        (("--sessions-rate", "3"), "--sessions-rate: no trace has sessions without times of their own; leave it out"),
    ],
)
def test_bad_input_is_one_line(fluidgate: Command, options: tuple[str, ...], said: str) -> None:
    found = fluidgate("size", CHAT, *options)
    assert (found.status, found.output, len(found.notices)) == (2, "", 1)
    assert said in found.notices[0]


def test_a_report_and_what_runs_the_answer_are_written(
    fluidgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = fluidgate("size", CHAT, *CALM, "--spare", "1", "--html", "page.html", "--save", "fleet")
    assert found.status == 0
    assert "saved in fleet" in "".join(found.notices)
    line = "fluidgate size .*chat-fleet.toml --spare 1 --rate-scale 0.3 --html page.html --save fleet"
    assert re.search(line, Path("page.html").read_text("utf-8"))
    assert re.search(line, Path("fleet/README.md").read_text("utf-8"))
    engines = fluidgate("size", "fleet/scenario.toml", "--json").json["answers"][0]
    again = fluidgate("simulate", "fleet/scenario.toml", "--policy", "index-and-pool", "--fidelity", "iteration",
                      "--horizon", "60", "--replications", "2", "--json").json  # fmt: skip
    assert again["gpus"] == engines["engines"] + 1
    refused = fluidgate("size", CHAT, *CALM, "--save", "fleet")
    assert refused.status == 2
    assert "holds files already" in "".join(refused.notices)
    assert not refused.output


def test_other_forms_of_tables_go_with_a_report(fluidgate: Command) -> None:
    found = fluidgate("size", CHAT, "--rate-scale", "0.01", "--format", "csv", "--html", "page.html")
    assert found.status == 0
    assert "engines,1,engine\n" in found.output
    assert re.search("fluidgate size .* --format csv --html page.html", Path("page.html").read_text("utf-8"))


def test_without_a_price_no_prices_are_shown(fluidgate: Command) -> None:
    text = Path(CHAT).read_text("utf-8")
    Path("free.toml").write_text(text.replace("[cost]\ngpu_hour = 2.5\n", ""), "utf-8")
    found = fluidgate("size", "free.toml", *CALM)
    assert found.status == 0
    assert "What a million tokens cost" not in found.output


def test_nothing_is_saved_where_nothing_keeps_the_targets(
    fluidgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("--target", "ttft_p99=0.0001", "--max-gpus", "3", "--html", "page.html", "--save", "fleet")
    found = fluidgate("size", CHAT, *CALM, *words)
    assert found.status == 3
    assert not Path("fleet").exists()
    assert "nothing is saved" in "".join(found.notices)
    assert "Nothing keeps the targets" in Path("page.html").read_text("utf-8")
