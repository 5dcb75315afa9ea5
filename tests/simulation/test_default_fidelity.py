"""The fidelity follows the scenario; a Markov run of one that asks for iterations says what it does not see."""

from __future__ import annotations

import pytest

from fluidgate import Scenario, compare, simulate
from fluidgate.scenario_file import dump_scenario, parse_scenario
from fluidgate.simulation.fidelity import default_fidelity, unseen
from tests.scenario_file.texts import NUMBERS, TWO, changed

SMALL = {"gpus": 3, "horizon": 20.0, "replications": 1}

LAW = "alpha = 0.0174\nbeta = 6.2e-5\ndelta = 1e-4\n"
ASKED = {
    "[engine]\nkv_tokens = 65536\n": "[engine] kv_tokens = 65536: the Markov network has no memory",
    '[engine]\nbatching = "single-prefill"\n': '[engine] batching = "single-prefill": the Markov network batches',
    "[engine]\nmax_batched_tokens = 512\n": "[engine] max_batched_tokens = 512: the Markov network has no iterations",
    "[engine]\ntransfer_latency = 0.1\n": "[engine] transfer_latency = 0.1: the Markov network moves",
    '[lengths]\nprompt = "fixed"\n': '[lengths] prompt = "fixed": the Markov network has exponential lengths',
    '[lengths]\noutput = "lognormal"\noutput_cv = 1.2\n': '[lengths] output = "lognormal": the Markov network has',
    "[targets]\nttft = 1.5\n": "[targets] ttft = 1.5: the Markov network counts no goodput",
    "tpot_target = 0.05\n": "[[classes]] tpot_target of 'chat': the Markov network counts no goodput",
    "prefix_tokens = 500\nprefixes = 4\n": "[[classes]] prefix_tokens of 'chat': the Markov network reads every prompt",
    "turns = 3\nturn_tokens = 50\nthink = 2\n": "[[classes]] turns of 'chat': the Markov network has no sessions",
    'subagents = 1\nsubagent_class = "batch"\n': "[[classes]] subagents of 'chat': the Markov network has no sessions",
    "[failures]\nmtbf = 50\nmttr = 5\n": "[failures]: in the Markov network no GPU fails",
    "[[schedule]]\ntime = 9\ngpus = 2\n": "[[schedule]]: in the Markov network all GPUs are up",
    LAW: "[gpu] the iteration time depends on the batch: in the Markov network every mixed and every solo iteration",
}


def asking(more: str) -> Scenario:
    return parse_scenario(changed((NUMBERS, LAW)) if more == LAW else TWO + more)


def test_a_scenario_of_the_model_is_a_markov_network() -> None:
    plain = parse_scenario(TWO)
    assert default_fidelity(plain) == "markov"
    assert unseen(plain) == ()
    assert simulate(plain, "fi-wsp", **SMALL).run.fidelity == "markov"  # type: ignore[arg-type]
    rough = parse_scenario(TWO + '[arrivals]\nprocess = "gamma"\ncv = 2.0\n')
    assert default_fidelity(rough.for_gpus(7)) == "markov"


@pytest.mark.parametrize("more", ASKED)
def test_what_only_iterations_read_asks_for_them(more: str) -> None:
    scenario = asking(more)
    assert default_fidelity(scenario) == "iteration"
    found = simulate(scenario, "fi-wsp", **SMALL)  # type: ignore[arg-type]
    assert found.run.fidelity == "iteration"
    assert not any("the Markov network" in warning for warning in found.warnings)
    assert default_fidelity(parse_scenario(dump_scenario(scenario))) == "iteration"


@pytest.mark.parametrize("more", ASKED)
def test_the_markov_network_says_what_it_does_not_see(more: str) -> None:
    both = compare(asking(more), ["fi-wsp", "gi-wsp"], fidelity="markov", **SMALL)  # type: ignore[arg-type]
    for found in (*both.policies, both):
        (sentence,) = [warning for warning in found.warnings if "Markov network" in warning]
        assert sentence.startswith(ASKED[more])
        assert sentence.endswith("; use fidelity='iteration'")


def test_each_key_has_a_sentence() -> None:
    keys = ("kv_tokens = 65536", "kv_block = 32", 'preemption = "swap"', "swap_seconds = 0.001")
    rest = '[lengths]\nprompt = "fixed"\noutput = "fixed"\n[targets]\nttft = 1\ntpot = 0.1\n'
    found = unseen(asking("[engine]\n" + "\n".join(keys) + "\n" + rest))
    assert [sentence.partition(":")[0] for sentence in found] == [
        *(f"[engine] {key}" for key in keys),
        *('[lengths] prompt = "fixed"', '[lengths] output = "fixed"', "[targets] ttft = 1.0", "[targets] tpot = 0.1"),
    ]


@pytest.mark.parametrize("table", ["[engine]\n", '[lengths]\nprompt = "exponential"\n', "[targets]\n"])
def test_a_table_asks_for_iterations_whatever_it_holds(table: str) -> None:
    scenario = parse_scenario(TWO + table)
    assert default_fidelity(scenario) == default_fidelity(scenario.for_gpus(4)) == "iteration"
    assert unseen(scenario) == ()
    assert scenario == parse_scenario(TWO)


def test_arrivals_that_the_markov_network_does_not_draw_ask_for_iterations() -> None:
    phases = '[arrivals]\nprocess = "mmpp"\nlevels = [1, 8]\nsojourns = [50, 5]\n'
    assert default_fidelity(parse_scenario(TWO + phases)) == "iteration"
