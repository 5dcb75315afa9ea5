"""What plans know of lengths, against requests as the streams draw them."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtri

from fluidgate import FluidgateError, Scenario
from fluidgate.model import Lengths
from fluidgate.planning.lengths import Empirical, Law, lengths_of
from fluidgate.workloads.streams import drawn_requests
from tests.scenarios import two_class_scenario

LAWS = [
    Lengths(),
    Lengths(prompt="fixed", output="fixed"),
    Lengths(prompt="lognormal", prompt_cv=0.7, output="lognormal", output_cv=1.2),
    Lengths(prompt="fixed", output="lognormal", output_cv=0.3),
]


def drawn(scenario: Scenario, cls: int) -> tuple[np.ndarray, np.ndarray]:
    blocks = list(drawn_requests(scenario, 1, seed=5, most=400_000))
    whole = np.concatenate(blocks)
    mine = whole[whole["cls"] == cls]
    return mine["prompt"].astype(float), mine["output"].astype(float)


@pytest.mark.parametrize("laws", LAWS, ids=lambda laws: f"{laws.prompt}-{laws.output}")
@pytest.mark.parametrize("cls", [0, 1])
def test_means_are_those_of_drawn_requests(laws: Lengths, cls: int) -> None:
    scenario = two_class_scenario().replace(lengths=laws)
    known = lengths_of(scenario)[cls]
    prompt, output = drawn(scenario, cls)
    assert known.prompt == pytest.approx(prompt.mean(), rel=0.01)
    assert known.output == pytest.approx(output.mean(), rel=0.01)
    for size in (64, 256, 5000):
        chunks = np.ceil(prompt / size)
        assert known.chunks(size) == pytest.approx(chunks.mean(), rel=0.01)
        assert known.held_reading(size) == pytest.approx((chunks * prompt).mean(), rel=0.02)
        pairs = size * (chunks - 1) * (prompt - size * chunks / 2)
        assert known.read_pairs(size) == pytest.approx(
            pairs.mean(), rel=0.2 if laws.prompt == "lognormal" else 0.06, abs=10.0
        )
        assert known.capped(size) == pytest.approx(np.minimum(prompt, size).mean(), rel=0.02)
    for skipped in (0, 1):
        steps = np.maximum(output - skipped, 0.0)
        found = (steps * prompt + steps * (steps - 1) / 2).sum() / steps.sum()
        assert known.context(skipped) == pytest.approx(found, rel=0.02)
        for memory in (0.5 * found, 2.0 * found, 1e9):
            assert known.context_within(skipped, memory) == pytest.approx(within(prompt, steps, memory), rel=0.03)


def within(prompt: np.ndarray, steps: np.ndarray, memory: float) -> float:
    """The mean over all decode iterations of what each finds, at most `memory`, step by step for some requests."""
    total, count = 0.0, 0.0
    for p, n in zip(prompt[:3000], steps[:3000], strict=True):
        total += np.minimum(p + np.arange(n), memory).sum()
        count += n
    return total / count


def test_requests_of_traces_keep_prompt_and_output_together(tmp_path: Path) -> None:
    trace = tmp_path / "chat.csv"
    trace.write_text("arrival_time,prompt_tokens,output_tokens\n0,100,900\n1,900,100\n2,500,500\n")
    scenario = two_class_scenario()
    one = scenario.classes[0].model_copy(update={"name": "chat"})
    laws = Lengths(prompt="empirical", output="empirical", traces=(str(trace),))
    (known,) = lengths_of(scenario.replace(classes=(one,), lengths=laws))
    prompt, output = np.array([100.0, 900.0, 500.0]), np.array([900.0, 100.0, 500.0])
    assert known.context(0) == pytest.approx((prompt * output + output * (output - 1) / 2).sum() / output.sum())
    assert known.context_within(0, 700.0) == pytest.approx(within(prompt, output, 700.0))
    assert known.chunks(400) == pytest.approx((1 + 3 + 2) / 3)


def test_a_class_without_requests_in_the_traces_is_named(tmp_path: Path) -> None:
    trace = tmp_path / "x.csv"
    trace.write_text("arrival_time,prompt_tokens,output_tokens,class\n0,100,900,decode-heavy\n1,90,10,decode-heavy\n")
    laws = Lengths(prompt="empirical", output="empirical", traces=(str(trace),))
    with pytest.raises(FluidgateError, match="no request of class 'prefill-heavy'"):
        lengths_of(two_class_scenario().replace(lengths=laws))


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_pairs_read_before_are_those_counted_token_by_token(size: int) -> None:
    prompts = np.array([1, 2, 3, 6, 7, 8, 20])
    counted = [sum(size * (token // size) for token in range(length)) for length in prompts]
    assert Empirical(prompts.astype(float), np.ones(7)).read_pairs(size) == pytest.approx(np.mean(counted))
    for length, pairs in zip(prompts, counted, strict=True):
        assert Law("fixed", float(length)).read_pairs(size) == pytest.approx(pairs)
    stay, tokens = 1.0 - 1.0 / 20.0, np.arange(4000)
    chance = (np.arange(200_000) + 0.5) / 200_000
    drawn_at = np.exp(math.sqrt(math.log(2.0)) * ndtri(chance)) * 20.0 / math.sqrt(2.0)
    chunks = np.ceil(drawn_at / size)
    lognormal = float((size * (chunks - 1.0) * (drawn_at - size * chunks / 2.0)).mean())
    assert Law("lognormal", 20.0, 1.0).read_pairs(size) == pytest.approx(lognormal, rel=0.01, abs=0.05)
    geometric = float((size * (tokens // size) * stay**tokens).sum())
    assert Law("exponential", 20.0).read_pairs(size) == pytest.approx(geometric)
