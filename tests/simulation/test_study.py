"""From behaviours to results, the same way at every fidelity."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from fluidgate import Scenario, simulate
from fluidgate.errors import FluidgateError
from fluidgate.execution import InProcess, LocalProcesses
from fluidgate.simulation.iteration.study import RequestStudy, drawn_study
from fluidgate.simulation.markov.study import MarkovStudy
from fluidgate.simulation.options import Options
from fluidgate.simulation.plans import Plans
from fluidgate.simulation.study import SMALL, Study, Tell, executor_for, refuse_duplicates


class Letters(Study[str, tuple[str, int], str, str]):
    """Policies are words; a job doubles one, and the result joins all of its replications."""

    def __init__(self, scenario: Scenario, words: Sequence[str], steps: int = 1, stays: bool = False) -> None:
        self.scenario, self.options, self.policies = scenario, Options(1, 10.0, 1.0, 2, 0), words
        self._steps, self._stays = steps, stays
        self.prepared: list[tuple[str, int]] = []

    @property
    def events(self) -> float:
        return 1.0

    @property
    def steps(self) -> int:
        return self._steps

    @property
    def stays(self) -> bool:
        return self._stays

    @property
    def work(self) -> Callable[[Any], str]:
        return doubled

    def run_here(self, job: tuple[str, int], tell: Tell | None) -> str:
        if tell is not None:
            tell(1)
        return self.work(job)

    def ready(self, policy: str, plans: Plans) -> str:
        return policy.upper()

    def job(self, policy: str, replication: int) -> tuple[str, int]:
        return policy, replication

    def prepare(self, jobs: Sequence[tuple[str, int]]) -> None:
        self.prepared = list(jobs)

    def result(self, policy: str, plans: Plans, measured: Sequence[str]) -> str:
        return "-".join([policy, *measured])


def doubled(job: tuple[str, int]) -> str:
    return f"{job[0] * 2}{job[1]}"


class Backwards:
    """An executor that works from the end, and yields in order."""

    def map(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
        return iter([function(job) for job in reversed(jobs)][::-1])


def test_every_policy_is_made_ready_and_gets_its_own_replications(two_class: Scenario) -> None:
    study = Letters(two_class, ["a", "b"])
    assert study.results() == ["A-AA0-AA1", "B-BB0-BB1"]
    assert study.prepared == [("A", 0), ("A", 1), ("B", 0), ("B", 1)]
    assert Letters(two_class, ["a", "b"]).results(executor=Backwards()) == ["A-AA0-AA1", "B-BB0-BB1"]


def test_progress_counts_steps_here_and_jobs_elsewhere(two_class: Scenario) -> None:
    told: list[tuple[int, int]] = []
    Letters(two_class, ["a"], steps=5).results(progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 10), (5, 10), (6, 10), (10, 10)]
    told.clear()
    study = Letters(two_class, ["a"], steps=5)
    study.results(executor=Backwards(), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


def test_small_work_stays_in_this_process() -> None:
    assert isinstance(executor_for(SMALL - 1, 8, None), InProcess)
    assert isinstance(executor_for(SMALL - 1, 8, 2), LocalProcesses)
    assert isinstance(executor_for(SMALL, 1, None), InProcess)


def test_a_study_that_stays_starts_no_workers(two_class: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any) -> Any:
        raise AssertionError("a log is taken in this process")

    monkeypatch.setattr("fluidgate.simulation.study.executor_for", refused)
    assert Letters(two_class, ["a"], stays=True).results(workers=2) == ["A-AA0-AA1"]


def test_a_policy_named_twice_is_refused() -> None:
    refuse_duplicates(["a", "b"])
    with pytest.raises(FluidgateError, match="policies: 'a' is named twice; name each policy once"):
        refuse_duplicates(["a", "b", "a"])


def test_a_fidelity_is_chosen_from_a_table(two_class: Scenario) -> None:
    from fluidgate.simulation.simulate import STUDIES

    options = Options.checked(two_class, gpus=2)
    assert isinstance(STUDIES["markov"](two_class, ["fi-wsp"], options), MarkovStudy)
    assert isinstance(STUDIES["iteration"](two_class, ["fi-wsp"], options), RequestStudy)
    assert drawn_study(two_class, ["fi-wsp"], options).seconds == options.horizon
    with pytest.raises(FluidgateError, match="fidelity: must be 'markov' or 'iteration', but is 'fluid'"):
        simulate(two_class, "fi-wsp", fidelity="fluid")  # type: ignore[arg-type]
