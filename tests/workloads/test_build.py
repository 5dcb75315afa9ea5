from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluidgate.errors import FluidgateError
from fluidgate.model import IterationTime, Pricing
from fluidgate.profiles import find_profile
from fluidgate.scenario_file import load_scenario, parse_scenario
from fluidgate.workloads import Workload, read_trace, workload

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
PROFILE = "a100-40gb/qwen-8b"


def real(*names: str) -> list[Path]:
    files = [DATA / name for name in names]
    for file in files:
        if not file.exists():
            pytest.skip(f"the public trace {file.name} is not at ../shared/data")
    return files


def azure_files() -> list[Path]:
    return real("AzureLLMInferenceTrace_code.csv", "AzureLLMInferenceTrace_conv.csv")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(6)
    paths = []
    for name, prompt, output in (("day_code", 2000, 20), ("day_chat", 500, 200)):
        times = np.cumsum(rng.exponential(0.5, 400))
        lengths = [np.ceil(rng.exponential(mean, 400)).astype(int) for mean in (prompt, output)]
        rows = [f"{t},{p},{d}" for t, p, d in zip(times, *lengths, strict=True)]
        paths.append(tmp_path / f"{name}.csv")
        paths[-1].write_text("\n".join(["arrival_time,prompt_tokens,output_tokens", *rows]))
    return paths


def test_a_workload_is_a_scenario_of_a_cluster(files: list[Path]) -> None:
    made = workload(files, gpus=8, profile=PROFILE, scale=3)
    code, chat = made.scenario.classes
    trace = read_trace(files[0])
    assert (made.scenario.name, made.scenario.cluster_gpus) == ("day", 8)
    assert (code.name, chat.name) == ("code", "chat")
    assert code.arrival_rate == pytest.approx(3 * 400 / trace.span / 8, rel=1e-5)
    assert code.prompt_tokens == pytest.approx(trace.prompt_tokens.mean(), rel=1e-5)
    assert (code.patience_rate, made.scenario.gpu.batch_size, made.scenario.gpu.chunk_size) == (0.1, 16, 256)
    assert made.scenario.pricing == Pricing(scheme="bundled", prompt=0.1, output=0.2)
    assert made.scenario.gpu.iteration == find_profile(PROFILE).iteration


def test_the_written_file_is_the_scenario_and_names_no_folder(files: list[Path], tmp_path: Path) -> None:
    made = workload(files, gpus=7, profile=PROFILE, scale=1.5)
    path = tmp_path / "out.toml"
    made.write(path)
    text = path.read_text()
    assert load_scenario(path) == made.scenario
    assert str(tmp_path) not in text
    command = "fluidgate workload day_code.csv day_chat.csv --gpus 7 --scale 1.5"
    assert text.splitlines()[1] == f"#   {command} --profile {PROFILE} -o out.toml"
    assert "\nschema = 1\n" in text
    assert "total_arrival_rate" in text


def command(files: list[Path], **options: Any) -> str:
    chosen: dict[str, Any] = {"gpus": 2, "profile": PROFILE, **options}
    return str(workload(files, **chosen).command)


def test_the_command_says_every_option_that_is_not_the_default(files: list[Path], tmp_path: Path) -> None:
    start = f"fluidgate workload day_code.csv day_chat.csv --gpus 2 --profile {PROFILE}"
    assert command(files) == start
    assert command(files, scale=28.123456789).endswith(f" --scale 28.123456789 --profile {PROFILE}")
    many = command(files, batch_size=8, chunk_size=512, patience_rate=0.0, clusters=2, name="my day", seed=4)
    assert many == (f"{start} --batch-size 8 --chunk-size 512 --patience-rate 0 --classes 2 --name 'my day' --seed 4")
    assert command(files, skip_empty=True, sort=True) == f"{start} --skip-empty --sort"
    (tmp_path / "lab.toml").write_text('name = "lab"\nalpha = 0.01\nbeta = 1e-5\ngamma = 50\n')
    assert command(files, profile=tmp_path / "lab.toml").endswith(" --profile lab.toml")


