from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluidgate.errors import FluidgateError
from fluidgate.model import Gpu, IterationTime
from fluidgate.planning import plan
from fluidgate.profiles import (
    Profile,
    dump_profile,
    find_profile,
    load_profile,
    parse_profile,
    shipped,
    write_profile,
)
from fluidgate.profiles.facts import CARDS, LANGUAGE_MODELS
from fluidgate.scenario_file import parse_scenario
from fluidgate.simulation import simulate
from fluidgate.simulation.iteration.law import law_of

LAB = 'schema = 1\nname = "lab"\nalpha = 0.01\nbeta = 1e-5\ngamma = 50\nbatch_sizes = [1, 64]\n'


LAW = """schema = 1
name = "lab"
chunk_sizes = [256, 2048]

[[law]]
batch_size = 8
alpha = 0.01
beta = 1e-5
gamma = 50

[[law]]
batch_size = 24
alpha = 0.03
beta = 3e-5
gamma = 25
r_squared = 0.99
"""


def refusal(text: str) -> str:
    with pytest.raises(FluidgateError) as caught:
        parse_profile(text, "lab.toml")
    return str(caught.value).removeprefix("lab.toml: ")


@pytest.mark.parametrize(
    ("name", "alpha", "beta", "gamma", "r_squared"),
    [
        ("a100-40gb/qwen-8b", 0.0174, 6.2e-5, 45.45, 0.998),
        ("a100-40gb/qwen-4b", 0.0152, 3.6e-5, 52.63, 0.997),
    ],
)
def test_shipped_profiles_are_the_published_calibration(
    name: str, alpha: float, beta: float, gamma: float, r_squared: float
) -> None:
    profile = find_profile(name)
    assert profile in shipped()
    assert profile.iteration == IterationTime(alpha=alpha, beta=beta, gamma=gamma)
    assert profile.r_squared == r_squared
    assert (profile.engine, profile.engine_version, profile.measured) == ("vLLM", "0.11.0", "2026-02")
    assert "arXiv:2602.02987" in profile.source
    assert profile.batch_sizes is None
    assert "not published" in profile.notes
    assert "The paper's own alpha, beta and gamma" in profile.notes


def test_shipped_profiles_are_sorted_and_named_like_their_files() -> None:
    assert [p.name for p in shipped()] == sorted(p.name for p in shipped())
    root = Path(__file__).parents[1] / "fluidgate" / "profiles"
    files = {str(file.relative_to(root).with_suffix("").as_posix()) for file in root.glob("*/*.toml")}
    assert {p.name for p in shipped()} == files


def test_a_profile_file_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text(LAB)
    profile = find_profile("lab.toml", tmp_path)
    assert profile == load_profile(tmp_path / "lab.toml") == find_profile(tmp_path / "lab.toml")
    assert profile.iteration == IterationTime(alpha=0.01, beta=1e-5, gamma=50)
    assert profile.batch_sizes == (1, 64)
    assert profile.to_dict() == {
        "schema": 1,
        "name": "lab",
        "alpha": 0.01,
        "beta": 1e-5,
        "gamma": 50.0,
        "batch_sizes": (1, 64),
    }


def test_an_unknown_name() -> None:
    with pytest.raises(FluidgateError) as caught:
        find_profile("a100-40gb/qwen")
    assert str(caught.value).startswith("unknown profile 'a100-40gb/qwen'; did you mean 'a100-40gb/qwen-")
    with pytest.raises(FluidgateError, match=r"no\.toml: no such file; there is no folder 'somewhere'"):
        find_profile("no.toml", "somewhere")


