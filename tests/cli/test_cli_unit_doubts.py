"""Numbers that look as if they were meant in another unit are doubted once; what is usual is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command import ROOT, Command

from fluidgate import frontier
from fluidgate.errors import UnitWarning
from fluidgate.model import Scenario
from fluidgate.sizing.targets import with_targets

DOUBTS = {
    "alpha": ((("alpha = 0.0174", "alpha = 17.4"), "gpu.alpha: 17.4 is read as 17.4 s", "write 0.0174")),
    "beta": ((("beta = 6.2e-5", "beta = 0.062"), "gpu.beta: 0.062 is read as 0.062 s a prompt token", "6.2e-05")),
    "gamma": ((("gamma = 45.45", "gamma = 0.022"), "gpu.gamma: 0.022 is read as", "write 45.45")),
    "patience": (
        (("patience_rate = 0.1 ", "patience_rate = 30 "), "patience_rate: 30 is read as 30 a second", "write 0.03333")
    ),
    "answers": ((("arrival_rate = 0.5 ", "arrival_rate = 30 "), "answers that one can write", "total_arrival_rate")),
    "rate": ((("prompt_tokens = 3000", "prompt_tokens = 900000"), "prompts that one can read", "total_arrival_rate")),
    "rates": ((("arrival_rate = 0.5 ", "arrival_rate = 900 "), "requests a second for each GPU", "total_arrival_rate")),
}


@pytest.mark.parametrize("name", DOUBTS)
def test_a_number_in_another_unit_is_doubted(fluidgate: Command, scenario: Callable[..., Path], name: str) -> None:
    exchange, *words = DOUBTS[name]
    outcome = fluidgate("plan", scenario(exchange), "--json")
    doubts = [line for line in outcome.notices if line.startswith("fluidgate: warning: s.toml: ")]
    assert len(doubts) == 1, outcome.notices
    for word in words:
        assert word in doubts[0]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("[targets]\nttft = 500\n", "targets.ttft: 500 is read as 500 s; if you meant milliseconds write 0.5"),
        ("[targets]\ntpot_p99 = 40\n", "targets.tpot_p99: 40 is read as 40 s; if you meant milliseconds write 0.04"),
        ("[indicators]\nmax_tpot = 25\n", "indicators.max_tpot: 25 is read as 25 s"),
        ("[engine]\noverhead = 3\n", "engine.overhead: 3 is read as 3 s"),
    ],
)
def test_times_of_tables_are_doubted(fluidgate: Command, scenario: Callable[..., Path], more: str, words: str) -> None:
    outcome = fluidgate("plan", scenario(more=more), "--json")
    assert sum(words in line for line in outcome.notices) == 1, outcome.notices


def test_targets_of_a_command_and_waits_of_a_gateway(
    fluidgate: Command, scenario: Callable[..., Path], tmp_path: Path
) -> None:
    gateway = 'schema = 1\nscenario = "s.toml"\n[engines]\nkind = "vllm"\nurls = []\n[limits]\nmax_wait = 30000\n'
    scenario()
    Path("g.toml").write_text(gateway, "utf-8")
    doubted = fluidgate("serve", "g.toml", "--check").notices
    assert "limits.max_wait: 30000 is read as 30000 s; if you meant milliseconds write 30" in doubted[0]
    with pytest.warns(UnitWarning, match="ttft_p99: 500 is read as 500 s; if you meant milliseconds write 0.5"):
        with_targets(Scenario.load(ROOT / "examples" / "chat-fleet.toml"), ["ttft_p99=500"])


def test_limits_of_a_frontier_are_doubted() -> None:
    with pytest.warns(UnitWarning, match=r"low: 25 is read as 25 s; if you meant milliseconds write 0\.025$"):
        frontier(Scenario.load(ROOT / "examples" / "two-class.toml"), "max_tpot", low=25.0, high=30.0, points=2)


def test_measurements_and_traces_are_doubted(
    fluidgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{b},{c},{10 + c / 100 + b}\n" for b in (1, 8, 16) for c in (0, 256, 512))
    Path("m.csv").write_text(f"batch_size,chunk_size,seconds\n{rows}", "utf-8")
    assert any("if they are milliseconds give --unit ms" in line for line in fluidgate("calibrate", "m.csv").notices)
    told = fluidgate("calibrate", "m.csv", "--unit", "ms").notices
    assert not any("--unit" in line for line in told)
    Path("t.csv").write_text("arrival_time,prompt_tokens,output_tokens\n0,100,20\n1500,300,40\n3000,200,10\n", "utf-8")
    doubted = fluidgate("workload", "t.csv", "--gpus", "1").notices
    assert any("a request every 1500 s" in line and "--unit ms" in line for line in doubted)
    assert not fluidgate("workload", "t.csv", "--gpus", "1", "--unit", "s").notices


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.stem)
def test_no_example_is_doubted(fluidgate: Command, example: Path) -> None:
    outcome = fluidgate("plan", example, "--json")
    assert not any("is read as" in line or "for each GPU" in line for line in outcome.notices)