def test_what_no_command_says(files: list[Path]) -> None:
    iteration = IterationTime(alpha=0.01, beta=1e-5, gamma=50)
    made = workload(files, gpus=2, profile=iteration)
    assert (made.command, made.profile) == (None, None)
    assert made.to_toml().startswith("# Made from traces with fluidgate.workloads.workload\n")
    free = Pricing(scheme="separate", prompt=0, output=1)
    assert workload(files, gpus=2, profile=PROFILE, pricing=free).command is None


def test_the_kv_memory_that_a_profile_says_is_written(files: list[Path]) -> None:
    made = workload(files, gpus=2, profile="h100/llama-3.1-8b")
    assert made.scenario.engine.kv_tokens == pytest.approx(458_000, rel=0.02)
    text = made.to_toml()
    assert "[engine]\n# kv_tokens: 0.9 x 79.19 GiB of memory less" in text
    read = parse_scenario(text)
    assert (read.engine, read.gpu.iteration) == (made.scenario.engine, made.scenario.gpu.iteration)
    assert workload(files, gpus=2, profile=PROFILE).scenario.engine.kv_tokens is None


def test_statistics_of_exponential_traces(files: list[Path]) -> None:
    made = workload(files, gpus=2, profile=PROFILE)
    assert [(s.class_name, s.quantity, s.unit, s.count) for s in made.statistics] == [
        ("code", "prompt_tokens", "tokens", 400),
        ("code", "output_tokens", "tokens", 400),
        ("code", "gap", "s", 399),
        ("chat", "prompt_tokens", "tokens", 400),
        ("chat", "output_tokens", "tokens", 400),
        ("chat", "gap", "s", 399),
    ]
    for statistic in made.statistics:
        assert statistic.cv == pytest.approx(1, abs=0.2)
        assert statistic.kl == pytest.approx(0, abs=0.07)
    frame = made.to_dataframe()
    assert list(frame) == ["class", "quantity", "unit", "count", "mean", "cv", "kl"]
    assert len(frame) == 6


def test_to_dict_is_json(files: list[Path]) -> None:
    made = workload(files[0], gpus=2, profile=PROFILE, scale=2)
    report = json.loads(json.dumps(made.to_dict(), allow_nan=False))
    assert (report["schema"], report["scenario"], report["gpus"], report["scale"]) == (1, "day_code", 2, 2.0)
    assert report["traces"][0]["file"] == "day_code.csv"
    assert report["traces"][0]["requests"] == report["classes"][0]["requests"] == 400
    total = report["classes"][0]["total_arrival_rate"]
    assert total == pytest.approx(made.scenario.classes[0].arrival_rate * 2)
    assert f"total_arrival_rate = {total}\n" in made.to_toml()
    assert len(report["statistics"]) == 3


def test_classes_by_column(tmp_path: Path) -> None:
    path = tmp_path / "day.csv"
    path.write_text("arrival_time,prompt_tokens,output_tokens,tier\n0,1,2,gold\n1,3,4,free\n2,5,6,gold\n")
    made = workload(path, gpus=1, profile=PROFILE, class_column="tier")
    assert made.scenario.class_names == ["gold", "free"]
    assert made.scenario.classes[0].arrival_rate == 1.0


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ({"gpus": 0}, "gpus: must be from 1 to 2147483647, but is 0; "),
        ({"batch_size": 0}, "batch_size: must be from 1 to "),
        ({"chunk_size": -1}, "chunk_size: must be from 1 to "),
        ({"scale": 0.0}, "scale: must be greater than 0 and finite, but is 0; "),
        ({"scale": float("nan")}, "scale: must be greater than 0 and finite, but is nan; "),
        ({"scale": 1.7e308}, "scale: the arrival rate of 'code' becomes "),
        ({"patience_rate": -1.0}, "patience_rate: must be at least 0 and finite, but is -1; "),
        ({"seed": -1}, "seed: must be at least 0, but is -1; "),
        ({"clusters": 2, "class_column": "class"}, "clusters: not together with class_column; "),
        ({"clusters": 10**6}, "clusters: 1000000 asked for; give a number from 1 to "),
        ({"class_column": "tier"}, "line 1: no column 'tier'; the columns are "),
        ({"profile": "nope"}, "unknown profile 'nope'"),
        (
            {"profile": IterationTime(alpha=-1, beta=1e-5, gamma=1)},
            "chunk_size: alpha + beta * chunk_size must",
        ),
    ],
)
def test_arguments_out_of_range(files: list[Path], options: dict[str, Any], start: str) -> None:
    arguments: dict[str, Any] = {"gpus": 2, "profile": PROFILE, **options}
    with pytest.raises(FluidgateError) as caught:
        workload(files, **arguments)
    assert str(caught.value).removeprefix(f"{files[0]}: ").startswith(start)