@pytest.mark.parametrize(
    ("old", "new", "start"),
    [
        (LAB, "", "empty; write the keys of a profile: "),
        ("gamma", "gama", "gama: unknown key; did you mean 'gamma'?"),
        ("1e-5", "0", "beta: must be greater than 0, but is 0; give the seconds that a prompt token adds"),
        ("50", "nan", "gamma: must be a finite number, but is nan; give "),
        ("beta = 1e-5\n", "", "beta: missing; add 'beta = 6.2e-05', the seconds that a prompt token adds"),
        ("schema = 1", "schema = 7", "schema: is 7, but this fluidgate reads schema 1; "),
        ("[1, 64]", "[64, 1]", "batch_sizes: the least, 64, is above the greatest, 1; exchange them"),
        ("[1, 64]", "[1]", "batch_sizes: must have at least 2, but has 1; give the least and the greatest"),
        ("[1, 64]", "[1, 64, 128]", "batch_sizes: must have at most 2, but has 3; give "),
        ("[1, 64]", "[0, 64]", "batch_sizes[0]: must be at least 1, but is 0; give the least and the"),
        ("[1, 64]", "64", "batch_sizes: must be an array, but is 64; give "),
        ("gamma = 50", "gamma", "line 5, column 6: not TOML: "),
    ],
)
def test_mistakes(old: str, new: str, start: str) -> None:
    assert old in LAB
    assert refusal(LAB.replace(old, new)).startswith(start)


positive = st.floats(min_value=1e-9, max_value=1e9)
sizes = st.none() | st.tuples(st.integers(1, 99), st.integers(100, 999))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(texts, positive, positive, st.none() | st.floats(0, 1), sizes)
def test_parsing_a_dumped_profile_gives_it_back(
    text: str, beta: float, gamma: float, r_squared: float | None, sizes: tuple[int, int] | None
) -> None:
    profile = Profile(
        name="lab/" + text,
        iteration=IterationTime(alpha=-beta, beta=beta, gamma=gamma),
        source=text,
        r_squared=r_squared,
        chunk_sizes=sizes,
    )
    assert parse_profile(dump_profile(profile), "lab.toml") == profile


def test_a_written_profile_is_read_back(tmp_path: Path) -> None:
    profile = shipped()[0]
    write_profile(profile, tmp_path / "copy.toml")
    assert load_profile(tmp_path / "copy.toml") == profile


def test_a_law_over_the_batch_size_is_read_as_a_table() -> None:
    profile = parse_profile(LAW, "lab.toml")
    iteration = profile.iteration
    assert (profile.batch_sizes, profile.chunk_sizes) == ((8, 24), (256, 2048))
    for batch, alpha, beta, gamma in ((8, 0.01, 1e-5, 50.0), (24, 0.03, 3e-5, 25.0)):
        assert iteration.solo(batch, 0) == pytest.approx(1 / gamma)
        for chunk in (256, 700, 2048, 4096):
            assert iteration.mixed(chunk, batch) == pytest.approx(alpha + beta * chunk, rel=1e-6)
    # a quarter of the way; the solo time goes from 20 to 40 ms
    assert iteration.solo(12, 0) == pytest.approx(0.025)
    assert iteration.mixed(256, 12) == pytest.approx(0.75 * (0.01 + 256e-5) + 0.25 * (0.03 + 768e-5))
    # a batch below the least takes that one's time; a chunk below the least is between it and none at all
    assert iteration.solo(1, 0) == pytest.approx(0.02)
    assert iteration.mixed(128, 8) == pytest.approx((0.02 + 0.01 + 256e-5) / 2)


def test_a_law_whose_chunk_sizes_are_unknown_holds_from_one_token() -> None:
    iteration = parse_profile(LAW.replace("chunk_sizes = [256, 2048]\n", ""), "lab.toml").iteration
    for chunk in (1, 64, 5000):
        assert iteration.mixed(chunk, 24) == pytest.approx(0.03 + 3e-5 * chunk, rel=1e-6)
    one_size = parse_profile(LAW.replace("[256, 2048]", "[256, 256]"), "lab.toml").iteration
    assert one_size.mixed(512, 24) == pytest.approx(0.03 + 3e-5 * 512, rel=1e-3)


def test_the_batch_that_runs_sets_the_speed_of_a_law(tmp_path: Path) -> None:
    """Not the scenario's batch size: a cap that never binds changes nothing."""
    (tmp_path / "lab.toml").write_text(LAW)
    results = [simulated(tmp_path, 'profile = "lab.toml"', cap) for cap in (8, 16, 24)]
    assert results[0] == results[1] == results[2]


