from __future__ import annotations

from pathlib import Path

import pytest

from fluidgate.model import (
    Arrivals,
    Calibrated,
    EngineModel,
    Gpu,
    Indicators,
    IterationTime,
    Lengths,
    Pricing,
    RequestClass,
    Scenario,
    Targets,
)
from fluidgate.scenario_file import dump_scenario, load_scenario, parse_scenario
from tests.scenario_file.texts import CLUSTER, NUMBERS, TOTALS, TWO, accepts, changed


def test_a_scenario_per_gpu_is_read() -> None:
    scenario = parse_scenario(TWO)
    assert scenario == Scenario(
        name="two-class",
        gpu=Gpu(batch_size=16, chunk_size=256, iteration=IterationTime(alpha=0.0174, beta=6.2e-5, gamma=45.45)),
        pricing=Pricing(scheme="bundled", prompt=0.1, output=0.2),
        classes=(
            RequestClass(name="batch", prompt_tokens=300, output_tokens=1000, arrival_rate=0.5, patience_rate=0.1),
            RequestClass(name="chat", prompt_tokens=3000, output_tokens=400, arrival_rate=0.25, patience_rate=0),
        ),
    )


def test_a_cluster_shares_its_arrival_rates() -> None:
    scenario = parse_scenario(changed(CLUSTER, TOTALS))
    assert scenario.cluster_gpus == 3
    assert [c.arrival_rate for c in scenario.classes] == [0.5 / 3, 0.25 / 3]


def test_a_shipped_profile_stands_for_its_numbers() -> None:
    scenario = parse_scenario(changed((NUMBERS, 'profile = "a100-40gb/qwen-8b"\n')))
    assert scenario.gpu.calibrated.profile == "a100-40gb/qwen-8b"
    plain = scenario.gpu.model_copy(update={"calibrated": Calibrated()})
    assert scenario.replace(gpu=plain) == parse_scenario(TWO)


def test_a_profile_file_is_found_beside_the_scenario_file(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text('name = "lab"\nalpha = 0.01\nbeta = 1e-5\ngamma = 50\n')
    (tmp_path / "two.toml").write_text(changed((NUMBERS, 'profile = "lab.toml"\n')))
    assert load_scenario(tmp_path / "two.toml").gpu.iteration == IterationTime(alpha=0.01, beta=1e-5, gamma=50)


def test_schema_1_windows_line_ends_and_a_byte_order_mark_are_accepted(tmp_path: Path) -> None:
    file = tmp_path / "two.toml"
    file.write_bytes(b"\xef\xbb\xbf" + ("schema = 1\n" + TWO).replace("\n", "\r\n").encode())
    assert load_scenario(str(file)) == Scenario.load(file) == parse_scenario(TWO)


def test_indicators_are_read() -> None:
    text = TWO + "\n[indicators]\nmax_tpot = 0.0245\nsolo_gap_weight = 2\n"
    assert parse_scenario(text).indicators == Indicators(max_tpot=0.0245, solo_gap_weight=2.0)


def test_arrivals_are_read() -> None:
    assert parse_scenario(TWO + "\n[arrivals]\n").arrivals == Arrivals()
    text = TWO + '\n[arrivals]\nprocess = "gamma"\ncv = 3\n'
    assert parse_scenario(text).arrivals == Arrivals(process="gamma", cv=3.0)
    assert accepts(text)
    text = TWO + '\n[arrivals]\nprocess = "mmpp"\nlevels = [1, 8]\nsojourns = [50, 5.5]\n'
    assert parse_scenario(text).arrivals == Arrivals(process="mmpp", levels=(1.0, 8.0), sojourns=(50.0, 5.5))
    assert accepts(text)
    text = TWO + '\n[arrivals]\nprocess = "daily"\nweights = [1, 0, 2]\n'
    assert parse_scenario(text).arrivals == Arrivals(process="daily", weights=(1.0, 0.0, 2.0), period=86_400.0)
    assert accepts(text)


def test_an_engine_and_targets_are_read() -> None:
    text = changed(("patience_rate = 0\n", "patience_rate = 0\ntpot_target = 0.1\n"))
    text += '\n[engine]\nkv_tokens = 4096\npreemption = "swap"\nswap_seconds = 1e-6\ntransfer_bandwidth = 1e5\n'
    text += "[targets]\nttft = 2\ntpot = 0.05\n"
    scenario = parse_scenario(text)
    engine = EngineModel(kv_tokens=4096, preemption="swap", swap_seconds=1e-6, transfer_bandwidth=1e5)
    assert scenario.engine == engine
    assert scenario.targets == Targets(ttft=2.0, tpot=0.05)
    assert scenario.ttft_targets == (2.0, 2.0)
    assert scenario.tpot_targets == (0.05, 0.1)
    assert parse_scenario(TWO).ttft_targets == (None, None)
    assert accepts(text)


def test_hit_rates_are_read_and_written_with_prefix_caching() -> None:
    text = changed(("patience_rate = 0\n", "patience_rate = 0\nprefix_hit_rate = 0.9\n"))
    text += "\n[engine]\nprefix_caching = true\n"
    scenario = parse_scenario(text)
    assert scenario.hit_rates.tolist() == [0.0, 0.9]
    assert scenario.reading == pytest.approx([300.0, 300.0])
    assert parse_scenario(dump_scenario(scenario)) == scenario
    assert accepts(text)


def test_lengths_are_read_and_their_traces_lie_beside_the_file(tmp_path: Path) -> None:
    text = (
        TWO + '\n[lengths]\nprompt = "lognormal"\nprompt_cv = 2\noutput = "empirical"\ntraces = ["a.csv", "/b.csv"]\n'
    )
    (tmp_path / "two.toml").write_text(text)
    assert load_scenario(tmp_path / "two.toml").lengths == Lengths(
        prompt="lognormal", prompt_cv=2.0, output="empirical", traces=(str(tmp_path / "a.csv"), "/b.csv")
    )
    assert accepts(text)
    assert parse_scenario(TWO).lengths == parse_scenario(TWO + "\n[lengths]\n").lengths == Lengths()
