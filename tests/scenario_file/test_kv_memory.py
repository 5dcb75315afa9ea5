"""`kv_tokens` from card, weights and utilization, from the engine's log, or as the profile has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluidgate.model import EngineModel, Scenario
from fluidgate.planning import plan
from fluidgate.profiles import find_profile, shipped
from fluidgate.profiles.facts import CARDS, GIB
from fluidgate.profiles.kv_memory import kv_memory
from fluidgate.scenario_file import dump_scenario, parse_scenario
from tests.scenario_file.texts import NUMBERS, TWO, accepts, changed, refusal

H100 = changed((NUMBERS, 'profile = "h100/llama-3.1-8b"\n'))
VLLM = 'kv_memory = "INFO 11-26 [kv_cache_utils.py:1087] GPU KV cache size: 458,064 tokens"'
NEWER_VLLM = 'kv_memory = "GPU KV cache size: 458,064 tokens, Maximum concurrency for 16,384 tokens per request: 27.9x"'
SGLANG = 'kv_memory = "max_total_num_tokens=458064, chunked_prefill_size=8192"'


def read(text: str, engine: str = "") -> Scenario:
    return parse_scenario(f"{text}\n[engine]\n{engine}\n" if engine else text)


def tokens(text: str, engine: str = "") -> int:
    found = read(text, engine).engine.kv_tokens
    assert found is not None
    return found


def test_an_h100_holds_what_its_engine_says() -> None:
    """About 458,000 tokens of Llama 3.1 8B by the engine's log."""
    assert tokens(H100) == pytest.approx(458_000, rel=0.02)
    memory = 0.9 * 79.19 - 16.0605e9 / GIB - 1.25
    assert tokens(H100) == pytest.approx(memory * GIB / 131072, rel=1e-3)


def test_an_rtx_4090_holds_what_its_engine_said() -> None:
    """41,408 tokens in the logged run of vLLM 0.19.0."""
    assert tokens(changed((NUMBERS, 'profile = "rtx4090/llama-3.1-8b"\n'))) == pytest.approx(41_408, rel=0.005)


def test_all_of_a_group_holds_the_weights_once() -> None:
    """Four times the memory less one model: 4 x 79.19 GiB at 0.9, 70.55 G parameters of two bytes, 1.25 GiB a GPU."""
    found = tokens(changed((NUMBERS, 'profile = "h100/llama-3.1-70b-tp4"\n')))
    assert found == pytest.approx((4 * (0.9 * 79.19 - 1.25) * GIB - 141.107e9) / 327_680, rel=1e-3)


@pytest.mark.parametrize("profile", [p for p in shipped() if p.weights_bytes], ids=lambda profile: profile.name)
def test_every_profile_that_says_its_weights_leaves_memory_for_kv(profile) -> None:  # type: ignore[no-untyped-def]
    found = kv_memory(profile, None)
    assert found.tokens is not None
    assert found.tokens > 30_000
    assert kv_memory(profile, profile.name.partition("/")[0]) == found


@pytest.mark.parametrize("line", [VLLM, NEWER_VLLM, SGLANG])
@pytest.mark.parametrize("text", [H100, TWO], ids=["profile", "numbers"])
def test_the_line_of_an_engine_is_taken_as_it_is(text: str, line: str) -> None:
    scenario = read(text, line)
    assert scenario.engine == EngineModel(kv_tokens=458_064)
    assert scenario.gpu.calibrated.kv_memory == ""


def test_another_card_another_memory_and_another_share() -> None:
    usual = tokens(H100)
    assert tokens(H100, 'kv_memory = "h100"') == tokens(H100, 'kv_memory = "H100"') == usual
    assert tokens(H100, 'kv_memory = "79.19 GiB"') == usual
    assert tokens(H100, 'kv_memory = "85029 MB"') == pytest.approx(usual, rel=1e-4)
    assert tokens(H100, 'kv_memory = "h200"') - usual == pytest.approx(
        0.9 * (CARDS["h200"].memory - CARDS["h100"].memory) / 131072, abs=32
    )
    assert tokens(H100, "gpu_memory_utilization = 0.95") - usual == pytest.approx(
        0.05 * CARDS["h100"].memory / 131072, abs=32
    )
    assert tokens(H100, 'kv_memory = "h100"\ngpu_memory_utilization = 0.9') == usual


def test_blocks_are_whole() -> None:
    assert tokens(H100) % 16 == 0
    assert tokens(H100, "kv_block = 256") % 256 == 0
    assert 0 <= tokens(H100) - tokens(H100, "kv_block = 256") < 256


def test_who_says_it_is_believed() -> None:
    assert tokens(H100, "kv_tokens = 50000") == 50_000
    assert read(H100, "kv_tokens = 50000").gpu.calibrated.kv_memory == ""
    unlimited = read(H100, 'kv_memory = "unlimited"')
    assert unlimited.engine == EngineModel()
    assert unlimited.gpu.calibrated.kv_memory == ""