def test_one_iteration_time_holds_for_every_batch_size() -> None:
    iteration = parse_profile(LAB, "lab.toml").iteration
    assert iteration == IterationTime(alpha=0.01, beta=1e-5, gamma=50)


@pytest.mark.parametrize(
    ("old", "new", "start"),
    [
        ("name", "alpha = 1.0\nname", "alpha: not together with [[law]]; remove it here, and give it in each table"),
        ("name", "batch_sizes = [8, 24]\nname", "batch_sizes: not together with [[law]], whose rows say it; remove it"),
        ("beta = 1e-5\n", "", "law[0]: beta: missing; add 'beta = 6.2e-05', the seconds that a prompt token adds"),
        ("gamma = 25", "gama = 25", "law[1]: gama: unknown key; did you mean 'gamma'?"),
        ("batch_size = 24", "batch_size = 0", "law[1]: batch_size: must be at least 1, but is 0; give the batch size"),
        ("batch_size = 24", "batch_size = 8", "law[1]: batch_size: 8 does not exceed the row before, 8; put the rows"),
        (
            "batch_size = 8",
            "batch_size = 32",
            "law[1]: batch_size: 24 does not exceed the row before, 32; put the rows",
        ),
        (LAW[LAW.rindex("[[law]]") :], "", "law: must have at least 2, but has 1; give the tables [[law]], each with"),
        ("[256, 2048]", "[2048, 256]", "chunk_sizes: the least, 2048, is above the greatest, 256; exchange them"),
        ("alpha = 0.03", "alpha = -1", "law: at batch_size 24 a chunk of 256 tokens takes no time; raise alpha"),
    ],
)
def test_mistakes_in_a_law(old: str, new: str, start: str) -> None:
    assert old in LAW
    assert refusal(LAW.replace(old, new)).startswith(start)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ('name = "x"\ngpu = "H100"\n', "lab.toml: alpha: missing"),
        ('name = "x"\nengines = "vllm"\nalpha = 0.02\nbeta = 6e-5\ngamma = 40.0\n', "lab.toml: engines: "),
    ],
)
def test_a_profile_with_a_mistake_is_not_taken_for_another_kind(text: str, start: str) -> None:
    with pytest.raises(FluidgateError, match=f"^{start}"):
        parse_profile(text, "lab.toml")


def test_a_file_without_an_iteration_time_hears_of_both_forms() -> None:
    assert "(or give tables [[law]], by batch_size, instead of alpha, beta and gamma)" in refusal('name = "lab"\n')


rows = st.lists(st.tuples(st.integers(1, 999), positive, positive, positive), min_size=2, max_size=5,
                unique_by=lambda row: row[0])  # fmt: skip


@given(rows)
def test_a_law_comes_back_as_the_table_that_it_became(rows: list[tuple[int, float, float, float]]) -> None:
    law = "".join(
        f"[[law]]\nbatch_size = {size}\nalpha = {alpha}\nbeta = {beta}\ngamma = {gamma}\n"
        for size, alpha, beta, gamma in sorted(rows)
    )
    profile = parse_profile(f"name = 'lab'\nnotes = 'a \"b\"'\n{law}", "lab.toml")
    assert parse_profile(dump_profile(profile), "lab.toml") == profile


KNOWN = """schema = 1
name = "lab"
purpose = "a test"
model = "Model"
dtype = "bf16"
gpu = "Card"
gpus = 2
engine = "vLLM"
engine_version = "0.24.0"
measured = "2026-02"
contexts = [256, 4096]
kv_bytes_per_token = 131072
weights_bytes = 16e9
memory_bytes = 170000000000
alpha = 0.01
beta = 1e-5
gamma = 50
"""


