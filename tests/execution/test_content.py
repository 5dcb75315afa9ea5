"""What names a job: by value, the same in every process, another for every change."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluidgate import Scenario, find_policy, plan
from fluidgate.execution import content, kept, version
from fluidgate.execution.content import Contents
from fluidgate.execution.kept import keys
from fluidgate.model import Lengths
from fluidgate.policies.own_file import own_policy
from fluidgate.simulation.iteration.job import IterationJob
from fluidgate.simulation.iteration.study import drawn_study
from fluidgate.simulation.markov.replication import Job, replicate
from fluidgate.simulation.options import Options
from fluidgate.simulation.plans import Plans
from tests.scenarios import two_class_scenario

ROOT = Path(__file__).parents[2]

GATE = "def gate(view, tables):\n    return {answer}\n"


def digest(value: Any) -> bytes:
    return Contents().digest(value)


def markov_job(scenario: Scenario | None = None) -> Job:
    scenario = scenario or two_class_scenario()
    policy = find_policy("gate-and-route")
    return Job(scenario, policy.for_worker(), policy.tabulate(plan(scenario), 4), 4, 100.0, 10.0, 0, 1)


def iteration_job() -> IterationJob:
    scenario = two_class_scenario()
    study = drawn_study(scenario, ["index-and-pool"], Options.checked(scenario, gpus=4, horizon=100.0))
    ready = study.ready(study.policies[0], Plans(study.scenario, 4, by_iterations=True))
    return study.job(ready, 1)


def all_keys() -> list[str]:
    jobs = [markov_job(), iteration_job(), {"b", "a", "c", "d"}, np.arange(3.0), Path("a/b")]
    return list(keys(replicate, jobs))


def test_a_job_has_the_same_key_in_every_process() -> None:
    here = all_keys()
    assert len(set(here)) == len(here)
    told = "from tests.execution.test_content import all_keys; print(*all_keys())"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        there = subprocess.run(
            [sys.executable, "-c", told], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        assert there.stdout.split() == here


@pytest.mark.parametrize("make", [markov_job, iteration_job])
def test_what_was_asked_for_or_is_shared_does_not_matter(make: Callable[[], Any]) -> None:
    job = make()
    before = digest(job)
    assert job.scenario.rates.arrival.sum() > 0
    assert digest(job) == before
    assert digest(pickle.loads(pickle.dumps(job))) == before
    assert digest([job, job]) == digest([job, make()])


def test_every_change_has_another_key() -> None:
    job, iteration = markov_job(), iteration_job()
    scenario = job.scenario
    first, second = scenario.classes
    dearer = scenario.replace(classes=(first.model_copy(update={"output_tokens": first.output_tokens + 1e-9}), second))
    changed = [
        job,
        replace(job, seed=1),
        replace(job, replication=2),
        replace(job, gpus=5),
        replace(job, scenario=dearer),
        replace(job, tables=job.tables._replace(mixed_gpus=job.tables.mixed_gpus + 1)),
        iteration,
        replace(iteration, run=replace(iteration.run, seed=1)),
        replace(iteration, source=replace(iteration.source, seed=1)),  # type: ignore[type-var]
    ]
    assert len({digest(each) for each in changed}) == len(changed)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (0.0, -0.0),
        (True, 1),
        ("1", 1),
        (b"a", "a"),
        ((1, 2), [1, 2]),
        (((1,), 2), (1, (2,))),
        (("ab", "c"), ("a", "bc")),
        ({"a": 1}, {"a": 2}),
        (None, ()),
        (np.zeros(4), np.zeros((2, 2))),
        (np.zeros(2), np.zeros(2, np.int64)),
        (np.float32(1), np.float64(1)),
        (partial(max, 1), partial(max, 2)),
        (partial(max, 1), partial(min, 1)),
        (slice(1), slice(2)),
        (complex(1), 1.0),
    ],
)
def test_other_values_have_other_digests(one: Any, other: Any) -> None:
    assert digest(one) != digest(other)
    assert digest(one) == digest(pickle.loads(pickle.dumps(one)))


def test_arrays_count_by_their_entries_alone() -> None:
    grid = np.arange(12.0).reshape(3, 4)
    assert digest(grid.T.copy()) == digest(grid.T) == digest(np.asfortranarray(grid.T))
    padded = np.dtype([("a", "i1"), ("b", "f8")], align=True)
    one, other = np.zeros(2, padded), np.full(2, 255, np.uint8).repeat(16).view(padded).copy()
    for name in ("a", "b"):
        other[name] = one[name]
    assert one.tobytes() != other.tobytes()
    assert digest(one) == digest(other)
    other["b"][1] = 3.0
    assert digest(one) != digest(other)


def test_a_users_function_counts_by_its_code(tmp_path: Path) -> None:
    def gate(name: str, text: str) -> Any:
        file = tmp_path / name
        file.write_text(
            f"from fluidgate import find_policy\n{text}mine = find_policy('fi-wsp').with_functions('m', gate=gate)\n"
        )
        policy = own_policy(f"{file}:mine")
        assert policy.gate is not None
        return policy.gate

    one = gate("one.py", GATE.format(answer=0))
    assert digest(one) == digest(gate("two.py", "# the same elsewhere\n" + GATE.format(answer=0)))
    assert digest(one) != digest(gate("three.py", GATE.format(answer=1)))


def test_files_that_a_scenario_reads_count_by_their_contents(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    lengths = Lengths(prompt="empirical", output="empirical", traces=(f"chat={file}",))
    file.write_text("one")
    before = digest(lengths)
    assert digest(lengths) == before
    file.write_text("two")
    assert digest(lengths) != before


def test_other_code_has_other_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = list(keys(replicate, [1]))
    assert list(keys(replicate, [1])) == before
    monkeypatch.setattr(kept, "code_version", lambda: "another")
    assert list(keys(replicate, [1])) != before
    monkeypatch.setattr(version, "PACKAGE", tmp_path)
    (tmp_path / "a.py").write_text("1")
    first = version.code_version.__wrapped__()
    (tmp_path / "a.py").write_text("2")
    assert version.code_version.__wrapped__() != first
    assert content.PACKAGE == ROOT / "fluidgate"