def test_the_papers_profiles_and_numbers_know_no_memory() -> None:
    assert read(TWO).engine.kv_tokens is None
    assert read(changed((NUMBERS, 'profile = "a100-40gb/qwen-8b"\n'))).engine.kv_tokens is None


def test_a_derived_memory_goes_with_the_keys_that_need_one() -> None:
    engine = read(H100, 'kv_reservation = 64\npreemption = "swap"\nswap_seconds = 1e-6').engine
    assert (engine.kv_reservation, engine.preemption) == (64, "swap")


def test_what_follows_is_said_and_written() -> None:
    scenario = parse_scenario(H100)
    (said,) = (line for line in plan(scenario).warnings if line.startswith("kv_tokens"))
    assert said.startswith(f"kv_tokens = {scenario.engine.kv_tokens} follows from 0.9 x 79.19 GiB of memory less ")
    assert 'kv_memory = "unlimited"' in said
    assert f"kv_tokens = {scenario.engine.kv_tokens}" in dump_scenario(scenario)
    assert parse_scenario(dump_scenario(scenario)).engine == scenario.engine
    given = read(H100, "kv_tokens = 50000")
    assert not any(line.startswith("kv_tokens") for line in plan(given).warnings)


def test_the_schema_knows_the_keys() -> None:
    assert accepts(H100 + '\n[engine]\nkv_memory = "h100"\ngpu_memory_utilization = 0.9\n')


@pytest.mark.parametrize(
    ("text", "engine", "start"),
    [
        (TWO, 'kv_memory = "h100"', "engine.kv_memory: how many tokens fit depends on weights_bytes and kv_"),
        (H100, 'kv_memory = "h1000"', "engine.kv_memory: must be a card (a100-40gb, a100-80gb, h100, h200, "),
        (H100, 'kv_memory = "80"', "engine.kv_memory: must be a card (a100-40gb, "),
        (H100, "kv_memory = 80", "engine.kv_memory: must be a text in quotes, but is 80; give what kv_tokens follows"),
        (H100, 'kv_memory = "GPU KV cache size: 0 tokens"', "engine.kv_memory: the engine's log says 0 tokens; give"),
        (H100, 'kv_memory = "h100"\nkv_tokens = 9', "engine.kv_memory: not together with kv_tokens, which it says "),
        (H100, "gpu_memory_utilization = 0.9\nkv_tokens = 9", "engine.gpu_memory_utilization: not together with kv_"),
        (H100, "gpu_memory_utilization = 1.1", "engine.gpu_memory_utilization: must be at most 1, but is 1.1; give "),
        (H100, "gpu_memory_utilization = 0.1", "engine.kv_memory: 0.1 x 79.19 GiB of memory less 14.96 of weights"),
        (TWO, "gpu_memory_utilization = 0.9", "engine.gpu_memory_utilization: no kv_tokens follows from it here; "),
        (H100, VLLM + "\ngpu_memory_utilization = 0.9", "engine.gpu_memory_utilization: no kv_tokens follows from it"),
        (H100, 'kv_memory = "unlimited"\nkv_reservation = 5', "engine.kv_reservation: only with a limited KV memory; "),
        (TWO, "kv_reservation = 5", "engine.kv_reservation: only with a limited KV memory; "),
    ],
)  # fmt: skip
def test_mistakes(text: str, engine: str, start: str) -> None:
    message = refusal(f"{text}\n[engine]\n{engine}\n")
    assert message.startswith(start), message
    assert "\n" not in message


def test_a_profile_of_the_user_that_says_it(tmp_path: Path) -> None:
    profile = (
        'name = "lab"\nalpha = 0.01\nbeta = 1e-5\ngamma = 50\n'
        "gpus = 2\nkv_bytes_per_token = 1000\nweights_bytes = 40e9\n"
    )
    (tmp_path / "lab.toml").write_text(profile)
    text = changed((NUMBERS, 'profile = "lab.toml"\n'))
    assert parse_scenario(text, "s.toml", tmp_path).engine.kv_tokens is None
    with_card = parse_scenario(text + '\n[engine]\nkv_memory = "40 GB"\n', "s.toml", tmp_path)
    assert with_card.engine.kv_tokens == pytest.approx((72e9 - 40e9 - 2.5 * GIB) / 1000, abs=16)
    (tmp_path / "lab.toml").write_text(profile + "memory_bytes = 80e9\n")
    assert parse_scenario(text, "s.toml", tmp_path).engine.kv_tokens == with_card.engine.kv_tokens
    assert find_profile("lab.toml", tmp_path).memory_bytes == 80e9
