"""Packages that bring policies, profiles and readers of traces: sound ones, and broken ones beside them."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluidgate import Scenario, find_policy
from fluidgate.cli.app import main
from fluidgate.errors import FluidgateError
from fluidgate.policies import LISTED, all_policies, load_policy, write_policy
from fluidgate.profiles import all_profiles, find_profile
from fluidgate.profiles import shipped as shipped_profiles
from fluidgate.workloads import read_trace
from fluidgate.workloads.formats.known import known_formats
from tests.plugin_package import install

POLICY = """
from fluidgate import find_policy
from fluidgate.policies import Parameter, tables_of

def wider(plan, gpus, extra=1):
    tables = tables_of(plan, gpus)
    return tables._replace(mixed_gpus=min(gpus, int(tables.mixed_gpus + extra)))

WIDER = find_policy("gate-and-route").with_functions(
    "anything", tabulate=wider, parameters=(Parameter("extra", 1, 0, 2, "mixed GPUs more", whole=True),), summary="wide"
)
NUMBER = 3
"""
PROFILE = """
schema = 1
name = "lab/model"
alpha = 0.015
beta = 5e-5
gamma = 60.0
"""
TRACES = """
import pandas as pd
from fluidgate.workloads.formats import Format

LAB = Format("anything", "at", "ins", "outs", unit="ms")

def read(content, source):
    if not content.startswith(b"lab!"):
        return None
    rows = [line.split() for line in content.decode().splitlines()[1:]]
    return pd.DataFrame({
        "arrival_time": [float(row[0]) for row in rows],
        "prompt_tokens": [int(row[1]) for row in rows],
        "output_tokens": [None if row[2] == "-" else int(row[2]) for row in rows],
    })

def raises(content, source):
    if content.startswith(b"worse!"):
        raise ValueError("worse than\\nnothing")

def no_table(content, source):
    return 3 if content.startswith(b"three!") else None
"""
FILES = {
    "lab_things/__init__.py": "",
    "lab_things/policies.py": POLICY,
    "lab_things/profiles/__init__.py": "",
    "lab_things/profiles/deep/lab.toml": PROFILE,
    "lab_things/traces.py": TRACES,
}
GROUPS = {
    "fluidgate.policies": {"wider": "lab_things.policies:WIDER"},
    "fluidgate.profiles": {"lab": "lab_things.profiles"},
    "fluidgate.traces": {"lab": "lab_things.traces:LAB", "lab-log": "lab_things.traces:read"},
}


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the path, with one sound package in it."""
    folder = tmp_path / "packages"
    install(folder, "lab-things", GROUPS, FILES)
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] in ("lab_things", "broken_things")]:
        del sys.modules[name]


def test_a_policy_is_found_and_listed(packages: Path, tmp_path: Path) -> None:
    policy = find_policy("wider")
    assert (policy.name, policy.origin) == ("wider", "lab-things")
    assert list(all_policies()) == [*LISTED, "wider"]
    write_policy(policy.with_parameters({"extra": 2}), tmp_path / "w.toml")
    read = load_policy(tmp_path / "w.toml")
    assert (read.base, read.values) == ("wider", {"extra": 2})
    with pytest.raises(FluidgateError, match=r"unknown policy 'widr'.*did you mean 'wider'\?"):
        find_policy("widr")


def test_a_profile_is_found_and_listed(packages: Path, tmp_path: Path) -> None:
    assert find_profile("lab/model").iteration.alpha == 0.015
    own = [profile.name for profile in shipped_profiles()]
    assert list(all_profiles()) == [*own, "lab/model"]
    assert all_profiles()["lab/model"][1] == "lab-things"
    (tmp_path / "s.toml").write_text(
        'schema = 1\nname = "s"\n[gpu]\nprofile = "lab/model"\nbatch_size = 8\nchunk_size = 256\n'
        '[[classes]]\nname = "c"\n'
        "prompt_tokens = 300\noutput_tokens = 100\narrival_rate = 0.1\npatience_rate = 0\n",
        "utf-8",
    )
    assert Scenario.load(tmp_path / "s.toml").gpu.iteration.gamma == 60.0