def test_no_files() -> None:
    with pytest.raises(FluidgateError, match="no trace files; give at least one"):
        workload([], gpus=1, profile=PROFILE)


def test_odd_file_names_make_a_valid_file(tmp_path: Path) -> None:
    for name in ("a b'c\"\n.csv", "é\x07 .csv"):
        path = tmp_path / name
        path.write_text("arrival_time,prompt_tokens,output_tokens\n0,1,2\n1,3,4\n")
        made = workload([path, path], gpus=1, profile=PROFILE)
        assert parse_scenario(made.to_toml("o.toml")) == made.scenario


def of_azure(**options: Any) -> Workload:
    return workload(azure_files(), gpus=60, scale=28, profile=PROFILE, name="azure", **options)


def test_the_azure_traces_are_as_published() -> None:
    rows = {(s.class_name, s.quantity): s for s in of_azure().statistics}
    assert [rows["code", "prompt_tokens"].count, rows["conv", "prompt_tokens"].count] == [8819, 19366]
    assert rows["code", "prompt_tokens"].mean == pytest.approx(2048, abs=0.5)
    assert rows["code", "output_tokens"].mean == pytest.approx(28, abs=0.5)
    assert rows["code", "gap"].cv == pytest.approx(13, abs=0.5)
    assert rows["conv", "prompt_tokens"].mean == pytest.approx(1155, abs=0.5)
    assert rows["conv", "output_tokens"].mean == pytest.approx(211, abs=0.5)
    assert rows["conv", "output_tokens"].cv == pytest.approx(0.77, abs=0.005)
    assert rows["conv", "gap"].cv == pytest.approx(1.1, abs=0.05)


def test_the_mooncake_trace_is_as_published() -> None:
    trace = read_trace(*real("mooncake_conversation_trace.jsonl"))
    assert len(trace) == 12_031
    assert trace.span == pytest.approx(3537, abs=0.5)
    assert trace.prompt_tokens.mean() == pytest.approx(12_035, abs=0.5)
    assert trace.output_tokens.mean() == pytest.approx(343, abs=0.5)


def test_the_azure_example_is_what_its_command_makes() -> None:
    made = of_azure().to_toml("examples/azure.toml")
    assert (ROOT / "examples" / "azure.toml").read_text() == f"#:schema ./scenario.schema.json\n{made}"


def test_the_azure_example_overloads_its_cluster_a_little() -> None:
    scenario = load_scenario(ROOT / "examples" / "azure.toml")
    rates, gpu = scenario.rates, scenario.gpu
    mixed = float((rates.arrival / rates.prefill).sum())
    decoded_there = mixed * (gpu.batch_size - 1) / gpu.tau
    tokens = sum(c.arrival_rate * c.output_tokens for c in scenario.classes)
    solo = (tokens - decoded_there) / (gpu.batch_size * gpu.iteration.gamma)
    assert 1.05 < mixed + solo < 1.10


def test_clusters_of_the_azure_traces_keep_the_load() -> None:
    whole, split = of_azure(), of_azure(clusters=4)
    for weight in ("prompt_tokens", "output_tokens"):
        loads = [sum(c.arrival_rate * getattr(c, weight) for c in w.scenario.classes) for w in (whole, split)]
        assert loads[0] == pytest.approx(loads[1], rel=1e-4)


def test_a_relative_output_stays_in_the_command(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").mkdir()
    workload(files, gpus=2, profile=PROFILE).write(os.path.join("examples", "day.toml"))  # noqa: PTH118
    assert " -o examples/day.toml\n" in (tmp_path / "examples" / "day.toml").read_text()