def test_what_a_profile_says_of_model_card_and_engine() -> None:
    profile = parse_profile(KNOWN, "lab.toml")
    assert parse_profile(dump_profile(profile), "lab.toml") == profile
    assert "kv_bytes_per_token = 131072\nweights_bytes = 16000000000\n" in dump_profile(profile)
    assert (profile.gpus, profile.contexts, profile.weights_bytes) == (2, (256, 4096), 16e9)
    known = profile.calibrated
    assert (known.profile, known.gpus, known.contexts, known.measured) == ("lab", 2, (256, 4096), "2026-02")


@pytest.mark.parametrize(
    ("old", "new", "start"),
    [
        ("gpus = 2", "gpus = 0", "gpus: must be at least 1, but is 0; give the GPUs of the tensor-parallel group"),
        ('"2026-02"', '"02/2026"', "measured: "),
        ('"2026-02"', "2026", "measured: must be a text in quotes, but is 2026; give when it was measured"),
        ("[256, 4096]", "[4096, 256]", "contexts: the least, 4096, is above the greatest, 256; exchange them"),
        ("16e9", "0", "weights_bytes: must be greater than 0, but is 0; give the bytes of the weights"),
        ("engine_version", "engine_versoin", "engine_versoin: unknown key; did you mean 'engine_version'?"),
    ],
)
def test_mistakes_in_what_a_profile_says(old: str, new: str, start: str) -> None:
    assert refusal(KNOWN.replace(old, new)).startswith(start)


def simulated(folder: Path, gpu: str, cap: int) -> str:
    """The numbers of a few requests at once on a GPU, under a cap that never binds, as text."""
    text = (
        f'name = "few"\n[cluster]\ngpus = 1\n[gpu]\n{gpu}\nbatch_size = {cap}\nchunk_size = 512\n'
        '[pricing]\nscheme = "bundled"\nprompt = 0.1\noutput = 0.2\n'
        '[[classes]]\nname = "chat"\nprompt_tokens = 500\noutput_tokens = 50\ntotal_arrival_rate = 0.3\n'
        'patience_rate = 0.1\n[engine]\nmax_batched_tokens = 512\nkv_memory = "unlimited"\n'
    )
    scenario = parse_scenario(text, "few.toml", folder)
    found = simulate(scenario, "vllm-round-robin", gpus=1, horizon=100.0, replications=1, fidelity="iteration")
    told = found.classes[0].to_dict()
    assert told["mixed_decode"]["mean"] + told["solo_decode"]["mean"] < 4
    return repr({key: told[key] for key in ("ttft", "tpot", "latency", "completion_rate")})


def by_tables() -> list[Profile]:
    return [profile for profile in shipped() if profile.iteration.gamma is None]


def test_all_shipped_profiles_but_the_papers_are_tables() -> None:
    paper = {profile.name for profile in shipped()} - {profile.name for profile in by_tables()}
    assert paper == {"a100-40gb/qwen-4b", "a100-40gb/qwen-8b"}


@pytest.mark.parametrize("profile", shipped(), ids=lambda profile: profile.name)
def test_a_shipped_profile_says_where_it_is_from_and_what_for(profile: Profile) -> None:
    for key in ("purpose", "model", "gpu", "gpus", "engine", "engine_version", "measured", "source", "notes"):
        assert getattr(profile, key), key
    card, model = profile.name.split("/")
    assert profile.gpu == CARDS[card].title
    assert (profile.gpus == 1) == ("-tp" not in model)
    assert len(profile.purpose) < 40