def test_traces_are_known_by_columns_or_read_by_a_function(packages: Path, tmp_path: Path) -> None:
    by_columns, by_function = tmp_path / "a.csv", tmp_path / "b.log"
    by_columns.write_text("at,ins,outs\n0,300,20\n2500,500,40\n", "utf-8")
    by_function.write_text("lab! 1\n0.5 300 20\n3.0 500 40\n", "utf-8")
    for path, name in ((by_columns, "lab"), (by_function, "lab-log")):
        trace = read_trace(path)
        assert trace.form == name
        assert trace.arrival_time.tolist() == [0.0, 2.5]
        assert trace.prompt_tokens.tolist() == [300, 500]
        assert trace.output_tokens.tolist() == [20, 40]
    origins = {each.name: each.origin for each in known_formats()}
    assert (origins["lab"], origins["lab-log"], origins["Azure"]) == ("lab-things", "lab-things", "fluidgate")


def test_a_wrong_cell_of_a_read_file_is_told_with_its_row(packages: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.log"
    path.write_text("lab! 1\n0.5 300 20\n3.0 500 -\n", "utf-8")
    with pytest.raises(FluidgateError, match="row 2: output_tokens: missing"):
        read_trace(path)


def test_what_is_known_here_goes_before_what_is_brought(packages: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.csv").write_text("arrival_time,prompt_tokens,output_tokens,at,ins,outs\n0,3,2,9,9,9\n", "utf-8")
    assert read_trace(tmp_path / "plain.csv").form == "plain"
    (tmp_path / "odd.csv").write_text("a,b,c\n0,3,2\n", "utf-8")
    with pytest.raises(FluidgateError, match=r"unknown header 'a,b,c'.* inference-perf, lab, lab-log, and sessions"):
        read_trace(tmp_path / "odd.csv")


BROKEN = {
    "fluidgate.policies": {
        "missing": "broken_things:NO",
        "number": "lab_things.policies:NUMBER",
        "fi-wsp": "lab_things.policies:WIDER",
        "wider": "lab_things.policies:WIDER",
        "a+b": "lab_things.policies:WIDER",
        "leaves": "broken_things.leaves:NO",
    },
    "fluidgate.profiles": {"none": "no_such_module", "again": "broken_things", "module": "broken_things.module"},
    "fluidgate.traces": {
        "lab": "lab_things.traces:LAB",
        "number": "lab_things.policies:NUMBER",
        "worse": "lab_things.traces:raises",
        "three": "lab_things.traces:no_table",
    },
}
BROKEN_FILES = {
    "broken_things/__init__.py": "",
    "broken_things/module.py": "",
    "broken_things/leaves.py": "raise SystemExit('I leave')\n",
    "broken_things/a.toml": PROFILE.replace("lab/model", "h100/llama-3.1-8b"),
    "broken_things/b.toml": "alpha = 1\n",
    "broken_things/c.toml": PROFILE.replace("lab/model", "good/one"),
}


@pytest.fixture
def broken(packages: Path) -> None:
    """Another package, after the sound one by name, with all that can be wrong."""
    install(packages, "wrong-things", BROKEN, BROKEN_FILES)


def test_broken_policies_are_told_and_left_out(broken: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fluidgate.plugins"):
        found = all_policies()
    assert list(found) == [*LISTED, "wider"]
    assert (found["fi-wsp"].origin, found["wider"].origin) == ("baseline", "lab-things")
    told = [message.removeprefix("fluidgate.policies: ") for message in caplog.messages]
    mend = "; mend or uninstall that package"
    assert all("\n" not in line and line.endswith(mend) for line in told)
    assert [line.removesuffix(mend) for line in told] == [
        "'a+b' of the package wrong-things has no name for a policy; letters, digits, '-' and '_' make one",
        "'fi-wsp' of the package wrong-things is left out: fluidgate has a policy of that name",
        "'leaves' of the package wrong-things can't be loaded: SystemExit: I leave",
        "'missing' of the package wrong-things can't be loaded: AttributeError: "
        "module 'broken_things' has no attribute 'NO'",
        "'number' of the package wrong-things is no policy but of type int",
        "'wider' of the package wrong-things is left out: lab-things has a policy of that name",
    ]
    assert find_policy("wider").origin == "lab-things"
    with pytest.raises(FluidgateError, match="'missing' of the package wrong-things can't be loaded"):
        find_policy("missing")


def test_broken_profiles_are_told_and_left_out(broken: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fluidgate.plugins"):
        found = all_profiles()
    assert [name for name, (_, package) in found.items() if package != "fluidgate"] == ["lab/model", "good/one"]
    assert found["h100/llama-3.1-8b"][1] == "fluidgate"
    again, same, module, none = sorted(caplog.messages)
    assert "'again' of the package wrong-things has a file that is no profile: b.toml: " in again
    assert "leaves out the profile 'h100/llama-3.1-8b': fluidgate has one of that name" in same
    assert "'module' of the package wrong-things is no package" in module
    assert "'none' of the package wrong-things can't be loaded: ModuleNotFoundError" in none


def test_broken_readers_are_told_and_left_out(broken: None, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fluidgate.plugins"):
        names = [each.name for each in known_formats() if each.origin != "fluidgate"]
    assert names == ["lab", "lab-log", "three", "worse"]
    assert any("'number' of the package wrong-things is no Format and no function" in line for line in caplog.messages)
    assert any("'lab' of the package wrong-things is left out: lab-things has" in line for line in caplog.messages)
    path = tmp_path / "b.log"
    path.write_text("worse!\n", "utf-8")
    with pytest.raises(FluidgateError) as refused:
        read_trace(path)
    assert "b.log: fluidgate.traces: 'worse' of the package wrong-things raises ValueError: worse than nothing" in str(
        refused.value
    )
    path.write_text("three!\n", "utf-8")
    with pytest.raises(FluidgateError, match="'three' of the package wrong-things gives no DataFrame but int"):
        read_trace(path)


def test_the_command_says_so_in_a_line_each(broken: None, capsys: pytest.CaptureFixture[str]) -> None:
    main(["policies"])
    captured = capsys.readouterr()
    assert "lab-things" in captured.out
    told = captured.err.splitlines()
    assert len(told) == 6
    assert all(line.startswith("fluidgate: warning: fluidgate.policies: '") for line in told)
    main(["workload", "--formats"])
    captured = capsys.readouterr()
    assert "lab-log" in captured.out
    assert len(captured.err.splitlines()) == 2
    main(["profiles"])
    captured = capsys.readouterr()
    assert "of the package lab-things" in captured.out
    assert len(captured.err.splitlines()) == 4


def test_nothing_is_loaded_before_it_is_needed(packages: Path, tmp_path: Path) -> None:
    """Names and files that are known here look for no package."""
    (tmp_path / "t.csv").write_text("arrival_time,prompt_tokens,output_tokens\n0,3,2\n", "utf-8")
    script = f"""
import sys
from fluidgate import plugins
plugins.entry_points = None
sys.path.insert(0, {str(packages)!r})
from fluidgate import find_policy
from fluidgate.profiles import find_profile
from fluidgate.workloads import read_trace
find_policy("gg-sp"), find_profile("h100/llama-3.1-8b"), read_trace({str(tmp_path / "t.csv")!r})
assert "lab_things" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_an_extra_that_a_package_needs_is_named(
    packages: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with caplog.at_level(logging.WARNING, "fluidgate.plugins"):
        known_formats()
    assert {line.partition(" can't be loaded: ")[2] for line in caplog.messages} == {
        "traces and data frames need pandas, which is not installed; pip install 'fluidgate[traces]'"
    }
