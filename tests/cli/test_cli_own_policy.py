"""A policy in a Python file, `PATH.py:NAME`, wherever a command takes a policy's name."""

from __future__ import annotations

import multiprocessing
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command import Command

from fluidgate.policies import find_policy

Scenario = Callable[..., Path]
SMALL = ("--gpus", "4", "--horizon", "100", "--replications", "2", "--json")
MINE = '''
"""Gate-and-route with more mixed GPUs."""

from fluidgate import find_policy
from fluidgate.policies import Parameter, tables_of

def wider(plan, gpus, extra=1):
    tables = tables_of(plan, gpus)
    return tables._replace(mixed_gpus=min(gpus, int(tables.mixed_gpus + extra)))

MINE = find_policy("gate-and-route").with_functions(
    "mine", tabulate=wider, parameters=(Parameter("extra", 1, 0, 2, "mixed GPUs more than the plan's", whole=True),)
)
NUMBER = 3
'''


@pytest.fixture
def mine(scenario: Scenario) -> str:
    scenario()
    Path("mine.py").write_text(MINE, "utf-8")
    return "mine.py:MINE"


@pytest.mark.parametrize("fidelity", ["markov", "iteration"])
def test_it_goes_by_its_path_and_name(fluidgate: Command, mine: str, fidelity: str) -> None:
    names = f"gate-and-route,{mine}"
    compared = fluidgate("compare", "s.toml", "--policy", names, *SMALL, "--fidelity", fidelity)
    assert [p["policy"] for p in compared.json["policies"]] == ["gate-and-route", mine]
    alone = fluidgate("simulate", "s.toml", "--policy", mine, *SMALL, "--fidelity", fidelity)
    assert alone.json["revenue_rate"] == compared.json["policies"][1]["revenue_rate"]
    assert alone.notices == []


def test_what_it_prints_is_no_part_of_the_output(fluidgate: Command, scenario: Scenario) -> None:
    scenario()
    loud = MINE.replace("NUMBER = 3", "print('loaded')").replace("    tables =", "    print('tabulated')\n    tables =")
    Path("mine.py").write_text(loud, "utf-8")
    outcome = fluidgate("simulate", "s.toml", "--policy", "mine.py:MINE", *SMALL, "--workers", "1")
    assert outcome.json["policy"] == "mine.py:MINE"
    assert outcome.notices == ["loaded", "tabulated"]


def test_what_it_prints_in_python_is_printed_but_for_workers(
    capsys: pytest.CaptureFixture[str], scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario()
    Path("mine.py").write_text(MINE.replace("NUMBER = 3", "print('loaded')"), "utf-8")
    sent = pickle.dumps(find_policy("mine.py:MINE").tabulate)
    assert capsys.readouterr() == ("loaded\n", "")
    for name in [name for name in sys.modules if name.startswith("fluidgate.policies.own_file.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: "it")
    pickle.loads(sent)
    assert capsys.readouterr() == ("", "loaded\n")


def test_workers_find_it_too(fluidgate: Command, mine: str) -> None:
    here = fluidgate("simulate", "s.toml", "--policy", mine, *SMALL, "--workers", "1").json
    there = fluidgate("simulate", "s.toml", "--policy", mine, *SMALL, "--workers", "2").json
    assert there["revenue_rate"] == here["revenue_rate"]


def test_its_plan_may_follow_the_load(fluidgate: Command, mine: str) -> None:
    found = fluidgate("simulate", "s.toml", "--policy", f"{mine}+replan", *SMALL, "--fidelity", "iteration")
    assert found.json["policy"] == f"{mine}+replan"
    assert found.json["replanning"]["solved"]["mean"] > 0
    refused = fluidgate("simulate", "s.toml", "--policy", f"{mine}+replan", *SMALL)
    assert refused.status == 2
    assert "which only the fidelity of iterations does" in refused.notices[0]


def test_a_replay_takes_it(fluidgate: Command, mine: str) -> None:
    rows = ["arrival_time,prompt_tokens,output_tokens,class", "0,300,100,decode-heavy", "1,900,5,prefill-heavy"]
    Path("trace.csv").write_text("\n".join(rows), "utf-8")
    found = fluidgate("replay", "s.toml", "trace.csv", "--policy", mine, "--gpus", "2", "--json")
    assert found.json["policies"][0]["policy"] == mine


def test_its_parameters_are_tuned(fluidgate: Command, mine: str) -> None:
    tune = ("tune", "s.toml", "--gpus", "4", "--policy", mine, "--budget", "6e6", "--workers", "1")
    shown = fluidgate(*tune)
    assert shown.status == 0
    assert f"Parameters to give to {mine}: {{'extra': " in shown.output
    refused = fluidgate(*tune, "-o", "p.toml")
    assert (refused.status, refused.output) == (2, "")
    assert f"policy '{mine}': is Python code" in refused.notices[0]
    assert not Path("p.toml").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nobody.py:MINE", "nobody.py: no such file"),
        ("mine.py:MIN", "mine.py: no policy 'MIN'; did you mean 'MINE'? (it has MINE)"),
        ("mine.py:NUMBER", "mine.py: 'NUMBER' is no policy but of type int"),
        ("mine.py", "mine.py: which of its policies is not said; give mine.py:NAME (it has MINE)"),
        ("bad.py:MINE", "bad.py: line 2: raises NameError: name 'y' is not defined; mend the file"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(fluidgate: Command, mine: str, name: str, words: str) -> None:
    Path("bad.py").write_text("x = 1\nx = y\n", "utf-8")
    for command in (
        ("simulate", "s.toml", "--policy", name, *SMALL),
        ("compare", "s.toml", "--policy", f"fi-wsp,{name}", *SMALL, "--fidelity", "iteration"),
        ("tune", "s.toml", "--policy", name, "--gpus", "4"),
        ("optimum", "s.toml", "--policy", name, "--gpus", "1"),
    ):
        refused = fluidgate(*command)
        assert (refused.status, refused.output) == (2, "")
        assert len(refused.notices) == 1
        assert words in refused.notices[0]