@pytest.mark.parametrize("profile", by_tables(), ids=lambda profile: profile.name)
def test_a_shipped_table_says_all_that_kv_memory_follows_from(profile: Profile) -> None:
    card, model = profile.name.split("/")
    facts, gpus = LANGUAGE_MODELS[model.partition("-tp")[0]], profile.gpus or 0
    assert profile.dtype in ("bf16", "fp16")
    assert profile.kv_bytes_per_token == 2 * facts.layers * facts.kv_heads * facts.head_dim * 2
    assert profile.weights_bytes == 2 * facts.parameters
    assert profile.memory_bytes == pytest.approx(gpus * CARDS[card].memory, abs=1)
    assert profile.contexts is not None
    assert profile.iteration.epsilon >= 0.99 * profile.kv_bytes_per_token / (gpus * CARDS[card].bandwidth)
    table, law = profile.iteration.table, law_of(Gpu(batch_size=8, chunk_size=512, iteration=profile.iteration))
    assert table is not None
    chunks, batches, *_ = table.mixed_axes
    assert chunks[0] == 0
    assert law.table.shape[1:3] == (len(chunks), len(batches))
    assert profile.chunk_sizes == (chunks[1], chunks[-1])
    sizes = (*batches, *table.solo_axes[0])
    assert profile.batch_sizes == (max(1, min(sizes)), max(sizes))
    assert profile.contexts[0] <= table.contexts[0] <= profile.contexts[1]
    for axis in (0, 1):  # up with the chunk, and with the batch
        times = np.moveaxis(table.mixed_times, axis, 0)
        assert (times[1:] > 0.98 * times[:-1]).all(), profile.name


@pytest.mark.parametrize("profile", by_tables(), ids=lambda profile: profile.name)
def test_a_cap_that_never_binds_does_not_set_the_speed_of_a_shipped_profile(profile: Profile, tmp_path: Path) -> None:
    results = [simulated(tmp_path, f'profile = "{profile.name}"', cap) for cap in (8, 64, 256)]
    assert results[0] == results[1] == results[2]


RAG = """name = "rag"
[cluster]
gpus = 8
[gpu]
profile = "h100/llama-3.1-8b"
batch_size = 256
chunk_size = 2048
[pricing]
scheme = "bundled"
prompt = 0.1
output = 0.2
[[classes]]
name = "rag"
prompt_tokens = 16000
output_tokens = 100
total_arrival_rate = 10.0
patience_rate = 0
[lengths]
prompt = "fixed"
output = "fixed"
"""


def test_long_prompts_under_a_cap_that_never_binds() -> None:
    """Right by an independent simulation of the rows at the batch that runs, contexts as they were measured.

    The reading of longer contexts, 16,050 tokens in the place of 2,176, comes on top: 0.54 ms a decode.
    """
    scenario = parse_scenario(RAG)
    plain = scenario.gpu.iteration.model_copy(update={"epsilon": 0.0})
    at_context = scenario.replace(gpu=scenario.gpu.model_copy(update={"iteration": plain}))
    options: dict[str, Any] = {"gpus": 8, "horizon": 400.0, "replications": 2, "fidelity": "iteration"}
    short = simulate(at_context, "vllm-round-robin", **options).classes[0].to_dict()
    assert short["tpot"]["mean"] == pytest.approx(0.0108, rel=0.03)
    assert short["tpot"]["p99"] == pytest.approx(0.0164, rel=0.1)
    assert short["ttft"]["p99"] == pytest.approx(0.43, rel=0.03)
    long = simulate(scenario, "vllm-round-robin", **options).classes[0].to_dict()
    assert 0.0108 < long["tpot"]["mean"] < 0.0135
    assert long["ttft"]["p99"] == pytest.approx(0.44, rel=0.03)


def test_a_scenario_takes_the_law_of_a_profile_file(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text(LAW)
    text = (Path(__file__).parents[1] / "examples" / "two-class.toml").read_text("utf-8")
    kept = [line for line in text.splitlines() if not line.startswith(("alpha", "beta", "gamma"))]
    scenario = "\n".join(kept).replace("[gpu]", '[gpu]\nprofile = "lab.toml"')
    gpu = parse_scenario(scenario, "s.toml", tmp_path).gpu
    assert gpu.iteration == load_profile(tmp_path / "lab.toml").iteration
    assert gpu.solo == pytest.approx(0.03)  # 16 is half way from 8 to 24
    larger = parse_scenario(scenario.replace("batch_size = 16", "batch_size = 25"), "s.toml", tmp_path)
    assert any("batch_size 25 lies outside the profile's range, 8 to 24" in line for line in plan(larger).warnings)
